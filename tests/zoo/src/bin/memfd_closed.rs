//! Kind `memfd`: a mapping whose descriptor is closed.

use zoo::{Outcome, Zoo, nameless, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let file = sys!(memfd_create(c"closed".as_ptr(), libc::MFD_CLOEXEC))?;
    nameless::mapped_alone(zoo, file)
}
