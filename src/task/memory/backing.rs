//! What is behind a mapping, and whether its name still leads there.

use nix::sys::stat::{major, minor};

use super::{Backing, KIND, MappedFile};
use crate::error::{Context, Refusal, Result};
use crate::proc::smaps::Mapping;
use crate::sorted::Set;
use crate::sys::fs;
use crate::sys::path::stat;

/// An object, where it was first met.
#[derive(Debug, Clone)]
pub struct Found {
    dev: String,
    ino: u64,
    /// A process that maps it.
    pub pid: u32,
    /// A range of its map.
    pub range: (u64, u64),
    /// The name that it had, if it was a file.
    pub path: String,
}

/// Lists that the address spaces of all processes share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Files, without duplicates.
    pub files: Vec<MappedFile>,
    /// Shared anonymous memory and deleted files, without duplicates.
    pub objects: Vec<Found>,
    /// Open descriptions by device and inode, for memfds: filled by the capture from the file table.
    pub entries: Vec<(u64, u32)>,
    /// What stands before every path of the system.
    pub(in crate::task) root: String,
    /// Mapped files whose names were found to lead to them: device, inode, path.
    known: Set<(String, u64, String)>,
}

impl Shared {
    /// Empty lists of a system whose paths begin with `root`.
    #[must_use]
    pub fn new(root: &str) -> Shared {
        Shared { root: root.to_owned(), ..Shared::default() }
    }

    pub(super) fn file(&mut self, path: &str, writable: bool) -> u32 {
        let found = self.files.iter().position(|f| f.path == path && f.writable == writable);
        let index = found.unwrap_or_else(|| {
            self.files.push(MappedFile { path: path.to_owned(), writable });
            self.files.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// Makes sure that the name of a mapped file leads to it: a mount may hide it, or another file have its
    /// name, and a restore knows nothing but the name.
    fn check(&mut self, pid: u32, map: &Mapping) -> Result<(), Refusal> {
        let id = (map.dev.clone(), map.ino, map.name.clone());
        if self.known.contains(&id) {
            return Ok(());
        }
        if !leads_to(pid, map, &self.root) {
            return Err(Refusal::new(
                "its name leads to another file, or nowhere",
                "restart it after an update",
            ));
        }
        self.known.insert(id);
        Ok(())
    }

    fn object(&mut self, pid: u32, map: &Mapping, path: &str) -> u32 {
        let found = self.objects.iter().position(|o| o.dev == map.dev && o.ino == map.ino);
        let index = found.unwrap_or_else(|| {
            let (dev, range) = (map.dev.clone(), (map.start, map.end));
            self.objects.push(Found { dev, ino: map.ino, pid, range, path: path.to_owned() });
            self.objects.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }
}

/// The path of the program.
///
/// # Errors
/// It was deleted, or the path leads to another one now.
pub fn exe(pid: u32, root: &str) -> Result<String, Refusal> {
    let own = format!("/proc/{pid}/exe");
    let link = fs::link(&own).context(KIND, format_args!("reading the exe link"))?;
    let path = link.to_string_lossy().into_owned();
    if path.ends_with(" (deleted)") {
        let remedy = "start it from a file that stays";
        return Err(Refusal::new(format!("its program {path} was deleted"), remedy));
    }
    if identity(&own).is_none_or(|own| identity(&format!("{root}{path}")) != Some(own)) {
        let reason = format!("the name of its program {path} leads to another file, or nowhere");
        return Err(Refusal::new(reason, "restart it after an update"));
    }
    Ok(path)
}

/// What is behind a mapping.
///
/// # Errors
/// It cannot be carried.
pub fn backing(pid: u32, map: &Mapping, shared: &mut Shared) -> Result<Backing, Refusal> {
    let deleted = map.name.strip_suffix(" (deleted)");
    if map.ino == 0 {
        return match map.name.as_str() {
            "" | "[heap]" | "[stack]" => Ok(Backing::Anonymous),
            name if name.starts_with("[anon") => Ok(Backing::Anonymous),
            name => Err(Refusal::new(format!("{name} is a mapping of an unknown sort"), "rerun the service")),
        };
    }
    match deleted {
        Some("/dev/zero") => Ok(Backing::Shared(shared.object(pid, map, ""))),
        Some(name) if name.starts_with("/memfd:") => {
            let found = shared.entries.iter().find(|(ino, _)| *ino == map.ino);
            let entry = found.ok_or_else(|| {
                Refusal::new("the memfd behind it is not open any more", "rerun the service")
            })?;
            Ok(Backing::Entry(entry.1))
        }
        Some(name) if name.starts_with("/SYSV") => {
            Err(Refusal::new("it is System V shared memory", "rerun the service"))
        }
        Some(name) if !is_persistent(&shared.root, name) => {
            Ok(Backing::Shared(shared.object(pid, map, name)))
        }
        Some(_) => Err(Refusal::new("the file behind it was deleted", "restart it after an update")),
        None if map.name.starts_with('/') => {
            shared.check(pid, map)?;
            let writable = map.shared && map.has(b"mw");
            if writable && map.prot & 2 != 0 && is_persistent(&shared.root, &map.name) {
                let reason = "it is a shared, writable mapping of a file on persistent storage";
                return Err(Refusal::new(reason, "rerun the service"));
            }
            Ok(Backing::File(shared.file(&map.name, writable)))
        }
        None => {
            Err(Refusal::new(format!("{} is a mapping of an unknown sort", map.name), "rerun the service"))
        }
    }
}

/// Whether a file lies on a file system that outlives a reboot.
fn is_persistent(root: &str, path: &str) -> bool {
    use nix::sys::statfs::{self, FsType};
    const RAMFS: FsType = FsType(0x8584_58f6);
    // A deleted file is looked for where it was: in its directory.
    let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
    let full = format!("{root}{folder}/");
    let volatile = [statfs::TMPFS_MAGIC, statfs::PROC_SUPER_MAGIC, statfs::SYSFS_MAGIC, RAMFS];
    statfs::statfs(full.as_str()).map_or(true, |fs| !volatile.contains(&fs.filesystem_type()))
}

/// Device and inode number of what a path leads to.
fn identity(path: &str) -> Option<(u64, u64)> {
    let found = stat(path).ok()?;
    #[allow(clippy::useless_conversion, reason = "the fields are narrower on 32-bit targets")]
    Some((found.st_dev.into(), found.st_ino.into()))
}

/// Whether the name of a mapped file, in the system's root, leads to that file.
fn leads_to(pid: u32, map: &Mapping, root: &str) -> bool {
    let Some(named) = identity(&format!("{root}{}", map.name)) else { return false };
    let shown = format!("{:02x}:{:02x}", major(named.0), minor(named.0));
    if (shown.as_str(), named.1) == (map.dev.as_str(), map.ino) {
        return true;
    }
    // A map shows the device below overlayfs, and one for all subvolumes of btrfs; stat(2) does not.
    identity(&format!("/proc/{pid}/map_files/{:x}-{:x}", map.start, map.end)) == Some(named)
}

#[cfg(test)]
mod tests {
    use super::{exe, leads_to};
    use crate::proc::smaps;

    #[test]
    fn mapped_files_are_known_by_more_than_their_names() {
        let own = std::process::id();
        let program = exe(own, "").unwrap();
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut map = smaps::parse(&text).into_iter().find(|map| map.name == program).unwrap();
        assert!(leads_to(own, &map, ""));
        assert!(leads_to(own, &map, &format!("/proc/{own}/root")));
        map.name = "/proc/version".into();
        assert!(!leads_to(own, &map, ""));
        map.name = "/nonexistent".into();
        assert!(!leads_to(own, &map, ""));
        assert!(exe(own, "/nonexistent").unwrap_err().reason.contains("leads to another file"));
    }
}
