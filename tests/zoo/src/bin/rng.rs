//! Kind `rng`: nobody meets the same random numbers twice, not even two restores of one image.
//!
//! Two lines are for whoever runs the program: `RANDOM` must differ between two restores of the same image, and
//! `GENERATOR wiped` tells that a generator in user space was made to draw a new seed.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn random() -> Outcome<[u8; 16]> {
    let mut bytes = [0; 16];
    sys!(getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0))?;
    Ok(bytes)
}

/// The state of a generator in user space, kept where a fork wipes it: that makes it draw a new seed.
fn generator() -> Outcome<*mut u8> {
    let (rw, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let at = sys!(mmap(std::ptr::null_mut(), 4096, rw, flags, -1, 0))?;
    sys!(madvise(at, 4096, libc::MADV_WIPEONFORK))?;
    let state = at.cast::<u8>();
    // SAFETY: within the mapping.
    unsafe {
        state.write_volatile(b'r');
        state.add(4095).write_volatile(b's');
    }
    Ok(state)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let before = [random()?, random()?];
    let urandom = sys!(open(c"/dev/urandom".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC))?;
    let first = fd::read(urandom, 16)?;
    let state = generator()?;
    zoo.ready();
    let after = [random()?, random()?];
    let second = fd::read(urandom, 16)?;
    zoo.check("getrandom gives something new", !before.iter().any(|old| after.contains(old)));
    zoo.check("/dev/urandom gives something new", first != second && second.len() == 16);
    // SAFETY: the area of `generator`, which is never unmapped.
    let (first, last) = unsafe { (state.read_volatile(), state.add(4095).read_volatile()) };
    zoo.check("the generator's state is whole or wiped", matches!((first, last), (0, 0) | (b'r', b's')));
    sys::say(if first == 0 { "GENERATOR wiped\n" } else { "GENERATOR kept\n" });
    sys::say(&format!("RANDOM {:x?} {second:x?}\n", after[0]));
    Ok(())
}
