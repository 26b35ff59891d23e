//! Kind `memory`: a shared mapping of a file that has no name and no descriptor left.

use zoo::{Outcome, Zoo, nameless, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let name = zoo.cpath("mapped")?;
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
    let file = sys!(open(name.as_ptr(), flags, 0o600))?;
    sys!(unlink(name.as_ptr()))?;
    nameless::mapped_alone(zoo, file)
}
