//! What the kernel knows of all unix sockets of this network namespace (sock_diag(7), linux/unix_diag.h).
//!
//! Peers, backlogs and shutdown states cannot be asked of a socket itself. Needs the `unix_diag` module.

use crate::sorted::Listed;
use nix::errno::Errno;

use super::netlink::{self, Socket, u32_at};
use crate::sorted::Map;

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
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
    // unix_diag_req: family, protocol, padding; all states; any inode; what to show; no cookie.
    let mut request = vec![1, 0, 0, 0];
    for word in [u32::MAX, 0, SHOW, 0, 0] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    let answer = Socket::diagnosis()?.dump(BY_FAMILY, &request)?;
    Ok(answer.iter().map(|message| one(&message.body)).list().into())
}

/// Whether there is a TCP connection between these ports whose first end is over, but has not sent everything.
#[must_use]
pub fn leaving(from: u16, to: u16) -> bool {
    let answer = |family| {
        // inet_diag_req_v2: family, protocol, two bytes; states; ports; addresses, interface and cookie, which may be any.
        let mut request = [0; 56];
        (request[0], request[1]) = (family, 6);
        // TCP_FIN_WAIT1.
        request[4..8].copy_from_slice(&(1_u32 << 4).to_ne_bytes());
        request[8..10].copy_from_slice(&from.to_be_bytes());
        request[10..12].copy_from_slice(&to.to_be_bytes());
        Socket::diagnosis()?.dump(BY_FAMILY, &request)
    };
    // An IPv6 socket may talk IPv4.
    [2, 10].into_iter().any(|family| answer(family).is_ok_and(|found| !found.is_empty()))
}

/// unix_diag_msg: family, type, state, padding, inode, cookie; then attributes.
fn one(body: &[u8]) -> (u64, Unix) {
    let attributes = netlink::attributes(body, 16);
    let value = |kind| netlink::find(&attributes, kind);
    let queue = value(4).unwrap_or_default();
    let socket = Unix {
        state: netlink::u8_at(body, 2),
        file: value(1).map(|file| (u32_at(file, 4), u32_at(file, 0))),
        peer: value(2).map(|peer| u32_at(peer, 0)),
        waiting: value(3).unwrap_or_default().len() / 4,
        queue: (u32_at(queue, 0), u32_at(queue, 4)),
        shutdown: netlink::u8_at(value(6).unwrap_or_default(), 0),
    };
    (u32_at(body, 4).into(), socket)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use crate::sys::socket;

    #[test]
    fn pair_is_found_with_its_peers() {
        let (a, b) = socket::pair(libc::SOCK_STREAM).unwrap();
        socket::shutdown(a.as_fd(), 1).unwrap();
        let inode = |fd| nix::sys::stat::fstat(fd).unwrap().st_ino;
        let found = super::unix().unwrap();
        let (first, second) = (&found[&inode(&a)], &found[&inode(&b)]);
        assert_eq!(first.peer.map(u64::from), Some(inode(&b)));
        assert_eq!((first.state, first.shutdown, second.shutdown), (1, 2, 1));
    }
}
