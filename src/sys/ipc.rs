//! System V IPC (sysvipc(7)): shmget(2), msgget(2), semget(2) and what belongs to them.
#![allow(unsafe_code, reason = "the calls take pointers, and the structures differ between C libraries")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "the kernel's words are as wide as ours, and ids have 32 bits"
)]

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::abi::{Number, SETRESGID, SETRESUID};
use crate::sys::ptrace::Sys;

/// One of the three tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Shared memory.
    Shm,
    /// Message queues.
    Msg,
    /// Sets of semaphores.
    Sem,
}

/// Bytes of a word.
const WORD: usize = size_of::<usize>();
/// Asks 32-bit ARM for the structures with 32-bit ids; they are the only ones on 64 bit.
const NEWER: usize = if WORD == 4 { 0x100 } else { 0 };
const SET: usize = 1;
const STAT: usize = 2;
/// SHM_LOCK.
const LOCK: usize = 11;
const GETPID: usize = 11;
const GETVAL: usize = 12;
const SETVAL: usize = 16;
/// MSG_COPY | MSG_NOERROR | IPC_NOWAIT.
const COPY: usize = 0o54000;
const NOWAIT: i16 = 0o4000;
/// Longer than shmid64_ds, msqid64_ds and semid64_ds are anywhere; each begins with an ipc64_perm.
const LONGEST: usize = 256;
/// Where msqid64_ds has the limit of bytes (asm-generic/msgbuf.h): behind the permissions, three times and two words.
const LIMIT: usize = (28usize).next_multiple_of(WORD) + 2 * WORD + 24 + 2 * WORD;

fn call(number: Number, args: [usize; 5]) -> Sys<usize> {
    let [a, b, c, d, e] = args;
    // SAFETY: the callers below pass numbers, and addresses of live buffers of the length that the call expects.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    Errno::result(result).map(|result| result.cast_unsigned() as usize)
}

fn number(id: i32) -> usize {
    id.cast_unsigned() as usize
}

impl Table {
    /// Its name in /proc/sysvipc.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Table::Shm => "shm",
            Table::Msg => "msg",
            Table::Sem => "sem",
        }
    }

    /// Makes an object in the name of a user and group. Returns its id.
    ///
    /// # Errors
    /// The errno of the call, EEXIST among them.
    pub fn make(self, key: i32, size: usize, mode: u32, creator: [u32; 2]) -> Sys<i32> {
        // IPC_CREAT | IPC_EXCL.
        let flags = 0o3000 | mode as usize & 0o777;
        let as_creator = |uid: u32, gid: u32| {
            let same = usize::MAX;
            call(SETRESGID, [same, gid as usize, same, 0, 0])?;
            call(SETRESUID, [same, uid as usize, same, 0, 0])
        };
        if creator != [0; 2] {
            as_creator(creator[0], creator[1])?;
        }
        let key = number(key);
        let made = match self {
            Table::Shm => call(libc::SYS_shmget, [key, size, flags, 0, 0]),
            Table::Msg => call(libc::SYS_msgget, [key, flags, 0, 0, 0]),
            Table::Sem => call(libc::SYS_semget, [key, size, flags, 0, 0]),
        };
        if creator != [0; 2] {
            // The user first: the group needs a right that the user has.
            call(SETRESUID, [usize::MAX, 0, usize::MAX, 0, 0])?;
            call(SETRESGID, [usize::MAX, 0, usize::MAX, 0, 0])?;
        }
        made.map(|id| id as i32)
    }

    fn control(self, id: i32, command: usize, argument: usize) -> Sys<usize> {
        let command = command | NEWER;
        match self {
            Table::Shm => call(libc::SYS_shmctl, [number(id), command, argument, 0, 0]),
            Table::Msg => call(libc::SYS_msgctl, [number(id), command, argument, 0, 0]),
            Table::Sem => call(libc::SYS_semctl, [number(id), 0, command, argument, 0]),
        }
    }

    /// Removes an object; a segment that is attached only gets the mark.
    ///
    /// # Errors
    /// The errno of the call.
    pub fn remove(self, id: i32) -> Sys<()> {
        self.control(id, 0, 0).map(drop)
    }

    /// Sets owner, group and mode, and of a queue the limit of bytes.
    ///
    /// # Errors
    /// The errno of the call.
    pub fn set(self, id: i32, [uid, gid, mode]: [u32; 3], limit: u64) -> Sys<()> {
        let mut buffer = [0_u8; LONGEST];
        for (at, value) in [(4, uid), (8, gid), (20, mode)] {
            buffer[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        buffer[LIMIT..LIMIT + WORD].copy_from_slice(&(limit as usize).to_ne_bytes());
        self.control(id, SET, buffer.as_ptr().expose_provenance()).map(drop)
    }
}

/// The limit of bytes of a queue.
///
/// # Errors
/// The errno of msgctl(2).
pub fn limit(queue: i32) -> Sys<u64> {
    let mut buffer = [0_u8; LONGEST];
    Table::Msg.control(queue, STAT, buffer.as_mut_ptr().expose_provenance())?;
    Ok(buffer[LIMIT..].first_chunk().map_or(0, |bytes| usize::from_ne_bytes(*bytes)) as u64)
}

/// Keeps a segment in RAM (SHM_LOCK).
///
/// # Errors
/// The errno of shmctl(2).
pub fn lock(segment: i32) -> Sys<()> {
    Table::Shm.control(segment, LOCK, 0).map(drop)
}

/// A segment attached to our own memory, until it is dropped.
#[derive(Debug)]
pub struct Attached(usize);

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = call(libc::SYS_shmdt, [self.0, 0, 0, 0, 0]);
    }
}

/// Attaches a segment of so many bytes, and opens the file behind it.
///
/// # Errors
/// The errno of shmat(2) or of opening.
pub fn attach(segment: i32, size: u64, write: bool) -> Sys<(Attached, OwnedFd)> {
    let (flags, access) =
        if write { (0, OFlag::O_RDWR) } else { (libc::SHM_RDONLY as usize, OFlag::O_RDONLY) };
    let start = call(libc::SYS_shmat, [number(segment), 0, flags, 0, 0])?;
    let attached = Attached(start);
    let end = start as u64 + size.next_multiple_of(super::vm::page_size());
    Ok((attached, super::fs::open(format!("/proc/self/map_files/{start:x}-{end:x}"), access)?))
}

/// The message at a place of a queue, with its type, without taking it. `most` is how long it may be.
///
/// # Errors
/// The errno of msgrcv(2): ENOMSG behind the last, ENOSYS without CONFIG_CHECKPOINT_RESTORE.
pub fn message(queue: i32, place: usize, most: usize) -> Sys<(i64, Vec<u8>)> {
    let mut buffer = vec![0_u8; WORD + most];
    let into = buffer.as_mut_ptr().expose_provenance();
    let len = call(libc::SYS_msgrcv, [number(queue), into, most, place, COPY])?;
    let kind = buffer.first_chunk().map_or(0, |bytes| isize::from_ne_bytes(*bytes));
    Ok((kind as i64, buffer.get(WORD..WORD + len).unwrap_or(&[]).to_vec()))
}

/// Puts a message into a queue without waiting.
///
/// # Errors
/// The errno of msgsnd(2).
pub fn send(queue: i32, kind: i64, bytes: &[u8]) -> Sys<()> {
    let mut buffer = (kind as isize).to_ne_bytes().to_vec();
    buffer.extend_from_slice(bytes);
    let from = buffer.as_ptr().expose_provenance();
    call(libc::SYS_msgsnd, [number(queue), from, bytes.len(), NOWAIT.cast_unsigned().into(), 0]).map(drop)
}

/// The value of one semaphore of a set, or who changed it last.
fn of_semaphore(set: i32, index: usize, command: usize) -> Sys<u32> {
    call(libc::SYS_semctl, [number(set), index, command | NEWER, 0, 0]).map(|value| value as u32)
}

/// The value of one semaphore of a set.
///
/// # Errors
/// The errno of semctl(2).
pub fn value(set: i32, index: usize) -> Sys<u32> {
    of_semaphore(set, index, GETVAL)
}

/// The process that last changed a semaphore.
///
/// # Errors
/// The errno of semctl(2).
pub fn changer(set: i32, index: usize) -> Sys<u32> {
    of_semaphore(set, index, GETPID)
}

/// Sets one semaphore of a set.
///
/// # Errors
/// The errno of semctl(2).
pub fn set_value(set: i32, index: usize, value: u32) -> Sys<()> {
    call(libc::SYS_semctl, [number(set), index, SETVAL | NEWER, value as usize, 0]).map(drop)
}

/// An operation that changes nothing, so that the set has a time of its last one: by that, others know that its
/// maker has given it values.
///
/// # Errors
/// The errno of semop(2).
pub fn touch(set: i32) -> Sys<()> {
    let first: i16 = if value(set, 0)? == 0 { 1 } else { -1 };
    // Two struct sembuf: which semaphore, how much, flags.
    let operations = [0, first, NOWAIT, 0, -first, NOWAIT];
    call(libc::SYS_semop, [number(set), operations.as_ptr().expose_provenance(), 2, 0, 0]).map(drop)
}
