//! Locks of a description: flock(2) and open file description locks (fcntl_locking(2)).
//!
//! What: which locks a description holds. Tasks that wait for one are in a system call that is repeated.
//! Reads: the `lock:` lines of fdinfo.
//! Rebuilds: the conductor takes them through its own copy of the description.
//! Loses: nothing.
//! Refuses: leases. A POSIX lock belongs to a process: it is listed apart, and its puppet takes it.

use crate::sorted::Listed;
use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Context, Error, Refusal, Result};
use crate::proc::fdinfo::FdInfo;
use crate::sys::descriptor;
use crate::text;

const KIND: &str = "lock";

crate::section! {
    /// A lock in the image.
    pub struct State {
        /// flock(2): the whole file. Otherwise a range.
        pub whole: bool,
        /// Exclusive.
        pub write: bool,
        /// First byte.
        pub start: i64,
        /// Number of bytes; 0 means to the end.
        pub len: i64,
    }
}

crate::section! {
    /// A lock that belongs to a process (F_SETLK): its puppet takes it with fcntl(2).
    pub struct Posix {
        /// The process.
        pub pid: u32,
        /// One of its descriptors of the file.
        pub fd: i32,
        /// F_WRLCK instead of F_RDLCK.
        pub write: bool,
        /// First byte.
        pub start: i64,
        /// Number of bytes; 0 means to the end.
        pub len: i64,
    }
}

/// The sort of a lock line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Flock,
    Description,
    Posix,
}

/// `1: FLOCK  ADVISORY  WRITE 15595 fe:00:10010644 0 EOF`.
fn line(text: &str) -> Result<(Sort, State), Refusal> {
    let odd = || Error::new(KIND, "reading the locks", format!("odd line {text}"));
    let words: Vec<&str> = text.split_ascii_whitespace().list();
    let [_, sort, _, access, _, _, start, end] = words[..] else { return Err(odd().into()) };
    let sort = match sort {
        "FLOCK" => Sort::Flock,
        "OFDLCK" => Sort::Description,
        "POSIX" => Sort::Posix,
        _ => {
            return Err(Refusal::new(
                format!("it holds a {}", sort.to_ascii_lowercase()),
                "release it before `rcsnap ready`",
            ));
        }
    };
    let start: i64 = text::signed(start).ok_or_else(odd)?;
    let len = match end {
        "EOF" => 0,
        end => text::signed(end).ok_or_else(odd)? - start + 1,
    };
    Ok((sort, State { whole: sort == Sort::Flock, write: access == "WRITE", start, len }))
}

fn lines(info: &FdInfo) -> impl Iterator<Item = Result<(Sort, State), Refusal>> + '_ {
    info.rest.iter().filter_map(|text| text.strip_prefix("lock:")).map(line)
}

/// The locks that belong to the description.
///
/// # Errors
/// A refusal for leases.
pub fn capture(info: &FdInfo) -> Result<Vec<State>, Refusal> {
    let mut states = Vec::new();
    for found in lines(info) {
        let (sort, state) = found?;
        if sort != Sort::Posix {
            states.push(state);
        }
    }
    Ok(states)
}

/// The locks that the process `pid` took through `fd`.
#[must_use]
pub fn posix(info: &FdInfo, pid: u32, fd: i32) -> Vec<Posix> {
    let mut locks = Vec::new();
    for found in lines(info) {
        if let Ok((Sort::Posix, State { write, start, len, .. })) = found {
            locks.push(Posix { pid, fd, write, start, len });
        }
    }
    locks
}

/// Takes a lock again.
///
/// # Errors
/// The errno of the call: `EAGAIN` if somebody else holds it.
pub fn restore(state: &State, fd: &OwnedFd) -> Result<()> {
    if state.whole {
        descriptor::lock_whole(fd.as_fd(), state.write).context(KIND, format_args!("taking it"))
    } else {
        descriptor::lock_range(fd.as_fd(), state.write, state.start, state.len)
            .context(KIND, format_args!("taking a range"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::{State, capture, line, posix, restore};
    use crate::file::testing::{describe, directory};
    use crate::sys::descriptor::{lock_range, lock_whole};

    #[test]
    fn locks_of_a_description_come_back() {
        let dir = directory();
        let path = format!("{dir}/lock");
        std::fs::write(&path, "x").unwrap();
        let open = || crate::file::place::open(&path, libc::O_RDWR, "lock").unwrap();
        let fd = open();
        lock_whole(fd.as_fd(), true).unwrap();
        lock_range(fd.as_fd(), false, 10, 5).unwrap();
        let states = capture(&describe(&fd).info).unwrap();
        assert_eq!(
            states,
            [
                State { whole: true, write: true, start: 0, len: 0 },
                State { whole: false, write: false, start: 10, len: 5 }
            ]
        );
        drop(fd);
        let again = open();
        for state in &states {
            restore(state, &again).unwrap();
        }
        assert_eq!(capture(&describe(&again).info).unwrap(), states);
        assert!(lock_whole(open().as_fd(), true).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn posix_lock_is_listed_apart_and_a_lease_is_refused() {
        let info = crate::proc::fdinfo::parse("lock:\t1: POSIX  ADVISORY  WRITE 7 fe:00:1 3 9\n");
        assert_eq!(capture(&info).unwrap(), []);
        let found = posix(&info, 7, 4);
        assert_eq!((found[0].start, found[0].len, found[0].write), (3, 7, true));
        assert!(line("1: LEASE  ACTIVE    READ  7 fe:00:1 0 EOF").unwrap_err().reason.contains("lease"));
    }
}
