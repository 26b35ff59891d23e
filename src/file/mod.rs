//! Open file descriptions, one file a kind.
//!
//! The unit is the open file description (open(2), "Open file descriptions"), not the descriptor: offset,
//! status flags, owner and locks belong to it, and several descriptors of several processes may share it.
//! `capture` finds which descriptors share one (kcmp(2)) and asks the kind for its `State`; `restore` opens
//! each once, in the conductor, and the puppets take their descriptors from there with pidfd_getfd(2).

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Error, Result};
use crate::proc::fdinfo::FdInfo;

/// What fstat(2) says of a description.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stat {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Hard links; 0 means deleted.
    pub nlink: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// One open file description as capture meets it. All tasks are frozen.
#[derive(Debug)]
pub struct Description {
    /// Our own copy (pidfd_getfd(2)): the same description, so what is done to it the owner sees too.
    pub fd: OwnedFd,
    /// The link text of /proc/PID/fd/N.
    pub link: String,
    /// /proc/PID/fdinfo/N of one holder. `flags` has no O_CLOEXEC here.
    pub info: FdInfo,
    /// fstat(2).
    pub stat: Stat,
    /// Every descriptor that refers to it, (pid, fd), sorted.
    pub holders: Vec<(u32, i32)>,
}

impl Description {
    /// The text between the brackets of an anonymous inode's link: `eventfd` for `anon_inode:[eventfd]`.
    #[must_use]
    pub fn anonymous(&self) -> Option<&str> {
        let name = self.link.strip_prefix("anon_inode:")?;
        Some(name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name))
    }

    /// Whether the file has no name any more.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.stat.nlink == 0 || self.link.ends_with(" (deleted)")
    }
}

/// What is captured: everything under PID 1, or one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole system, with the state of the kernel.
    System,
    /// One process tree; what is shared with the outside is an obstacle.
    Tree,
}

crate::section! {
    /// Who gets SIGIO and SIGURG (F_SETOWN_EX), and which signal is sent instead (F_SETSIG).
    pub struct Owner {
        /// F_OWNER_TID 0, F_OWNER_PID 1, F_OWNER_PGRP 2.
        pub kind: i32,
        /// The thread, process or process group.
        pub id: i32,
        /// The signal; 0 means SIGIO.
        pub signal: i32,
    }
}

crate::section! {
    /// One open file description in the image.
    pub struct Entry {
        /// Status flags to set again: O_APPEND, O_NONBLOCK, O_ASYNC, O_DIRECT, O_NOATIME and the access mode.
        pub flags: i32,
        /// Who gets its signals, if anybody was named.
        pub owner: Option<Owner>,
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
    }
}

/// What kinds may ask about the rest of the frozen world during a capture.
pub struct World<'a> {
    /// Whole system or tree.
    pub scope: Scope,
    /// Every description of every task in the image; the index is the entry number.
    pub descriptions: &'a [Description],
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
/// it with a batch in the puppet `who.pid`; a pid that is not in the image is an error.
pub trait Actor {
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

/// What kinds share while descriptions are being opened again.
pub struct Opener<'a> {
    /// The file table of the image.
    pub entries: &'a [Entry],
    /// What is open so far, by entry number. All numbers are at least `base`.
    pub open: Vec<Option<OwnedFd>>,
    /// Numbers below it are free in the conductor, so that an epoll target can be added under its own.
    pub base: i32,
    /// Calls in the name of a puppet.
    pub actor: &'a mut dyn Actor,
    /// Ends already made for another description, by the kind's own key (a pipe's inode number).
    pub ends: BTreeMap<u64, Vec<OwnedFd>>,
}

impl Opener<'_> {
    /// The descriptor of an entry that is already open.
    #[must_use]
    pub fn get(&self, entry: u32) -> Option<BorrowedFd<'_>> {
        self.open.get(entry as usize)?.as_ref().map(AsFd::as_fd)
    }
}
