//! Kind `owner`: threads get the signals of descriptions (F_OWNER_TID of fcntl(2)): one that does not lead its process,
//! the leader, and one that has ended.

use zoo::{Outcome, Zoo, fd, sys, thread};

fn main() {
    zoo::run(program)
}

const F_SETSIG: i32 = 10;
const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;

/// A pipe whose reader sends this signal to that thread: (reader, writer).
fn owned(thread: i32, signal: i32) -> Outcome<(i32, i32)> {
    let (reader, writer) = fd::pipe(libc::O_CLOEXEC | libc::O_NONBLOCK)?;
    let owner = [0, thread];
    sys!(fcntl(reader, F_SETOWN_EX, owner.as_ptr()))?;
    sys!(fcntl(reader, F_SETSIG, signal))?;
    sys!(fcntl(reader, libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC))?;
    Ok((reader, writer))
}

fn program(zoo: &mut Zoo) -> Outcome {
    let signal = libc::SIGRTMIN() + 5;
    thread::hear(signal)?;
    let first = thread::waiting(zoo)?;
    let second = thread::waiting(zoo)?;
    let ending = thread::ending()?;
    let mut pipes = Vec::new();
    for thread in [second, sys::gettid(), first, ending.number] {
        let (reader, writer) = owned(thread, signal)?;
        pipes.push((thread, reader, writer));
    }
    // Nobody hears of the last one any more.
    ending.end();
    pipes[3].0 = 0;
    for &(_, reader, _) in &pipes {
        zoo.keep(&format!("owner of {reader}"), move || {
            let mut owner = [0_i32; 2];
            let done = sys!(fcntl(reader, F_GETOWN_EX, owner.as_mut_ptr())).is_ok();
            format!("{done} {owner:?}")
        });
        zoo.keep(&format!("flags of {reader}"), move || fd::flags(reader));
    }
    zoo.ready();
    for (owner, _, writer) in pipes {
        let limit = if owner == 0 { 50 } else { 5000 };
        let heard_by = thread::heard_by(limit, || fd::write(writer, b"x"))?;
        zoo.expect("the thread that hears of it", heard_by, owner);
    }
    Ok(())
}
