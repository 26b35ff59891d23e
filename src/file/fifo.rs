//! A named pipe (fifo(7)).
//!
//! What: one end; what is in it and its size.
//! Reads: its name, walked again; the contents as the kind `pipe` does.
//! Rebuilds: an end of our own is opened first for both directions, so that no open waits and nothing is
//!   lost between the ends; then every description by the name.
//! Loses: as `pipe`.
//! Refuses: an end outside the image; a name that leads elsewhere; a FIFO that was deleted while open.

use std::os::fd::OwnedFd;

use super::pipe::{self, Body};
use super::place::{self, Place};
use super::{Description, Opener, World};
use crate::error::{Error, Refusal, Result};

const KIND: &str = "fifo";

crate::section! {
    /// One end of a FIFO in the image.
    pub struct State {
        /// Where it is.
        pub place: Place,
        /// What its ends share; only with the first end of the file table.
        pub body: Option<Body>,
    }
}

/// Reads one end.
///
/// # Errors
/// A refusal, as the head of the file says.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<State, Refusal> {
    if desc.is_deleted() {
        return Err(Refusal::new("it was deleted while open", "keep the FIFO's name"));
    }
    Ok(State { place: place::find(desc, world)?, body: pipe::body(desc, world)? })
}

/// Opens one end; the first one fills the FIFO.
///
/// # Errors
/// The errno of the calls.
pub fn restore(state: &State, opener: &mut Opener) -> Result<OwnedFd> {
    if let Some(body) = &state.body {
        let both = place::reopen(&state.place, libc::O_RDWR | libc::O_NONBLOCK, libc::S_IFIFO, KIND)?;
        pipe::fill(body, &both)?;
        let stat = place::stat(&both, KIND)?;
        opener.keep((KIND, stat.dev, stat.ino), both)?;
    }
    let flags = (opener.flags() & libc::O_ACCMODE) | libc::O_NONBLOCK;
    let fd = place::reopen(&state.place, flags, libc::S_IFIFO, KIND)?;
    let stat = place::stat(&fd, KIND)?;
    if !opener.ends.contains_key(&(KIND, stat.dev, stat.ino)) {
        return Err(Error::new(KIND, format!("opening {}", state.place.path), "its first end is missing"));
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;
    use nix::unistd::{mkfifo, read, write};

    use crate::file::place::open;
    use crate::file::testing::{directory, table};

    #[test]
    fn both_ends_and_contents_come_back() {
        let dir = directory();
        let path = format!("{dir}/fifo");
        mkfifo(path.as_str(), Mode::from_bits_retain(0o600)).unwrap();
        let out = open(&path, libc::O_RDONLY | libc::O_NONBLOCK, "fifo").unwrap();
        let into = open(&path, libc::O_WRONLY, "fifo").unwrap();
        write(&into, b"abc").unwrap();
        let again = table(&[&into, &out]);
        let mut bytes = [0; 8];
        // Both pairs are ends of the same FIFO here: on a restored boot the first pair is gone.
        assert_eq!(read(&again[1], &mut bytes).unwrap(), 6);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
