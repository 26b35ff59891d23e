//! Kind `deleted`: open files whose names are gone keep contents, holes, owner and sharing.

use std::os::unix::fs::PermissionsExt;

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn stat(fd: i32) -> String {
    let mut stat: libc::stat = sys::zeroed();
    // SAFETY: a live struct.
    unsafe { libc::fstat(fd, &raw mut stat) };
    format!(
        "{:o} {} {} size {} links {}",
        stat.st_mode, stat.st_uid, stat.st_gid, stat.st_size, stat.st_nlink
    )
}

fn program(zoo: &mut Zoo) -> Outcome {
    let path = zoo.cpath("gone")?;
    let writer = sys!(open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, 0o600))?;
    fd::write(writer, b"start")?;
    sys!(lseek(writer, 3 << 20, libc::SEEK_SET))?;
    fd::write(writer, b"far away")?;
    sys!(fchown(writer, 1234, 4321))?;
    std::fs::set_permissions(zoo.path("gone"), std::fs::Permissions::from_mode(0o4751))?;
    let reader = sys!(open(path.as_ptr(), libc::O_RDONLY))?;
    sys!(lseek(reader, 2, libc::SEEK_SET))?;
    sys!(unlink(path.as_ptr()))?;
    // A new file of the same name has nothing to do with it.
    std::fs::write(zoo.path("gone"), b"newer")?;
    let temporary = unnamed(zoo)?;
    for file in [writer, reader].into_iter().chain(temporary) {
        zoo.keep(&format!("flags of {file}"), move || fd::flags(file));
        zoo.keep(&format!("attributes of {file}"), move || stat(file));
    }
    let child = zoo.fork(move |zoo| {
        zoo.arrive();
        zoo.wait();
        let moved = zoo::eventually(5000, || fd::flags(reader).ends_with("offset 5"));
        zoo.check("the offset is shared with the child", moved);
        Ok(())
    })?;
    zoo.ready();
    zoo.expect("contents", fd::read(reader, 3)?, b"art".to_vec());
    zoo.reap("the child", child);
    let mut far = [0_u8; 16];
    sys!(pread(writer, far.as_mut_ptr().cast(), 16, (3 << 20) - 4))?;
    zoo.expect("contents behind a hole", &far[..12], b"\0\0\0\0far away");
    sys!(pwrite(writer, b"NEW".as_ptr().cast(), 3, 0))?;
    let mut near = [0_u8; 5];
    sys!(pread(reader, near.as_mut_ptr().cast(), 5, 0))?;
    zoo.expect("both descriptions are one file", &near, b"NEWrt");
    zoo.expect("the newer file", std::fs::read(zoo.path("gone"))?, b"newer".to_vec());
    if let Some(temporary) = temporary {
        let mut bytes = [0_u8; 9];
        sys!(pread(temporary, bytes.as_mut_ptr().cast(), 9, 0))?;
        zoo.expect("a file that never had a name", &bytes, b"temporary");
    }
    Ok(())
}

/// O_TMPFILE, where the file system has it.
fn unnamed(zoo: &Zoo) -> Outcome<Option<i32>> {
    let dir = zoo.path("x").parent().map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default();
    let dir = std::ffi::CString::new(dir).map_err(|_| "NUL in a path")?;
    let Ok(file) = sys!(open(dir.as_ptr(), libc::O_TMPFILE | libc::O_RDWR, 0o600)) else { return Ok(None) };
    fd::write(file, b"temporary")?;
    Ok(Some(file))
}
