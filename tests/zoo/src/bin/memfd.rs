//! Kind `memfd`: name, contents, holes, size, seals, mappings and sharing.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn make(name: &std::ffi::CStr, flags: u32) -> Outcome<i32> {
    sys!(memfd_create(name.as_ptr(), flags))
}

fn map(file: i32, length: usize, protection: i32, flags: i32) -> Outcome<*mut u8> {
    Ok(sys!(mmap(std::ptr::null_mut(), length, protection, flags, file, 0))?.cast())
}

fn program(zoo: &mut Zoo) -> Outcome {
    let plain = make(c"zoo plain", libc::MFD_CLOEXEC)?;
    fd::write(plain, b"contents")?;
    sys!(lseek(plain, 3, libc::SEEK_SET))?;
    let sealed = make(c"sealed", libc::MFD_ALLOW_SEALING)?;
    fd::write(sealed, b"never changes")?;
    sys!(fcntl(sealed, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE))?;
    let future = make(c"future", libc::MFD_ALLOW_SEALING)?;
    sys!(ftruncate(future, 4096))?;
    let writable = map(future, 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED)?;
    // Only who has it mapped already may write to it.
    sys!(fcntl(
        future,
        libc::F_ADD_SEALS,
        libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SEAL
    ))?;
    // SAFETY: within the mapping.
    unsafe { writable.write_volatile(b'f') };
    let sparse = make(c"sparse", 0)?;
    sys!(ftruncate(sparse, 64 << 20))?;
    sys!(pwrite(sparse, b"far".as_ptr().cast(), 3, 40 << 20))?;
    let mapped = make(c"mapped", 0)?;
    sys!(ftruncate(mapped, 8192))?;
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let (shared, private) =
        (map(mapped, 8192, rw, libc::MAP_SHARED)?, map(mapped, 8192, rw, libc::MAP_PRIVATE)?);
    // SAFETY: within the mappings.
    unsafe {
        shared.write_volatile(b's');
        private.add(4096).write_volatile(b'p');
    }
    for file in [plain, sealed, future, sparse, mapped] {
        zoo.keep(&format!("flags of {file}"), move || fd::flags(file));
        zoo.keep(&format!("name of {file}"), move || zoo::proc::link(&format!("/proc/self/fd/{file}")));
        zoo.keep(&format!("seals of {file}"), move || {
            format!("{:?}", sys!(fcntl(file, libc::F_GET_SEALS)).ok())
        });
        zoo.keep(&format!("size and blocks of {file}"), move || {
            let mut stat: libc::stat = sys::zeroed();
            // SAFETY: a live struct.
            unsafe { libc::fstat(file, &raw mut stat) };
            format!("{} {} {:o}", stat.st_size, stat.st_blocks, stat.st_mode)
        });
    }
    for (what, at) in [("shared", shared), ("private", private), ("writable", writable)] {
        let at = at as usize;
        zoo.keep(&format!("the {what} mapping"), move || zoo::proc::mapping(at));
    }
    let at = shared as usize;
    let child = zoo.fork(move |zoo| {
        zoo.arrive();
        zoo.wait();
        // SAFETY: an inherited mapping.
        let asked = zoo::eventually(5000, || unsafe { (at as *const u8).add(9).read_volatile() } == b'?');
        zoo.check("the parent writes through a shared mapping", asked);
        Ok(())
    })?;
    zoo.ready();
    zoo.expect("reading on", fd::read_text(plain), "tents".to_owned());
    let write = sys!(pwrite(sealed, b"x".as_ptr().cast(), 1, 0));
    zoo.check("a seal holds", write.is_err() && sys::errno() == libc::EPERM);
    zoo.check("no more seals lost", sys!(ftruncate(sealed, 1)).is_err());
    let write = sys!(pwrite(future, b"x".as_ptr().cast(), 1, 0));
    zoo.check("a seal on later writers holds", write.is_err() && sys::errno() == libc::EPERM);
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    zoo.check("also on mappings", map(future, 4096, rw, libc::MAP_SHARED).is_err());
    // SAFETY: within the mapping.
    unsafe { writable.add(1).write_volatile(b'g') };
    let mut bytes = [0_u8; 2];
    sys!(pread(future, bytes.as_mut_ptr().cast(), 2, 0))?;
    zoo.expect("what its first owner writes", &bytes, b"fg");
    let mut bytes = [0_u8; 5];
    sys!(pread(sparse, bytes.as_mut_ptr().cast(), 5, (40 << 20) - 1))?;
    zoo.expect("contents between holes", &bytes, b"\0far\0");
    sys!(pwrite(mapped, b"?".as_ptr().cast(), 1, 9))?;
    // SAFETY: within the mappings.
    unsafe {
        zoo.expect(
            "the shared mapping",
            (shared.read_volatile(), shared.add(9).read_volatile()),
            (b's', b'?'),
        );
        zoo.expect(
            "the private mapping",
            (private.read_volatile(), private.add(4096).read_volatile()),
            (b's', b'p'),
        );
    }
    zoo.reap("the child that shares mappings", child);
    Ok(())
}
