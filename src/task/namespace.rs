//! What: UTS, IPC, network and mount namespaces (namespaces(7)) that processes do not share with the first one.
//! Reads: /proc/PID/ns; what is in each by going there (setns(2)) and looking as at home: in a network or IPC
//!   namespace the difference to a fresh one, in a mount namespace the difference to the table of the first process.
//! Rebuilds: the conductor makes each (unshare(2)) and fills it, before the puppets; each puppet goes to its own as
//!   soon as it is made, so that its children are born there. Files and sockets are opened where they mean the same.
//! Loses: a namespace that no process lives in; the rest of a file system in memory of which only a directory is
//!   mounted.
//! Refuses: pid, user, cgroup and time namespaces; a thread that has one of its own; a mount namespace without
//!   /proc or with a file system in memory that another such namespace has too; what kinds of the
//!   kernel's state refuse; a pseudo-terminal that is opened in a mount namespace, and a file on storage that only
//!   such a namespace shows.

mod body;
mod door;
mod table;

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::stat::fstat;

pub use body::{Body, finish, restore};
pub use door::Doors;

use crate::error::{Context, Obstacle, Refusal, Result};
use crate::file::Description;
use crate::kernel::root::mounts_of;
use crate::proc::mountinfo::Mount;
use crate::sorted::Map;
use crate::sys::{fs, ioctl};
use crate::task::freeze::{Frozen, Process};

const KIND: &str = "namespace";

/// Those that are carried, in the order in which they are made: the name in /proc/PID/ns, and what unshare(2) takes.
pub const CARRIED: [(&str, CloneFlags); 4] = [
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("net", CloneFlags::CLONE_NEWNET),
    ("mnt", CloneFlags::CLONE_NEWNS),
];
/// Places in [`CARRIED`].
pub const IPC: usize = 1;
/// The network.
pub const NETWORK: usize = 2;
/// The mount table.
pub const MOUNT: usize = 3;
/// Those that are not carried.
const COMMON: [&str; 4] = ["pid", "pid_for_children", "user", "cgroup"];
/// A task's own and that of its next children, which all have from the first one.
const TIME: [&str; 2] = ["time", "time_for_children"];

crate::section! {
    /// Where a task is, or a description, by the order of [`CARRIED`]: 0 is the namespace of the first process,
    /// another number the place in the list of the image, counted from 1.
    pub struct Spaces {
        /// The numbers.
        pub of: [u32; 4],
    }
}

crate::section! {
    /// A namespace of an image.
    pub struct State {
        /// Where somebody in it is; its own number is among them.
        pub spaces: Spaces,
        /// What is in it.
        pub body: Body,
    }
}

impl Default for Spaces {
    fn default() -> Spaces {
        Spaces::HOME
    }
}

impl Spaces {
    /// Everything is that of the first process.
    pub const HOME: Spaces = Spaces { of: [0; 4] };

    /// What stands before every path for somebody who is there.
    #[must_use]
    pub fn root<'a>(&self, prefix: &'a str) -> &'a str {
        if self.of[MOUNT] == 0 { prefix } else { "" }
    }
}

fn open(task: &str, name: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{task}/ns/{name}");
    fs::open(&path, OFlag::O_RDONLY).context(KIND, format_args!("opening {path}"))
}

/// The identity of a namespace of a thread: the link text of /proc/PID/task/TID/ns/NAME. Empty where the kernel
/// has no such namespaces.
fn identity(pid: u32, tid: u32, name: &str) -> String {
    fs::link(format!("/proc/{pid}/task/{tid}/ns/{name}"))
        .map(|link| link.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// A namespace that is not that of the first process.
#[derive(Debug)]
struct Found {
    link: String,
    /// A process in it, with its name.
    first: (u32, String),
    spaces: Spaces,
    /// The table of a mount namespace.
    mounts: Vec<Mount>,
}

/// Who is where.
#[derive(Debug, Default)]
pub struct Seen {
    of: Map<u32, Spaces>,
    /// Processes that are refused: what is done in them may mean something else there.
    shut: Vec<u32>,
    list: Vec<Found>,
    /// What the first process is in, by the link texts.
    known: Vec<String>,
    doors: Doors,
    /// The table of the first process.
    home: Vec<Mount>,
}

/// Looks at all threads. `home` is the process whose namespaces are those of the system, `root` the first of the
/// image. What is refused is told with its owner and the object.
///
/// # Errors
/// A namespace cannot be opened.
pub fn find(
    frozen: &Frozen,
    home: u32,
    root: u32,
    told: &mut dyn FnMut(&Process, String, Refusal),
) -> Result<Seen> {
    let mut seen = Seen::default();
    let ours = COMMON.map(|name| identity(home, home, name));
    let at_home = CARRIED.map(|(name, _)| identity(home, home, name));
    let time = identity(root, root, "time");
    seen.known.extend(ours.iter().chain(&at_home).cloned());
    for p in frozen.processes.values().filter(|p| !p.threads.is_empty()) {
        let links = CARRIED.map(|(name, _)| identity(p.pid, p.pid, name));
        let shut = &mut seen.shut;
        let mut refuse = |name: &str, theirs: String, ours: &str| {
            if theirs != ours {
                shut.push(p.pid);
                let refusal = refusal(format!("it has a {name} namespace of its own"));
                told(p, theirs, refusal);
            }
        };
        for tid in p.threads.iter().map(|t| t.tid) {
            for (name, ours) in COMMON.iter().zip(&ours) {
                refuse(name, identity(p.pid, tid, name), ours);
            }
            for name in TIME {
                refuse(name, identity(p.pid, tid, name), &time);
            }
            for ((name, _), ours) in CARRIED.iter().zip(&links).filter(|_| tid != p.pid) {
                refuse(name, identity(p.pid, tid, name), ours);
            }
        }
        if links == at_home {
            continue;
        }
        if let Err(refusal) = seen.add(p, home, &links, &at_home)? {
            told(p, links[MOUNT].clone(), refusal);
        }
    }
    Ok(seen)
}

fn refusal(reason: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(reason, "rerun the service")
}

impl Seen {
    /// Takes down where a process is that is not home.
    fn add(
        &mut self,
        p: &Process,
        home: u32,
        links: &[String; 4],
        at_home: &[String; 4],
    ) -> Result<Result<(), Refusal>> {
        if self.home.is_empty() {
            self.doors = Doors::new(0)?;
            self.home = mounts_of(home)?;
        }
        let mut spaces = Spaces::HOME;
        for (sort, (link, home)) in links.iter().zip(at_home).enumerate() {
            if link == home {
                continue;
            }
            let place = self.list.iter().position(|found| found.link == *link);
            let number = place.unwrap_or(self.list.len()) + 1;
            spaces.of[sort] = u32::try_from(number).unwrap_or(u32::MAX);
            if place.is_none() {
                self.doors.add(open(&p.pid.to_string(), CARRIED[sort].0)?);
                let mounts = if sort == MOUNT { mounts_of(p.pid)? } else { Vec::new() };
                let first = (p.pid, p.stat.comm.clone());
                self.list.push(Found { link: link.clone(), first, spaces: spaces.clone(), mounts });
            }
        }
        let mut sees = false;
        self.inside(&spaces, &mut || {
            // That of another pid namespace would show others under our numbers.
            let own = fs::link_text("/proc/self").unwrap_or_default();
            sees = own == std::process::id().to_string();
            Ok(())
        })?;
        if !sees {
            // We could not look at anything there.
            if let Some(found) = self.list.get_mut((spaces.of[MOUNT] as usize).wrapping_sub(1)) {
                found.mounts.clear();
            }
            spaces.of[MOUNT] = 0;
        }
        self.of.insert(p.pid, spaces);
        Ok(if sees { Ok(()) } else { Err(refusal("it has a mount namespace without its /proc")) })
    }

    /// What stands before every path at home for somebody who is away.
    #[must_use]
    pub fn home(&self) -> String {
        self.doors.root()
    }

    /// Whether a process may be looked into.
    #[must_use]
    pub fn is_open(&self, pid: u32) -> bool {
        !self.shut.contains(&pid)
    }

    /// Whether there is one of a sort that is not home.
    #[must_use]
    pub fn has(&self, sort: usize) -> bool {
        self.of.values().any(|spaces| spaces.of[sort] != 0)
    }

    /// Which namespace of the image a link text means; 0 for those of the first process.
    #[must_use]
    pub fn number(&self, link: &str) -> Option<u32> {
        if self.known.iter().any(|known| known == link) {
            return Some(0);
        }
        (1..).zip(&self.list).find(|(_, found)| found.link == link).map(|(number, _)| number)
    }

    /// Where a process is.
    #[must_use]
    pub fn of(&self, pid: u32) -> Spaces {
        self.of.get(&pid).cloned().unwrap_or(Spaces::HOME)
    }

    /// Where a description is: a socket in a network, a file in a mount table. What is in none that is known is
    /// taken for what is at home, where its kind does not find it.
    ///
    /// # Errors
    /// The errno of fstat(2).
    pub fn of_description(&self, desc: &Description) -> Result<Spaces> {
        let mut spaces = Spaces::HOME;
        if self.list.is_empty() {
            return Ok(spaces);
        }
        let place = |is: &dyn Fn(&Found) -> bool| {
            (1..).zip(&self.list).find(|(_, found)| is(found)).map_or(0, |(number, _)| number)
        };
        if desc.stat.format() != libc::S_IFSOCK {
            let id = desc.info.mnt_id.cast_unsigned();
            spaces.of[MOUNT] = place(&|found| found.mounts.iter().any(|mount| mount.id == id));
            return Ok(spaces);
        }
        if let Ok(door) = ioctl::open(desc.fd.as_fd(), &ioctl::SOCKET_NAMESPACE) {
            let stat = fstat(door).context(KIND, format_args!("looking at a socket"))?;
            let link = format!("net:[{}]", stat.st_ino);
            spaces.of[NETWORK] = place(&|found| found.link == link);
        }
        // The file that its name stands for is where its holder is.
        let holder = desc.holders.first().map_or(Spaces::HOME, |(pid, _)| self.of(*pid));
        spaces.of[MOUNT] = holder.of[MOUNT];
        Ok(spaces)
    }

    /// Does something where a process is, and comes back.
    ///
    /// # Errors
    /// The errno of setns(2), or of what was done.
    pub fn inside(&self, spaces: &Spaces, work: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.doors.inside(spaces, work)
    }

    /// What is in each.
    ///
    /// # Errors
    /// It cannot be entered or read.
    pub fn capture(&self) -> Result<(Vec<State>, Vec<Obstacle>)> {
        let (mut list, mut obstacles) = (Vec::new(), Vec::new());
        let mut filled = Vec::new();
        for (number, found) in (1..).zip(&self.list) {
            let sort = found.spaces.of.iter().position(|of| *of == number).unwrap_or(MOUNT);
            if sort == MOUNT && found.mounts.is_empty() {
                continue; // it is refused
            }
            let fresh = body::fresh(sort, &self.doors)?;
            let mut body = None;
            self.inside(&found.spaces, &mut || {
                let (inside, mut more) =
                    body::capture(sort, &fresh, (&self.home, &self.home()), &mut filled)?;
                for obstacle in &mut more {
                    (obstacle.pid, obstacle.process) = found.first.clone();
                }
                obstacles.append(&mut more);
                body = Some(inside);
                Ok(())
            })?;
            list.extend(body.map(|body| State { spaces: found.spaces.clone(), body }));
        }
        Ok((list, obstacles))
    }

    /// The name at home of a file that somebody sees elsewhere; empty for one in memory.
    ///
    /// # Errors
    /// A refusal if it has none.
    pub fn at_home(&self, path: &str, spaces: &Spaces) -> Result<String, Refusal> {
        let found = match self.list.get((spaces.of[MOUNT] as usize).wrapping_sub(1)) {
            None => Some(path.to_owned()),
            Some(found) => table::other_name(path, &found.mounts, &self.home),
        };
        found.ok_or_else(|| refusal(format!("only its mount namespace shows {path}")))
    }
}
