//! Kind `memory`: a shared mapping of a file that has no name and no descriptor left.

use zoo::proc::mapping;
use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let name = zoo.cpath("mapped")?;
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
    let file = sys!(open(name.as_ptr(), flags, 0o600))?;
    sys!(ftruncate(file, 3 * 4096))?;
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let at = sys!(mmap(std::ptr::null_mut(), 3 * 4096, rw, libc::MAP_SHARED, file, 0))?.cast::<u8>();
    fd::close(file);
    sys!(unlink(name.as_ptr()))?;
    let byte = at as usize;
    // SAFETY: within the mapping, here and below.
    unsafe { at.add(4096).write_volatile(b'p') };
    zoo.keep("the mapping", move || mapping(byte));
    let child = zoo.fork(move |zoo| {
        zoo.arrive();
        zoo.wait();
        // SAFETY: an inherited mapping.
        let asked = zoo::eventually(5000, || unsafe { (byte as *const u8).read_volatile() } == b'?');
        zoo.check("the parent writes through the mapping", asked);
        Ok(())
    })?;
    zoo.ready();
    // SAFETY: as above.
    unsafe {
        zoo.expect("contents", at.add(4096).read_volatile(), b'p');
        at.write_volatile(b'?');
    }
    zoo.reap("the child that shares it", child);
    Ok(())
}
