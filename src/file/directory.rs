//! An open directory.
//!
//! What: a description of a directory and how far it was read.
//! Reads: the link text, walked again and compared; fdinfo.
//! Rebuilds: by opening the name again and seeking to the position.
//! Loses: the exact place in a listing that was half read: the position is a cookie of the file system and
//!   may mean another entry after a boot. A listing that was not begun or is at its end is exact.
//! Refuses: a name that leads elsewhere; in /proc, what `regular` refuses. A deleted directory is the kind `deleted`.

use std::os::fd::OwnedFd;

use super::place::{self, Place};
use super::{Description, Opener, World, regular};
use crate::error::{Refusal, Result};

const KIND: &str = "directory";

crate::section! {
    /// A directory in the image.
    pub struct State {
        /// Where it is.
        pub place: Place,
        /// The position of readdir(3).
        pub offset: u64,
    }
}

/// Reads where it is.
///
/// # Errors
/// A refusal if its name leads elsewhere.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    Ok(Box::new(State { place: place::find(desc, world)?, offset: desc.info.pos }))
}

/// Opens it again.
///
/// # Errors
/// The errno of open(2).
pub fn restore(state: &State, opener: &mut Opener) -> Result<OwnedFd> {
    let fd = place::reopen(&state.place, opener.flags() | libc::O_DIRECTORY, libc::S_IFDIR, KIND)?;
    // A cookie that the file system does not take any more leaves the listing at its start.
    let _ = regular::seek(&fd, state.offset, &state.place.path);
    Ok(fd)
}
