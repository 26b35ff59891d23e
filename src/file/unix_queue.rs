//! What a unix socket has received and nobody has read.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::{Description, Opener, State, World, holder, unix_name};
use crate::error::{Context, Error, Refusal, Result};
use crate::sorted::Listed;
use crate::sys::socket::{Peeked, With};
use crate::sys::{descriptor, ioctl, socket};

const KIND: &str = "unix";
const SO_PASSCRED: i32 = 16;
const SO_PEEK_OFF: i32 = 42;
/// A datagram is at most the sender's buffer, which is at most net.core.wmem_max for all but root.
const LARGEST: usize = 1 << 20;
/// The remedy for what is only now in a queue.
const LATER: &str = "call `rcsnap ready` when the daemons are idle";
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
        /// Entries of the descriptors that come with it. A peek at a stream also brings those behind the bytes that it
        /// brings, so nobody can tell where in a run they were: they come with its first byte.
        pub rights: Vec<u32>,
    }
}

/// The queue of a socket, as it was seen.
///
/// # Errors
/// A refusal for what cannot be sent again, or a sender's address that nobody has.
pub fn read(desc: &Description, kind: i32, world: &World<'_>) -> Result<Vec<Message>, Refusal> {
    let mut messages: Vec<Message> = Vec::new();
    for seen in desc.queue.as_ref().map_err(Clone::clone)? {
        let from =
            if kind == libc::SOCK_DGRAM { seen.from.get(2..).unwrap_or(&[]).to_vec() } else { Vec::new() };
        if !from.is_empty() && unix_name::holder(&from, world).is_none() {
            let reason = "a datagram in its queue is from an address that nobody in the image has";
            return Err(Refusal::new(reason, LATER));
        }
        let rights = seen.rights.iter().map(|fd| entry(fd, world)).whole()?;
        // A message without a sender shows process 0.
        let who = seen.who.filter(|who| who[0] != 0);
        messages.push(Message { bytes: seen.bytes.clone(), who, from, rights });
    }
    Ok(messages)
}

/// The entry of a descriptor that is on its way.
fn entry(fd: &OwnedFd, world: &World<'_>) -> Result<u32, Refusal> {
    let found = holder::find(fd.as_fd(), world.descriptions).context(KIND, format_args!("comparing"))?;
    match found.and_then(|at| world.descriptions.get(at)) {
        // They are opened when the queues are full.
        Some(found) if matches!(found.anonymous(), Some("eventpoll" | "inotify")) => {
            Err(Refusal::new("an epoll or inotify is on its way in its queue (SCM_RIGHTS)", LATER))
        }
        Some(found) => Ok(found.entry),
        None => Err(Error::new(KIND, "reading the queue", "an unknown descriptor is in it").into()),
    }
}

/// Reads the queue of a unix socket without taking anything; of anything else there is none. To be called once: an
/// empty datagram is shown by one peek only.
///
/// # Errors
/// A refusal if it is too long.
pub fn look(fd: &OwnedFd) -> Result<Vec<Peeked>, Refusal> {
    let number = |name| socket::number(fd.as_fd(), libc::SOL_SOCKET, name);
    let is = |name| number(name).unwrap_or(0);
    let readable = descriptor::ready(fd.as_fd(), libc::POLLIN).is_ok_and(|ready| ready & libc::POLLIN != 0);
    if is(libc::SO_DOMAIN) != libc::AF_UNIX || is(libc::SO_ACCEPTCONN) != 0 || !readable {
        return Ok(Vec::new());
    }
    let peeking = format_args!("reading the queue");
    let kind = number(libc::SO_TYPE).context(KIND, peeking)?;
    let before = number(SO_PEEK_OFF).context(KIND, peeking)?;
    socket::set_number(fd.as_fd(), libc::SOL_SOCKET, SO_PEEK_OFF, 0).context(KIND, peeking)?;
    let seen = peek_all(fd, kind);
    // Also after an error: the socket is somebody else's.
    socket::set_number(fd.as_fd(), libc::SOL_SOCKET, SO_PEEK_OFF, before).context(KIND, peeking)?;
    seen
}

fn peek_all(fd: &OwnedFd, kind: i32) -> Result<Vec<Peeked>, Refusal> {
    let stream = kind == libc::SOCK_STREAM;
    // For datagrams the kernel tells only the first one's length.
    let total =
        ioctl::get(fd.as_fd(), &ioctl::UNREAD).context(KIND, format_args!("asking what is unread"))?;
    let total = usize::try_from(total).unwrap_or(0);
    let len = if stream { total } else { LARGEST };
    let (mut messages, mut count) = (Vec::new(), 0);
    while !stream || count < total {
        let seen = match socket::peek(fd.as_fd(), len) {
            Err(Errno::EAGAIN) => break,
            other => other.context(KIND, format_args!("reading the queue"))?,
        };
        if seen.cut || seen.more || messages.len() > 10_000 {
            return Err(Refusal::new("its queue is too long", LATER));
        }
        // The end of a stream or of a seqpacket connection.
        if seen.bytes.is_empty() && kind != libc::SOCK_DGRAM {
            break;
        }
        count += seen.bytes.len();
        messages.push(seen);
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
        let closed = || Error::new(KIND, doing.to_string(), "it is not open");
        let open = |entry: &u32| opener.get(*entry).map(|fd| fd.as_raw_fd().cast_unsigned());
        let rights: Vec<u32> = message.rights.iter().map(|entry| open(entry).ok_or_else(closed)).whole()?;
        // The queue once fitted, but small messages may have been joined: the sender's limit is lifted.
        let need = i32::try_from(total).unwrap_or(i32::MAX / 4);
        let limit = socket::number(sender, libc::SOL_SOCKET, libc::SO_SNDBUF).context(KIND, doing)?;
        let lifted = with_option(sender, libc::SO_SNDBUFFORCE, limit / 2, need.max(limit / 2), &|| {
            // A socket that asks for credentials gets ours, if the message brings none.
            with_credentials_off(fd.as_fd(), &|| {
                with_credentials_off(sender, &|| send(sender, message, &rights, &address))
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

fn send(sender: BorrowedFd<'_>, message: &Message, rights: &[u32], to: &[u8]) -> nix::Result<()> {
    let mut rest = message.bytes.as_slice();
    let mut with = With { who: message.who, rights, to };
    loop {
        let sent = match socket::send(sender, rest, with) {
            // That process is gone.
            Err(Errno::ESRCH) if with.who.is_some() => {
                with.who = None;
                continue;
            }
            other => other?,
        };
        with.rights = &[];
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
