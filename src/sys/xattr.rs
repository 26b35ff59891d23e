//! Extended attributes of files (xattr(7)), without following links.
#![allow(unsafe_code, reason = "no crate in use offers the calls; they take raw buffers")]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

/// The most the kernel hands out: XATTR_LIST_MAX and XATTR_SIZE_MAX.
const ROOM: usize = 65536;

fn text(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

/// Fills a buffer by a call that returns how much it wrote.
fn fill(buffer: &mut Vec<u8>, call: impl FnOnce(*mut u8, usize) -> isize) -> Result<(), Errno> {
    buffer.resize(ROOM, 0);
    let len = Errno::result(call(buffer.as_mut_ptr(), buffer.len()))?;
    buffer.truncate(usize::try_from(len).unwrap_or(0));
    Ok(())
}

/// All attributes of a file as (name, value). A file system without attributes has none.
///
/// # Errors
/// The errno of llistxattr(2) or lgetxattr(2).
pub fn all(path: &Path) -> Result<Vec<(String, Vec<u8>)>, Errno> {
    let path = text(path)?;
    // Most files have none: asking for the length needs no buffer.
    // SAFETY: the path ends in NUL; with length 0 the kernel writes nothing.
    let len = unsafe { libc::llistxattr(path.as_ptr(), std::ptr::null_mut(), 0) };
    match Errno::result(len) {
        Ok(0) | Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        Ok(_) => {}
        Err(errno) => return Err(errno),
    }
    let mut names = Vec::new();
    // SAFETY: the buffer has the length that goes with it.
    fill(&mut names, |room, len| unsafe { libc::llistxattr(path.as_ptr(), room.cast(), len) })?;
    let mut found = Vec::new();
    for name in names.split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        let mut value = Vec::new();
        // SAFETY: path and name end in NUL, the buffer has the length that goes with it.
        fill(&mut value, |room, len| unsafe {
            libc::lgetxattr(path.as_ptr(), name.as_ptr(), room.cast(), len)
        })?;
        found.push((name.to_string_lossy().into_owned(), value));
    }
    Ok(found)
}

/// Sets one attribute.
///
/// # Errors
/// The errno of lsetxattr(2).
pub fn set(path: &Path, name: &str, value: &[u8]) -> Result<(), Errno> {
    let (path, name) = (text(path)?, CString::new(name).map_err(|_| Errno::EINVAL)?);
    // SAFETY: path and name end in NUL, the value is read for its own length only.
    let done =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(done).map(drop)
}
