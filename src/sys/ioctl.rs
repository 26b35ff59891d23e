//! ioctl(2), typed: a request is a constant that knows what it reads or writes.
#![allow(unsafe_code, reason = "ioctl(2) trusts the type behind its pointer")]

use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::descriptor::{check, owned};

/// A request that writes a `T` for us.
pub struct Get<T>(u32, PhantomData<T>);
/// A request that reads a `T` of ours.
pub struct Set<T>(u32, PhantomData<T>);
/// A request that takes a number.
pub struct Value(u32);
/// A request that returns a descriptor, and takes flags for it or nothing.
pub struct Open(u32);

// Numbers: asm-generic/ioctls.h, linux/sockios.h, linux/inotify.h, linux/timerfd.h. They are the same on
// x86, ARM and RISC-V.

/// Bytes that can be read (`FIONREAD`).
pub const UNREAD: Get<i32> = Get(0x541b, PhantomData);
/// Bytes sent and not yet taken by the other side (`SIOCOUTQ`).
pub const UNSENT: Get<i32> = Get(0x5411, PhantomData);
/// The termios with free speeds (`TCGETS2`).
pub const GET_TERMIOS: Get<Termios> = Get(0x802c_542a, PhantomData);
/// Sets it at once (`TCSETS2`).
pub const SET_TERMIOS: Set<Termios> = Set(0x402c_542b, PhantomData);
/// The window size (`TIOCGWINSZ`).
pub const GET_WINDOW: Get<[u16; 4]> = Get(0x5413, PhantomData);
/// Sets it (`TIOCSWINSZ`).
pub const SET_WINDOW: Set<[u16; 4]> = Set(0x5414, PhantomData);
/// The line discipline (`TIOCGETD`).
pub const GET_DISCIPLINE: Get<i32> = Get(0x5424, PhantomData);
/// Whether the tty is exclusive (`TIOCGEXCL`).
pub const GET_EXCLUSIVE: Get<i32> = Get(0x8004_5440, PhantomData);
/// Makes it so (`TIOCEXCL`).
pub const SET_EXCLUSIVE: Value = Value(0x540c);
/// Which modes and characters of a terminal are locked (`TIOCGLCKTRMIOS`): a `struct termios`.
pub const GET_FIXED: Get<[u32; 9]> = Get(0x5456, PhantomData);
/// Locks them (`TIOCSLCKTRMIOS`).
pub const SET_FIXED: Set<[u32; 9]> = Set(0x5457, PhantomData);
/// What some terminals have beside their modes, in at most nine words: RS-485 (`TIOCGRS485`), modem lines (`TIOCMGET`),
/// keyboard mode (`KDGKBMODE`), text or graphics (`KDGETMODE`).
pub const GET_EXTRA: [Get<[u32; 9]>; 4] =
    [Get(0x542e, PhantomData), Get(0x5415, PhantomData), Get(0x4b44, PhantomData), Get(0x4b3b, PhantomData)];
/// Sets them (`TIOCSRS485`, `TIOCMSET`, `KDSKBMODE`, `KDSETMODE`): the first two by their words, the others by a number.
const SET_EXTRA: [u32; 4] = [0x542f, 0x5418, 0x4b45, 0x4b3a];
/// Who switches virtual terminals (`VT_GETMODE`): a `struct vt_mode`, the mode in the first byte.
pub const GET_SWITCH: Get<[u32; 9]> = Get(0x5601, PhantomData);
/// The number of a pseudo-terminal, of its master (`TIOCGPTN`).
pub const GET_NUMBER: Get<u32> = Get(0x8004_5430, PhantomData);
/// Whether its slave cannot be opened (`TIOCGPTLCK`).
pub const GET_LOCK: Get<i32> = Get(0x8004_5439, PhantomData);
/// Makes it so (`TIOCSPTLCK`).
pub const SET_LOCK: Set<i32> = Set(0x4004_5431, PhantomData);
/// Whether it is in packet mode (`TIOCGPKT`).
pub const GET_PACKET: Get<i32> = Get(0x8004_5438, PhantomData);
/// Puts it there (`TIOCPKT`).
pub const SET_PACKET: Set<i32> = Set(0x5420, PhantomData);
/// A description of its slave (`TIOCGPTPEER`).
pub const OPEN_PEER: Open = Open(0x5441);
/// The device behind a terminal (`TIOCGDEV`), for /dev/tty: 20 bits of minor around 12 of major.
pub const GET_DEVICE: Get<u32> = Get(0x8004_5432, PhantomData);
/// Expirations of a timerfd that were not read (`TFD_IOC_SET_TICKS`).
pub const SET_TICKS: Set<u64> = Set(0x4008_5400, PhantomData);
/// The next watch number of an inotify (`INOTIFY_IOC_SETNEXTWD`).
pub const SET_NEXT_WATCH: Value = Value(0x4004_4900);
/// The file a unix socket is bound to, as a place (`SIOCUNIXFILE`).
pub const UNIX_FILE: Open = Open(0x89e0);
/// The network namespace of a socket (`SIOCGSKNS`).
pub const SOCKET_NAMESPACE: Open = Open(0x894c);

/// `struct termios2`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Termios {
    /// Input, output, control and local modes.
    pub modes: [u32; 4],
    /// The line discipline.
    pub line: u8,
    /// Control characters.
    pub chars: [u8; 19],
    /// Input and output speed.
    pub speed: [u32; 2],
}

/// Reads a value.
///
/// # Errors
/// The errno of ioctl(2).
pub fn get<T: Copy + Default>(fd: BorrowedFd<'_>, request: &Get<T>) -> Result<T, Errno> {
    let mut value = T::default();
    // SAFETY: the constants pair each request with the type the kernel writes.
    check(libc::c_long::from(unsafe {
        libc::ioctl(fd.as_raw_fd(), request.0 as libc::Ioctl, &raw mut value)
    }))?;
    Ok(value)
}

/// Sets a value.
///
/// # Errors
/// The errno of ioctl(2).
pub fn set<T: Copy>(fd: BorrowedFd<'_>, request: &Set<T>, value: &T) -> Result<(), Errno> {
    let value: *const T = value;
    // SAFETY: the constants pair each request with the type the kernel reads.
    check(libc::c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), request.0 as libc::Ioctl, value) }))?;
    Ok(())
}

/// Sets one of [`GET_EXTRA`].
///
/// # Errors
/// The errno of ioctl(2).
pub fn set_extra(fd: BorrowedFd<'_>, at: usize, words: &[u32; 9]) -> Result<(), Errno> {
    let argument = if at < 2 { words.as_ptr().expose_provenance() } else { words[0] as usize };
    // SAFETY: the kernel reads at most eight words, or takes the number.
    check(libc::c_long::from(unsafe {
        libc::ioctl(fd.as_raw_fd(), SET_EXTRA[at] as libc::Ioctl, argument)
    }))?;
    Ok(())
}

/// Passes a number.
///
/// # Errors
/// The errno of ioctl(2).
pub fn value(fd: BorrowedFd<'_>, request: &Value, value: i32) -> Result<(), Errno> {
    let value = libc::c_long::from(value);
    // SAFETY: the request takes a number.
    check(libc::c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), request.0 as libc::Ioctl, value) }))?;
    Ok(())
}

/// Asks for a descriptor.
///
/// # Errors
/// The errno of ioctl(2).
pub fn open(fd: BorrowedFd<'_>, request: &Open) -> Result<OwnedFd, Errno> {
    open_with(fd, request, 0)
}

/// Asks for a descriptor with these flags of open(2).
///
/// # Errors
/// The errno of ioctl(2).
pub fn open_with(fd: BorrowedFd<'_>, request: &Open, flags: i32) -> Result<OwnedFd, Errno> {
    let flags = libc::c_long::from(flags);
    // SAFETY: the request takes a number or nothing, and returns a fresh descriptor.
    owned(libc::c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), request.0 as libc::Ioctl, flags) }))
}
