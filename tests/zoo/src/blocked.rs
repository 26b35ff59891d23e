//! Children that sleep in one call each, for the programs of kind `blocked`.

use crate::{Outcome, Zoo, proc, sys};

/// A child in a blocking call, and what ends the call.
pub struct Blocked {
    /// The call.
    pub name: &'static str,
    /// The child.
    pub pid: i32,
    /// What ends the call.
    pub wake: Box<dyn FnOnce() -> Outcome>,
}

/// Makes one of them.
pub type Case = fn(&Zoo) -> Outcome<Blocked>;

/// Starts a child that sleeps in `sleep` until `wake` is called.
///
/// # Errors
/// When there is no child, or it does not sleep.
pub fn blocked(
    zoo: &Zoo,
    name: &'static str,
    sleep: impl FnOnce(&mut Zoo) -> Outcome,
    wake: impl FnOnce() -> Outcome + 'static,
) -> Outcome<Blocked> {
    let pid = zoo.fork_blocked(move |zoo| {
        zoo.arrive();
        sleep(zoo).map_err(|problem| format!("{name}: {problem}").into())
    })?;
    Ok(Blocked { name, pid, wake: Box::new(wake) })
}

/// A mask for calls that take one, with SIGUSR1 let in; it is blocked outside.
#[must_use]
pub fn open_mask() -> libc::sigset_t {
    let mut set: libc::sigset_t = sys::zeroed();
    // SAFETY: live sets.
    unsafe {
        libc::sigaddset(&raw mut set, libc::SIGUSR1);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::sigfillset(&raw mut set);
        libc::sigdelset(&raw mut set, libc::SIGUSR1);
    }
    set
}

/// A set of this signal alone, which is blocked from now on.
#[must_use]
pub fn only(signal: i32) -> libc::sigset_t {
    let mut set: libc::sigset_t = sys::zeroed();
    // SAFETY: a live set.
    unsafe {
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    set
}

/// A word of memory that parent and child share.
///
/// # Errors
/// The errno of the call.
pub fn word() -> Outcome<*const u32> {
    let (rw, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    Ok(sys!(mmap(std::ptr::null_mut(), 4096, rw, flags, -1, 0))? as *const u32)
}

/// A pair of connected sockets.
///
/// # Errors
/// The errno of the call.
pub fn pair() -> Outcome<[i32; 2]> {
    let mut ends = [0; 2];
    sys!(socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr()))?;
    Ok(ends)
}

/// recv(2): the number of bytes.
///
/// # Errors
/// The errno of the call.
pub fn recv_into(socket: i32) -> Outcome<i64> {
    let mut bytes = [0_u8; 16];
    Ok(sys!(recv(socket, bytes.as_mut_ptr().cast(), bytes.len(), 0))? as i64)
}

/// Forks all cases, says READY, and ends what does not end by itself.
///
/// # Errors
/// When a case cannot be set up or woken.
pub fn run(zoo: &mut Zoo, cases: &[Case], timed: bool) -> Outcome {
    let mut blocked = Vec::new();
    for case in cases {
        blocked.push(case(zoo)?);
    }
    zoo.ready();
    for case in blocked.iter().filter(|_| !timed) {
        let state = proc::stat(&case.pid.to_string(), 3);
        zoo.expect(&format!("state of {} before it is woken", case.name), state, "S".to_owned());
    }
    for case in blocked {
        (case.wake)().map_err(|problem| format!("waking {}: {problem}", case.name))?;
        zoo.reap(case.name, case.pid);
    }
    Ok(())
}
