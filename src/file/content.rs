//! The bytes of a file that has no name: what a memfd or a deleted file on tmpfs holds.
//!
//! Holes and pages of zeros are not stored: they come back as holes. Of a huge page of zeros there is one byte.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::uio::pread;
use nix::unistd::{Whence, ftruncate, lseek};

use crate::error::{Context, Error, Result};
use crate::sys::ptrace::Sys;
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
    for at in huge_zeros(fd, size).context(KIND, format_args!("looking for huge pages"))? {
        content.runs.push((at, vec![0]));
    }
    Ok(content)
}

/// The places of huge pages of a file that are there and all zero. The kernel tells how many there are, and not which:
/// the first.
///
/// # Errors
/// The errno of the calls.
pub fn huge_zeros(fd: &OwnedFd, size: u64) -> Sys<Vec<u64>> {
    let (bits, mut zeros) = (vm::huge(fd.as_fd())?, Vec::new());
    if bits == 0 {
        return Ok(zeros);
    }
    let page = vm::huge_bytes(bits);
    let mut there = stat::blocks(fd)? * 512 / page;
    let (mut at, mut from, mut part) = (0, 0, [0; STEP]);
    while at < size {
        fs::read_at(fd, at, &mut part)?;
        at += STEP as u64;
        if part.iter().any(|byte| *byte != 0) {
            there = there.saturating_sub(1);
            at = from + page;
        } else if at == from + page {
            zeros.push(from);
        }
        if at == from + page {
            from = at;
        }
    }
    zeros.truncate(usize::try_from(there).unwrap_or(usize::MAX));
    Ok(zeros)
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
