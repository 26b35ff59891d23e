//! Files of one file system in memory: read into the image and made again. The kinds `tmpfs` and `devnode`
//! share it.
//!
//! What is kept of each: mode, owner, modification time to the nanosecond, extended attributes with ACLs, hard
//! links, holes. Inode numbers and creation times are new after a restore.
//!
//! A socket's node belongs to the process that bound it, and bind(2) makes it; so [`make`] leaves sockets
//! out, and [`finish`] gives them their mode and owner, and makes those that nobody bound.

use crate::sorted::Listed;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::{self, off_t};
use nix::sys::stat::{Mode, SFlag, major, makedev, minor};
use nix::unistd::{Whence, ftruncate, lseek};

use super::bytes::Bytes;
use crate::error::{Context, Refusal, Result};
use crate::file::content;
use crate::section;
use crate::sorted::Map;
use crate::sys::path::{self, mkdir, mknod};
use crate::sys::stat::{Stat, lstat};
use crate::sys::{fs, time, vm, xattr};
use crate::text;

section! {
    /// One name in the tree.
    pub struct Node {
        /// Path below the top; empty is the top itself.
        pub path: String,
        /// Permissions with set-id and sticky bits.
        pub mode: u32,
        /// Owner.
        pub uid: u32,
        /// Group.
        pub gid: u32,
        /// Time of modification: seconds, nanoseconds.
        pub mtime: (i64, u32),
        /// Extended attributes.
        pub xattrs: Vec<(String, Bytes)>,
        /// What it is.
        pub content: Content,
    }
}

section! {
    /// What a name stands for.
    pub enum Content {
        /// A directory.
        Directory,
        /// A regular file: its size and what is not a hole.
        File(u64, Vec<(u64, Bytes)>),
        /// A symbolic link and its text.
        Link(String),
        /// A FIFO.
        Fifo,
        /// A socket's node.
        Socket,
        /// A character device and its numbers.
        Character(u64, u64),
        /// A block device and its numbers.
        Block(u64, u64),
        /// Another name of the file at this path.
        Same(String),
    }
}

/// How many bytes of contents may still be taken.
#[derive(Debug)]
pub struct Budget(pub u64);

/// All names of the file system at `top`, parents first, in the order of their names; what is mounted on it
/// is left out. The first is the top itself.
///
/// # Errors
/// The errno of reading a directory, or a name that is not UTF-8.
pub fn list(kind: &'static str, top: &Path, skip: &dyn Fn(&str) -> bool) -> Result<Vec<(String, Stat)>> {
    let meta = lstat(top).context(kind, format_args!("reading {}", top.to_string_lossy()))?;
    let device = meta.dev;
    let mut found = vec![(String::new(), meta)];
    let mut next = 0;
    while let Some((path, meta)) = found.get(next) {
        next += 1;
        if !meta.is_dir() {
            continue;
        }
        let (path, mut inside) = (path.clone(), Vec::new());
        let folder = top.join(&path);
        for name in fs::names(&folder).context(kind, format_args!("listing {path}"))? {
            let meta = lstat(folder.join(&name));
            let Ok(name) = name.into_string() else {
                return Err(crate::error::Error::new(kind, format!("listing {path}"), "a name is not UTF-8"));
            };
            let name = if path.is_empty() { name } else { format!("{path}/{name}") };
            if skip(&name) {
                continue;
            }
            match meta {
                Ok(meta) if meta.dev == device => inside.push((name, meta)),
                Ok(_) => {}
                Err(err) => return Err(err).context(kind, format_args!("reading {name}")),
            }
        }
        found.append(&mut inside);
    }
    Ok(found)
}

/// Reads one name. `seen` maps the inodes with several links that were met before to their paths.
///
/// # Errors
/// Contents beyond the budget, or an error of reading.
pub fn read(
    kind: &'static str,
    top: &Path,
    (path, meta): &(String, Stat),
    seen: &mut Map<u64, String>,
    budget: &mut Budget,
) -> Result<Node, Refusal> {
    let file = if path.is_empty() { top.to_path_buf() } else { top.join(path) };
    let doing = format_args!("reading {path}");
    let mut node = Node {
        path: path.clone(),
        mode: meta.mode & 0o7777,
        uid: meta.uid,
        gid: meta.gid,
        mtime: meta.mtime,
        xattrs: Vec::new(),
        content: Content::Directory,
    };
    if !meta.is_dir() && meta.nlink > 1 {
        if let Some(first) = seen.get(&meta.ino) {
            node.content = Content::Same(first.clone());
            return Ok(node);
        }
        seen.insert(meta.ino, path.clone());
    }
    let attributes = xattr::all(&file).context(kind, doing)?;
    node.xattrs = attributes.into_iter().map(|(name, value)| (name, Bytes(value))).list();
    let numbers = (major(meta.rdev), minor(meta.rdev));
    node.content = match meta.format() {
        libc::S_IFDIR => Content::Directory,
        libc::S_IFLNK => {
            let text = fs::link(&file).context(kind, doing)?;
            Content::Link(text.into_os_string().into_string().map_err(|_| {
                Refusal::new(format!("the link {path} does not hold UTF-8"), "give it another target")
            })?)
        }
        libc::S_IFIFO => Content::Fifo,
        libc::S_IFSOCK => Content::Socket,
        libc::S_IFCHR => Content::Character(numbers.0, numbers.1),
        libc::S_IFBLK => Content::Block(numbers.0, numbers.1),
        _ => Content::File(meta.size, extents(&file, meta.size, budget).map_err(|e| refuse(kind, path, e))?),
    };
    Ok(node)
}

fn refuse(kind: &'static str, path: &str, errno: Errno) -> Refusal {
    if errno == Errno::E2BIG {
        return Refusal::new(
            format!("{path} makes the files in memory larger than the image takes"),
            "write it after the ready line, or keep it on flash",
        );
    }
    crate::error::Error::os(kind, format!("reading {path}"), errno).into()
}

/// What is not a hole, in order.
fn extents(path: &Path, size: u64, budget: &mut Budget) -> Result<Vec<(u64, Bytes)>, Errno> {
    let file = fs::open(path, OFlag::O_RDONLY)?;
    let mut found = Vec::new();
    let mut at = 0;
    // A file of huge pages shows no holes: its zeros are left out piece by piece.
    let huge = vm::huge(file.as_fd())? != 0;
    while at < size {
        let start = match seek(&file, at, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => break,
            Err(errno) => return Err(errno),
        };
        let mut end = seek(&file, start, Whence::SeekHole)?.min(size);
        if huge {
            end = end.min(start + 4096);
        }
        let len = end.saturating_sub(start);
        let left = budget.0.checked_sub(len).ok_or(Errno::E2BIG)?;
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| Errno::E2BIG)?];
        fs::read_at(&file, start, &mut bytes)?;
        if !huge || bytes.iter().any(|byte| *byte != 0) {
            budget.0 = left;
            found.push((start, Bytes(bytes)));
        }
        at = end.max(start + 1);
    }
    for at in content::huge_zeros(&file, size)? {
        found.push((at, Bytes(vec![0])));
    }
    Ok(found)
}

fn seek(file: &OwnedFd, at: u64, whence: Whence) -> Result<u64, Errno> {
    let at = off_t::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
    u64::try_from(lseek(file, at, whence)?).map_err(|_| Errno::EIO)
}

/// Takes away what has a name, if anything has.
fn clear(path: &Path) -> Result<(), Errno> {
    if lstat(path).is_ok() { path::remove(path) } else { Ok(()) }
}

/// Takes names away, children first.
///
/// # Errors
/// The errno of the call that did not work.
pub fn remove(kind: &'static str, top: &Path, paths: &[String]) -> Result<()> {
    for path in paths {
        clear(&top.join(path)).context(kind, format_args!("removing {path}"))?;
    }
    Ok(())
}

/// Makes the nodes below `top`, parents first, whatever was there before. Sockets and their further names are left to
/// [`finish`]. `renumbered` has the paths of device nodes whose numbers are other ones now.
///
/// # Errors
/// The errno of the call that did not work.
pub fn make(kind: &'static str, top: &Path, nodes: &[Node], renumbered: &[(&str, (u64, u64))]) -> Result<()> {
    for node in nodes {
        make_one(top, node, renumbered).context(kind, format_args!("making {}", node.path))?;
    }
    directory_times(kind, top, &nodes.iter().list())
}

/// Gives sockets their mode and owner, makes those that nobody bound and the further names of all, and sets the times of
/// their directories again, which bind(2) has changed.
///
/// # Errors
/// The errno of the call that did not work.
pub fn finish(kind: &'static str, top: &Path, nodes: &[&Node]) -> Result<()> {
    // A socket may be bound to a later one of its names. All else has its names already.
    for node in nodes {
        if let Content::Same(first) = &node.content {
            let _ = path::link(&place(top, node), &top.join(first));
        }
    }
    let mut parents = Vec::new();
    for node in nodes {
        let path = place(top, node);
        let made = match &node.content {
            Content::Socket => mknod(&path, SFlag::S_IFSOCK, Mode::S_IRUSR, 0),
            Content::Same(first) => path::link(&top.join(first), &path),
            _ => continue,
        };
        let done = match made {
            Err(errno) if errno != Errno::EEXIST => Err(errno),
            _ if node.content == Content::Socket => dress(&path, node),
            _ => Ok(()),
        };
        done.context(kind, format_args!("making {}", node.path))?;
        let parent = text::split_last(&node.path, '/').map_or("", |(parent, _)| parent);
        parents.extend(nodes.iter().copied().find(|node| node.path == parent));
    }
    directory_times(kind, top, &parents)
}

/// After everything inside is made, because making changes the directory's time; children first.
fn directory_times(kind: &'static str, top: &Path, nodes: &[&Node]) -> Result<()> {
    for node in nodes.iter().rev().filter(|node| node.content == Content::Directory) {
        set_time(&place(top, node), node).context(kind, format_args!("setting the time of {}", node.path))?;
    }
    Ok(())
}

/// `join("")` would append a slash, which follows a link at the end.
fn place(top: &Path, node: &Node) -> PathBuf {
    if node.path.is_empty() { top.to_path_buf() } else { top.join(&node.path) }
}

fn make_one(top: &Path, node: &Node, renumbered: &[(&str, (u64, u64))]) -> Result<(), Errno> {
    let device = |kind, major, minor| {
        let now = renumbered.iter().find(|(path, _)| *path == node.path);
        let (major, minor) = now.map_or((major, minor), |(_, now)| *now);
        mknod(&place(top, node), kind, Mode::S_IRUSR, makedev(major, minor))
    };
    let path = place(top, node);
    if node.content != Content::Directory && !matches!(node.content, Content::Socket) {
        clear(&path)?;
    }
    match &node.content {
        Content::Directory => match mkdir(&path, 0o777) {
            Ok(()) => {}
            Err(Errno::EEXIST) if lstat(&path).is_ok_and(|meta| meta.is_dir()) => {}
            Err(errno) => return Err(errno),
        },
        Content::File(size, extents) => {
            let file = fs::open(&path, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)?;
            ftruncate(&file, off_t::try_from(*size).map_err(|_| Errno::EFBIG)?)?;
            for (at, bytes) in extents {
                fs::write_at(&file, *at, &bytes.0)?;
            }
        }
        Content::Link(text) => path::symlink(text, &path)?,
        Content::Fifo => mknod(&path, SFlag::S_IFIFO, Mode::S_IRUSR, 0)?,
        Content::Character(major, minor) => device(SFlag::S_IFCHR, *major, *minor)?,
        Content::Block(major, minor) => device(SFlag::S_IFBLK, *major, *minor)?,
        Content::Socket => return Ok(()),
        // The first name has had its owner and mode already.
        Content::Same(first) => {
            let made = path::link(&top.join(first), &path);
            // Not yet there: a socket.
            return if made == Err(Errno::ENOENT) { Ok(()) } else { made };
        }
    }
    dress(&path, node)
}

/// Sets owner and mode: the owner first, because chown(2) clears the set-id bits.
///
/// # Errors
/// The errno of chown(2) or chmod(2).
pub fn own(path: &Path, node: &Node) -> Result<(), Errno> {
    path::chown(path, node.uid, node.gid)?;
    if !matches!(node.content, Content::Link(_)) {
        path::chmod(path, node.mode)?;
    }
    Ok(())
}

/// Attributes after the mode, which is part of an ACL; the time last.
fn dress(path: &Path, node: &Node) -> Result<(), Errno> {
    own(path, node)?;
    for (name, value) in &node.xattrs {
        xattr::set(path, name, &value.0)?;
    }
    set_time(path, node)
}

fn set_time(path: &Path, node: &Node) -> Result<(), Errno> {
    time::set_of_file(path, node.mtime)
}
