//! Makers of descriptors without a file: eventfd, timerfd, signalfd, epoll, inotify, memfd.
#![allow(unsafe_code, reason = "raw calls that return descriptors")]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::abi;
use super::descriptor::{check, owned};

/// eventfd2(2), with `EFD_CLOEXEC`.
///
/// # Errors
/// The errno of the call.
pub fn eventfd(semaphore: bool) -> Result<OwnedFd, Errno> {
    let flags = if semaphore { libc::EFD_SEMAPHORE } else { 0 };
    // SAFETY: numbers only.
    owned(libc::c_long::from(unsafe { libc::eventfd(0, flags | libc::EFD_CLOEXEC) }))
}

/// signalfd4(2) with the kernel's mask, bit 0 being signal 1.
///
/// # Errors
/// The errno of the call.
pub fn signalfd(mask: u64) -> Result<OwnedFd, Errno> {
    // SAFETY: the kernel reads 8 bytes of mask. The bare call takes the kernel's own set, also for
    // signals that a C library keeps for itself.
    owned(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, 8_usize, libc::SFD_CLOEXEC) })
}

/// timerfd_create(2), with `TFD_CLOEXEC`.
///
/// # Errors
/// The errno of the call.
pub fn timerfd(clock: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: numbers only.
    owned(libc::c_long::from(unsafe { libc::timerfd_create(clock, libc::TFD_CLOEXEC) }))
}

/// timerfd_settime(2); times are (seconds, nanoseconds).
///
/// # Errors
/// The errno of the call.
pub fn set_timer(
    fd: BorrowedFd<'_>,
    flags: i32,
    value: (i64, i64),
    interval: (i64, i64),
) -> Result<(), Errno> {
    let new = [interval.0, interval.1, value.0, value.1];
    let old = std::ptr::null_mut::<i64>();
    // SAFETY: the call reads one struct __kernel_itimerspec, four words of 64 bits; the old value is not asked for.
    check(unsafe { libc::syscall(abi::TIMERFD_SETTIME, fd.as_raw_fd(), flags, new.as_ptr(), old) })?;
    Ok(())
}

/// timerfd_gettime(2), for what it does: a timer that waited for a reader counts what it missed, and runs on.
///
/// # Errors
/// The errno of the call.
pub fn touch_timer(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut now = [0_i64; 4];
    // SAFETY: the call writes one struct __kernel_itimerspec, four words of 64 bits.
    check(unsafe { libc::syscall(abi::TIMERFD_GETTIME, fd.as_raw_fd(), now.as_mut_ptr()) })?;
    Ok(())
}

/// epoll_create1(2).
///
/// # Errors
/// The errno of the call.
pub fn epoll() -> Result<OwnedFd, Errno> {
    // SAFETY: numbers only.
    owned(libc::c_long::from(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }))
}

/// Adds a watch under the number that `target` has now.
///
/// # Errors
/// The errno of epoll_ctl(2).
pub fn epoll_add(epoll: BorrowedFd<'_>, target: BorrowedFd<'_>, events: u32, data: u64) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: the call reads one epoll_event.
    check(libc::c_long::from(unsafe {
        libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, target.as_raw_fd(), &raw mut event)
    }))?;
    Ok(())
}

/// Changes the events of the watch under the number that `target` has now.
///
/// # Errors
/// The errno of epoll_ctl(2).
pub fn epoll_change(
    epoll: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    events: u32,
    data: u64,
) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: the call reads one epoll_event.
    check(libc::c_long::from(unsafe {
        libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_MOD, target.as_raw_fd(), &raw mut event)
    }))?;
    Ok(())
}

/// Takes at most one event without waiting; whether there was one.
///
/// # Errors
/// The errno of epoll_wait(2).
pub fn epoll_take(epoll: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: room for the one event that is asked for.
    let count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), &raw mut event, 1, 0) };
    Ok(check(libc::c_long::from(count))? == 1)
}

/// inotify_init1(2).
///
/// # Errors
/// The errno of the call.
pub fn inotify() -> Result<OwnedFd, Errno> {
    // SAFETY: numbers only.
    owned(libc::c_long::from(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) }))
}

/// inotify_add_watch(2): the number of the watch.
///
/// # Errors
/// The errno of the call.
pub fn inotify_add(fd: BorrowedFd<'_>, path: &CStr, mask: u32) -> Result<i32, Errno> {
    // SAFETY: `path` ends in NUL.
    check(libc::c_long::from(unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), mask) }))
}

/// inotify_rm_watch(2).
///
/// # Errors
/// The errno of the call.
pub fn inotify_remove(fd: BorrowedFd<'_>, watch: i32) -> Result<(), Errno> {
    // SAFETY: numbers only.
    check(libc::c_long::from(unsafe { libc::inotify_rm_watch(fd.as_raw_fd(), watch) }))?;
    Ok(())
}

/// memfd_create(2), with `MFD_CLOEXEC` and sealing allowed; `huge` is the size of its pages ([`super::vm::huge`]).
///
/// # Errors
/// The errno of the call.
pub fn memfd(name: &CStr, huge: u32) -> Result<OwnedFd, Errno> {
    let huge = if huge == 0 { 0 } else { libc::MFD_HUGETLB | huge };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | huge;
    // SAFETY: `name` ends in NUL. The bare call: musl before 1.1.20 has no wrapper.
    owned(unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags) })
}
