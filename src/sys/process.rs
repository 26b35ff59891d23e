//! fork(2), and words of memory that parent and child share.
#![allow(unsafe_code, reason = "fork returns twice, and shared memory is untyped")]

use std::sync::atomic::AtomicU32;

use nix::errno::Errno;

use crate::sys::ptrace::Sys;

/// Which side of a fork we are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The parent, with the child's pid.
    Parent(u32),
    /// The child.
    Child,
}

/// fork(2). rcsnap has one thread, so the child may go on as it likes.
///
/// # Errors
/// EAGAIN, ENOMEM.
pub fn fork() -> Sys<Fork> {
    // SAFETY: the process has one thread, so no lock is held by a thread that the child lacks.
    match Errno::result(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent(child.cast_unsigned())),
    }
}

/// Ends the process without running anything else: what a forked child must do.
pub fn leave(status: i32) -> ! {
    // SAFETY: a plain number.
    unsafe { libc::_exit(status) }
}

/// Every descriptor from this number on is closed at the next execve(2) (close_range(2), 5.11). A program that
/// was started with somebody else's descriptors must not hand them to a system that is to be captured.
///
/// # Errors
/// EINVAL on older kernels.
pub fn close_on_exec_from(first: u32) -> Sys<()> {
    // SAFETY: plain numbers; no descriptor is closed now.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(done).map(drop)
}

/// A page of zeroed words that this process and its later children share, for ever.
///
/// # Errors
/// ENOMEM.
pub fn shared_words<const N: usize>() -> Sys<&'static [AtomicU32; N]> {
    // SAFETY: a fresh mapping at an address that the kernel chooses aliases nothing.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size_of::<[AtomicU32; N]>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: page aligned, zeroed, as large as asked for, and never unmapped; the words are atomic.
    Ok(unsafe { &*page.cast::<[AtomicU32; N]>() })
}

#[cfg(test)]
mod tests {
    use super::{Fork, fork, leave, shared_words};
    use std::sync::atomic::Ordering;

    #[test]
    fn a_child_writes_where_its_parent_reads() {
        let words = shared_words::<4>().unwrap();
        match fork().unwrap() {
            Fork::Child => {
                words[2].store(7, Ordering::Relaxed);
                leave(0);
            }
            Fork::Parent(child) => {
                nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child.cast_signed()), None).unwrap();
                assert_eq!(words[2].load(Ordering::Relaxed), 7);
            }
        }
    }
}
