//! Kind `memory`: a mapping that nobody can change any more (mseal(2), Linux 6.10).

use zoo::{Outcome, Zoo, proc, sys};

fn main() {
    zoo::run(program)
}

/// mseal(2), the same number on every architecture.
const MSEAL: libc::c_long = 462;
const PAGE: usize = 4096;

fn program(zoo: &mut Zoo) -> Outcome {
    let (rw, anonymous) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let at = sys!(mmap(std::ptr::null_mut(), 3 * PAGE, rw, anonymous, -1, 0))?;
    // SAFETY: within the mapping.
    let middle = unsafe { at.cast::<u8>().add(PAGE) };
    // SAFETY: as above.
    unsafe { middle.write_volatile(9) };
    // SAFETY: integers, and the address of our own page.
    if let Err(problem) = sys::done("mseal", unsafe { libc::syscall(MSEAL, middle, PAGE, 0_usize) } as i64) {
        zoo.skip(&problem.0);
    }
    let address = middle as usize;
    zoo.keep("mapping", move || proc::mapping(address));
    zoo.keep("flags", move || proc::vm_flags(address));
    zoo.ready();
    zoo.check(
        "it keeps its place",
        sys!(munmap(middle.cast(), PAGE)).is_err() && sys::errno() == libc::EPERM,
    );
    let closed = sys!(mprotect(middle.cast(), PAGE, libc::PROT_READ));
    zoo.check("it keeps its protection", closed.is_err() && sys::errno() == libc::EPERM);
    // SAFETY: within the mapping, which is readable and writable.
    unsafe {
        zoo.expect("its contents", middle.read_volatile(), 9);
        middle.write_volatile(8);
    }
    sys!(munmap(at, PAGE))?;
    Ok(())
}
