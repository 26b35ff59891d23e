//! Kind `signal`: a process that a job-control signal has stopped stays stopped until it is continued.

use zoo::{Outcome, Zoo, proc, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let stopped = stopped(zoo)?;
    zoo.keep("state of a stopped process", move || proc::stat(&stopped.to_string(), 3));
    zoo.ready();
    sys!(kill(stopped, libc::SIGCONT))?;
    zoo.reap("a stopped process", stopped);
    Ok(())
}

/// A child that a job-control signal has stopped.
fn stopped(zoo: &mut Zoo) -> Outcome<i32> {
    let pid = zoo.fork(|zoo| {
        zoo.arrive();
        // SAFETY: our own process.
        unsafe { libc::raise(libc::SIGSTOP) };
        Ok(())
    })?;
    let stops = zoo::eventually(5000, || proc::stat(&pid.to_string(), 3) == "T");
    if stops { Ok(pid) } else { Err("the child does not stop".into()) }
}
