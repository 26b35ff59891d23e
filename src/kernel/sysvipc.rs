//! System V shared memory, semaphores and message queues.
//!
//! # What
//! Objects in the IPC namespace, whoever made them, with their ids, keys, owners and modes: segments with their
//! contents, queues with their messages, sets with their values. A segment that somebody has attached belongs
//! to `memory`.
//! # Reads
//! /proc/sysvipc, which shows the reader's namespace; a segment by attaching it; messages with MSG_COPY; GETVAL.
//! # Rebuilds
//! The same objects under the same ids, which /proc/sys/kernel/*_next_id ask for, in the name of their makers.
//! A set on which there had been an operation gets one that changes nothing: by sem_otime, others know that it is
//! ready.
//! # Loses
//! Times, the processes of the last operations (sempid among them) and of a segment its maker's; SHM_NORESERVE;
//! the key in the name of a mapping whose segment is marked for destruction. Adjustments (SEM_UNDO) of a process
//! with threads that was not the last to change some semaphore: they cannot be seen. A tree carries only the
//! segments that are attached in it; queues and sets have no owner, and stay where they are.
//! # Refuses
//! A process with adjustments (SEM_UNDO), as far as they can be seen: nobody can read them; huge pages; in a
//! tree, a segment that somebody outside has attached; kernels without CONFIG_CHECKPOINT_RESTORE.

use std::cmp::Ordering;
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::root::{Dir, Root};
use crate::error::{Context, Error, Obstacle, Refusal, Result};
use crate::file::content::{self, Content};
use crate::proc::sysvipc::{self, ATTACHED, OPERATED, Object, Perm};
use crate::section;
use crate::sorted::Listed;
use crate::sys::ipc::{self, Table};
use crate::sys::{descriptor, fs, vm};

const KIND: &str = "sysvipc";
const TABLES: [(Table, &str); 3] =
    [(Table::Shm, "shared memory"), (Table::Msg, "message queue"), (Table::Sem, "semaphores")];
/// KCMP_SYSVSEM of kcmp(2).
const ADJUSTMENTS: i32 = 6;

section! {
    /// Objects that the scripts made.
    pub struct State {
        /// Segments that nobody has attached.
        pub segments: Vec<Segment>,
        /// Message queues.
        pub queues: Vec<Queue>,
        /// Sets of semaphores.
        pub sets: Vec<Set>,
    }
}

section! {
    /// A segment.
    pub struct Segment {
        /// Whose it is.
        pub perm: Perm,
        /// Its bytes.
        pub content: Content,
    }
}

section! {
    /// A message queue.
    pub struct Queue {
        /// Whose it is.
        pub perm: Perm,
        /// How many bytes it may hold.
        pub limit: u64,
        /// Types and bytes, in order.
        pub messages: Vec<(i64, Vec<u8>)>,
    }
}

section! {
    /// A set of semaphores.
    pub struct Set {
        /// Whose it is.
        pub perm: Perm,
        /// Their values.
        pub values: Vec<u32>,
        /// Whether there was an operation on it.
        pub operated: bool,
    }
}

/// Tables and ids of the objects that exist.
pub type Before = Vec<(usize, i32)>;

fn objects(proc: &Dir, table: Table) -> Vec<Object> {
    sysvipc::parse(&proc.read(&format!("sysvipc/{}", table.name())).unwrap_or_default())
}

/// The objects that exist.
#[must_use]
pub fn baseline(root: &Root) -> Before {
    let mut found = Vec::new();
    for (at, (table, _)) in TABLES.into_iter().enumerate() {
        found.extend(objects(&root.proc, table).iter().map(|object| (at, object.perm.id)));
    }
    found
}

/// Reads what is new.
#[must_use]
pub fn capture(before: &Before, root: &Root) -> (State, Vec<Obstacle>) {
    let mut state = State { segments: Vec::new(), queues: Vec::new(), sets: Vec::new() };
    let mut obstacles = Vec::new();
    for (at, (table, noun)) in TABLES.into_iter().enumerate() {
        for object in objects(&root.proc, table) {
            let Perm { id, key, .. } = object.perm;
            if before.contains(&(at, id)) {
                continue;
            }
            if let Err(refusal) = exact(&root.proc).and_then(|()| one(table, object, &mut state)) {
                obstacles.push(Obstacle::kernel(KIND, format!("{noun} {id} (key {key})"), refusal));
            }
        }
    }
    (state, obstacles)
}

/// Whether the kernel gives the ids that it is asked for.
///
/// # Errors
/// A refusal if not.
pub fn exact(proc: &Dir) -> Result<(), Refusal> {
    if proc.exists("sys/kernel/shm_next_id") {
        return Ok(());
    }
    Err(Refusal::new(
        "this kernel gives no ids that are asked for (CONFIG_CHECKPOINT_RESTORE)",
        "start its user after the ready line",
    ))
}

fn one(table: Table, Object { perm, rest }: Object, state: &mut State) -> Result<(), Refusal> {
    let id = perm.id;
    let doing = format_args!("reading {id}");
    let column = |at: usize| rest.get(at).copied().unwrap_or(0);
    match table {
        // Its owners carry it.
        Table::Shm if column(ATTACHED) > 0 => {}
        Table::Shm => {
            let (_attached, file) = ipc::attach(id, column(0), false).context(KIND, doing)?;
            small(&file)?;
            state.segments.push(Segment { perm, content: content::read(&file, column(0))? });
        }
        Table::Msg => {
            let most = usize::try_from(column(0)).unwrap_or(0);
            let mut messages = Vec::new();
            loop {
                match ipc::message(id, messages.len(), most) {
                    Err(Errno::ENOMSG) => break,
                    message => messages.push(message.context(KIND, doing)?),
                }
            }
            let limit = ipc::limit(id).context(KIND, doing)?;
            state.queues.push(Queue { perm, limit, messages });
        }
        Table::Sem => {
            let count = usize::try_from(column(0)).unwrap_or(0);
            let values = (0..count).map(|at| ipc::value(id, at)).whole();
            let values = values.context(KIND, doing)?;
            state.sets.push(Set { perm, values, operated: column(OPERATED) != 0 });
        }
    }
    Ok(())
}

/// Refuses a segment on huge pages.
fn small(file: &std::os::fd::OwnedFd) -> Result<(), Refusal> {
    if vm::huge(file.as_fd()).context(KIND, format_args!("asking where it is"))? != 0 {
        return Err(Refusal::new("it is on huge pages of hugetlbfs", "start its user after the ready line"));
    }
    Ok(())
}

/// Makes what was captured.
///
/// # Errors
/// An id or key is taken.
pub fn restore(state: &State, root: &Root) -> Result<()> {
    for Segment { perm, content } in &state.segments {
        let (_attached, file) = segment(&root.proc, perm, content.size)?;
        content::write(content, &file)?;
    }
    for Queue { perm, limit, messages } in &state.queues {
        make(&root.proc, Table::Msg, perm, 0)?;
        // The limit may have been lowered since.
        let all = messages.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        own(Table::Msg, perm, all.max(*limit))?;
        for (kind, bytes) in messages {
            ipc::send(perm.id, *kind, bytes).context(KIND, format_args!("filling queue {}", perm.id))?;
        }
        own(Table::Msg, perm, *limit)?;
    }
    for Set { perm, values, operated } in &state.sets {
        let doing = format_args!("setting semaphores {}", perm.id);
        make(&root.proc, Table::Sem, perm, values.len() as u64)?;
        for (at, value) in values.iter().enumerate() {
            ipc::set_value(perm.id, at, *value).context(KIND, doing)?;
        }
        if *operated {
            ipc::touch(perm.id).context(KIND, doing)?;
        }
        own(Table::Sem, perm, 0)?;
    }
    Ok(())
}

/// Makes a segment and attaches it to our memory: with the last that has it, one that is marked for destruction goes.
///
/// # Errors
/// Its id or key is taken.
pub fn segment(proc: &Dir, perm: &Perm, size: u64) -> Result<(ipc::Attached, std::os::fd::OwnedFd)> {
    let doing = format_args!("making segment {}", perm.id);
    // What a captured tree has left behind when it ended is what the image has.
    let left = |object: &&Object| {
        let Perm { id, key, .. } = object.perm;
        (id, key) == (perm.id, perm.key) && (object.rest[0], object.rest[ATTACHED]) == (size, 0)
    };
    if objects(proc, Table::Shm).iter().any(|object| left(&object)) {
        Table::Shm.remove(perm.id).context(KIND, doing)?;
    }
    make(proc, Table::Shm, perm, size)?;
    let made = ipc::attach(perm.id, size, true).context(KIND, doing)?;
    own(Table::Shm, perm, 0)?;
    if perm.mode & Perm::LOCKED != 0 {
        ipc::lock(perm.id).context(KIND, doing)?;
    }
    if perm.mode & Perm::DOOMED != 0 {
        Table::Shm.remove(perm.id).context(KIND, doing)?;
    }
    Ok(made)
}

fn make(proc: &Dir, table: Table, perm: &Perm, size: u64) -> Result<()> {
    let doing = format_args!("making {} {} (key {})", table.name(), perm.id, perm.key);
    let next = format!("sys/kernel/{}_next_id", table.name());
    proc.write(&next, &format!("{}\n", perm.id)).context(KIND, doing)?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let id = table.make(perm.key, size, perm.mode, [perm.cuid, perm.cgid]).context(KIND, doing)?;
    if id == perm.id {
        return Ok(());
    }
    let _ = table.remove(id);
    Err(Error::new(KIND, doing.to_string(), "the id is taken"))
}

fn own(table: Table, perm: &Perm, limit: u64) -> Result<()> {
    table
        .set(perm.id, [perm.uid, perm.gid, perm.mode & 0o777], limit)
        .context(KIND, format_args!("setting the owner of {} {}", table.name(), perm.id))
}

/// Whether a process may have adjustments to be made when it ends (SEM_UNDO). We have none, so a list that is not
/// ours is a list; but threads share one from the beginning, empty or not.
#[must_use]
pub fn adjusts(pid: u32, threads: usize) -> bool {
    let sets = sysvipc::parse(&fs::text("/proc/sysvipc/sem").unwrap_or_default());
    if sets.is_empty() || descriptor::kcmp(std::process::id(), pid, ADJUSTMENTS).map_or(true, Ordering::is_eq)
    {
        return false;
    }
    let changed = |set: &Object| {
        let count = set.rest.first().map_or(0, |count| usize::try_from(*count).unwrap_or(0));
        (0..count).any(|at| ipc::changer(set.perm.id, at) == Ok(pid))
    };
    threads == 1 || sets.iter().any(changed)
}
