//! Numbers of the system calls that have two forms on 32 bit: always the newer, with 64-bit times and offsets and
//! with 32-bit ids. Its structures are the ones of 64 bit, so that callers know only those.
//!
//! The old forms lose something without an error: setresuid(2) the upper half of an id, clock_gettime(2) every
//! date after January 2038. No `unsafe` is needed here.

/// A system call's number, as the C library types it.
pub type Number = libc::c_long;

/// `O_LARGEFILE` where a description may lack it, and then refuses offsets beyond 2 GiB. Nothing sets it after
/// open(2). On 64 bit every description has it, whatever it was opened with.
#[cfg(target_pointer_width = "32")]
pub const LARGE: i32 = libc::O_LARGEFILE;
/// Nothing: every description has `O_LARGEFILE`.
#[cfg(target_pointer_width = "64")]
pub const LARGE: i32 = 0;

/// Numbers of 64 bits as they lie in memory.
#[must_use]
#[inline(never)]
pub fn bytes(words: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in words {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident = $wide:ident, $narrow:literal;)*) => {$(
        $(#[$doc])*
        #[cfg(target_pointer_width = "64")]
        pub const $name: Number = libc::$wide;
        $(#[$doc])*
        #[cfg(target_pointer_width = "32")]
        pub const $name: Number = $narrow;
    )*};
}

// The second column is arch/arm/tools/syscall.tbl.
numbers! {
    /// clock_gettime(2).
    CLOCK_GETTIME = SYS_clock_gettime, 403;
    /// fcntl(2).
    FCNTL = SYS_fcntl, 221;
    /// rseq(2), which is here because the C library lacks it on ARM.
    RSEQ = SYS_rseq, 398;
    /// rt_sigtimedwait(2).
    RT_SIGTIMEDWAIT = SYS_rt_sigtimedwait, 421;
    /// setfsgid(2).
    SETFSGID = SYS_setfsgid, 216;
    /// setfsuid(2).
    SETFSUID = SYS_setfsuid, 215;
    /// setgroups(2).
    SETGROUPS = SYS_setgroups, 206;
    /// setresgid(2).
    SETRESGID = SYS_setresgid, 210;
    /// setresuid(2).
    SETRESUID = SYS_setresuid, 208;
    /// timerfd_gettime(2).
    TIMERFD_GETTIME = SYS_timerfd_gettime, 410;
    /// timerfd_settime(2).
    TIMERFD_SETTIME = SYS_timerfd_settime, 411;
    /// timer_gettime(2).
    TIMER_GETTIME = SYS_timer_gettime, 408;
    /// timer_settime(2).
    TIMER_SETTIME = SYS_timer_settime, 409;
    /// utimensat(2).
    UTIMENSAT = SYS_utimensat, 412;
}
