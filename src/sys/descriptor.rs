//! Calls on file descriptors that nix does not have: kcmp(2), pidfd_getfd(2), tee(2), numbers.
#![allow(unsafe_code, reason = "fcntl, kcmp, tee and handles by raw calls")]

use std::cmp::Ordering;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::abi;

/// `KCMP_FILE` of linux/kcmp.h.
const KCMP_FILE: i32 = 0;
/// `KCMP_EPOLL_TFD`.
const KCMP_EPOLL_TFD: i32 = 7;

/// The result of a system call as a number, or the errno.
pub(crate) fn check(result: libc::c_long) -> Result<i32, Errno> {
    if result < 0 { Err(Errno::last()) } else { i32::try_from(result).map_err(|_| Errno::EOVERFLOW) }
}

/// A fresh descriptor that a system call has just returned.
pub(crate) fn owned(result: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = check(result)?;
    // SAFETY: the kernel has just made this number for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Our standard input, output and error.
#[must_use]
pub fn standard() -> [BorrowedFd<'static>; 3] {
    // SAFETY: nothing of ours closes these numbers.
    [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) })
}

fn order(result: i32) -> Result<Ordering, Errno> {
    match result {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 => Ok(Ordering::Greater),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// Compares the descriptions behind two descriptors, (pid, fd) each; the order is arbitrary but total.
///
/// # Errors
/// The errno of kcmp(2): `ENOSYS` where the kernel lacks `CONFIG_KCMP`.
pub fn kcmp_file(a: (u32, i32), b: (u32, i32)) -> Result<Ordering, Errno> {
    // SAFETY: kcmp(2) with KCMP_FILE takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_kcmp, a.0, b.0, KCMP_FILE, a.1, b.1) };
    order(check(result)?)
}

/// Compares what two tasks have of a sort (KCMP_VM and its like); the order is arbitrary but total.
///
/// # Errors
/// The errno of kcmp(2).
pub fn kcmp(a: u32, b: u32, kind: i32) -> Result<Ordering, Errno> {
    // SAFETY: numbers only.
    order(check(unsafe { libc::syscall(libc::SYS_kcmp, a, b, kind, 0, 0) })?)
}

/// One watch of an epoll: `struct kcmp_epoll_slot`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct EpollSlot {
    /// The epoll's descriptor.
    pub epoll: u32,
    /// The watched number.
    pub target: u32,
    /// Which of the watches with this number, in the order of fdinfo.
    pub offset: u32,
}

/// Whether the descriptor `fd` of process `pid` is what a watch of `owner`'s epoll refers to.
///
/// # Errors
/// The errno of kcmp(2); `ENOENT` if there is no such watch.
pub fn kcmp_epoll((pid, fd): (u32, i32), owner: u32, slot: &EpollSlot) -> Result<bool, Errno> {
    let slot: *const EpollSlot = slot;
    // SAFETY: the kernel reads one kcmp_epoll_slot, which `slot` is, for the time of the call.
    let result = unsafe { libc::syscall(libc::SYS_kcmp, pid, owner, KCMP_EPOLL_TFD, fd, slot) };
    Ok(check(result)? == 0)
}

/// A handle of a process; of a thread too, where the kernel can (6.9).
///
/// # Errors
/// The errno of pidfd_open(2).
pub fn pidfd_open(pid: u32) -> Result<OwnedFd, Errno> {
    // PIDFD_THREAD is O_EXCL.
    match pidfd_open_flags(pid, 0) {
        Err(Errno::EINVAL | Errno::ENOENT) => pidfd_open_flags(pid, libc::O_EXCL),
        other => other,
    }
}

/// pidfd_open(2) with these flags (`O_NONBLOCK`, `O_EXCL` for a thread).
///
/// # Errors
/// The errno of the call.
pub fn pidfd_open_flags(pid: u32, flags: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: numbers only.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) })
}

/// A copy of a descriptor of another process: the same description.
///
/// # Errors
/// The errno of pidfd_getfd(2).
pub fn pidfd_getfd(process: BorrowedFd<'_>, fd: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: numbers only.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })
}

/// Moves a descriptor to a number that is at least `base`.
///
/// # Errors
/// The errno of fcntl(2).
pub fn raise(fd: OwnedFd, base: i32) -> Result<OwnedFd, Errno> {
    if fd.as_raw_fd() >= base {
        return Ok(fd);
    }
    copy(fd.as_fd(), base)
}

/// A copy with a number that is at least `base`.
///
/// # Errors
/// The errno of fcntl(2).
pub fn copy(fd: BorrowedFd<'_>, base: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: F_DUPFD_CLOEXEC takes a number.
    owned(libc::c_long::from(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, base) }))
}

/// Runs `work` while a copy of `fd` sits at `number`, which must be free.
///
/// # Errors
/// The errno of `dup3` or of `work`.
pub fn with_number<T>(
    fd: BorrowedFd<'_>,
    number: i32,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let placed = copy(fd, number)?;
    if placed.as_raw_fd() == number {
        return work(placed.as_fd());
    }
    drop(placed);
    // Our own stdin, stdout or stderr has the number: it stands aside for the moment.
    // SAFETY: the number is open, as the copy went elsewhere, and the borrow ends with this function.
    let own = copy(unsafe { BorrowedFd::borrow_raw(number) }, number + 1)?;
    let swap = |from: BorrowedFd<'_>| {
        // SAFETY: dup3(2) takes numbers; whoever owns `number` finds the same description there afterwards.
        check(libc::c_long::from(unsafe { libc::dup3(from.as_raw_fd(), number, 0) })).map(drop)
    };
    swap(fd)?;
    // SAFETY: `number` is open until it is swapped back below.
    let done = work(unsafe { BorrowedFd::borrow_raw(number) });
    swap(own.as_fd())?;
    done
}

/// Duplicates up to `len` bytes of one pipe into another without taking them; never blocks.
///
/// # Errors
/// The errno of tee(2); `EAGAIN` if the source is empty.
pub fn tee(from: BorrowedFd<'_>, into: BorrowedFd<'_>, len: usize) -> Result<usize, Errno> {
    // SAFETY: tee(2) takes numbers only.
    let result = unsafe { libc::tee(from.as_raw_fd(), into.as_raw_fd(), len, libc::SPLICE_F_NONBLOCK) };
    usize::try_from(result).map_err(|_| Errno::last())
}

/// fcntl(2) with a number as argument.
///
/// # Errors
/// The errno of fcntl(2).
pub fn fcntl(fd: BorrowedFd<'_>, command: FcntlNumber, value: i32) -> Result<i32, Errno> {
    // SAFETY: every command of `FcntlNumber` takes a number or nothing.
    check(libc::c_long::from(unsafe { libc::fcntl(fd.as_raw_fd(), command as i32, value) }))
}

/// The commands of fcntl(2) whose argument is a number.
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
pub enum FcntlNumber {
    /// Reads the status flags.
    GetFlags = libc::F_GETFL,
    /// Sets the status flags.
    SetFlags = libc::F_SETFL,
    /// Reads the size of a pipe.
    GetPipeSize = libc::F_GETPIPE_SZ,
    /// Sets it.
    SetPipeSize = libc::F_SETPIPE_SZ,
    /// Reads the seals of a memfd.
    GetSeals = libc::F_GET_SEALS,
    /// Adds seals.
    AddSeals = libc::F_ADD_SEALS,
    /// Reads the signal of asynchronous input (`F_GETSIG`).
    GetSignal = 11,
    /// Sets it (`F_SETSIG`).
    SetSignal = 10,
}

/// `struct f_owner_ex`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct OwnerEx {
    /// 0 thread, 1 process, 2 process group.
    pub kind: i32,
    /// Its number; 0 means nobody.
    pub id: i32,
}

/// Who gets the signals of a description (`F_GETOWN_EX`).
///
/// # Errors
/// The errno of fcntl(2).
pub fn owner(fd: BorrowedFd<'_>) -> Result<OwnerEx, Errno> {
    let mut owner = OwnerEx::default();
    // SAFETY: F_GETOWN_EX (16) writes one f_owner_ex.
    check(libc::c_long::from(unsafe { libc::fcntl(fd.as_raw_fd(), 16, &raw mut owner) }))?;
    Ok(owner)
}

/// Names who gets the signals (`F_SETOWN_EX`). The kernel notes the caller's uid and euid.
///
/// # Errors
/// The errno of fcntl(2): `ESRCH` if there is no such process.
pub fn set_owner(fd: BorrowedFd<'_>, owner: OwnerEx) -> Result<(), Errno> {
    // SAFETY: F_SETOWN_EX (15) reads one f_owner_ex.
    check(libc::c_long::from(unsafe { libc::fcntl(fd.as_raw_fd(), 15, &raw const owner) }))?;
    Ok(())
}

/// The uid and euid that were noted when the owner was named (`F_GETOWNER_UIDS`, needs
/// `CONFIG_CHECKPOINT_RESTORE`).
///
/// # Errors
/// The errno of fcntl(2).
pub fn owner_uids(fd: BorrowedFd<'_>) -> Result<[u32; 2], Errno> {
    let mut uids = [0_u32; 2];
    // SAFETY: F_GETOWNER_UIDS (17) writes two uids.
    check(libc::c_long::from(unsafe { libc::fcntl(fd.as_raw_fd(), 17, uids.as_mut_ptr()) }))?;
    Ok(uids)
}

/// Names the owner as a process with these ids would, and takes root's ids back.
///
/// # Errors
/// The errno of the calls.
pub fn set_owner_as(fd: BorrowedFd<'_>, owner: OwnerEx, [uid, euid]: [u32; 2]) -> Result<(), Errno> {
    if [uid, euid] == [0, 0] {
        return set_owner(fd, owner);
    }
    // The bare call concerns this thread only, unlike the C library's.
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(abi::SETRESUID, uid, euid, 0) })?;
    let done = set_owner(fd, owner);
    // SAFETY: numbers only; the saved uid 0 allows it.
    check(unsafe { libc::syscall(abi::SETRESUID, 0, 0, 0) })?;
    done
}

/// Takes a lock of the description (`F_OFD_SETLK`); `len` 0 means to the end.
///
/// # Errors
/// The errno of fcntl(2).
pub fn lock_range(fd: BorrowedFd<'_>, write: bool, start: i64, len: i64) -> Result<(), Errno> {
    // SAFETY: all-zero bytes are a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = i16::try_from(if write { libc::F_WRLCK } else { libc::F_RDLCK }).unwrap_or(0);
    lock.l_start = start;
    lock.l_len = len;
    // SAFETY: the command reads one flock.
    check(libc::c_long::from(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) }))?;
    Ok(())
}

/// flock(2) without waiting.
///
/// # Errors
/// The errno of the call.
pub fn lock_whole(fd: BorrowedFd<'_>, write: bool) -> Result<(), Errno> {
    let how = if write { libc::LOCK_EX } else { libc::LOCK_SH };
    // SAFETY: numbers only.
    check(libc::c_long::from(unsafe { libc::flock(fd.as_raw_fd(), how | libc::LOCK_NB) }))?;
    Ok(())
}

/// Opens a file by its handle, as a place (`O_PATH`), on the file system that `mount` is on.
///
/// # Errors
/// The errno of open_by_handle_at(2): `ESTALE` if it is gone.
pub fn open_by_handle(mount: BorrowedFd<'_>, kind: i32, handle: &[u8]) -> Result<OwnedFd, Errno> {
    let bytes = u32::try_from(handle.len()).map_err(|_| Errno::EINVAL)?;
    // struct file_handle: unsigned int handle_bytes, int handle_type, then the bytes; words keep it aligned.
    let mut words = vec![bytes, u32::from_ne_bytes(kind.to_ne_bytes())];
    for chunk in handle.chunks(4) {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        words.push(u32::from_ne_bytes(word));
    }
    // SAFETY: the kernel reads the header and `handle_bytes` bytes, all of which `words` holds.
    owned(unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            words.as_mut_ptr(),
            libc::O_PATH | libc::O_CLOEXEC,
        )
    })
}

/// open(2) with exactly these flags, as the C library adds `O_LARGEFILE`.
///
/// # Errors
/// The errno of the call.
pub fn open(path: &CStr, flags: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: a string with its end, and numbers.
    owned(unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) })
}

/// What is ready now, of `wanted` and the states that are always shown. Unlike nix's, it knows `POLLRDHUP`.
///
/// # Errors
/// The errno of poll(2).
pub fn ready(fd: BorrowedFd<'_>, wanted: i16) -> Result<i16, Errno> {
    let mut one = libc::pollfd { fd: fd.as_raw_fd(), events: wanted, revents: 0 };
    // SAFETY: the call reads and writes one pollfd.
    check(libc::c_long::from(unsafe { libc::poll(&raw mut one, 1, 0) }))?;
    Ok(one.revents)
}
