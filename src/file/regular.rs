//! A file that was opened by its name and still has it, or another one beside it.
//!
//! What: an open description of a regular file: its name, offset and flags.
//! Reads: the link text, walked again and compared; fdinfo; fstatfs(2).
//! Rebuilds: by opening the name again with the same access mode and flags and seeking to the offset. On
//!   tmpfs and hugetlbfs the name is there because `kernel` carries the contents; a read-only file of persistent storage
//!   becomes an input, whose identity must match before a restore.
//! Loses: by which of several names it was opened, if that one is gone; inode number and times of a file on tmpfs; the read position inside a line of a /proc file whose
//!   text differs on the new boot; readahead advice (posix_fadvise(2)).
//! Refuses: a file open for writing without O_APPEND on persistent storage, because old memory over newer
//!   contents corrupts data (`writable` allows it); a name that leads elsewhere; files of /proc of a process or thread
//!   outside the image, of a thread of init, which is made last, or of a descriptor; pressure triggers; message
//!   queues.

use std::os::fd::OwnedFd;

use nix::unistd::{Whence, lseek};

use super::place::{self, Place};
use super::{Description, Opener, World};
use crate::config::Key;
use crate::error::{Context, Error, Refusal, Result};
use crate::text;

const KIND: &str = "regular";
const MQUEUE: u32 = 0x1980_0202;

crate::section! {
    /// A regular file in the image.
    pub struct State {
        /// Where it is.
        pub place: Place,
        /// The offset.
        pub offset: u64,
        /// Its size, if it is an input: read only, on persistent storage.
        pub input: Option<u64>,
    }
}

/// Reads what is needed to open it again.
///
/// # Errors
/// A refusal, as the head of the file says.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    if place::magic(desc)? == MQUEUE {
        return Err(Refusal::new("it is a message queue", "start its owner after `rcsnap ready`"));
    }
    // A trigger written to a pressure file belongs to the description and cannot be read (psi.rst).
    if desc.writes() && (text::has(&desc.link, "/pressure/") || desc.link.ends_with(".pressure")) {
        return Err(Refusal::new("it may hold a pressure trigger", "start its owner after `rcsnap ready`"));
    }
    let place = place::find(desc, world)?;
    let append = desc.info.flags & libc::O_APPEND != 0;
    if place.persistent
        && desc.writes()
        && !append
        && let Some(remedy) = world.lacks(Key::Writable, desc, &place.path)
    {
        return Err(Refusal::new(
            "it is open for writing on persistent storage, and old memory over newer contents corrupts data",
            remedy,
        ));
    }
    let input = (place.persistent && !desc.writes()).then_some(desc.stat.size);
    Ok(Box::new(State { place, offset: desc.info.pos, input }))
}

/// Opens it again and seeks.
///
/// # Errors
/// The errno of open(2) or lseek(2); an input whose size differs.
pub fn restore(state: &State, opener: &mut Opener) -> Result<OwnedFd> {
    let fd = place::reopen(&state.place, opener.flags(), libc::S_IFREG, KIND)?;
    if let Some(size) = state.input
        && place::stat(&fd, KIND)?.size != size
    {
        return Err(Error::new(KIND, format!("opening {}", state.place.path), "its size has changed"));
    }
    seek(&fd, state.offset, &state.place.path)?;
    Ok(fd)
}

/// Has the kernel write down once more what is half read of a file of its own: when it was opened again, the tasks that
/// it tells of were not themselves yet.
///
/// # Errors
/// The errno of lseek(2).
pub fn look_again(state: &State, fd: &OwnedFd) -> Result<()> {
    if state.offset == 0 || !state.place.path.starts_with("/proc/") {
        return Ok(());
    }
    // From the same place to the same place it would do nothing.
    let _ = lseek(fd, 0, Whence::SeekSet);
    seek(fd, state.offset, &state.place.path)
}

/// Seeks, unless the offset is 0: some files of /proc cannot seek at all.
///
/// # Errors
/// The errno of lseek(2).
pub fn seek(fd: &OwnedFd, offset: u64, path: &str) -> Result<()> {
    if offset == 0 {
        return Ok(());
    }
    let to = i64::try_from(offset).map_err(|_| Error::new(KIND, format!("seeking in {path}"), "too far"))?;
    match lseek(fd, to, Whence::SeekSet) {
        // A file that can only be read on (trace_pipe) has no place to go back to.
        Ok(_) | Err(nix::errno::Errno::ESPIPE) => Ok(()),
        Err(errno) => Err(errno).context(KIND, format_args!("seeking in {path}")),
    }
}
