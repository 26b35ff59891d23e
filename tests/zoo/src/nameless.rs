//! Files that only a mapping holds.

use crate::proc::mapping;
use crate::{Outcome, Zoo, fd, sys};

/// Maps a file shared, closes it, and shares the mapping with a child: after the wait each sees what the other writes.
///
/// # Errors
/// A call that failed.
pub fn mapped_alone(zoo: &mut Zoo, file: i32) -> Outcome {
    sys!(ftruncate(file, 3 * 4096))?;
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let at = sys!(mmap(std::ptr::null_mut(), 3 * 4096, rw, libc::MAP_SHARED, file, 0))?.cast::<u8>();
    fd::close(file);
    let byte = at as usize;
    // SAFETY: within the mapping, here and below.
    unsafe { at.add(4096).write_volatile(b'p') };
    zoo.keep("the mapping", move || mapping(byte));
    let child = zoo.fork(move |zoo| {
        zoo.arrive();
        zoo.wait();
        // SAFETY: an inherited mapping.
        let asked = crate::eventually(5000, || unsafe { (byte as *const u8).read_volatile() } == b'?');
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
