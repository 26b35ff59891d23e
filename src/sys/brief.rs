//! Children that live for a moment.
#![allow(unsafe_code, reason = "fork(2)")]

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// A child that has done nothing and ends at once. It stays a zombie until [`reap`].
///
/// # Errors
/// The errno of fork(2).
pub fn child() -> Result<u32, Errno> {
    // SAFETY: the child calls nothing but _exit(2).
    match unsafe { fork() }? {
        ForkResult::Parent { child } => u32::try_from(child.as_raw()).map_err(|_| Errno::EOVERFLOW),
        // SAFETY: _exit(2) does not return and runs nothing of ours.
        ForkResult::Child => unsafe { libc::_exit(0) },
    }
}

/// Waits until a child is gone.
///
/// # Errors
/// The errno of waitpid(2).
pub fn reap(child: u32) -> Result<(), Errno> {
    let pid = Pid::from_raw(i32::try_from(child).map_err(|_| Errno::EOVERFLOW)?);
    waitpid(pid, Some(WaitPidFlag::__WALL)).map(drop)
}
