//! Kind `rng`: nobody meets the same random numbers twice, not even two restores of one image.
//!
//! The line `RANDOM` is for whoever runs the program: it must differ between two restores of the same image.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn random() -> Outcome<[u8; 16]> {
    let mut bytes = [0; 16];
    sys!(getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0))?;
    Ok(bytes)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let before = [random()?, random()?];
    let urandom = sys!(open(c"/dev/urandom".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC))?;
    let first = fd::read(urandom, 16)?;
    zoo.ready();
    let after = [random()?, random()?];
    let second = fd::read(urandom, 16)?;
    zoo.check("getrandom gives something new", !before.iter().any(|old| after.contains(old)));
    zoo.check("/dev/urandom gives something new", first != second && second.len() == 16);
    sys::say(&format!("RANDOM {:x?} {second:x?}\n", after[0]));
    Ok(())
}
