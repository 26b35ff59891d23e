//! The bytes of a file that has no name: what a memfd or a deleted file on tmpfs holds.
//!
//! Holes and pages of zeros are not stored: they come back as holes.

use std::os::fd::OwnedFd;

use nix::sys::uio::{pread, pwrite};
use nix::unistd::{Whence, ftruncate, lseek};

use crate::error::{Context, Error, Result};

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
    Ok(content)
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
    let offset = |at: u64| i64::try_from(at).map_err(|_| Error::new(KIND, "writing", "too large"));
    ftruncate(fd, offset(content.size)?).context(KIND, format_args!("setting the length"))?;
    for (start, run) in &content.runs {
        let mut done = 0;
        while done < run.len() {
            let at = offset(*start + done as u64)?;
            done += pwrite(fd, &run[done..], at).context(KIND, format_args!("writing"))?;
        }
    }
    Ok(())
}
