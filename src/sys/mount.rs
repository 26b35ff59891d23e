//! What mount(2) cannot do with mounts that exist: a copy that hangs nowhere (open_tree: 5.2), and a peer group
//! handed on (move_mount with MOVE_MOUNT_SET_GROUP: 5.15).
#![allow(unsafe_code, reason = "raw system calls")]

use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

// include/uapi/linux/mount.h
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC.cast_unsigned();
const MOVE_MOUNT_SET_GROUP: libc::c_uint = 0x100;

fn text(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

fn owned(result: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A copy of the mount at `path` alone, without what is mounted on it, attached nowhere: it shows the
/// directories that the table's other mounts hide. The mount must be in our own mount namespace.
///
/// # Errors
/// The errno of open_tree(2).
pub fn bare_copy(path: &Path) -> Result<OwnedFd, Errno> {
    let path = text(path)?;
    // SAFETY: the path ends in NUL; the call takes no other pointer.
    owned(unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            path.as_ptr(),
            OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_SYMLINK_NOFOLLOW.cast_unsigned(),
        )
    })
}

/// Makes the mount at `to` a member of the peer group of the mount at `from`, and a slave of its master.
///
/// # Errors
/// The errno of move_mount(2); EINVAL on kernels before 5.15.
pub fn join_group(from: &Path, to: &Path) -> Result<(), Errno> {
    let (from, to) = (text(from)?, text(to)?);
    // SAFETY: both paths end in NUL.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            MOVE_MOUNT_SET_GROUP,
        )
    };
    Errno::result(done).map(drop)
}
