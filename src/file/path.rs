//! A place in the tree that was looked up but not opened (O_PATH of open(2)).
//!
//! What: a description made with O_PATH, of any type of file, a symbolic link included.
//! Reads: the link text, walked again and compared.
//! Rebuilds: with O_PATH | O_NOFOLLOW on the same name.
//! Loses: nothing.
//! Refuses: a name that leads elsewhere, or that is deleted.

use std::os::fd::OwnedFd;

use super::place::{self, Place};
use super::{Description, Opener, World};
use crate::error::{Refusal, Result};

const KIND: &str = "path";

crate::section! {
    /// A place in the image.
    pub struct State {
        /// Where it is.
        pub place: Place,
        /// The type bits of the mode.
        pub format: u32,
    }
}

/// Reads where it is.
///
/// # Errors
/// A refusal if its name leads elsewhere.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    Ok(Box::new(State { place: place::find(desc, world)?, format: desc.stat.format() }))
}

/// Looks it up again.
///
/// # Errors
/// The errno of open(2), or another type of file there.
pub fn restore(state: &State, _opener: &mut Opener) -> Result<OwnedFd> {
    // Without O_NOFOLLOW a symbolic link would lead on to its target.
    let fd = place::open(&state.place.path, libc::O_PATH | libc::O_NOFOLLOW, KIND)?;
    if place::stat(&fd, KIND)?.format() != state.format {
        let doing = format!("looking up {}", state.place.path);
        return Err(crate::error::Error::new(KIND, doing, "another type of file has its name"));
    }
    Ok(fd)
}
