//! The bytes of a file that has no name: what a memfd or a deleted file on tmpfs holds.
//!
//! Holes and pages of zeros are not stored: they come back as holes. Of a huge page of zeros there is one byte.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::uio::pread;
use nix::unistd::{Whence, ftruncate, lseek};

use crate::error::{Context, Error, Result};
use crate::sorted::Listed;
use crate::sys::{fs, stat, vm};

const KIND: &str = "content";
const STEP: usize = 4096;

crate::section! {
    /// Bytes at their places.
    pub struct Content {
        /// The length of the file.
        pub size: u64,
        /// Runs of bytes, (offset, bytes), in order.
        pub runs: Vec<(u64, Vec<u8>)>,
    }
}

/// Reads a file of this size. `fd` must be a description of our own: its offset moves.
///
/// # Errors
/// The errno of the calls.
pub fn read(fd: &OwnedFd, size: u64) -> Result<Content> {
    let mut content = Content { size, runs: Vec::new() };
    let end = i64::try_from(size).map_err(|_| Error::new(KIND, "reading", "too large"))?;
    let mut at = 0;
    while at < end {
        // Whole holes are passed over; ENXIO means that there is no more data.
        let Ok(data) = lseek(fd, at, Whence::SeekData) else { break };
        let hole = lseek(fd, data, Whence::SeekHole).unwrap_or(end).min(end);
        read_run(fd, data, hole, &mut content)?;
        at = hole;
    }
    // A page that is there and all zero shows in how much memory is left.
    let runs = &mut content.runs;
    let filled = |start, end| runs.iter().any(|(at, run)| *at < end && at + run.len() as u64 > start);
    let zeros = huge_zeros(fd, size, &filled)?;
    runs.extend(zeros.into_iter().map(|at| (at, vec![0])));
    Ok(content)
}

/// The places of huge pages of a file that are there and all zero; `filled` says what is not. The kernel tells how many
/// there are, and not which: the first.
///
/// # Errors
/// The errno of the calls.
pub fn huge_zeros(fd: &OwnedFd, size: u64, filled: &dyn Fn(u64, u64) -> bool) -> Result<Vec<u64>> {
    let doing = format_args!("looking for huge pages");
    let bits = vm::huge(fd.as_fd()).context(KIND, doing)?;
    if bits == 0 {
        return Ok(Vec::new());
    }
    let page = vm::huge_bytes(bits);
    let places = (0..size / page).map(|number| number * page).list();
    let (with, without): (Vec<u64>, Vec<u64>) = places.into_iter().partition(|at| filled(*at, at + page));
    let there = stat::blocks(fd).context(KIND, doing)? * 512 / page;
    let zero = there.saturating_sub(with.len() as u64);
    Ok(without.into_iter().take(usize::try_from(zero).unwrap_or(usize::MAX)).list())
}

fn read_run(fd: &OwnedFd, mut at: i64, end: i64, content: &mut Content) -> Result<()> {
    let mut page = [0; STEP];
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(STEP).min(STEP);
        let count = pread(fd, &mut page[..want], at).context(KIND, format_args!("reading"))?;
        if count == 0 {
            break;
        }
        let bytes = &page[..count];
        let offset = at.unsigned_abs();
        if bytes.iter().any(|&byte| byte != 0) {
            match content.runs.last_mut() {
                Some((start, run)) if *start + run.len() as u64 == offset => run.extend_from_slice(bytes),
                _ => content.runs.push((offset, bytes.to_vec())),
            }
        }
        at += i64::try_from(count).unwrap_or(i64::MAX);
    }
    Ok(())
}

/// Writes it into an empty file.
///
/// # Errors
/// The errno of the calls.
pub fn write(content: &Content, fd: &OwnedFd) -> Result<()> {
    let size = i64::try_from(content.size).map_err(|_| Error::new(KIND, "writing", "too large"))?;
    ftruncate(fd, size).context(KIND, format_args!("setting the length"))?;
    for (start, run) in &content.runs {
        fs::write_at(fd, *start, run).context(KIND, format_args!("writing"))?;
    }
    Ok(())
}
