//! Kind `pidfd`: what is refused by name: a handle of a thread (PIDFD_THREAD, Linux 6.9).

use zoo::{Outcome, Zoo, fd, raw, thread};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let thread = thread::waiting(zoo)?;
    let handle = match raw!(SYS_pidfd_open, thread, libc::O_EXCL) {
        Ok(handle) => handle as i32,
        Err(problem) => zoo.skip(&problem.0),
    };
    zoo.keep("whose it is", move || fd::info(handle, "Pid"));
    zoo.keep("flags", move || fd::flags(handle));
    zoo.ready();
    zoo.check("the thread lives", fd::polled(handle, libc::POLLIN) == 0);
    raw!(SYS_pidfd_send_signal, handle, 0, 0, 0)?;
    Ok(())
}
