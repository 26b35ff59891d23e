//! A named pipe (fifo(7)).
//!
//! What: one end; what is in it and its size.
//! Reads: its name, walked again; the contents as the kind `pipe` does.
//! Rebuilds: an end of our own is opened first for both directions, so that no open waits and nothing is
//!   lost between the ends; then every description by the name.
//! Loses: as `pipe`.
//! Refuses: an end outside the image; a name that leads elsewhere. One that was deleted is a `deleted`.

use std::os::fd::OwnedFd;

use super::pipe::{self, Body};
use super::place::{self, Place};
use super::{Description, Opener, World};
use crate::error::{Error, Refusal, Result};
use crate::sys::abi;

const KIND: &str = "fifo";

crate::section! {
    /// One end of a FIFO in the image.
    pub struct State {
        /// The entry of its first end.
        pub first: u32,
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
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    Ok(Box::new(State {
        first: world.first(desc),
        place: place::find(desc, world)?,
        body: pipe::body(desc, world)?,
    }))
}

/// Opens one end; the first one fills the FIFO.
///
/// # Errors
/// The errno of the calls.
pub fn restore(state: &State, opener: &mut Opener) -> Result<OwnedFd> {
    if let Some(body) = &state.body {
        let both = place::reopen(&state.place, libc::O_RDWR | libc::O_NONBLOCK, libc::S_IFIFO, KIND)?;
        pipe::fill(body, &both)?;
        opener.keep((KIND, state.first), both)?;
    }
    let flags = (opener.flags() & (libc::O_ACCMODE | abi::LARGE)) | libc::O_NONBLOCK;
    let fd = place::reopen(&state.place, flags, libc::S_IFIFO, KIND)?;
    if !opener.ends.contains_key(&(KIND, state.first)) {
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

    #[test]
    fn reader_without_a_writer_waits_for_one() {
        let dir = directory();
        let path = format!("{dir}/fifo");
        mkfifo(path.as_str(), Mode::from_bits_retain(0o600)).unwrap();
        let out = open(&path, libc::O_RDONLY | libc::O_NONBLOCK, "fifo").unwrap();
        let again = table(&[&out]);
        let into = open(&path, libc::O_WRONLY | libc::O_NONBLOCK, "fifo").unwrap();
        write(&into, b"late").unwrap();
        assert_eq!(read(&again[0], &mut [0; 8]).unwrap(), 4);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
