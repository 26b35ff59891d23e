//! Kind `owner`: what is refused by name: a thread that gets the signals of a pipe (F_OWNER_TID of fcntl(2)).

use zoo::{Outcome, Zoo, fd, sys, thread};

fn main() {
    zoo::run(program)
}

const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;

fn program(zoo: &mut Zoo) -> Outcome {
    let thread = thread::waiting(zoo)?;
    let (reader, _writer) = fd::pipe(libc::O_CLOEXEC)?;
    let owner = [0, thread];
    sys!(fcntl(reader, F_SETOWN_EX, owner.as_ptr()))?;
    zoo.keep("owner", move || {
        let mut owner = [0_i32; 2];
        let done = sys!(fcntl(reader, F_GETOWN_EX, owner.as_mut_ptr())).is_ok();
        format!("{done} {owner:?}")
    });
    zoo.ready();
    Ok(())
}
