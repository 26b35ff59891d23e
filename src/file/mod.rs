//! Open file descriptions, one file a kind.
//!
//! The unit is the open file description (open(2), "Open file descriptions"), not the descriptor: offset,
//! status flags, owner and locks belong to it, and several descriptors of several processes may share it.
//! [`capture`] finds which descriptors share one (kcmp(2)) and asks the kind for its `State`; [`restore`]
//! opens each once, in the conductor, and the puppets take their descriptors from there with
//! pidfd_getfd(2).
//!
//! - `holder` lists descriptors and groups them; `table` runs both directions; `place` finds a named file
//!   again; `content` carries the bytes of nameless files; `lock` and `owner` belong to every description;
//!   `world` answers what kinds ask about everything else.
//! - `sort` tells the kinds apart. Everything else is a kind.

pub mod content;
pub mod deleted;
pub mod device;
pub mod directory;
pub mod epoll;
pub mod eventfd;
pub mod fifo;
pub mod holder;
pub mod inet;
pub mod inet_address;
pub mod inet_pair;
pub mod inotify;
pub mod lock;
pub mod memfd;
pub mod multicast;
pub mod netlink;
pub mod nsfs;
pub mod options;
pub mod owner;
pub mod packet;
pub mod path;
pub mod pidfd;
pub mod pipe;
pub mod place;
pub mod pty;
pub mod pty_queue;
pub mod regular;
pub mod signalfd;
mod sort;
pub mod table;
pub mod timerfd;
pub mod tty;
pub mod unix;
pub mod unix_name;
pub mod unix_peer;
pub mod unix_queue;
pub mod world;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

pub use table::{Captured, Request, capture, floor, required, restore};
pub use world::{Known, Scope, World};

use crate::error::{Context, Error, Refusal, Result};
use crate::proc::fdinfo::FdInfo;
use crate::sorted::Map;
use crate::sys::descriptor;
use crate::sys::socket::Peeked;
pub use crate::sys::stat::Stat;
use crate::task::namespace::Spaces;

/// One open file description as capture meets it. All tasks are frozen.
#[derive(Debug)]
pub struct Description {
    /// Its number in the file table.
    pub entry: u32,
    /// Our own copy (pidfd_getfd(2)): the same description, so what is done to it the owner sees too.
    pub fd: OwnedFd,
    /// The link text of /proc/PID/fd/N.
    pub link: String,
    /// /proc/PID/fdinfo/N of the first holder. `flags` has no O_CLOEXEC here.
    pub info: FdInfo,
    /// fstat(2).
    pub stat: Stat,
    /// Every descriptor that refers to it, (pid, fd), sorted.
    pub holders: Vec<(u32, i32)>,
    /// Which of the caller's externals it is.
    pub external: Option<u32>,
    /// What is in the queue of a unix socket.
    pub queue: Result<Vec<Peeked>, Refusal>,
    /// Where its name or its address means it.
    pub spaces: Spaces,
}

impl Description {
    /// The text between the brackets of an anonymous inode's link: `eventfd` for `anon_inode:[eventfd]`.
    #[must_use]
    pub fn anonymous(&self) -> Option<&str> {
        let name = self.link.strip_prefix("anon_inode:")?;
        Some(name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name))
    }

    /// Whether the file has no name any more. A name may really end in " (deleted)", so links count.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.link.ends_with(" (deleted)") && self.stat.nlink == 0
    }

    /// Whether it is a place that was not opened (O_PATH).
    #[must_use]
    pub fn is_path(&self) -> bool {
        self.info.flags & libc::O_PATH != 0
    }

    /// Whether another one is open on the same object: no place that was not opened.
    #[must_use]
    pub fn shares_object(&self, other: &Description) -> bool {
        (other.stat.dev, other.stat.ino) == (self.stat.dev, self.stat.ino) && !other.is_path()
    }

    /// Whether it can be read through.
    #[must_use]
    pub fn reads(&self) -> bool {
        self.info.flags & libc::O_ACCMODE != libc::O_WRONLY
    }

    /// Whether it can be written through.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.info.flags & libc::O_ACCMODE != libc::O_RDONLY
    }
}

crate::section! {
    /// One open file description in the image.
    pub struct Entry {
        /// Flags to open it with and to set again: access mode, O_APPEND, O_NONBLOCK, O_ASYNC, O_DIRECT,
        /// O_NOATIME, O_SYNC, O_PATH. Those that only act at open(2), as O_CREAT and O_TRUNC, are left out.
        pub flags: i32,
        /// Who gets its signals, if anybody was named.
        pub owner: Option<owner::State>,
        /// Locks that belong to the description: flock(2) and OFD.
        pub locks: Vec<lock::State>,
        /// Where it is opened.
        pub spaces: Spaces,
        /// What the kind needs to rebuild it.
        pub state: State,
    }
}

crate::section! {
    /// One descriptor of a process.
    pub struct Fd {
        /// Its number.
        pub fd: i32,
        /// Index of its description in the file table.
        pub entry: u32,
        /// FD_CLOEXEC.
        pub cloexec: bool,
    }
}

crate::section! {
    /// The state of a description, by kind.
    pub enum State {
        /// A description that `restore` is given by its caller: number in the list of externals (tree only).
        External(u32),
        /// A file with a name.
        Regular(Box<regular::State>),
        /// An open directory.
        Directory(Box<directory::State>),
        /// A place in the tree that was not opened (O_PATH).
        Path(Box<path::State>),
        /// A file or directory without a name.
        Deleted(Box<deleted::State>),
        /// One end of a pipe.
        Pipe(Box<pipe::State>),
        /// One end of a named pipe.
        Fifo(Box<fifo::State>),
        /// A counter.
        Eventfd(Box<eventfd::State>),
        /// A timer.
        Timerfd(Box<timerfd::State>),
        /// Signals as input.
        Signalfd(Box<signalfd::State>),
        /// A set of watched descriptions.
        Epoll(Box<epoll::State>),
        /// A device without state of its own.
        Device(Box<device::State>),
        /// A terminal.
        Tty(Box<tty::State>),
        /// An end of a pseudo-terminal.
        Pty(Box<pty::State>),
        /// Memory with a descriptor.
        Memfd(Box<memfd::State>),
        /// A handle of a process.
        Pidfd(Box<pidfd::State>),
        /// A unix socket.
        Unix(Box<unix::State>),
        /// A socket of IPv4 or IPv6.
        Inet(Box<inet::State>),
        /// A netlink socket.
        Netlink(Box<netlink::State>),
        /// A packet socket.
        Packet(Box<packet::State>),
        /// Watches for changes of files.
        Inotify(Box<inotify::State>),
        /// A handle of a namespace.
        Nsfs(Box<nsfs::State>),
    }
}

impl State {
    /// The name of the kind.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            State::External(_) => "external",
            State::Regular(_) => "regular",
            State::Directory(_) => "directory",
            State::Path(_) => "path",
            State::Deleted(_) => "deleted",
            State::Pipe(_) => "pipe",
            State::Fifo(_) => "fifo",
            State::Eventfd(_) => "eventfd",
            State::Timerfd(_) => "timerfd",
            State::Signalfd(_) => "signalfd",
            State::Epoll(_) => "epoll",
            State::Device(_) => "device",
            State::Tty(_) => "tty",
            State::Pty(_) => "pty",
            State::Memfd(_) => "memfd",
            State::Pidfd(_) => "pidfd",
            State::Unix(_) => "unix",
            State::Inet(_) => "inet",
            State::Netlink(_) => "netlink",
            State::Packet(_) => "packet",
            State::Inotify(_) => "inotify",
            State::Nsfs(_) => "nsfs",
        }
    }
}

/// Who did something that the kernel remembers (SO_PEERCRED of unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// The process.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// Does socket calls as another process, because the kernel records who did them. The restore implements
/// it with a batch in the puppet `who.pid`. It is not asked for a process that is no more: the kind makes a
/// child with that number for the moment.
pub trait Actor {
    /// Our descriptor of a namespace by its place in the list of the image; none for 0.
    ///
    /// # Errors
    /// The image has no such namespace.
    fn door(&self, _number: u32) -> Result<Option<RawFd>> {
        Ok(None)
    }
    /// Takes us from some namespaces to others.
    ///
    /// # Errors
    /// The errno of setns(2).
    fn go(&self, _from: &Spaces, _to: &Spaces) -> Result<()> {
        Ok(())
    }
    /// How far this clock of the puppets is ahead of ours; nothing, if theirs begin anew.
    fn ahead(&self, _clock: i32) -> Option<i64> {
        Some(0)
    }
    /// socketpair(2) of AF_UNIX with this type (SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET) as `who`.
    ///
    /// # Errors
    /// The errno of the call.
    fn socketpair(&mut self, who: &Who, kind: i32) -> Result<(OwnedFd, OwnedFd), Error>;
    /// listen(2) as `who` on a socket of the conductor.
    ///
    /// # Errors
    /// The errno of the call.
    fn listen(&mut self, who: &Who, socket: BorrowedFd<'_>, backlog: i32) -> Result<(), Error>;
    /// connect(2) as `who` on a socket of the conductor; `address` is the whole sockaddr.
    ///
    /// # Errors
    /// The errno of the call.
    fn connect(&mut self, who: &Who, socket: BorrowedFd<'_>, address: &[u8]) -> Result<(), Error>;
}

/// An object that several descriptions share: the kind, and the first entry that has it.
pub type Key = (&'static str, u32);

/// What kinds share while descriptions are being opened again.
pub struct Opener<'a> {
    /// The file table of the image.
    pub entries: &'a [Entry],
    /// The entry that is being opened.
    pub entry: u32,
    /// What is open so far, by entry number. All numbers are at least `base`.
    pub open: Vec<Option<OwnedFd>>,
    /// Numbers below it are free in the conductor, so that an epoll target can be added under its own.
    pub base: i32,
    /// Calls in the name of a puppet.
    pub actor: &'a mut dyn Actor,
    /// Objects that several descriptions share, open while the table is rebuilt.
    pub ends: Map<Key, OwnedFd>,
}

impl Opener<'_> {
    /// The descriptor of an entry that is already open.
    #[must_use]
    pub fn get(&self, entry: u32) -> Option<BorrowedFd<'_>> {
        self.open.get(usize::try_from(entry).ok()?)?.as_ref().map(AsFd::as_fd)
    }

    /// The flags of the entry that is being opened.
    #[must_use]
    pub fn flags(&self) -> i32 {
        usize::try_from(self.entry).ok().and_then(|i| self.entries.get(i)).map_or(0, |entry| entry.flags)
    }

    /// Opens what `fd` refers to once more, as a description of its own.
    ///
    /// # Errors
    /// The errno of open(2) on its link in /proc.
    pub fn again(fd: BorrowedFd<'_>, flags: i32, kind: &'static str) -> Result<OwnedFd> {
        place::open(&format!("/proc/self/fd/{}", fd.as_raw_fd()), flags, kind)
    }

    /// Keeps an object under a number of at least `base`.
    ///
    /// # Errors
    /// The errno of fcntl(2).
    pub fn keep(&mut self, key: Key, fd: OwnedFd) -> Result<()> {
        let fd = descriptor::raise(fd, self.base).context(key.0, format_args!("moving a descriptor"))?;
        self.ends.insert(key, fd);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod testing;
