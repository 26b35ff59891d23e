//! A file, directory or FIFO that lost its name while it was open.
//!
//! What: its bytes, owner and permissions, and one description of it.
//! Reads: the link text for the old name; the bytes through a description of our own; fdinfo; fstat(2).
//! Rebuilds: made under its old name and deleted again; what has the name by now is moved aside for that
//!   moment. Further descriptions by opening it again through /proc/self/fd.
//! Loses: inode number and times; extended attributes; the directory part of the name, where the directory
//!   is gone too.
//! Refuses: a deleted file on persistent storage (an image would have to bring back what a boot loses), or
//!   in a directory tree that is gone up to the mount.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::UnlinkatFlags;

use super::content::{self, Content};
use super::{Description, Opener, World, pipe, place, regular};
use crate::error::{Context, Error, Refusal, Result};
use crate::sys::abi;
use crate::sys::path::{self, openat, rename_in, unlinkat};
use crate::sys::stat::{Stat, stat};
use crate::text;

const KIND: &str = "deleted";

crate::section! {
    /// One description of a deleted file in the image.
    pub struct State {
        /// Its first entry: descriptions with the same number are one file.
        pub first: u32,
        /// The offset.
        pub offset: u64,
        /// What it holds; only with its first description in the file table.
        pub body: Option<Body>,
    }
}

crate::section! {
    /// What all descriptions of a deleted file share.
    pub struct Body {
        /// A directory of the same file system.
        pub dir: String,
        /// The last part of its old name.
        pub name: String,
        /// Its bytes, if it is a regular file.
        pub content: Option<Content>,
        /// What is in it, if it is a FIFO.
        pub pipe: Option<pipe::Body>,
        /// Permissions.
        pub mode: u32,
        /// Owner.
        pub uid: u32,
        /// Group.
        pub gid: u32,
    }
}

/// Reads it.
///
/// # Errors
/// A refusal, as the head of the file says.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    let format = desc.stat.format();
    let special = desc.link.starts_with("/secretmem") || desc.link.starts_with("/dmabuf:");
    // What is in a FIFO is in memory wherever its name was.
    let memory = format == libc::S_IFIFO || place::in_memory(place::magic(desc)?);
    if special || !memory || !matches!(format, libc::S_IFREG | libc::S_IFDIR | libc::S_IFIFO) {
        return Err(not_in_memory());
    }
    let first = world.first(desc);
    let body = if first == desc.entry { Some(body(desc, world)?) } else { None };
    Ok(Box::new(State { first, offset: desc.info.pos, body }))
}

/// A deleted directory that somebody stands in: `link` is the text of his link. `root` stands before every path.
///
/// # Errors
/// A refusal, as the head of the file says.
pub fn folder(link: &str, fd: &OwnedFd, root: &str) -> Result<Body, Refusal> {
    if !place::in_memory(place::magic_of(fd).context(KIND, format_args!("asking where {link} is"))?) {
        return Err(not_in_memory());
    }
    empty(link, &place::stat(fd, KIND)?, root)
}

fn not_in_memory() -> Refusal {
    Refusal::new(
        "it was deleted while open, and is not on tmpfs",
        "restart its owner before `rcsnap ready`, after whatever replaced the file",
    )
}

/// What can be said without its contents.
fn empty(link: &str, of: &Stat, root: &str) -> Result<Body, Refusal> {
    let old = link.strip_suffix(" (deleted)").unwrap_or(link);
    let (mut dir, name) = text::split_last(old, '/').unwrap_or(("", old));
    let here = |dir: &str| {
        let path = format!("{root}{}", if dir.is_empty() { "/" } else { dir });
        stat(&path).is_ok_and(|found| found.dev == of.dev)
    };
    while !here(dir) {
        let Some((parent, _)) = text::split_last(dir, '/') else {
            let reason = "it was deleted while open, and its file system is not mounted where it was";
            return Err(Refusal::new(reason, "restart its owner before `rcsnap ready`"));
        };
        dir = parent;
    }
    Ok(Body {
        dir: if dir.is_empty() { "/" } else { dir }.to_owned(),
        name: name.to_owned(),
        content: None,
        pipe: None,
        mode: of.mode & 0o7777,
        uid: of.uid,
        gid: of.gid,
    })
}

fn body(desc: &Description, world: &World<'_>) -> Result<Body, Refusal> {
    let mut body = empty(&desc.link, &desc.stat, world.root)?;
    if desc.stat.format() == libc::S_IFREG {
        let own = Opener::again(desc.fd.as_fd(), libc::O_RDONLY | abi::LARGE, KIND)?;
        body.content = Some(content::read(&own, desc.stat.size)?);
    }
    if desc.stat.format() == libc::S_IFIFO {
        body.pipe = pipe::body(desc, world)?;
    }
    Ok(body)
}

/// Opens one description; the first one makes the file.
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
    // The wait flag is set to what it was at the end; until then no open of a FIFO may wait.
    let fd = Opener::again(first.as_fd(), place::reopen_flags(flags) | libc::O_NONBLOCK, KIND)?;
    regular::seek(&fd, state.offset, "a deleted file")?;
    Ok(fd)
}

/// Makes it under its old name for a moment.
///
/// # Errors
/// The errno of the calls.
pub fn make(body: &Body) -> Result<OwnedFd> {
    let doing = format_args!("making {} in {} for a moment", body.name, body.dir);
    let dir = place::open(&body.dir, libc::O_DIRECTORY | libc::O_RDONLY, KIND)?;
    let name = body.name.as_str();
    let fd = under_name(&dir, name, || match (&body.content, &body.pipe) {
        (Some(_), _) => file(&dir, name),
        (None, Some(_)) => fifo(&dir, name),
        (None, None) => directory(&dir, name),
    });
    let fd = fd.context(KIND, doing)?;
    if let Some(content) = &body.content {
        content::write(content, &fd)?;
    }
    if let Some(contents) = &body.pipe {
        pipe::fill(contents, &fd)?;
    }
    nix::unistd::fchown(&fd, Some(body.uid.into()), Some(body.gid.into())).context(KIND, doing)?;
    // After the owner, because chown(2) takes set-user-ID bits away.
    nix::sys::stat::fchmod(&fd, Mode::from_bits_retain(body.mode)).context(KIND, doing)?;
    Ok(fd)
}

/// Runs `make` while the name is free: what has it now is moved aside and gets it back.
fn under_name(
    dir: &OwnedFd,
    name: &str,
    make: impl FnOnce() -> nix::Result<OwnedFd>,
) -> nix::Result<OwnedFd> {
    let aside = format!("{name}.rcsnap");
    let moved = match rename_in(dir, name, &aside) {
        Ok(()) => true,
        Err(Errno::ENOENT) => false,
        Err(errno) => return Err(errno),
    };
    let made = make();
    if moved {
        rename_in(dir, &aside, name)?;
    }
    made
}

fn file(dir: &OwnedFd, name: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let fd = openat(dir, name, flags, Mode::from_bits_retain(0o600))?;
    unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)?;
    Ok(fd)
}

fn fifo(dir: &OwnedFd, name: &str) -> nix::Result<OwnedFd> {
    nix::unistd::mkfifoat(dir, &*path::text(name.as_ref())?, Mode::from_bits_retain(0o600))?;
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let fd = openat(dir, name, flags, Mode::empty())?;
    unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)?;
    Ok(fd)
}

fn directory(dir: &OwnedFd, name: &str) -> nix::Result<OwnedFd> {
    path::mkdirat(dir, name, 0o700)?;
    let fd = openat(dir, name, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    unlinkat(dir, name, UnlinkatFlags::RemoveDir)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use nix::unistd::{read, write};

    use crate::file::place::open;
    use crate::file::testing::{directory, refused, states};
    use crate::file::{Opener, State};

    /// A folder on tmpfs.
    fn memory() -> Option<String> {
        let dir = format!("/dev/shm/rcsnap-test-{}-{:?}", std::process::id(), std::thread::current().id());
        std::fs::create_dir_all(&dir).ok()?;
        Some(dir)
    }

    #[test]
    fn deleted_file_on_tmpfs_comes_back_with_all_its_descriptions() {
        let Some(dir) = memory() else { return };
        let path = format!("{dir}/gone");
        std::fs::write(&path, "some text").unwrap();
        let fd = open(&path, libc::O_RDWR, "deleted").unwrap();
        let second = Opener::again(std::os::fd::AsFd::as_fd(&fd), libc::O_RDONLY, "deleted").unwrap();
        std::fs::write(format!("{dir}/new"), "new").unwrap();
        std::fs::rename(format!("{dir}/new"), &path).unwrap();
        read(&fd, &mut [0; 5]).unwrap();
        let found = states(&[&fd, &second]);
        let (State::Deleted(before), State::Deleted(after)) = (&found.before[0], &found.after[0]) else {
            panic!()
        };
        assert_eq!((before.offset, &before.body), (5, &after.body));
        write(&found.open[0], b"TEXT").unwrap();
        let mut bytes = [0; 9];
        read(&found.open[1], &mut bytes).unwrap();
        assert_eq!(&bytes, b"some TEXT");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(found.before, found.after);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn deleted_directory_on_tmpfs_comes_back() {
        let Some(dir) = memory() else { return };
        let path = format!("{dir}/gone-dir");
        std::fs::create_dir(&path).unwrap();
        let fd = open(&path, libc::O_DIRECTORY, "deleted").unwrap();
        std::fs::remove_dir(&path).unwrap();
        let found = states(&[&fd]);
        let (State::Deleted(before), State::Deleted(after)) = (&found.before[0], &found.after[0]) else {
            panic!()
        };
        assert_eq!(before.body, after.body);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn deleted_fifo_comes_back_with_its_contents() {
        let dir = directory();
        let path = format!("{dir}/fifo");
        nix::unistd::mkfifo(path.as_str(), nix::sys::stat::Mode::from_bits_retain(0o600)).unwrap();
        let out = open(&path, libc::O_RDONLY | libc::O_NONBLOCK, "deleted").unwrap();
        let into = open(&path, libc::O_WRONLY, "deleted").unwrap();
        write(&into, b"inside").unwrap();
        std::fs::remove_file(&path).unwrap();
        let found = states(&[&into, &out]);
        assert_eq!(found.before, found.after);
        assert_eq!(read(&found.open[1], &mut [0; 20]).unwrap(), 6);
        write(&found.open[0], b"x").unwrap();
        assert_eq!(read(&found.open[1], &mut [0; 20]).unwrap(), 1);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn deleted_file_on_persistent_storage_is_refused() {
        let dir = directory();
        let path = format!("{dir}/gone");
        std::fs::write(&path, "x").unwrap();
        let fd = open(&path, libc::O_RDONLY, "deleted").unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(refused(&[&fd]).reason.contains("not on tmpfs"));
    }
}
