//! Files in memory: the contents of tmpfs, ramfs and hugetlbfs.
//!
//! # What
//! Every file of a tmpfs, ramfs or hugetlbfs that the scripts mounted; of one that was there before them (a root in
//! memory), what they changed.
//! # Reads
//! A copy of the mount that hangs nowhere, which shows the directories that other mounts hide: modes, owners,
//! attributes with ACLs, hard links, links, FIFOs, device nodes, holes, times to the nanosecond.
//! # Rebuilds
//! The same files, as soon as the file system is mounted and before anything is mounted on it. Sockets are
//! bound by their owners; those without one, and all their modes, are made by `finish`.
//! # Loses
//! Inode numbers, creation and access times; FS_IOC_SETFLAGS of kernel 6.6 and later. /run/rcsnap is ours and
//! is left out; each boot makes it, which shows in the time of /run. A file without a name is carried by the process
//! that has it open.
//! # Refuses
//! More than 64 MiB of contents; names that are not UTF-8; a file system that another mount hides.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::root::Root;
use super::tree::{self, Budget, Node};
use crate::error::{Context, Error, Obstacle, Refusal, Result};
use crate::proc::mountinfo::{Mount, below, lookup};
use crate::section;
use crate::sorted::{Listed, Map};
use crate::sys::mount::bare_copy;
use crate::sys::stat::Stat;
use crate::text;

/// Ours: made anew on every boot.
pub const OWN: &str = "/run/rcsnap";

/// What all contents together may come to.
const LIMIT: u64 = 64 << 20;

section! {
    /// The files in memory, in the order of [`super::mount::plan::Step::Fill`].
    pub struct State {
        /// Each file system.
        pub list: Vec<Filesystem>,
    }
}

section! {
    /// One file system in memory.
    pub struct Filesystem {
        /// Where it is mounted while it is being filled.
        pub point: String,
        /// What the scripts took away of a file system that was there before them.
        pub removed: Vec<String>,
        /// What is there, or new, parents first.
        pub nodes: Vec<Node>,
    }
}

/// The names of a file system before the scripts.
pub type Names = Vec<(String, Stat)>;

/// A file system in memory before the scripts, by the number of its mount.
pub type Before = Vec<(u32, Names)>;

/// Lists the file systems in memory that are there before the scripts.
///
/// # Errors
/// An error of reading.
pub fn baseline(mounts: &[Mount], root: &Root) -> Result<Before> {
    let all: Vec<&Mount> = mounts.iter().list();
    let mut found = Vec::new();
    for mount in mounts {
        let volatile = super::mount::fstype::class(&mount.fstype) == super::mount::fstype::Class::Volatile;
        if volatile && mount.root == "/" && lookup(&all, &mount.point).is_some_and(|m| m.id == mount.id) {
            let view = View::open(mount, mounts, root)?;
            found.push((mount.id, tree::list("tmpfs", &view.path, &|name| skip(mount, name))?));
        }
    }
    Ok(found)
}

/// Reads the file systems that [`super::mount::capture`] names.
#[must_use]
pub fn capture(
    before: &Before,
    mounts: &[Mount],
    fills: &[(usize, bool)],
    root: &Root,
) -> (State, Vec<Obstacle>) {
    let all: Vec<&Mount> = mounts.iter().list();
    let (mut state, mut obstacles) = (State { list: Vec::new() }, Vec::new());
    let mut budget = Budget(LIMIT);
    for (index, kept) in fills {
        let Some(mount) = mounts.get(*index) else { continue };
        let old = before.iter().find(|(id, _)| kept & (*id == mount.id)).map(|(_, names)| names);
        let seen = lookup(&all, &mount.point).is_some_and(|m| m.id == mount.id) && (!kept || old.is_some());
        let found = if seen {
            one(mount, mounts, old, root, &mut budget)
        } else {
            Err(Refusal::new("another mount hides its files", "mount it after the ready line"))
        };
        match found {
            Ok(filesystem) => state.list.push(filesystem),
            Err(refusal) => {
                obstacles.push(Obstacle::kernel("tmpfs", format!("mount {}", mount.point), refusal))
            }
        }
    }
    (state, obstacles)
}

fn one(
    mount: &Mount,
    mounts: &[Mount],
    old: Option<&Names>,
    root: &Root,
    budget: &mut Budget,
) -> Result<Filesystem, Refusal> {
    let view = View::open(mount, mounts, root)?;
    let names = tree::list("tmpfs", &view.path, &|name| skip(mount, name))?;
    let empty = Vec::new();
    let (removed, wanted) = difference(old.unwrap_or(&empty), names, true);
    let mut seen = Map::new();
    let nodes = wanted.iter().map(|name| tree::read("tmpfs", &view.path, name, &mut seen, budget));
    Ok(Filesystem { point: mount.point.clone(), removed, nodes: nodes.whole()? })
}

/// What is gone, children first, and what is new or changed, parents first. Without `times`, those of
/// directories do not count: in devtmpfs the kernel changes them.
#[must_use]
pub fn difference(before: &Names, after: Names, times: bool) -> (Vec<String>, Names) {
    let old = by_path(before);
    let now = by_path(&after);
    let removed = before.iter().rev().map(|(path, _)| path).filter(|path| !now.contains_key(&path.as_str()));
    let removed = removed.cloned().list();
    drop(now);
    let changed =
        |(path, meta): &(String, Stat)| old.get(&path.as_str()).is_none_or(|was| differs(was, meta, times));
    // A file with several names is one: if one of them changed they all do.
    let inodes: Vec<u64> = after.iter().filter(|n| n.1.nlink > 1 && changed(n)).map(|n| n.1.ino).list();
    let wanted = after.into_iter().filter(|n| changed(n) || (!n.1.is_dir() && inodes.contains(&n.1.ino)));
    (removed, wanted.list())
}

fn by_path(names: &Names) -> Map<&str, &Stat> {
    names.iter().map(|(path, meta)| (path.as_str(), meta)).list().into()
}

/// Whether a name stands for something else now. The times of device nodes change with their use.
fn differs(was: &Stat, is: &Stat, times: bool) -> bool {
    let device = (is.is_dir() && !times) || is.is_device();
    let dress = |m: &Stat| (m.mode, m.uid, m.gid, m.rdev);
    let body = |m: &Stat| (m.ino, m.size, m.mtime, m.ctime);
    dress(was) != dress(is) || (!device && body(was) != body(is))
}

fn skip(mount: &Mount, name: &str) -> bool {
    below(&format!("{}/{name}", text::without_end(&mount.point, "/")), OWN)
}

/// A file system without what is mounted on it.
struct View {
    path: PathBuf,
    _copy: Option<OwnedFd>,
}

impl View {
    fn open(mount: &Mount, mounts: &[Mount], root: &Root) -> Result<View> {
        // Such a mount cannot be copied, and need not be if nothing hides a part of it.
        if mount.unbindable && !mounts.iter().any(|m| m.parent == mount.id) {
            return Ok(View { path: root.path(&mount.point), _copy: None });
        }
        let copy = root
            .inside(|| bare_copy(Path::new(&mount.point)))
            .context("tmpfs", format_args!("copying the mount {}", mount.point))?;
        Ok(View { path: root.descriptor(copy.as_raw_fd()), _copy: Some(copy) })
    }
}

/// Fills one file system, by its number. It is mounted, and nothing is mounted on it yet.
///
/// # Errors
/// What could not be made.
pub fn restore(state: &State, index: u32, root: &Root) -> Result<()> {
    let found = usize::try_from(index).ok().and_then(|index| state.list.get(index));
    let filesystem =
        found.ok_or_else(|| Error::new("tmpfs", "filling a mount", "the image does not have its files"))?;
    let top = root.path(&filesystem.point);
    tree::remove("tmpfs", &top, &filesystem.removed)?;
    tree::make("tmpfs", &top, &filesystem.nodes, &[])
}

/// After the processes have bound their sockets: see [`tree::finish`]. What another mount hides by now stays
/// as it is. `pivot` is a directory that has become the root since.
///
/// # Errors
/// What could not be made.
pub fn finish(state: &State, pivot: &str, root: &Root) -> Result<()> {
    let mounts = root.mounts()?;
    let all: Vec<&Mount> = mounts.iter().list();
    for filesystem in &state.list {
        let point = filesystem.point.strip_prefix(pivot).unwrap_or_default();
        let point = format!("/{}", text::without_start(point, "/"));
        let top = text::without_end(&point, "/");
        let on = |path: &str| lookup(&all, path).map(|m| m.id);
        let here = on(&point);
        let visible = filesystem.nodes.iter().filter(|node| on(&format!("{top}/{}", node.path)) == here);
        let visible: Vec<&Node> = visible.list();
        tree::finish("tmpfs", &root.path(&point), &visible)?;
    }
    Ok(())
}
