//! Device nodes: what the scripts changed in devtmpfs.
//!
//! # What
//! Nodes, links, directories and small files that the scripts added to devtmpfs; modes and owners they changed;
//! names they removed.
//! # Reads
//! A mount of devtmpfs that hangs nowhere: there is only one file system of that type, wherever it is mounted.
//! # Rebuilds
//! The same names. A node that the kernel makes itself is waited for and only gets its mode and owner; the
//! numbers of a node made by mknod(1) are translated by the path of its device in sysfs, because they can
//! change from boot to boot. Devices that descriptors refer to are waited for first.
//! # Loses
//! Nodes of a device that came after the scripts began, that is not there at the restore and that no descriptor
//! refers to: a line in the log tells of each.
//! # Refuses
//! Regular files of more than 256 KiB in all.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::{major, minor};

use super::root::Root;
use super::tmpfs::{Names, difference};
use super::tree::{self, Budget, Content, Node};
use super::{come, wait_for};
use crate::error::{Context, Error, Obstacle, Result};
use crate::log;
use crate::section;
use crate::sorted::{Listed, Map};
use crate::sys::fsmount;
use crate::sys::stat::{Stat, lstat};
use crate::text;

/// What all regular files together may come to.
const LIMIT: u64 = 256 << 10;

section! {
    #[derive(Default)]
    /// The difference of devtmpfs.
    pub struct State {
        /// What the scripts took away.
        pub removed: Vec<String>,
        /// What the scripts made, parents first.
        pub nodes: Vec<Node>,
        /// Nodes that the kernel makes, with the mode and owner they have now.
        pub known: Vec<Known>,
        /// Which of `nodes` stand for a device that the kernel knows, and which of `known` were not there before the
        /// scripts: path, path in sysfs.
        pub devices: Vec<(String, String)>,
        /// Paths in sysfs of the devices that descriptors refer to.
        pub needs: Vec<String>,
    }
}

section! {
    /// A node that the kernel makes.
    pub struct Known {
        /// Path below /dev, or below the root of a hierarchy of control groups.
        pub path: String,
        /// Permissions.
        pub mode: u32,
        /// Owner.
        pub uid: u32,
        /// Group.
        pub gid: u32,
    }
}

/// devtmpfs, attached nowhere.
fn detached() -> Result<OwnedFd, Errno> {
    fsmount::mount(Path::new("devtmpfs"), "devtmpfs", false)
}

/// The names in devtmpfs before the scripts; none if the kernel has no devtmpfs.
///
/// # Errors
/// An error of reading.
pub fn baseline(root: &Root) -> Result<Names> {
    match detached() {
        Ok(fd) => tree::list("devnode", &root.descriptor(fd.as_raw_fd()), &|_| false),
        Err(Errno::ENODEV) => Ok(Vec::new()),
        Err(errno) => Err(Error::os("devnode", "mounting devtmpfs", errno)),
    }
}

/// The difference to now.
///
/// # Errors
/// An error of reading.
pub fn capture(before: &Names, root: &Root) -> Result<(State, Vec<Obstacle>)> {
    match detached() {
        Ok(fd) => compare(before, &root.descriptor(fd.as_raw_fd()), root),
        Err(Errno::ENODEV) => compare(before, Path::new("/nonexistent"), root),
        Err(errno) => Err(Error::os("devnode", "mounting devtmpfs", errno)),
    }
}

/// The difference to what is at `top`.
///
/// # Errors
/// An error of reading.
pub fn compare(before: &Names, top: &Path, root: &Root) -> Result<(State, Vec<Obstacle>)> {
    let mut state = State::default();
    let mut obstacles = Vec::new();
    if before.is_empty() {
        return Ok((state, obstacles));
    }
    let (removed, wanted) = difference(before, tree::list("devnode", top, &|_| false)?, false);
    // A device that went away took its node with it; only what was removed from under a device is a change.
    state.removed = removed
        .into_iter()
        .filter(|path| {
            let old = before.iter().find(|(name, _)| name == path);
            old.is_none_or(|(_, meta)| numbers(meta).is_none() || device(meta, root).is_some())
        })
        .list();
    let (mut seen, mut budget) = (Map::new(), Budget(LIMIT));
    for name in &wanted {
        if let Some((device, made)) = device(&name.1, root) {
            if made == name.0 {
                let meta = &name.1;
                let (mode, uid, gid) = (meta.mode & 0o7777, meta.uid, meta.gid);
                if before.iter().all(|(old, _)| *old != made) {
                    state.devices.push((made.clone(), device));
                }
                state.known.push(Known { path: made, mode, uid, gid });
                continue;
            }
            state.devices.push((name.0.clone(), device));
        }
        match tree::read("devnode", top, name, &mut seen, &mut budget) {
            Ok(node) => state.nodes.push(node),
            Err(refusal) => obstacles.push(Obstacle::kernel("devnode", format!("/dev/{}", name.0), refusal)),
        }
    }
    Ok((state, obstacles))
}

/// The kind and numbers of a device node.
fn numbers(meta: &Stat) -> Option<String> {
    let kind = match meta.format() {
        libc::S_IFCHR => "char",
        libc::S_IFBLK => "block",
        _ => return None,
    };
    Some(format!("dev/{kind}/{}:{}", major(meta.rdev), minor(meta.rdev)))
}

/// The path in sysfs of the device that a node stands for, and the name the kernel gives its node.
fn device(meta: &Stat, root: &Root) -> Option<(String, String)> {
    let link = numbers(meta)?;
    let path = text::from_top(&root.sys.link(&link).ok()?).to_owned();
    let uevent = root.sys.line(&format!("{link}/uevent"));
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME=")).unwrap_or_default();
    Some((path, name.to_owned()))
}

/// Waits until the deadline for what is referred to, and for nodes that the kernel makes.
///
/// # Errors
/// A device or node that did not come.
pub fn check(state: &State, root: &Root, deadline: Instant) -> Result<()> {
    needs(state, root, deadline)?;
    if state.known.is_empty() {
        return Ok(());
    }
    let fd = detached().context("devnode", format_args!("mounting devtmpfs"))?;
    wait(state, &root.descriptor(fd.as_raw_fd()), deadline)
}

fn needs(state: &State, root: &Root, deadline: Instant) -> Result<()> {
    for path in &state.needs {
        come("devnode", path, root, deadline)?;
    }
    Ok(())
}

fn wait(state: &State, top: &Path, deadline: Instant) -> Result<()> {
    let late = |known: &Known| state.devices.iter().any(|(path, _)| *path == known.path);
    for known in state.known.iter().filter(|known| !late(known)) {
        wait_for(deadline, &mut || lstat(top.join(&known.path)).is_ok()).map_err(|()| {
            Error::new("devnode", format!("waiting for /dev/{}", known.path), "it did not come")
        })?;
    }
    Ok(())
}

/// What stands for the numbers of a device that is not there.
const GONE: (u64, u64) = (0, 0);

fn gone(path: &str) {
    log!(Warning, "devnode: /dev/{path} is not there");
}

/// Makes the changes again, waiting until the deadline for nodes that the kernel makes.
///
/// # Errors
/// What could not be made, or a node that did not come.
pub fn restore(state: &State, root: &Root, deadline: Instant) -> Result<()> {
    needs(state, root, deadline)?;
    if state.nodes.is_empty() && state.known.is_empty() && state.removed.is_empty() {
        return Ok(());
    }
    let fd = detached().context("devnode", format_args!("mounting devtmpfs"))?;
    apply(state, &root.descriptor(fd.as_raw_fd()), root, deadline)
}

/// Makes the changes below `top`.
///
/// # Errors
/// What could not be made, or a node that did not come.
pub fn apply(state: &State, top: &Path, root: &Root, deadline: Instant) -> Result<()> {
    wait(state, top, deadline)?;
    let mut renumbered = Vec::new();
    for (path, device) in &state.devices {
        let now = numbers_now(&root.sys.line(&format!("{device}/dev"))).unwrap_or_else(|| {
            gone(path);
            GONE
        });
        renumbered.push((path.as_str(), now));
    }
    for known in &state.known {
        let path = top.join(&known.path);
        if let Some((name, now)) = renumbered.iter().find(|(path, _)| *path == known.path) {
            if *now == GONE {
                continue;
            }
            // The node comes right after the device.
            let soon = Instant::now() + Duration::from_millis(50);
            if wait_for(soon, &mut || lstat(&path).is_ok()).is_err() {
                gone(name);
                continue;
            }
        }
        let dress = Node {
            path: known.path.clone(),
            mode: known.mode,
            uid: known.uid,
            gid: known.gid,
            mtime: (0, 0),
            xattrs: Vec::new(),
            content: Content::Character(0, 0),
        };
        tree::own(&path, &dress)
            .context("devnode", format_args!("setting the mode of /dev/{}", known.path))?;
    }
    tree::remove("devnode", top, &state.removed)?;
    tree::make("devnode", top, &state.nodes, &renumbered)
}

/// The numbers that a device has now: `MAJOR:MINOR` of sysfs.
fn numbers_now(dev: &str) -> Option<(u64, u64)> {
    let (major, minor) = dev.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// After the processes have bound their sockets: see [`tree::finish`].
///
/// # Errors
/// What could not be made.
pub fn finish(state: &State, root: &Root) -> Result<()> {
    if state.nodes.iter().all(|node| node.content != Content::Socket) {
        return Ok(());
    }
    let fd = detached().context("devnode", format_args!("mounting devtmpfs"))?;
    tree::finish("devnode", &root.descriptor(fd.as_raw_fd()), &state.nodes.iter().list())
}

#[cfg(test)]
mod tests {
    use super::{apply, compare, numbers_now, restore, tree};
    use crate::kernel::Root;
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    use std::fs::{Permissions, create_dir, read_link, remove_file, set_permissions, write};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    /// A directory in place of devtmpfs, of which a machine has only one.
    fn place(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("rcsnap-devnode-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        create_dir(&dir).unwrap();
        mknod(&dir.join("null"), SFlag::S_IFCHR, Mode::from_bits_retain(0o600), makedev(1, 3)).unwrap();
        mknod(&dir.join("zero"), SFlag::S_IFCHR, Mode::from_bits_retain(0o666), makedev(1, 5)).unwrap();
        write(dir.join("old"), "").unwrap();
        dir
    }

    #[test]
    fn what_scripts_do_to_nodes_comes_back() {
        let root = Root::open(Path::new("/proc"), Path::new("/sys"), Path::new("/"), "self").unwrap();
        let (one, two) = (place("one"), place("two"));
        let names = |top: &Path| tree::list("devnode", top, &|_| false).unwrap();
        let (before, before_two) = (names(&one), names(&two));
        set_permissions(one.join("null"), Permissions::from_mode(0o622)).unwrap();
        symlink("null", one.join("link")).unwrap();
        create_dir(one.join("dir")).unwrap();
        mknod(&one.join("dir/copy"), SFlag::S_IFCHR, Mode::from_bits_retain(0o640), makedev(1, 5)).unwrap();
        mknod(&one.join("own"), SFlag::S_IFBLK, Mode::from_bits_retain(0o640), makedev(239, 77)).unwrap();
        remove_file(one.join("zero")).unwrap();
        remove_file(one.join("old")).unwrap();
        let (state, obstacles) = compare(&before, &one, &root).unwrap();
        assert!(obstacles.is_empty());
        assert!(state.known.iter().any(|known| known.path == "null" && known.mode == 0o622));
        assert_eq!(state.devices.len(), 1, "{:?}", state.devices);
        apply(&state, &two, &root, Instant::now()).unwrap();
        assert_eq!(two.join("null").metadata().unwrap().mode() & 0o777, 0o622);
        assert_eq!(read_link(two.join("link")).unwrap(), Path::new("null"));
        assert_eq!(two.join("dir/copy").metadata().unwrap().rdev(), makedev(1, 5));
        assert!(!two.join("zero").exists() && !two.join("old").exists());
        assert_eq!(compare(&before_two, &two, &root).unwrap().0, state);
        std::fs::remove_dir_all(one).unwrap();
        std::fs::remove_dir_all(two).unwrap();
    }

    #[test]
    fn node_that_does_not_come_is_an_error() {
        let root = Root::open(Path::new("/proc"), Path::new("/sys"), Path::new("/"), "self").unwrap();
        let dir = place("late");
        let known = super::Known { path: "ttyUSB0".into(), mode: 0o660, uid: 0, gid: 20 };
        let state = super::State { known: vec![known], ..Default::default() };
        let error = apply(&state, &dir, &root, Instant::now()).unwrap_err();
        assert_eq!(error.to_string(), "devnode: waiting for /dev/ttyUSB0: it did not come");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn node_of_a_device_that_came_later_is_not_waited_for() {
        let root = Root::open(Path::new("/proc"), Path::new("/sys"), Path::new("/"), "self").unwrap();
        let (one, two) = (place("came"), place("gone"));
        let before = tree::list("devnode", &one, &|_| false).unwrap();
        mknod(&one.join("full"), SFlag::S_IFCHR, Mode::from_bits_retain(0o640), makedev(1, 7)).unwrap();
        let (mut state, _) = compare(&before, &one, &root).unwrap();
        assert_eq!(state.devices, [("full".into(), "devices/virtual/mem/full".into())]);
        mknod(&two.join("full"), SFlag::S_IFCHR, Mode::from_bits_retain(0o600), makedev(1, 7)).unwrap();
        apply(&state, &two, &root, Instant::now()).unwrap();
        assert_eq!(two.join("full").metadata().unwrap().mode() & 0o777, 0o640);
        remove_file(two.join("full")).unwrap();
        // Nor is one whose device is here again, but which does not come.
        for device in ["devices/virtual/mem/full", "devices/usb1/sda"] {
            state.devices[0].1 = device.into();
            apply(&state, &two, &root, Instant::now()).unwrap();
        }
        // What is open is.
        state.needs = vec!["devices/usb1/sda".into()];
        for error in [super::check(&state, &root, Instant::now()), restore(&state, &root, Instant::now())] {
            let error = error.unwrap_err().to_string();
            assert_eq!(error, "devnode: waiting for devices/usb1/sda: it did not come");
        }
        std::fs::remove_dir_all(one).unwrap();
        std::fs::remove_dir_all(two).unwrap();
    }

    #[test]
    fn numbers_are_those_of_this_boot() {
        assert_eq!(numbers_now("241:3"), Some((241, 3)));
        assert_eq!(numbers_now(""), None);
    }
}
