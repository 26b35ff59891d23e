//! Kind `device`: character devices without state of their own, open and mapped.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let open = |name: &std::ffi::CStr, flags| sys!(open(name.as_ptr(), flags));
    let null = open(c"/dev/null", libc::O_RDWR | libc::O_CLOEXEC)?;
    let zero = open(c"/dev/zero", libc::O_RDWR)?;
    let full = open(c"/dev/full", libc::O_WRONLY | libc::O_NONBLOCK)?;
    let random = open(c"/dev/urandom", libc::O_RDONLY)?;
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let mapped = sys!(mmap(std::ptr::null_mut(), 8192, rw, libc::MAP_PRIVATE, zero, 0))?.cast::<u8>();
    // SAFETY: within the mapping.
    unsafe { mapped.add(4096).write_volatile(9) };
    for device in [null, zero, full, random] {
        zoo.keep(&format!("flags of {device}"), move || fd::flags(device));
        zoo.keep(&format!("name of {device}"), move || zoo::proc::link(&format!("/proc/self/fd/{device}")));
        zoo.keep(&format!("number of {device}"), move || {
            let mut stat: libc::stat = sys::zeroed();
            // SAFETY: a live struct.
            unsafe { libc::fstat(device, &raw mut stat) };
            format!("{:#x} {:o}", stat.st_rdev, stat.st_mode & libc::S_IFMT)
        });
    }
    zoo.ready();
    zoo.expect("/dev/null is empty", fd::read(null, 4)?, vec![]);
    fd::write(null, b"swallowed")?;
    zoo.expect("/dev/zero", fd::read(zero, 4)?, vec![0; 4]);
    zoo.check("/dev/full is full", fd::write(full, b"x").is_err() && sys::errno() == libc::ENOSPC);
    zoo.expect("/dev/urandom", fd::read(random, 33)?.len(), 33);
    // SAFETY: within the mapping.
    unsafe {
        zoo.expect(
            "a mapping of /dev/zero",
            (mapped.read_volatile(), mapped.add(4096).read_volatile()),
            (0, 9),
        );
    }
    Ok(())
}
