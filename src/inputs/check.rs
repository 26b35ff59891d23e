//! Before a restore: whether every input is what it was.

use crate::sorted::Listed;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::{Changed, FileSystem, Input, Inputs, MADE_UP, Proof, listing, mount_of, mounts, prove, uuid_of};
use crate::error;
use crate::proc::mountinfo::Mount;
use crate::store::{file, spec};
use crate::sys::stat::lstat;
use crate::text;

/// Whether every input is what it was. Waits for the device of a file system that is not mounted yet.
///
/// # Errors
/// The first one that is not.
pub fn check(inputs: &Inputs, wait: Duration) -> Result<(), Changed> {
    let gone = |path: &str, what: String| Changed { path: path.into(), what };
    let table = mounts().map_err(|err| gone("/proc/self/mountinfo", err.to_string()))?;
    let mut places: Vec<Option<Place>> = inputs.file_systems.iter().map(|_| None).list();
    for input in &inputs.files {
        let at = input.file_system as usize;
        let system = inputs.file_systems.get(at).ok_or_else(|| gone(&input.path, "no file system".into()))?;
        if places[at].is_none() {
            places[at] = Some(locate(system, &table, wait).map_err(|what| gone(&input.path, what))?);
        }
        let path = match &places[at] {
            Some(Place::Private(mount)) => private_path(mount, system, &input.path),
            _ => PathBuf::from(&input.path),
        };
        let made_up = MADE_UP.contains(&system.kind.as_str());
        if let Some(what) = difference(input, &path, made_up, &inputs.skip) {
            return Err(gone(&input.path, what));
        }
    }
    Ok(())
}

/// Where the files of a file system are found now.
enum Place {
    /// Under their own paths.
    Here,
    /// In a mount of our own.
    Private(OwnedFd),
}

/// Finds a file system, or mounts it.
fn locate(system: &FileSystem, table: &[Mount], wait: Duration) -> Result<Place, String> {
    let mount = mount_of(table, &system.point).filter(|mount| mount.point == system.point);
    let same = |mount: &Mount| {
        mount.root == system.root && mount.fstype == system.kind && uuid_of(mount) == system.uuid
    };
    if mount.is_some_and(same) {
        return Ok(Place::Here);
    }
    // The files of the root that is there are the ones that would be opened.
    if system.uuid.is_empty() || system.point == "/" {
        return Err(format!("another file system is at {}", system.point));
    }
    let device = spec::resolve(&format!("UUID={}", system.uuid), wait).map_err(|err| err.to_string())?;
    file::mount(&device, Some(&system.kind), true).map(Place::Private).map_err(|err| err.to_string())
}

/// The path of a file in a mount that is attached nowhere.
fn private_path(mount: &OwnedFd, system: &FileSystem, path: &str) -> PathBuf {
    let inside = path.strip_prefix(text::without_end(&system.point, "/")).unwrap_or(path);
    let root = text::without_end(&system.root, "/");
    PathBuf::from(format!("/proc/self/fd/{}{root}{inside}", mount.as_raw_fd()))
}

/// What is different, if anything is.
fn difference(input: &Input, path: &Path, made_up: bool, skip: &[String]) -> Option<String> {
    let by_content = matches!(input.proof, Proof::Content { .. });
    let found = match (&input.proof, lstat(path)) {
        (Proof::Names(_), Ok(meta)) if meta.is_dir() => listing(path, Path::new(&input.path), skip),
        (_, Ok(_)) => prove(path, by_content, made_up, skip),
        (_, Err(errno)) => Err(errno),
    };
    let what = match (&input.proof, found) {
        (_, Err(Errno::ENOENT)) => "it is gone",
        (_, Err(errno)) => error::name(errno),
        (old, Ok(new)) if *old == new => return None,
        (Proof::Stat { size: old, .. }, Ok(Proof::Stat { size: new, .. })) if *old != new => "its size",
        (Proof::Stat { inode: old, .. }, Ok(Proof::Stat { inode: new, .. })) if *old != new => {
            "it was replaced"
        }
        (Proof::Stat { mtime: old, .. }, Ok(Proof::Stat { mtime: new, .. })) if *old != new => "its mtime",
        (Proof::Stat { .. }, Ok(Proof::Stat { .. })) => "its ctime (owner, mode or name)",
        (Proof::Content { mode: old, .. }, Ok(Proof::Content { mode: new, .. })) if *old != new => "its mode",
        (Proof::Content { .. }, Ok(Proof::Content { .. })) => "its content",
        (Proof::Names(_), Ok(Proof::Names(_))) => "a file in it came or went",
        (Proof::Link(_), Ok(Proof::Link(_))) => "where it points to",
        _ => "its type",
    };
    Some(what.into())
}
