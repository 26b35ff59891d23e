//! fsopen(2), fsconfig(2), fsmount(2): a mount that is attached nowhere.
#![allow(unsafe_code, reason = "nix does not have the mount calls of Linux 5.2")]

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

/// The first argument of fsconfig(2) that sets a flag, a text, or makes the superblock (linux/mount.h).
const SET_FLAG: u32 = 0;
const SET_STRING: u32 = 1;
const CREATE: u32 = 6;
/// FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC.
const CLOEXEC: u32 = 1;
/// MOUNT_ATTR_NOSUID, _NODEV and _NOEXEC: nothing but data is wanted from there.
const DATA_ONLY: u32 = 2 | 4 | 8;
/// MOUNT_ATTR_RDONLY.
const READ_ONLY: u32 = 1;

/// Mounts a device. The mount ends with the descriptor and with the files opened through it.
///
/// # Errors
/// ENODEV: there is no such type. EBUSY: mounted elsewhere, read-only there and not here or the other way
/// round. What the file system's driver says.
pub fn mount(device: &Path, kind: &str, read_only: bool) -> Result<OwnedFd, Errno> {
    let source = CString::new(device.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let kind = CString::new(kind).map_err(|_| Errno::EINVAL)?;
    // SAFETY: a string with its end and a number.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOEXEC) })?;
    configure(context.as_raw_fd(), SET_STRING, Some(c"source"), Some(&source))?;
    if read_only {
        configure(context.as_raw_fd(), SET_FLAG, Some(c"ro"), None)?;
    }
    configure(context.as_raw_fd(), CREATE, None, None)?;
    let attributes = DATA_ONLY | if read_only { READ_ONLY } else { 0 };
    // SAFETY: a descriptor that lives over the call, and numbers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, attributes) })
}

fn configure(context: RawFd, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> Result<(), Errno> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: null, or strings with their ends that live over the call.
    let done =
        unsafe { libc::syscall(libc::SYS_fsconfig, context, command, pointer(key), pointer(value), 0) };
    Errno::result(done).map(|_| ())
}

/// The descriptor that a call returned.
fn owned(result: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made it for us, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
