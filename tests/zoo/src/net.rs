//! The network of a fresh namespace: nothing but a loopback that is down.

use crate::{Outcome, fd, sys};

#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// Reads the loopback's flags, changes them and writes them back.
fn change(change: impl FnOnce(i32) -> i32) -> Outcome {
    let socket = sys!(socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
    let mut request = Request { name: [0; 16], flags: 0, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    sys!(ioctl(socket, libc::SIOCGIFFLAGS as _, &raw mut request))?;
    let before = i32::from(request.flags);
    let after = change(before);
    if after != before {
        request.flags = after as i16;
        sys!(ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const request))?;
    }
    fd::close(socket);
    Ok(())
}

/// Sets the loopback interface up, which also gives it 127.0.0.1 and ::1.
///
/// # Errors
/// When there is none, or this process may not.
pub fn loopback_up() -> Outcome {
    change(|flags| flags | libc::IFF_UP)
}

/// The number of an interface, if there is one of this name.
#[must_use]
pub fn index(name: &std::ffi::CStr) -> Option<u32> {
    // SAFETY: a name, which the call reads.
    Some(unsafe { libc::if_nametoindex(name.as_ptr()) }).filter(|index| *index != 0)
}

/// Makes a bridge without ports, gives it an address and sets it up.
///
/// # Errors
/// When there are no bridges here, or this process may not.
pub fn bridge(name: &std::ffi::CStr, address: [u8; 4]) -> Outcome {
    const SIOCBRADDBR: u64 = 0x89a0;
    let socket = sys!(socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
    sys!(ioctl(socket, SIOCBRADDBR as _, name.as_ptr()))?;
    let mut request = Request { name: [0; 16], flags: libc::AF_INET as i16, rest: [0; 22] };
    let name = name.to_bytes();
    request.name[..name.len()].copy_from_slice(name);
    request.rest[2..6].copy_from_slice(&address);
    sys!(ioctl(socket, libc::SIOCSIFADDR as _, &raw const request))?;
    request.flags = (libc::IFF_UP | libc::IFF_MULTICAST) as i16;
    sys!(ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const request))?;
    fd::close(socket);
    Ok(())
}

/// Changes a harmless flag of the loopback and back, for those who listen.
///
/// # Errors
/// As for [`loopback_up`].
pub fn loopback_toggle() -> Outcome {
    change(|flags| flags ^ libc::IFF_ALLMULTI)?;
    change(|flags| flags ^ libc::IFF_ALLMULTI)
}

/// The value of an option of a socket, in words: its bytes or the errno.
#[must_use]
pub fn option(socket: i32, level: i32, name: i32) -> String {
    let mut value = [0_u8; 64];
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: room for the value, with its length.
    let got = unsafe { libc::getsockopt(socket, level, name, value.as_mut_ptr().cast(), &raw mut length) };
    if got == -1 { format!("errno {}", sys::errno()) } else { format!("{:?}", &value[..length as usize]) }
}
