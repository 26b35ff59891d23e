//! What: memory, signal handlers, descriptor tables and directories that processes share (CLONE_VM, CLONE_SIGHAND,
//!   CLONE_FILES and CLONE_FS of clone(2)), and the directories that a thread has of its own (unshare(2)).
//! Reads: kcmp(2), whose answers are an order: tasks that share are neighbours in it.
//! Rebuilds: by the same flags, when one of those that share makes the other; the last of them lays the memory out,
//!   sets the handlers, places the descriptors and goes to the directories for all. A thread calls unshare(2).
//! Loses: nothing.
//! Refuses: sharing with a process outside a tree, with PID 1, or between processes of which neither is made by one
//!   that shares; a descriptor table of a thread of its own; directories that a thread shares past its process.

use std::cell::Cell;
use std::cmp::Ordering;

use crate::error::{Context, Refusal, Result};
use crate::sorted::{self, Map};
use crate::sys::{descriptor, fs};
use crate::task::freeze::Process;
use crate::task::tree::Ids;

const KIND: &str = "sharing";
const REMEDY: &str = "rerun the service";
/// Numbers of kcmp(2) with the names of what they compare.
const MEMORY: (i32, &str) = (1, "memory");
const FILES: (i32, &str) = (2, "descriptor table");
const DIRECTORIES: (i32, &str) = (3, "directories");
const ACTIONS: i32 = 4;
/// Flags of clone(2), in the order of [`State::all`].
const FLAGS: [i32; 4] = [libc::CLONE_VM, libc::CLONE_FILES, libc::CLONE_FS, libc::CLONE_SIGHAND];

crate::section! {
    /// Which process stands for all that share something with a process: the last one, itself if it is alone.
    pub struct State {
        /// The address space.
        pub memory: u32,
        /// The descriptor table.
        pub files: u32,
        /// Working directory, root directory and umask.
        pub directories: u32,
        /// Signal handlers.
        pub actions: u32,
    }
}

impl State {
    /// What clone(2) must be told so that `child` shares with this one what it should.
    #[must_use]
    pub fn flags(&self, child: &State) -> i32 {
        let pairs = self.all().into_iter().zip(child.all());
        FLAGS.iter().zip(pairs).filter(|(_, (own, its))| own == its).map(|(flag, _)| flag).sum()
    }

    /// Who stands for each.
    fn all(&self) -> [u32; 4] {
        [self.memory, self.files, self.directories, self.actions]
    }
}

/// Whether everybody who stands for others lives, and stands for itself. Of each process: whether it lives.
#[must_use]
pub fn is_sound(all: &[(&Ids, bool)]) -> bool {
    let stands =
        |pid: u32, at: usize| all.iter().any(|(p, live)| *live && p.pid == pid && p.sharing.all()[at] == pid);
    all.iter().all(|(p, live)| {
        let mut last = p.sharing.all().into_iter().enumerate();
        last.all(|(at, last)| last == p.pid || *live && stands(last, at))
    })
}

/// Who shares what with whom.
#[derive(Debug)]
pub struct Groups {
    memory: Map<u32, u32>,
    actions: Map<u32, u32>,
    files: Map<u32, u32>,
    directories: Map<u32, u32>,
}

/// For each task the last one of the list that shares the object with it.
fn group(tasks: &[u32], kind: i32) -> Result<Map<u32, u32>> {
    let trouble = Cell::new(Ok(()));
    let order = |a: &u32, b: &u32| {
        descriptor::kcmp(*a, *b, kind).unwrap_or_else(|errno| {
            trouble.set(Err(errno));
            Ordering::Equal
        })
    };
    let mut list = tasks.to_vec();
    sorted::sort_by(&mut list, order);
    let mut found = Vec::new();
    for same in list.chunk_by(|a, b| order(a, b) == Ordering::Equal) {
        found.extend(same.iter().map(|task| (*task, same.last().copied().unwrap_or(*task))));
    }
    trouble.get().context(KIND, format_args!("comparing tasks"))?;
    Ok(found.into())
}

/// Compares all live tasks, of a tree also with those outside. What is refused is told with its owner and the object.
///
/// # Errors
/// The errno of kcmp(2).
pub fn find(
    processes: &Map<u32, Process>,
    tree: bool,
    told: &mut dyn FnMut(&Process, &'static str, Refusal),
) -> Result<Groups> {
    let mut refuse = |p: &Process, object, reason: &str, task: u32| {
        told(p, object, refusal(format!("{reason} {task}")));
    };
    let live = || processes.values().filter(|p| !p.threads.is_empty());
    let all = if tree { fs::numbers("/proc").unwrap_or_default() } else { Vec::new() };
    for other in all.into_iter().filter(|pid| !processes.contains_key(pid)) {
        for p in live() {
            if let Some(object) = outside(p.pid, other) {
                refuse(p, object, "it is shared outside the image, with", other);
            }
        }
    }
    let (mut tasks, mut leaders) = (Vec::new(), Vec::new());
    for p in live() {
        leaders.push(p.pid);
        for t in &p.threads {
            if t.tid != p.pid {
                tasks.push(t.tid);
            }
        }
    }
    // Leaders come last, so that a process stands for its threads.
    tasks.extend_from_slice(&leaders);
    let memory = group(&leaders, MEMORY.0)?;
    // Handlers are shared only with memory.
    let shares = memory.iter().any(|(pid, last)| pid != last);
    let groups = Groups {
        memory,
        actions: group(if shares { &leaders } else { &[] }, ACTIONS)?,
        files: group(&tasks, FILES.0)?,
        directories: group(&tasks, DIRECTORIES.0)?,
    };
    for p in processes.values() {
        for t in &p.threads {
            if groups.files.get(&t.tid) != groups.files.get(&p.pid) {
                refuse(p, FILES.1, "another one (unshare(2)) has thread", t.tid);
            }
            if groups.is_apart(p.pid, t.tid) {
                let last = groups.directories.get(&t.tid);
                if groups.directories.values().filter(|other| Some(*other) == last).count() > 1 {
                    refuse(p, DIRECTORIES.1, "past the process, they are shared by thread", t.tid);
                }
            }
        }
    }
    Ok(groups)
}

/// What a process shares with another one outside the image, if anything.
fn outside(pid: u32, other: u32) -> Option<&'static str> {
    let same = |kind: &(i32, &str)| descriptor::kcmp(pid, other, kind.0) == Ok(Ordering::Equal);
    [MEMORY, FILES, DIRECTORIES].iter().find(|kind| same(kind)).map(|kind| kind.1)
}

/// A refusal of this kind.
#[must_use]
pub fn refusal(reason: String) -> Refusal {
    Refusal::new(reason, REMEDY)
}

impl Groups {
    /// The state of a process.
    #[must_use]
    pub fn of(&self, pid: u32) -> State {
        let last = |map: &Map<u32, u32>| map.get(&pid).copied().unwrap_or(pid);
        State {
            memory: last(&self.memory),
            files: last(&self.files),
            directories: last(&self.directories),
            actions: last(&self.actions),
        }
    }

    /// Whether a thread has directories that its process does not have.
    #[must_use]
    pub fn is_apart(&self, pid: u32, tid: u32) -> bool {
        self.directories.get(&tid) != self.directories.get(&pid)
    }
}

#[cfg(test)]
mod tests {
    use super::{FILES, State, group, is_sound, outside};
    use crate::sys::clone;
    use crate::task::tree::Ids;

    #[test]
    fn who_stands_for_others_lives_and_stands_for_itself() {
        let ids = |pid: u32, memory: u32| Ids {
            pid,
            ppid: 0,
            pgrp: 0,
            session: 0,
            subreaper: false,
            exit: None,
            sharing: State { memory, files: pid, directories: pid, actions: pid },
        };
        let sound = |all: [(u32, u32, bool); 3]| {
            let all = all.map(|(pid, memory, live)| (ids(pid, memory), live));
            is_sound(&all.iter().map(|(ids, live)| (ids, *live)).collect::<Vec<_>>())
        };
        assert!(sound([(5, 7, true), (6, 6, false), (7, 7, true)]));
        // Nobody, one that does not live, one that does not stand for itself, and one that has nothing to share.
        assert!(!sound([(5, 8, true), (6, 6, false), (7, 7, true)]));
        assert!(!sound([(5, 6, true), (6, 6, false), (7, 7, true)]));
        assert!(!sound([(5, 6, true), (6, 7, true), (7, 7, true)]));
        assert!(!sound([(5, 7, true), (6, 7, false), (7, 7, true)]));
    }

    #[test]
    fn threads_share_and_children_do_not() {
        let child = clone::puppet_anywhere().unwrap();
        let own = std::process::id();
        let (told, tells) = std::sync::mpsc::channel();
        let (ends, end) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            told.send(nix::unistd::gettid().as_raw().cast_unsigned()).unwrap();
            let _ = end.recv();
        });
        let tid = tells.recv().unwrap();
        let found = group(&[tid, child, own], FILES.0).unwrap();
        assert_eq!((found[&tid], found[&own], found[&child]), (own, own, child));
        assert_eq!((outside(own, tid), outside(own, child)), (Some("memory"), None));
        drop(ends);
        thread.join().unwrap();
        clone::kill(child).unwrap();
        crate::sys::ptrace::wait(child.cast_signed(), 0).unwrap();
    }
}
