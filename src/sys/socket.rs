//! Socket calls with addresses and options as plain bytes, because that is how an image keeps them.
#![allow(unsafe_code, reason = "addresses and options are bytes of any family and type")]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::descriptor::{check, owned};

/// The size of sockaddr_storage: no address is longer.
const LONGEST: usize = 128;

fn length(bytes: &[u8]) -> Result<libc::socklen_t, Errno> {
    libc::socklen_t::try_from(bytes.len()).map_err(|_| Errno::EINVAL)
}

/// socket(2) with `SOCK_CLOEXEC`.
///
/// # Errors
/// The errno of the call.
pub fn socket(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: numbers only.
    owned(libc::c_long::from(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) }))
}

/// socketpair(2) of AF_UNIX with `SOCK_CLOEXEC`.
///
/// # Errors
/// The errno of the call.
pub fn pair(kind: i32) -> Result<(OwnedFd, OwnedFd), Errno> {
    let mut fds = [0; 2];
    // SAFETY: the call writes two descriptors.
    check(libc::c_long::from(unsafe {
        libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr())
    }))?;
    Ok((owned(fds[0].into())?, owned(fds[1].into())?))
}

/// bind(2); `address` is the whole sockaddr.
///
/// # Errors
/// The errno of the call.
pub fn bind(socket: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    // SAFETY: the kernel copies as many bytes as the slice has.
    check(libc::c_long::from(unsafe {
        libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), length(address)?)
    }))?;
    Ok(())
}

/// connect(2); `address` is the whole sockaddr.
///
/// # Errors
/// The errno of the call.
pub fn connect(socket: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    // SAFETY: the kernel copies as many bytes as the slice has.
    check(libc::c_long::from(unsafe {
        libc::connect(socket.as_raw_fd(), address.as_ptr().cast(), length(address)?)
    }))?;
    Ok(())
}

/// listen(2).
///
/// # Errors
/// The errno of the call.
pub fn listen(socket: BorrowedFd<'_>, backlog: i32) -> Result<(), Errno> {
    // SAFETY: numbers only.
    check(libc::c_long::from(unsafe { libc::listen(socket.as_raw_fd(), backlog) }))?;
    Ok(())
}

/// accept4(2) with `SOCK_CLOEXEC`.
///
/// # Errors
/// The errno of the call.
pub fn accept(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: no address is asked for.
    owned(libc::c_long::from(unsafe {
        libc::accept4(socket.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC)
    }))
}

/// shutdown(2): 0 reading, 1 writing, 2 both.
///
/// # Errors
/// The errno of the call.
pub fn shutdown(socket: BorrowedFd<'_>, how: i32) -> Result<(), Errno> {
    // SAFETY: numbers only.
    check(libc::c_long::from(unsafe { libc::shutdown(socket.as_raw_fd(), how) }))?;
    Ok(())
}

/// The own address (getsockname(2)), or the peer's (getpeername(2)).
///
/// # Errors
/// The errno of the call: `ENOTCONN` if there is no peer.
pub fn name(socket: BorrowedFd<'_>, peer: bool) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0_u8; LONGEST];
    let mut len = length(&bytes)?;
    let ask = if peer { libc::getpeername } else { libc::getsockname };
    // SAFETY: the kernel writes at most `len` bytes, which `bytes` has.
    check(libc::c_long::from(unsafe { ask(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), &raw mut len) }))?;
    bytes.truncate(usize::try_from(len).unwrap_or(0));
    Ok(bytes)
}

/// The value of an option, at most `len` bytes.
///
/// # Errors
/// The errno of getsockopt(2). `EINVAL` for the two options that write elsewhere than into the value.
pub fn option(socket: BorrowedFd<'_>, level: i32, name: i32, len: usize) -> Result<Vec<u8>, Errno> {
    // SO_GET_FILTER counts in instructions, TCP_ZEROCOPY_RECEIVE maps memory.
    if (level, name) == (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER) || (level, name) == (libc::IPPROTO_TCP, 35)
    {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0_u8; len];
    let mut len = length(&bytes)?;
    // SAFETY: the kernel writes at most `len` bytes, which `bytes` has.
    check(libc::c_long::from(unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, bytes.as_mut_ptr().cast(), &raw mut len)
    }))?;
    bytes.truncate(usize::try_from(len).unwrap_or(0));
    Ok(bytes)
}

/// The value of an option that is a number.
///
/// # Errors
/// The errno of getsockopt(2).
pub fn number(socket: BorrowedFd<'_>, level: i32, name: i32) -> Result<i32, Errno> {
    let bytes = option(socket, level, name, 4)?;
    let bytes = <[u8; 4]>::try_from(bytes.as_slice()).map_err(|_| Errno::EINVAL)?;
    Ok(i32::from_ne_bytes(bytes))
}

/// Sets an option.
///
/// # Errors
/// The errno of setsockopt(2). `EINVAL` for a filter, whose value points elsewhere.
pub fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    if (level, name) == (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER) {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the kernel reads as many bytes as the slice has.
    check(libc::c_long::from(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length(value)?)
    }))?;
    Ok(())
}

/// Sets an option that is a number.
///
/// # Errors
/// The errno of setsockopt(2).
pub fn set_number(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> Result<(), Errno> {
    set_option(socket, level, name, &value.to_ne_bytes())
}
