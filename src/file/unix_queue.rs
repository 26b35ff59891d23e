//! What a unix socket has received and nobody has read.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::{Opener, State, World, unix_name};
use crate::error::{Context, Error, Refusal, Result};
use crate::sys::{descriptor, ioctl, socket};

const KIND: &str = "unix";
const SO_PASSCRED: i32 = 16;
const SO_PEEK_OFF: i32 = 42;
/// A datagram is at most the sender's buffer, which is at most net.core.wmem_max for all but root.
const LARGEST: usize = 1 << 20;
/// What the kernel charges for a message beside its bytes, at most.
const OVERHEAD: usize = 1024;

crate::section! {
    /// A message, or a run of a stream's bytes from one sender.
    pub struct Message {
        /// The bytes.
        pub bytes: Vec<u8>,
        /// pid, uid and gid of the sender, if the receiver asks for them and the message has them.
        pub who: Option<[u32; 3]>,
        /// The sender's address without the family.
        pub from: Vec<u8>,
    }
}

/// Reads the queue without taking anything.
///
/// # Errors
/// A refusal for descriptors in the queue, or a sender's address that nobody has.
pub fn read(fd: &OwnedFd, kind: i32, world: &World<'_>) -> Result<Vec<Message>, Refusal> {
    if !readable(fd).context(KIND, format_args!("looking at the queue"))? {
        return Ok(Vec::new());
    }
    let peeking = format_args!("reading the queue");
    let before = socket::number(fd.as_fd(), libc::SOL_SOCKET, SO_PEEK_OFF).context(KIND, peeking)?;
    socket::set_number(fd.as_fd(), libc::SOL_SOCKET, SO_PEEK_OFF, 0).context(KIND, peeking)?;
    let messages = peek_all(fd, kind, world);
    // Also after an error: the socket is somebody else's.
    socket::set_number(fd.as_fd(), libc::SOL_SOCKET, SO_PEEK_OFF, before).context(KIND, peeking)?;
    messages
}

fn readable(fd: &OwnedFd) -> nix::Result<bool> {
    Ok(descriptor::ready(fd.as_fd(), libc::POLLIN)? & libc::POLLIN != 0)
}

fn peek_all(fd: &OwnedFd, kind: i32, world: &World<'_>) -> Result<Vec<Message>, Refusal> {
    let credentials = socket::number(fd.as_fd(), libc::SOL_SOCKET, SO_PASSCRED).unwrap_or(0) != 0;
    let stream = kind == libc::SOCK_STREAM;
    // For datagrams the kernel tells only the first one's length.
    let total =
        ioctl::get(fd.as_fd(), &ioctl::UNREAD).context(KIND, format_args!("asking what is unread"))?;
    let total = usize::try_from(total).unwrap_or(0);
    let len = if stream { total } else { LARGEST };
    let mut messages: Vec<Message> = Vec::new();
    let mut count = 0;
    while !stream || count < total {
        let seen = match socket::peek(fd.as_fd(), len, credentials) {
            Err(Errno::EAGAIN) => break,
            other => other.context(KIND, format_args!("reading the queue"))?,
        };
        if seen.more {
            let reason = "descriptors are on their way in its queue (SCM_RIGHTS)";
            return Err(Refusal::new(reason, "call `rcsnap ready` when the daemons are idle"));
        }
        if seen.cut || messages.len() > 10_000 {
            return Err(Refusal::new(
                "its queue is too long",
                "call `rcsnap ready` when the daemons are idle",
            ));
        }
        // The end of a stream or of a seqpacket connection.
        if seen.bytes.is_empty() && kind != libc::SOCK_DGRAM {
            break;
        }
        count += seen.bytes.len();
        let from =
            if kind == libc::SOCK_DGRAM { seen.from.get(2..).unwrap_or(&[]).to_vec() } else { Vec::new() };
        if !from.is_empty() && unix_name::holder(&from, world).is_none() {
            let reason = "a datagram in its queue is from an address that nobody in the image has";
            return Err(Refusal::new(reason, "call `rcsnap ready` when the daemons are idle"));
        }
        // A message without a sender shows process 0.
        let who = seen.who.filter(|who| who[0] != 0);
        messages.push(Message { bytes: seen.bytes, who, from });
    }
    if stream && count != total {
        return Err(
            Error::new(KIND, "reading the queue", format!("{count} of {total} bytes were there")).into()
        );
    }
    Ok(messages)
}

/// Sends the messages to `fd` again: from its peer, or to its address from whoever sent them.
///
/// # Errors
/// The errno of the calls.
pub fn write(
    messages: &[Message],
    fd: &OwnedFd,
    name: &[u8],
    peer: Option<&OwnedFd>,
    opener: &Opener,
) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let doing = format_args!("filling the queue");
    let unnamed = match peer {
        Some(_) => None,
        None => Some(socket::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0).context(KIND, doing)?),
    };
    let address = if peer.is_some() { Vec::new() } else { unix_name::address(name) };
    let mut total = 0;
    for message in messages {
        total += message.bytes.len() + OVERHEAD;
        let sender = if message.from.is_empty() { None } else { named(&message.from, opener) };
        let sender = sender.or(peer.map(AsFd::as_fd)).or(unnamed.as_ref().map(AsFd::as_fd));
        let sender = sender.ok_or_else(|| Error::new(KIND, doing.to_string(), "nobody can send it"))?;
        // The queue once fitted, but small messages may have been joined: the sender's limit is lifted.
        let need = i32::try_from(total).unwrap_or(i32::MAX / 4);
        let limit = socket::number(sender, libc::SOL_SOCKET, libc::SO_SNDBUF).context(KIND, doing)?;
        let lifted = with_option(sender, libc::SO_SNDBUFFORCE, limit / 2, need.max(limit / 2), &|| {
            // A socket that asks for credentials gets ours, if the message brings none.
            with_credentials_off(fd.as_fd(), &|| {
                with_credentials_off(sender, &|| send(sender, message, &address))
            })
        });
        lifted.context(KIND, doing)?;
    }
    Ok(())
}

/// Runs `work` while an option has another value.
fn with_option(
    fd: BorrowedFd<'_>,
    name: i32,
    before: i32,
    value: i32,
    work: &dyn Fn() -> nix::Result<()>,
) -> nix::Result<()> {
    if value == before {
        return work();
    }
    socket::set_number(fd, libc::SOL_SOCKET, name, value)?;
    let done = work();
    socket::set_number(fd, libc::SOL_SOCKET, name, before)?;
    done
}

fn with_credentials_off(fd: BorrowedFd<'_>, work: &dyn Fn() -> nix::Result<()>) -> nix::Result<()> {
    let before = socket::number(fd, libc::SOL_SOCKET, SO_PASSCRED)?;
    with_option(fd, SO_PASSCRED, before, 0, work)
}

fn send(sender: BorrowedFd<'_>, message: &Message, to: &[u8]) -> nix::Result<()> {
    let mut rest = message.bytes.as_slice();
    loop {
        let sent = match socket::send(sender, rest, message.who, to) {
            // That process is gone.
            Err(Errno::ESRCH) => socket::send(sender, rest, None, to)?,
            other => other?,
        };
        rest = rest.get(sent..).unwrap_or(&[]);
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// The open socket with this address.
fn named<'a>(name: &[u8], opener: &'a Opener) -> Option<BorrowedFd<'a>> {
    let at = opener.entries.iter().position(|entry| match &entry.state {
        State::Unix(state) => state.kind == libc::SOCK_DGRAM && state.name == name,
        _ => false,
    })?;
    opener.open.get(at)?.as_ref().map(AsFd::as_fd)
}
