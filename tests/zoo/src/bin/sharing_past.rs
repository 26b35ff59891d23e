//! Kind `sharing`: what is refused by name: brothers that share descriptors or memory, while their parent, who cannot make
//! them so, does not.

use std::sync::atomic::{AtomicU32, Ordering};

use zoo::{Outcome, Zoo, child, raw, time};

static TURN: AtomicU32 = AtomicU32::new(0);

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let memory = zoo.fork(|zoo| {
        child::clone(libc::CLONE_VM | libc::CLONE_PARENT, || {
            child::wait_while(&TURN, 0);
            child::tell(&TURN, 2);
            6
        })?;
        zoo.arrive();
        zoo.wait();
        child::tell(&TURN, 1);
        zoo.check("what its brother wrote", zoo::eventually(5000, || TURN.load(Ordering::SeqCst) == 2));
        Ok(())
    })?;
    let files = zoo.fork(|zoo| {
        let (flags, none) = ((libc::CLONE_FILES | libc::CLONE_PARENT) as usize, 0_usize);
        if raw!(SYS_clone, flags, none, none, none, none)? == 0 {
            zoo.wait();
            // SAFETY: ends the process without the exit handlers of the one that it was copied from.
            unsafe { libc::_exit(5) };
        }
        zoo.arrive();
        zoo.wait();
        time::nap(20);
        Ok(())
    })?;
    zoo.ready();
    zoo.reap("a process with a brother on its descriptors", files);
    zoo.reap("a process with a brother on its memory", memory);
    let mut ends = [0; 2].map(|_| child::wait(-1, libc::__WALL).words());
    ends.sort();
    zoo.expect("the ends of the brothers", ends, ["exit 5", "exit 6"].map(str::to_owned));
    Ok(())
}
