//! Children that live for a moment.
#![allow(unsafe_code, reason = "fork(2) and clone3(2) return twice")]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::clone::{CLONE_ARGS, CloneArgs};
use super::descriptor::{check, owned};

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
    status(child).map(drop)
}

fn status(child: u32) -> Result<WaitStatus, Errno> {
    let pid = Pid::from_raw(i32::try_from(child).map_err(|_| Errno::EOVERFLOW)?);
    waitpid(pid, Some(WaitPidFlag::__WALL))
}

/// Makes one system call in a child that has this pid, uid and gid and shares our descriptors. It is for
/// what the kernel remembers of a process that is no more.
///
/// # Errors
/// `EEXIST` if the pid is in use; the errno of the call.
fn call_as([pid, uid, gid]: [u32; 3], call: libc::c_long, arguments: [usize; 4]) -> Result<(), Errno> {
    let tid = i32::try_from(pid).map_err(|_| Errno::EINVAL)?;
    let args = CloneArgs {
        flags: u64::try_from(libc::CLONE_FILES).unwrap_or(0),
        exit_signal: u64::try_from(libc::SIGCHLD).unwrap_or(0),
        set_tid: (&raw const tid).addr() as u64,
        set_tid_size: 1,
        ..CloneArgs::default()
    };
    let [a, b, c, d] = arguments;
    // SAFETY: without CLONE_VM the child has a copy of our memory, as after fork(2). It makes bare system
    // calls on data that was prepared before, allocates nothing and ends. The kernel reads `args` and `tid`.
    let child = unsafe {
        let child = libc::syscall(libc::SYS_clone3, &raw const args, CLONE_ARGS);
        if child == 0 {
            let done = libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
                && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0
                && libc::syscall(call, a, b, c, d) >= 0;
            libc::_exit(if done { 0 } else { Errno::last_raw() });
        }
        child
    };
    let child = u32::try_from(check(child)?).map_err(|_| Errno::EOVERFLOW)?;
    match status(child)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, errno) => Err(Errno::from_raw(errno)),
        _ => Err(Errno::ECHILD),
    }
}

/// A descriptor or constant as an argument; none of them is negative.
fn number(fd: i32) -> usize {
    usize::try_from(fd).unwrap_or(usize::MAX)
}

/// socketpair(2) of AF_UNIX as a process that is no more (pid, uid, gid).
///
/// # Errors
/// See above: `EEXIST` if there is such a process.
pub fn pair_as(who: [u32; 3], kind: i32) -> Result<(OwnedFd, OwnedFd), Errno> {
    // Our own memory is not the child's: a shared page brings the two numbers back.
    let (access, how) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh mapping at a place the kernel chooses.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, how, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    let kind = number(kind | libc::SOCK_CLOEXEC);
    let done = call_as(who, libc::SYS_socketpair, [number(libc::AF_UNIX), kind, 0, page.addr()]);
    // SAFETY: the page is ours, aligned, and holds the two numbers that the call has written, or zeros.
    let fds = unsafe { page.cast::<[i32; 2]>().read() };
    // SAFETY: nothing refers to the page any more.
    unsafe { libc::munmap(page, 4096) };
    done?;
    Ok((owned(fds[0].into())?, owned(fds[1].into())?))
}

/// listen(2) as a process that is no more.
///
/// # Errors
/// As [`pair_as`].
pub fn listen_as(who: [u32; 3], socket: BorrowedFd<'_>, backlog: i32) -> Result<(), Errno> {
    call_as(who, libc::SYS_listen, [number(socket.as_raw_fd()), number(backlog), 0, 0])
}

/// connect(2) as a process that is no more; `address` is the whole sockaddr.
///
/// # Errors
/// As [`pair_as`].
pub fn connect_as(who: [u32; 3], socket: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    let (at, len) = (address.as_ptr().addr(), address.len());
    call_as(who, libc::SYS_connect, [number(socket.as_raw_fd()), at, len, 0])
}
