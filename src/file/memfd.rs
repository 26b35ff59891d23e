//! Memory with a descriptor (memfd_create(2)).
//!
//! What: its name, bytes and seals, the size of its pages if they are huge, and one description of it.
//! Reads: the link text for the name; the bytes through a description of our own; F_GET_SEALS.
//! Rebuilds: memfd_create(2), the bytes, the seals (one on later writers when all is mapped); further descriptions by
//!   opening it again.
//! Loses: whether it was made with MFD_NOEXEC_SEAL where no seal shows it; holes become holes of zeros;
//!   which of several huge pages of zeros are there, but not how many.
//! Refuses: secret memory.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use super::content::{self, Content};
use super::{Description, Opener, World, place};
use crate::error::{Context, Error, Refusal, Result};
use crate::sys::descriptor::{self, FcntlNumber};
use crate::sys::{abi, anonymous, vm};

const KIND: &str = "memfd";

crate::section! {
    /// One description of a memfd in the image.
    pub struct State {
        /// Its first entry: descriptions with the same number are one memfd.
        pub first: u32,
        /// The offset.
        pub offset: u64,
        /// What it holds; only with its first description in the file table.
        pub body: Option<Body>,
    }
}

crate::section! {
    /// What all descriptions of a memfd share.
    pub struct Body {
        /// The name that its maker gave it.
        pub name: String,
        /// Its bytes.
        pub content: Content,
        /// F_SEAL_*.
        pub seals: i32,
        /// Permissions.
        pub mode: u32,
        /// Owner.
        pub uid: u32,
        /// Group.
        pub gid: u32,
        /// The size of its pages, if they are huge ([`vm::huge`]).
        pub huge: u32,
    }
}

/// Whether the link text is a memfd's.
#[must_use]
pub fn is_memfd(desc: &Description) -> bool {
    desc.link.starts_with("/memfd:") && desc.is_deleted()
}

/// Reads it.
///
/// # Errors
/// It cannot be read.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    let first = world.first(desc);
    let body = if first == desc.entry { Some(body(desc)?) } else { None };
    Ok(Box::new(State { first, offset: desc.info.pos, body }))
}

fn body(desc: &Description) -> Result<Body> {
    let name = desc.link.strip_prefix("/memfd:").and_then(|name| name.strip_suffix(" (deleted)"));
    // A description of our own: reading must not move the owner's offset.
    let own = Opener::again(desc.fd.as_fd(), libc::O_RDONLY | abi::LARGE, KIND)?;
    Ok(Body {
        name: name.unwrap_or_default().to_owned(),
        content: content::read(&own, desc.stat.size)?,
        seals: descriptor::fcntl(desc.fd.as_fd(), FcntlNumber::GetSeals, 0)
            .context(KIND, format_args!("reading the seals"))?,
        mode: desc.stat.mode & 0o7777,
        uid: desc.stat.uid,
        gid: desc.stat.gid,
        huge: vm::huge(own.as_fd()).context(KIND, format_args!("asking for its pages"))?,
    })
}

/// Opens one description; the first one makes the memfd.
///
/// # Errors
/// The errno of the calls.
pub fn restore(state: &State, opener: &mut Opener) -> Result<OwnedFd> {
    let key = (KIND, state.first);
    if let Some(body) = &state.body {
        let fd = make(body)?;
        opener.keep(key, fd)?;
    }
    let flags = opener.flags();
    let first = opener.ends.get(&key);
    let first =
        first.ok_or_else(|| Error::new(KIND, "opening it again", "its first description is missing"))?;
    let fd = Opener::again(first.as_fd(), place::reopen_flags(flags), KIND)?;
    super::regular::seek(&fd, state.offset, "a memfd")?;
    Ok(fd)
}

fn make(body: &Body) -> Result<OwnedFd> {
    let doing = format_args!("making {}", body.name);
    let name = CString::new(body.name.as_str())
        .map_err(|_| Error::new(KIND, doing.to_string(), "its name has a NUL"))?;
    let fd = anonymous::memfd(&name, body.huge).context(KIND, doing)?;
    content::write(&body.content, &fd)?;
    let mode = nix::sys::stat::Mode::from_bits_retain(body.mode);
    nix::sys::stat::fchmod(&fd, mode).context(KIND, doing)?;
    nix::unistd::fchown(&fd, Some(body.uid.into()), Some(body.gid.into())).context(KIND, doing)?;
    // After the bytes, which a seal would keep out. F_SEAL_EXEC comes from the mode.
    add(body, &fd, false)?;
    Ok(fd)
}

/// Adds the seals, if they are of those that go in now or `late`.
fn add(body: &Body, fd: &OwnedFd, late: bool) -> Result<()> {
    // With F_SEAL_FUTURE_WRITE alone there may be mappings that write, as with F_SEAL_WRITE not.
    let kept = body.seals & (libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE) == libc::F_SEAL_FUTURE_WRITE;
    if kept == late {
        descriptor::fcntl(fd.as_fd(), FcntlNumber::AddSeals, body.seals)
            .context(KIND, format_args!("sealing"))?;
    }
    Ok(())
}

/// When everything is mapped: the seals that keep new mappings from writing, but not those which are there.
///
/// # Errors
/// The errno of the call.
pub fn seal(state: &State, fd: &OwnedFd) -> Result<()> {
    state.body.as_ref().map_or(Ok(()), |body| add(body, fd, true))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::unistd::{read, write};

    use crate::file::testing::states;
    use crate::file::{Opener, State};
    use crate::sys::anonymous;
    use crate::sys::descriptor::{FcntlNumber, fcntl};

    #[test]
    fn bytes_seals_offset_and_second_description_come_back() {
        let fd = anonymous::memfd(c"a name", 0).unwrap();
        nix::unistd::ftruncate(&fd, 100_000).unwrap();
        nix::sys::uio::pwrite(&fd, b"middle", 50_000).unwrap();
        write(&fd, b"start").unwrap();
        fcntl(fd.as_fd(), FcntlNumber::AddSeals, libc::F_SEAL_SHRINK).unwrap();
        let second = Opener::again(fd.as_fd(), libc::O_RDONLY, "memfd").unwrap();
        let found = states(&[&fd, &second]);
        let State::Memfd(first) = &found.before[0] else { panic!() };
        assert_eq!(first.offset, 5);
        let body = first.body.as_ref().unwrap();
        assert_eq!((body.name.as_str(), body.seals), ("a name", libc::F_SEAL_SHRINK));
        let State::Memfd(again) = &found.after[0] else { panic!() };
        assert_eq!(first.body, again.body);
        let mut bytes = [0; 5];
        read(&found.open[1], &mut bytes).unwrap();
        assert_eq!(&bytes, b"start");
        nix::sys::uio::pwrite(&found.open[0], b"X", 0).unwrap();
        nix::sys::uio::pread(&found.open[1], &mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"Xtart");
    }

    #[test]
    fn memfd_without_sealing_stays_without() {
        let fd = nix::sys::memfd::memfd_create(c"plain", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        let found = states(&[&fd]);
        let State::Memfd(first) = &found.after[0] else { panic!() };
        assert_eq!(first.body.as_ref().unwrap().seals, libc::F_SEAL_SEAL);
    }
}
