//! /proc/sysvipc/shm, msg and sem: the objects of System V IPC (sysvipc(7)).

use crate::sorted::Listed;
use crate::text;

crate::section! {
    /// What an object of each sort has.
    pub struct Perm {
        /// The key; 0 if it is private.
        pub key: i32,
        /// The id.
        pub id: i32,
        /// Permissions, and of a segment SHM_DEST and SHM_LOCKED.
        pub mode: u32,
        /// The owner.
        pub uid: u32,
        /// The owner's group.
        pub gid: u32,
        /// Who made it.
        pub cuid: u32,
        /// Its maker's group.
        pub cgid: u32,
    }
}

impl Perm {
    /// SHM_DEST: it goes with the last that has it attached.
    pub const DOOMED: u32 = 0o1000;
    /// SHM_LOCKED: it stays in RAM.
    pub const LOCKED: u32 = 0o2000;
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// What every sort has.
    pub perm: Perm,
    /// The columns behind the mode.
    pub rest: Vec<u64>,
}

/// Where a line of shm has the number of processes that have it attached.
pub const ATTACHED: usize = 3;
/// Where a line of sem has the time of the last operation.
pub const OPERATED: usize = 5;

/// Parses the text of a table. Queues and segments have four columns between mode and owner, semaphores one.
#[must_use]
pub fn parse(text: &str) -> Vec<Object> {
    let owner = if text::has(text, "nsems") { 1 } else { 4 };
    text.lines().skip(1).filter_map(|line| object(line, owner)).list()
}

#[allow(clippy::cast_possible_truncation, reason = "ids have 32 bits")]
fn object(line: &str, owner: usize) -> Option<Object> {
    let mut words = line.split_ascii_whitespace();
    let (key, id) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let mode = u32::from_str_radix(words.next()?, 8).ok()?;
    let rest: Vec<u64> = words.map_while(|word| word.parse().ok()).list();
    let [uid, gid, cuid, cgid] =
        rest.get(owner..owner + 4)?.try_into().ok().map(|ids: [u64; 4]| ids.map(|id| id as u32))?;
    Some(Object { perm: Perm { key, id, mode, uid, gid, cuid, cgid }, rest })
}

#[cfg(test)]
mod tests {
    use super::{ATTACHED, OPERATED, Perm, parse};

    #[test]
    fn columns_are_found() {
        let shm = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n   5439001          3  1600                    56    42    43      6   100   101     0     7 1700000000          0 1700000001                  4096                     0\n";
        let one = &parse(shm)[0];
        let perm = Perm { key: 5_439_001, id: 3, mode: 0o1600, uid: 100, gid: 101, cuid: 0, cgid: 7 };
        assert_eq!((&one.perm, one.rest[0], one.rest[ATTACHED]), (&perm, 56, 6));
        let sem = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n      -559          0   640          3     1     2     3     4          9         10\n";
        let one = &parse(sem)[0];
        assert_eq!((one.perm.key, one.perm.uid, one.perm.cgid), (-559, 1, 4));
        assert_eq!((one.rest[0], one.rest[OPERATED]), (3, 9));
    }
}
