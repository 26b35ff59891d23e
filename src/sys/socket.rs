//! Socket calls with addresses and options as plain bytes, because that is how an image keeps them.
#![allow(unsafe_code, reason = "addresses and options are bytes of any family and type")]

use crate::sorted::Listed;
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

/// The number of a network interface.
///
/// # Errors
/// ENODEV: there is none of that name.
#[inline(never)]
pub fn interface(name: &str) -> Result<u32, Errno> {
    nix::net::if_::if_nametoindex(&*super::path::text(name.as_ref())?)
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

/// What [`peek`] saw.
#[derive(Debug, Default)]
pub struct Peeked {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The sender's whole sockaddr; may be empty.
    pub from: Vec<u8>,
    /// pid, uid and gid of the sender, if the socket asks for them.
    pub who: Option<[u32; 3]>,
    /// Descriptors that came with it, as copies of our own.
    pub rights: Vec<OwnedFd>,
    /// Something else came with it, for which there was no room.
    pub more: bool,
    /// The message was longer than the buffer.
    pub cut: bool,
}

/// Bytes of a word.
const WORD: usize = size_of::<usize>();
/// Bytes of a struct cmsghdr: its length, level and kind.
const HEAD: usize = WORD + 8;
/// SCM_PIDFD (6.5).
const SCM_PIDFD: i32 = 4;
/// Room for the most descriptors that a message can have (SCM_MAX_FD), and for credentials.
const CONTROL: usize = 1280;

/// Reads the next message of at most `len` bytes without taking it. Descriptors in it are copied.
///
/// # Errors
/// The errno of recvmsg(2): `EAGAIN` if there is none.
#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_fallible_conversions,
    reason = "the length is narrower with musl"
)]
pub fn peek(socket: BorrowedFd<'_>, len: usize) -> Result<Peeked, Errno> {
    let mut bytes = vec![0_u8; len];
    let mut from = vec![0_u8; LONGEST];
    let mut control = vec![0_u8; CONTROL];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all-zero bytes are a valid msghdr (musl has padding fields).
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = from.as_mut_ptr().cast();
    message.msg_namelen = length(&from)?;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL.try_into().map_err(|_| Errno::EINVAL)?;
    // SAFETY: every buffer of the header outlives the call and has the length that the header says.
    let count = unsafe {
        libc::recvmsg(
            socket.as_raw_fd(),
            &raw mut message,
            libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC,
        )
    };
    bytes.truncate(usize::try_from(count).map_err(|_| Errno::last())?);
    from.truncate(usize::try_from(message.msg_namelen).unwrap_or(0));
    control.truncate(usize::try_from(message.msg_controllen).unwrap_or(0));
    let mut seen = Peeked {
        bytes,
        from,
        more: message.msg_flags & libc::MSG_CTRUNC != 0,
        cut: message.msg_flags & libc::MSG_TRUNC != 0,
        ..Peeked::default()
    };
    let mut rest = control.as_slice();
    while let Some((len, after)) = rest.split_first_chunk::<WORD>() {
        let len = usize::from_ne_bytes(*len).max(HEAD);
        let numbers = after.get(..len - WORD).unwrap_or(after).chunks_exact(4);
        let numbers: Vec<u32> = numbers.map(|four| four.try_into().map_or(0, u32::from_ne_bytes)).list();
        match numbers.as_slice() {
            // SOL_SOCKET is 1.
            [1, kind, fds @ ..] if [libc::SCM_RIGHTS, SCM_PIDFD].contains(&kind.cast_signed()) => {
                let copies = fds.iter().map(|fd| owned(libc::c_long::from(fd.cast_signed())));
                let copies = copies.whole()?;
                // A pidfd is made for the reader: it was not sent.
                if kind.cast_signed() == libc::SCM_RIGHTS {
                    seen.rights = copies;
                }
            }
            [1, 2, pid, uid, gid] => seen.who = Some([*pid, *uid, *gid]),
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(WORD)..).unwrap_or(&[]);
    }
    Ok(seen)
}

/// What goes with the bytes of a message.
#[derive(Debug, Clone, Copy, Default)]
pub struct With<'a> {
    /// The pid, uid and gid in whose name it is sent.
    pub who: Option<[u32; 3]>,
    /// Numbers of descriptors.
    pub rights: &'a [u32],
    /// The address to which it goes, unless it is empty.
    pub to: &'a [u8],
}

/// Sends one message without waiting.
///
/// # Errors
/// The errno of sendmsg(2): `ESRCH` if there is no process in whose name it should be sent.
#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_fallible_conversions,
    reason = "the length is narrower with musl"
)]
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], with: With<'_>) -> Result<usize, Errno> {
    let mut control = Vec::new();
    let mut put = |kind: i32, numbers: &[u32]| {
        control.extend_from_slice(&(HEAD + 4 * numbers.len()).to_ne_bytes());
        for number in [1, kind.cast_unsigned()].iter().chain(numbers) {
            control.extend_from_slice(&number.to_ne_bytes());
        }
        control.resize(control.len().next_multiple_of(WORD), 0);
    };
    if let Some(who) = with.who {
        put(libc::SCM_CREDENTIALS, &who);
    }
    if !with.rights.is_empty() {
        put(libc::SCM_RIGHTS, with.rights);
    }
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !with.to.is_empty() {
        message.msg_name = with.to.as_ptr().cast_mut().cast();
        message.msg_namelen = length(with.to)?;
    }
    if !control.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = control.len().try_into().map_err(|_| Errno::EINVAL)?;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel only reads, and every buffer has the length that the header says. musl's own call has no
    // room for as many descriptors as a message can have; its header is the kernel's, as long as its padding is zero.
    let count = unsafe { libc::syscall(libc::SYS_sendmsg, socket.as_raw_fd(), &raw const message, flags) };
    usize::try_from(count).map_err(|_| Errno::last())
}

/// recv(2) with these flags.
///
/// # Errors
/// The errno of recv(2).
pub fn receive(socket: BorrowedFd<'_>, len: usize, flags: i32) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0_u8; len];
    // SAFETY: the kernel writes at most as many bytes as the buffer has.
    let count = unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), len, flags) };
    bytes.truncate(usize::try_from(count).map_err(|_| Errno::last())?);
    Ok(bytes)
}

/// The classic filter program of a socket, an instruction a number; empty if there is none.
///
/// # Errors
/// The errno of getsockopt(2): `EACCES` for a program that was not given as classic instructions.
pub fn filter(socket: BorrowedFd<'_>) -> Result<Vec<u64>, Errno> {
    let ask = |into: *mut libc::c_void, mut count: libc::socklen_t| {
        // SAFETY: SO_GET_FILTER writes `count` instructions of 8 bytes, and nothing if it is 0.
        check(libc::c_long::from(unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                into,
                &raw mut count,
            )
        }))?;
        Ok::<_, Errno>(count)
    };
    let count = ask(std::ptr::null_mut(), 0)?;
    let mut program = vec![0_u64; usize::try_from(count).map_err(|_| Errno::EINVAL)?];
    if count > 0 {
        ask(program.as_mut_ptr().cast(), count)?;
    }
    Ok(program)
}

/// Attaches a filter program.
///
/// # Errors
/// The errno of setsockopt(2).
pub fn set_filter(socket: BorrowedFd<'_>, program: &[u64]) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: program.len().try_into().map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    let len = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads one sock_fprog and the instructions it points to, 8 bytes each.
    check(libc::c_long::from(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            len,
        )
    }))?;
    Ok(())
}

/// Fills in the value of an option that is a question and an answer at once; its new length.
///
/// # Errors
/// The errno of getsockopt(2).
pub fn ask_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: &mut [u8]) -> Result<usize, Errno> {
    let mut len = length(value)?;
    // SAFETY: the kernel reads and writes at most `len` bytes, which `value` has.
    check(libc::c_long::from(unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len)
    }))?;
    usize::try_from(len).map_err(|_| Errno::EINVAL)
}
