//! Netlink messages (netlink(7)): asking for a table, sending one change, and what both are made of.
//!
//! No `unsafe` is needed here. Numbers are those of include/uapi/linux/{netlink,rtnetlink}.h.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use super::socket::socket;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;

/// NLM_F_REPLACE.
pub const REPLACE: u16 = 0x100;
/// NLM_F_EXCL.
pub const EXCLUSIVE: u16 = 0x200;
/// NLM_F_CREATE.
pub const CREATE: u16 = 0x400;
/// NLM_F_APPEND.
pub const APPEND: u16 = 0x800;

/// NLA_F_NESTED and NLA_F_NET_BYTEORDER: marks in the type of an attribute.
const MARKS: u16 = 0xc000;
const HEADER: usize = 16;

/// One message of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub kind: u16,
    /// What follows the header.
    pub body: Vec<u8>,
}

/// A socket for requests.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Links, addresses, routes and neighbours.
    ///
    /// # Errors
    /// The errno of socket(2).
    pub fn route() -> Result<Socket, Errno> {
        Socket::open(libc::NETLINK_ROUTE)
    }

    /// Packet filters.
    ///
    /// # Errors
    /// The errno of socket(2).
    pub fn netfilter() -> Result<Socket, Errno> {
        Socket::open(libc::NETLINK_NETFILTER)
    }

    /// IPsec.
    ///
    /// # Errors
    /// The errno of socket(2).
    pub fn ipsec() -> Result<Socket, Errno> {
        Socket::open(libc::NETLINK_XFRM)
    }

    /// What the kernel records for audit.
    ///
    /// # Errors
    /// The errno of socket(2).
    pub fn audit() -> Result<Socket, Errno> {
        Socket::open(libc::NETLINK_AUDIT)
    }

    /// Sockets of all kinds.
    ///
    /// # Errors
    /// The errno of socket(2).
    pub fn diagnosis() -> Result<Socket, Errno> {
        Socket::open(libc::NETLINK_SOCK_DIAG)
    }

    /// Families of generic netlink.
    ///
    /// # Errors
    /// The errno of socket(2).
    pub fn generic() -> Result<Socket, Errno> {
        Socket::open(libc::NETLINK_GENERIC)
    }

    /// The first message binds it.
    fn open(protocol: i32) -> Result<Socket, Errno> {
        let fd = socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)?;
        Ok(Socket { fd, sequence: 0, buffer: vec![0; 64 << 10] })
    }

    /// All entries of a table. Starts again if it changed meanwhile.
    ///
    /// # Errors
    /// What the kernel answers; EOPNOTSUPP for a table that it does not have.
    pub fn dump(&mut self, kind: u16, header: &[u8]) -> Result<Vec<Message>, Errno> {
        loop {
            self.send(kind, NLM_F_DUMP, header)?;
            let mut found = Vec::new();
            if !self.receive(&mut found, usize::MAX)? {
                return Ok(found);
            }
        }
    }

    /// Sends one change and waits for the kernel's answer.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn change(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
        self.send(kind, NLM_F_ACK | flags, body)?;
        self.receive(&mut Vec::new(), usize::MAX).map(drop)
    }

    /// What follows the header of the one message that answers a question.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn ask(&mut self, kind: u16) -> Result<Vec<u8>, Errno> {
        self.send(kind, 0, &[])?;
        let mut found = Vec::new();
        self.receive(&mut found, 1)?;
        Ok(found.pop().map(|message| message.body).unwrap_or_default())
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let len = u32::try_from(HEADER + body.len()).map_err(|_| Errno::EMSGSIZE)?;
        let mut message = len.to_ne_bytes().to_vec();
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(body);
        send(self.fd.as_raw_fd(), &message, MsgFlags::empty()).map(drop)
    }

    /// Reads up to the end of an answer, or so many messages; whether the table changed meanwhile.
    fn receive(&mut self, found: &mut Vec<Message>, most: usize) -> Result<bool, Errno> {
        let mut interrupted = false;
        while found.len() < most {
            let len = recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC)?;
            let mut rest = self.buffer.get(..len).ok_or(Errno::EMSGSIZE)?;
            while let Some(header) = rest.get(..HEADER) {
                let len = usize::try_from(u32_at(header, 0)).map_err(|_| Errno::EBADMSG)?;
                let body = rest.get(HEADER..len).ok_or(Errno::EBADMSG)?;
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
                if u32_at(header, 8) != self.sequence {
                    continue;
                }
                interrupted |= u16_at(header, 6) & NLM_F_DUMP_INTR != 0;
                match u16_at(header, 4) {
                    // An acknowledgement is an error with the number 0; the end of a dump has one too.
                    kind @ (NLMSG_ERROR | NLMSG_DONE) => {
                        let code = i32::from_ne_bytes(u32_at(body, 0).to_ne_bytes());
                        if code < 0 {
                            return Err(Errno::from_raw(-code));
                        }
                        if kind == NLMSG_DONE || code == 0 {
                            return Ok(interrupted);
                        }
                    }
                    kind => found.push(Message { kind, body: body.to_vec() }),
                }
            }
        }
        Ok(interrupted)
    }
}

/// A number of 32 bits at an offset; 0 beyond the end.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// A number of 16 bits at an offset; 0 beyond the end.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

/// A byte at an offset; 0 beyond the end.
#[must_use]
pub fn u8_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// The attributes after `skip` bytes of a fixed header, as (type without marks, value).
#[must_use]
pub fn attributes(body: &[u8], skip: usize) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    let mut rest = body.get(skip.next_multiple_of(4)..).unwrap_or(&[]);
    while rest.len() >= 4 {
        let len = usize::from(u16_at(rest, 0));
        let Some(value) = rest.get(4..len) else { break };
        found.push((u16_at(rest, 2) & !MARKS, value));
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    found
}

/// The value of one attribute.
#[must_use]
pub fn find<'a>(attributes: &[(u16, &'a [u8])], kind: u16) -> Option<&'a [u8]> {
    attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value)
}

/// The value of an attribute as text, without its end.
#[must_use]
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&b| b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or(value)).into_owned()
}

/// Appends an attribute.
pub fn put(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend_from_slice(&len.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Appends a text with its end.
pub fn put_text(body: &mut Vec<u8>, kind: u16, text: &str) {
    let mut value = text.as_bytes().to_vec();
    value.push(0);
    put(body, kind, &value);
}

#[cfg(test)]
mod tests {
    use super::{attributes, find, put, put_text, text};

    #[test]
    fn attributes_come_back() {
        let mut body = vec![1, 2, 3, 4];
        put_text(&mut body, 3, "eth0");
        put(&mut body, 0x8012, &[7]);
        let found = attributes(&body, 4);
        assert_eq!(text(find(&found, 3).unwrap()), "eth0");
        assert_eq!(find(&found, 0x12), Some([7].as_slice()));
        assert_eq!(body.len() % 4, 0);
    }

    #[test]
    fn short_attributes_end_the_list() {
        assert!(attributes(&[200, 0, 1, 0, 9], 0).is_empty());
        assert!(attributes(&[3, 0, 1, 0], 0).is_empty());
        assert!(attributes(&[], 16).is_empty());
    }
}
