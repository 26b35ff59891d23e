//! clone3(2) with chosen ids (set_tid, 5.5), and the moment after it in a puppet.
#![allow(unsafe_code, reason = "clone3 returns twice")]

use nix::errno::Errno;

use crate::sys::ptrace::Sys;

/// struct clone_args of <linux/sched.h>, the first 88 bytes (5.7: with cgroup).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct CloneArgs {
    /// CLONE_* without the exit signal.
    pub flags: u64,
    /// Where a pidfd goes.
    pub pidfd: u64,
    /// CLONE_CHILD_SETTID.
    pub child_tid: u64,
    /// CLONE_PARENT_SETTID.
    pub parent_tid: u64,
    /// Sent to the parent at exit; 0 with CLONE_PARENT and CLONE_THREAD.
    pub exit_signal: u64,
    /// Lowest byte of the stack.
    pub stack: u64,
    /// Its size.
    pub stack_size: u64,
    /// CLONE_SETTLS.
    pub tls: u64,
    /// Address of an array of pid_t: the wanted ids, innermost pid namespace first.
    pub set_tid: u64,
    /// How many.
    pub set_tid_size: u64,
    /// CLONE_INTO_CGROUP.
    pub cgroup: u64,
}

/// Bytes of [`CloneArgs`] to give to the kernel: up to set_tid_size (CLONE_ARGS_SIZE_VER1).
pub const CLONE_ARGS: u64 = 80;

/// Makes a child with this pid that does nothing but wait to be seized: it sleeps for ever.
/// With `sibling` it becomes a child of our own parent (CLONE_PARENT).
///
/// # Errors
/// EEXIST when the pid is in use, EPERM without CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
pub fn puppet(pid: u32, sibling: bool) -> Sys<u32> {
    let wanted = pid.cast_signed();
    let args = CloneArgs {
        flags: if sibling { libc::CLONE_PARENT as u64 } else { 0 },
        exit_signal: if sibling { 0 } else { libc::SIGCHLD as u64 },
        set_tid: (&raw const wanted).addr() as u64,
        set_tid_size: 1,
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM the child has its own copy of all memory. It is single threaded and calls
    // nothing but ppoll(2), so no lock or invariant of ours can be seen half-way.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, CLONE_ARGS) };
    match Errno::result(result)? {
        0 => sleep(),
        child => u32::try_from(child).map_err(|_| Errno::ESRCH),
    }
}

/// A puppet with whatever pid is next, as our child.
///
/// # Errors
/// EAGAIN, ENOMEM.
pub fn puppet_anywhere() -> Sys<u32> {
    // SAFETY: as in `puppet`.
    let result = unsafe { libc::fork() };
    match Errno::result(result)? {
        0 => sleep(),
        child => Ok(child.cast_unsigned()),
    }
}

/// pause(2), which newer architectures do not have.
fn sleep() -> ! {
    let none: libc::c_long = 0;
    loop {
        // SAFETY: no descriptors, no time, no mask.
        unsafe { libc::syscall(libc::SYS_ppoll, none, none, none, none, none) };
    }
}

/// SIGKILL to one process.
///
/// # Errors
/// ESRCH when it is gone already.
pub fn kill(pid: u32) -> Sys<()> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) }).map(drop)
}

/// Sends SIGSTOP.
///
/// # Errors
/// ESRCH when it is gone already.
pub fn stop(pid: u32) -> Sys<()> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::kill(pid.cast_signed(), libc::SIGSTOP) }).map(drop)
}

/// Whether timers can be created under chosen ids (PR_TIMER_CREATE_RESTORE_IDS, 6.15).
#[must_use]
pub fn has_timer_ids() -> bool {
    const PR_TIMER_CREATE_RESTORE_IDS: i32 = 77;
    const GET: u64 = 2;
    // SAFETY: plain numbers; the call only asks.
    unsafe { libc::prctl(PR_TIMER_CREATE_RESTORE_IDS, GET, 0, 0, 0) >= 0 }
}

/// unshare(CLONE_NEWTIME): children will live in a new time namespace.
///
/// # Errors
/// EINVAL without CONFIG_TIME_NS.
pub fn new_time_namespace() -> Sys<()> {
    const CLONE_NEWTIME: i32 = 0x80;
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::unshare(CLONE_NEWTIME) }).map(drop)
}
