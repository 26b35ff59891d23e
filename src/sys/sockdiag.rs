//! What the kernel knows of all unix sockets of this network namespace (sock_diag(7), linux/unix_diag.h).
//!
//! Peers, backlogs and shutdown states cannot be asked of a socket itself. Needs the `unix_diag` module.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::socket;
use crate::sorted::Map;

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// UDIAG_SHOW_VFS | UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS | UDIAG_SHOW_RQLEN.
const SHOW: u32 = 0x1e;

/// One unix socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unix {
    /// TCP_ESTABLISHED 1, TCP_CLOSE 7, TCP_LISTEN 10.
    pub state: u8,
    /// Device (kernel encoding) and inode number of the file it is bound to.
    pub file: Option<(u32, u32)>,
    /// The peer's inode number; 0 if the peer is gone.
    pub peer: Option<u32>,
    /// Connections that nobody has accepted yet.
    pub waiting: usize,
    /// For a listening socket the length of the queue and of the backlog.
    pub queue: (u32, u32),
    /// RCV_SHUTDOWN 1, SEND_SHUTDOWN 2.
    pub shutdown: u8,
}

/// All unix sockets, by inode number.
///
/// # Errors
/// The errno of the calls; `ENOENT` if the kernel has no `unix_diag`.
pub fn unix() -> Result<Map<u64, Unix>, Errno> {
    let netlink = socket::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG)?;
    let mut request = Vec::new();
    // nlmsghdr: length, type, NLM_F_REQUEST | NLM_F_DUMP, sequence, port.
    request.extend_from_slice(&40_u32.to_ne_bytes());
    request.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&0x301_u16.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    // unix_diag_req: family, protocol, padding; all states; any inode; what to show; no cookie.
    request.extend_from_slice(&[1, 0, 0, 0]);
    for word in [u32::MAX, 0, SHOW, 0, 0] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    socket::send(netlink.as_fd(), &request, None, &[])?;
    let mut found = Vec::new();
    while !answer(&netlink, &mut found)? {}
    Ok(found.into())
}

/// Reads one packet of the answer; whether it was the last.
fn answer(netlink: &OwnedFd, found: &mut Vec<(u64, Unix)>) -> Result<bool, Errno> {
    let packet = socket::receive(netlink.as_fd(), 32 * 1024, 0)?;
    let mut rest = packet.as_slice();
    while let Some(header) = rest.get(..16) {
        let len = usize::try_from(word(header, 0)).unwrap_or(0);
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = rest.get(16..len).ok_or(Errno::EBADMSG)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => return Err(Errno::from_raw(-i32::from_ne_bytes(word(body, 0).to_ne_bytes()))),
            _ => {
                if let Some((inode, socket)) = one(body) {
                    found.push((inode.into(), socket));
                }
            }
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(false)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    bytes.map_or(0, u32::from_ne_bytes)
}

/// unix_diag_msg: family, type, state, padding, inode, cookie; then attributes.
fn one(body: &[u8]) -> Option<(u32, Unix)> {
    let mut socket = Unix { state: *body.get(2)?, ..Unix::default() };
    let inode = word(body, 4);
    let mut rest = body.get(16..)?;
    while rest.len() >= 4 {
        let len = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]);
        let value = rest.get(4..len)?;
        match kind {
            1 => socket.file = Some((word(value, 4), word(value, 0))),
            2 => socket.peer = Some(word(value, 0)),
            3 => socket.waiting = value.len() / 4,
            4 => socket.queue = (word(value, 0), word(value, 4)),
            6 => socket.shutdown = *value.first()?,
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Some((inode, socket))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    #[test]
    fn pair_is_found_with_its_peers() {
        let (a, b) = super::socket::pair(libc::SOCK_STREAM).unwrap();
        super::socket::shutdown(a.as_fd(), 1).unwrap();
        let inode = |fd| nix::sys::stat::fstat(fd).unwrap().st_ino;
        let found = super::unix().unwrap();
        let (first, second) = (&found[&inode(&a)], &found[&inode(&b)]);
        assert_eq!(first.peer.map(u64::from), Some(inode(&b)));
        assert_eq!((first.state, first.shutdown, second.shutdown), (1, 2, 1));
    }
}
