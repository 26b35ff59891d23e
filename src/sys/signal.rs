//! Queued signals with a value, sigtimedwait(2), and a clean slate for the program that is executed next.
#![allow(unsafe_code, reason = "siginfo_t and sigset_t are C structures")]

use std::mem::MaybeUninit;
use std::time::Duration;

use nix::errno::Errno;

use crate::sys::abi;
use crate::sys::ptrace::Sys;

/// The signal of the ready protocol: SIGRTMIN as musl counts (glibc's is 34). A fixed number, so that two
/// builds of rcsnap agree.
pub const READY: i32 = 35;

/// What came with a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// SI_QUEUE, SI_USER and so on.
    pub code: i32,
    /// The sender.
    pub pid: u32,
    /// The sender's real user.
    pub uid: u32,
    /// The value of sigqueue(3).
    pub value: i32,
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the whole set; sigaddset only changes it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

/// Blocks these signals.
pub fn block(signals: &[i32]) {
    let set = set_of(signals);
    // SAFETY: an initialised set in, nothing out.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Unblocks these signals.
pub fn unblock(signals: &[i32]) {
    let set = set_of(signals);
    // SAFETY: as in `block`.
    unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Every signal back to its default action and unblocked: ignored signals and the mask outlive execve(2).
/// By the raw call, as signal(3) would leave flags, a mask and a restorer behind, which puppets inherit.
pub fn clean_slate() {
    let default = [0_usize; 4 + 64 / usize::BITS as usize];
    let none = std::ptr::null_mut::<usize>();
    for signal in 1..=64 {
        // SAFETY: zeroes are SIG_DFL without flags in every layout of the kernel's struct, which is no longer
        // than this; a number that cannot be set gives EINVAL, and nothing changes.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8_usize) };
    }
    let none = set_of(&[]);
    // SAFETY: as in `block`.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// sigqueue(3): sends a signal with a value.
///
/// # Errors
/// ESRCH when the process is gone, EPERM.
pub fn queue(pid: u32, signal: i32, value: i32) -> Sys<()> {
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value.cast_unsigned() as usize) };
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::sigqueue(pid.cast_signed(), signal, value) }).map(drop)
}

/// sigtimedwait(2): takes the next of these (blocked) signals.
///
/// # Errors
/// EAGAIN when the time is over, EINTR after a handler or a tracer's stop: call again.
pub fn wait(signals: &[i32], limit: Duration) -> Sys<(i32, Info)> {
    let set = set_of(signals);
    let limit = [i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), limit.subsec_nanos().into()];
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the set, of which the kernel knows 8 bytes, and the limit, a struct __kernel_timespec, are initialised;
    // `info` has room for what the kernel writes.
    let signal = unsafe {
        libc::syscall(abi::RT_SIGTIMEDWAIT, &raw const set, info.as_mut_ptr(), limit.as_ptr(), 8_usize)
    };
    let signal = i32::try_from(Errno::result(signal)?).map_err(|_| Errno::EINVAL)?;
    // SAFETY: zeroed, then filled by the kernel: every bit pattern is valid for its integers.
    let info = unsafe { info.assume_init() };
    // SAFETY: a queued signal has a pid, uid and value; for the others these bytes exist as well.
    let (pid, uid, value) = unsafe { (info.si_pid(), info.si_uid(), info.si_value()) };
    let value = u32::try_from(value.sival_ptr.addr() & 0xffff_ffff).unwrap_or(0).cast_signed();
    Ok((signal, Info { code: info.si_code, pid: pid.cast_unsigned(), uid, value }))
}

/// Default action of SIGALRM after so many seconds, which ends the process; 0 takes it back.
pub fn alarm(seconds: u32) {
    // SAFETY: plain numbers.
    unsafe { libc::alarm(seconds) };
}

#[cfg(test)]
mod tests {
    use super::{READY, block, queue, wait};
    use crate::sys::process::{Fork, fork, leave};
    use nix::errno::Errno;
    use std::time::Duration;

    #[test]
    fn a_queued_value_arrives_with_its_sender() {
        // In a child with one thread: another thread of the harness has not blocked the signal.
        let Fork::Parent(child) = fork().unwrap() else {
            block(&[READY]);
            let own = std::process::id();
            let sent = queue(own, READY, -7);
            let got = wait(&[READY], Duration::from_secs(1));
            let well = sent.is_ok()
                && matches!(got, Ok((READY, info)) if info.pid == own && info.value == -7)
                && wait(&[READY], Duration::ZERO) == Err(Errno::EAGAIN);
            leave(i32::from(!well))
        };
        let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child.cast_signed()), None).unwrap();
        assert!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)), "{status:?}");
    }
}
