//! Which kind a description is of, and the way to it in both directions.

use std::os::fd::{AsFd, OwnedFd};

use super::{
    Description, Entry, Opener, State, World, deleted, device, directory, epoll, eventfd, fifo, inet,
    inotify, memfd, netlink, nsfs, packet, path, pidfd, pipe, place, pty, regular, signalfd, timerfd, tty,
    unix,
};
use crate::error::{Error, Refusal, Result};
use crate::sys::socket;

const KIND: &str = "file";

/// What nobody knows how to carry, by the name in its link.
pub(super) fn unknown(desc: &Description) -> Refusal {
    let what = match socket::number(desc.fd.as_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN) {
        Ok(family) => format!("a socket of address family {family}"),
        Err(_) => desc.anonymous().unwrap_or(&desc.link).to_owned(),
    };
    Refusal::new(format!("{what} is not carried"), "start its owner after `rcsnap ready`, or add it to rerun")
}

/// The kinds, as far as a description shows its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Regular,
    Directory,
    Path,
    Deleted,
    Pipe,
    Fifo,
    Eventfd,
    Timerfd,
    Signalfd,
    Epoll,
    Device,
    Tty,
    Pty,
    Memfd,
    Pidfd,
    Unix,
    Inet,
    Netlink,
    Packet,
    Inotify,
    Nsfs,
}

/// The kind of a description, if it is one that is carried.
pub(super) fn sort(desc: &Description) -> Option<Sort> {
    if desc.is_path() {
        return Some(Sort::Path);
    }
    if let Some(name) = desc.anonymous() {
        return match name {
            "eventfd" => Some(Sort::Eventfd),
            "timerfd" => Some(Sort::Timerfd),
            "signalfd" => Some(Sort::Signalfd),
            "eventpoll" => Some(Sort::Epoll),
            "inotify" => Some(Sort::Inotify),
            "pidfd" => Some(Sort::Pidfd),
            _ => None,
        };
    }
    match desc.stat.format() {
        libc::S_IFREG if memfd::is_memfd(desc) => Some(Sort::Memfd),
        // Namespaces are made-up files without a path: `net:[4026531833]`.
        libc::S_IFREG if desc.link.ends_with(']') && place::magic(desc) == Ok(nsfs::MAGIC) => {
            Some(Sort::Nsfs)
        }
        libc::S_IFREG | libc::S_IFDIR if !desc.link.starts_with('/') => None,
        libc::S_IFREG | libc::S_IFDIR | libc::S_IFIFO if desc.is_deleted() => Some(Sort::Deleted),
        libc::S_IFREG => Some(Sort::Regular),
        libc::S_IFDIR => Some(Sort::Directory),
        libc::S_IFIFO if desc.link.starts_with("pipe:") => Some(Sort::Pipe),
        libc::S_IFIFO => Some(Sort::Fifo),
        libc::S_IFCHR if pty::is_pty(desc) => Some(Sort::Pty),
        libc::S_IFCHR if tty::is_tty(desc) => Some(Sort::Tty),
        libc::S_IFCHR | libc::S_IFBLK => Some(Sort::Device),
        libc::S_IFSOCK => family(desc),
        _ => None,
    }
}

/// The kind of a socket, by its domain.
fn family(desc: &Description) -> Option<Sort> {
    match socket::number(desc.fd.as_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN).ok()? {
        libc::AF_UNIX => Some(Sort::Unix),
        libc::AF_INET | libc::AF_INET6 => Some(Sort::Inet),
        libc::AF_NETLINK => Some(Sort::Netlink),
        libc::AF_PACKET => Some(Sort::Packet),
        _ => None,
    }
}

impl Sort {
    pub(super) fn name(self) -> &'static str {
        match self {
            Sort::Regular => "regular",
            Sort::Directory => "directory",
            Sort::Path => "path",
            Sort::Deleted => "deleted",
            Sort::Pipe => "pipe",
            Sort::Fifo => "fifo",
            Sort::Eventfd => "eventfd",
            Sort::Timerfd => "timerfd",
            Sort::Signalfd => "signalfd",
            Sort::Epoll => "epoll",
            Sort::Device => "device",
            Sort::Tty => "tty",
            Sort::Pty => "pty",
            Sort::Memfd => "memfd",
            Sort::Pidfd => "pidfd",
            Sort::Unix => "unix",
            Sort::Inet => "inet",
            Sort::Netlink => "netlink",
            Sort::Packet => "packet",
            Sort::Inotify => "inotify",
            Sort::Nsfs => "nsfs",
        }
    }

    pub(super) fn capture(self, desc: &Description, world: &World<'_>) -> Result<State, Refusal> {
        match self {
            Sort::Regular => regular::capture(desc, world).map(State::Regular),
            Sort::Directory => directory::capture(desc, world).map(State::Directory),
            Sort::Path => path::capture(desc, world).map(State::Path),
            Sort::Deleted => deleted::capture(desc, world).map(State::Deleted),
            Sort::Pipe => pipe::capture(desc, world).map(State::Pipe),
            Sort::Fifo => fifo::capture(desc, world).map(State::Fifo),
            Sort::Eventfd => eventfd::capture(desc, world).map(State::Eventfd),
            Sort::Timerfd => timerfd::capture(desc, world).map(State::Timerfd),
            Sort::Signalfd => signalfd::capture(desc, world).map(State::Signalfd),
            Sort::Epoll => epoll::capture(desc, world).map(State::Epoll),
            Sort::Device => device::capture(desc, world).map(State::Device),
            Sort::Tty => tty::capture(desc, world).map(State::Tty),
            Sort::Pty => pty::capture(desc, world).map(State::Pty),
            Sort::Memfd => memfd::capture(desc, world).map(State::Memfd),
            Sort::Pidfd => pidfd::capture(desc, world).map(State::Pidfd),
            Sort::Unix => unix::capture(desc, world).map(State::Unix),
            Sort::Inet => inet::capture(desc, world).map(State::Inet),
            Sort::Netlink => netlink::capture(desc, world).map(State::Netlink),
            Sort::Packet => packet::capture(desc, world).map(State::Packet),
            Sort::Inotify => inotify::capture(desc, world).map(State::Inotify),
            Sort::Nsfs => nsfs::capture(desc, world).map(State::Nsfs),
        }
    }
}

/// Opens one description.
///
/// # Errors
/// What its kind says.
pub(super) fn one(
    entry: &Entry,
    opener: &mut Opener<'_>,
    externals: &mut [Option<OwnedFd>],
) -> Result<OwnedFd> {
    match &entry.state {
        State::External(number) => externals
            .get_mut(*number as usize)
            .and_then(Option::take)
            .ok_or_else(|| Error::new(KIND, format!("taking external {number}"), "it was not given")),
        State::Regular(state) => regular::restore(state, opener),
        State::Directory(state) => directory::restore(state, opener),
        State::Path(state) => path::restore(state, opener),
        State::Deleted(state) => deleted::restore(state, opener),
        State::Pipe(state) => pipe::restore(state, opener),
        State::Fifo(state) => fifo::restore(state, opener),
        State::Eventfd(state) => eventfd::restore(state, opener),
        State::Timerfd(state) => timerfd::restore(state, opener),
        State::Signalfd(state) => signalfd::restore(state, opener),
        State::Epoll(state) => epoll::restore(state, opener),
        State::Device(state) => device::restore(state, opener),
        State::Tty(state) => tty::restore(state, opener),
        State::Pty(state) => pty::restore(state, opener),
        State::Memfd(state) => memfd::restore(state, opener),
        State::Pidfd(state) => pidfd::restore(state, opener),
        State::Unix(state) => unix::restore(state, opener),
        State::Inet(state) => inet::restore(state, opener),
        State::Netlink(state) => netlink::restore(state, opener),
        State::Packet(state) => packet::restore(state),
        State::Inotify(state) => inotify::restore(state, opener),
        State::Nsfs(state) => nsfs::restore(state, opener),
    }
}
