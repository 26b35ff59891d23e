//! The pool of huge pages that programs take from.

use std::fs;
use std::path::Path;

use crate::{Outcome, Zoo, fd, proc, sys};

/// The default size of huge pages in bytes; without any the program is not applicable.
#[must_use]
pub fn size(zoo: &Zoo) -> usize {
    let text = proc::text("/proc/meminfo");
    let size = text.lines().find_map(|line| line.strip_prefix("Hugepagesize:")?.split_whitespace().next());
    let Some(size) = size.and_then(|size| size.parse::<usize>().ok()) else { zoo.skip("no huge pages") };
    size * 1024
}

/// A file of the pool of a size.
#[must_use]
pub fn file(size: usize, name: &str) -> String {
    format!("/sys/kernel/mm/hugepages/hugepages-{}kB/{name}_hugepages", size / 1024)
}

/// One of its numbers.
#[must_use]
pub fn number(size: usize, name: &str) -> u64 {
    proc::text(&file(size, name)).trim().parse().unwrap_or(0)
}

/// Makes the pool so large that so many pages of it are free, some of them for copies that only a restore makes, while
/// `take` takes from it; other programs wait meanwhile. In the lab it is large enough beforehand.
///
/// # Errors
/// Those of `take`.
pub fn with_pool<T>(
    zoo: &mut Zoo,
    size: usize,
    (pages, copied): (u64, u64),
    take: impl FnOnce(&mut Zoo) -> Outcome<T>,
) -> Outcome<T> {
    let turn = sys!(open(c"/sys/kernel/mm/hugepages".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC))?;
    sys!(flock(turn, libc::LOCK_EX))?;
    // On a board the pool becomes larger for the copies at a restore, and the machine's does not.
    let pages = if Path::new("/run/rcsnap").exists() { pages - copied } else { pages };
    let free = || number(size, "free").saturating_sub(number(size, "resv"));
    if free() < pages {
        let all = number(size, "nr");
        let _ = fs::write(file(size, "nr"), (all + pages - free()).to_string());
        if free() < pages {
            let _ = fs::write(file(size, "nr"), all.to_string());
            zoo.skip("no memory for huge pages");
        }
    }
    let taken = take(zoo);
    // A child that was made meanwhile has it open too.
    sys!(flock(turn, libc::LOCK_UN))?;
    fd::close(turn);
    taken
}
