//! Mounts in a namespace of a program's own.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::{Outcome, Problem, sys};

/// A path as the kernel takes it.
///
/// # Errors
/// When there is a NUL in it.
pub fn text(path: &Path) -> Outcome<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Problem("NUL in a path".into()))
}

/// mount(2).
///
/// # Errors
/// The errno of the call.
pub fn mount(source: &Path, target: &Path, kind: Option<&str>, flags: libc::c_ulong) -> Outcome {
    let (source, target) = (text(source)?, text(target)?);
    let kind = kind.map(|kind| text(Path::new(kind))).transpose()?;
    let kind = kind.as_ref().map_or(std::ptr::null(), |kind| kind.as_ptr());
    sys!(mount(source.as_ptr(), target.as_ptr(), kind, flags, std::ptr::null()))?;
    Ok(())
}

/// Goes to a mount namespace from which nothing spreads.
///
/// # Errors
/// The errno of the calls.
pub fn private() -> Outcome {
    sys!(unshare(libc::CLONE_NEWNS))?;
    mount(Path::new("none"), Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE)
}
