//! Kind `sharing`: what is refused by name: a process outside the tree that lives on its memory, and is no parent of it.

use std::sync::atomic::{AtomicU32, Ordering};

use zoo::{Outcome, Zoo, child};

static TURN: AtomicU32 = AtomicU32::new(0);

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    // A sister.
    child::clone(libc::CLONE_VM | libc::CLONE_PARENT, || {
        child::wait_while(&TURN, 0);
        child::tell(&TURN, 2);
        0
    })?;
    zoo.ready();
    child::tell(&TURN, 1);
    zoo.check("what it wrote", zoo::eventually(5000, || TURN.load(Ordering::SeqCst) == 2));
    Ok(())
}
