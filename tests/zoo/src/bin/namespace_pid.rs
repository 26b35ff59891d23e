//! Kind `namespace`: what is refused by name: a process with numbers of its own for processes.

use zoo::{Outcome, Zoo, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    sys!(unshare(libc::CLONE_NEWPID))?;
    let child = zoo.fork(|zoo| {
        zoo.keep("its own number", || std::process::id().to_string());
        zoo.arrive();
        zoo.wait();
        zoo.verify();
        Ok(())
    })?;
    zoo.ready();
    zoo.reap("the child", child);
    Ok(())
}
