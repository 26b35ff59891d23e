//! What is behind a mapping, and whether its name still leads there.

use std::os::fd::AsFd;

use nix::sys::stat::{major, minor};

use super::{Backing, KIND, MappedFile};
use crate::error::{Context, Refusal, Result};
use crate::proc::smaps::Mapping;
use crate::proc::sysvipc::Perm;
use crate::sorted::Map;
use crate::sys::stat::stat;
use crate::sys::{fs, path, vm};
use crate::task::namespace::{IPC, MOUNT, Spaces};
use crate::task::pages::open_object;
use crate::task::seccomp::Filter;
use crate::text;

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
    /// The segment of System V that it is, its pages in bytes, and how many processes have it attached.
    pub segment: Option<(Perm, u64, u64)>,
    /// Mappings of it that were met.
    pub met: u64,
    /// Where it was met.
    pub spaces: Spaces,
}

/// An open description of memory or of a file without a name.
#[derive(Debug, Clone, Copy)]
pub struct Nameless {
    /// Device and inode number.
    pub id: (u64, u64),
    /// Its place in the file table.
    pub entry: u32,
    /// Whether it can be written through.
    pub writes: bool,
}

/// Lists that the address spaces of all processes share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Files, without duplicates.
    pub files: Vec<MappedFile>,
    /// Shared anonymous memory and deleted files, without duplicates.
    pub objects: Vec<Found>,
    /// Open descriptions of memfds and deleted files, from the file table.
    pub entries: Vec<Nameless>,
    /// Filters of seccomp(2), without duplicates.
    pub filters: Vec<Filter>,
    /// What stands before every path where the present process is.
    pub root: String,
    /// Where it is.
    pub spaces: Spaces,
    /// What stands before every path of the first mount namespace when we are in another one: a process maps what
    /// it has mapped before it went there.
    pub home: String,
    /// Mapped files whose names were found to lead to them: device, inode, path, and mount namespace of the process;
    /// and where the name means it.
    known: Map<(String, u64, String, u32), Spaces>,
}

impl Shared {
    /// Empty lists of a system whose paths begin with `root`.
    #[must_use]
    pub fn new(root: &str) -> Shared {
        Shared { root: root.to_owned(), ..Shared::default() }
    }

    /// Goes on with a process that lives elsewhere; `prefix` is what stands before every path of the system.
    pub fn enter(&mut self, spaces: &Spaces, prefix: &str) {
        spaces.root(prefix).clone_into(&mut self.root);
        self.spaces = spaces.clone();
    }

    /// Where a name leads to what is meant, which `is` asks with what stands before the name.
    pub(super) fn place(&self, is: &dyn Fn(&str) -> bool) -> Option<Spaces> {
        if is(&self.root) {
            return Some(self.spaces.clone());
        }
        (self.spaces.of[MOUNT] != 0 && is(&self.home)).then_some(Spaces::HOME)
    }

    pub(super) fn file(&mut self, path: &str, writable: bool, spaces: &Spaces) -> u32 {
        let place = spaces.of[MOUNT];
        let same = |f: &MappedFile| f.path == path && f.writable == writable && f.spaces.of[MOUNT] == place;
        let index = self.files.iter().position(same).unwrap_or_else(|| {
            let spaces = spaces.clone();
            self.files.push(MappedFile { path: path.to_owned(), writable, spaces });
            self.files.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// Makes sure that the name of a mapped file leads to it: a mount may hide it, or another file have its
    /// name, and a restore knows nothing but the name.
    fn check(&mut self, pid: u32, map: &Mapping) -> Result<Spaces, Refusal> {
        let id = (map.dev.clone(), map.ino, map.name.clone(), self.spaces.of[MOUNT]);
        if let Some(spaces) = self.known.get(&id) {
            return Ok(spaces.clone());
        }
        let spaces = self.place(&|root| leads_to(pid, map, root)).ok_or_else(|| {
            Refusal::new("its name leads to another file, or nowhere", "restart it after an update")
        })?;
        self.known.insert(id, spaces.clone());
        Ok(spaces)
    }

    pub(super) fn object(&mut self, pid: u32, map: &Mapping, path: &str) -> u32 {
        // The number of a segment is its id, and others on that device have small numbers too.
        let segment = map.name.starts_with("/SYSV");
        let place = self.spaces.of[IPC];
        let same = |o: &Found| {
            (&o.dev, o.ino, o.segment.is_some()) == (&map.dev, map.ino, segment)
                && (!segment || o.spaces.of[IPC] == place)
        };
        let found = self.objects.iter().position(same);
        let index = found.unwrap_or_else(|| {
            let (dev, range) = (map.dev.clone(), (map.start, map.end));
            let (path, segment) = (path.to_owned(), None);
            let spaces = self.spaces.clone();
            self.objects.push(Found { dev, ino: map.ino, pid, range, path, segment, met: 0, spaces });
            self.objects.len() - 1
        });
        if let Some(object) = self.objects.get_mut(index) {
            object.met += 1;
        }
        u32::try_from(index).unwrap_or(u32::MAX)
    }
}

/// The path of the program, and where it means it.
///
/// # Errors
/// It was deleted, or the path leads to another one now.
pub fn exe(pid: u32, shared: &Shared) -> Result<(String, Spaces), Refusal> {
    let own = format!("/proc/{pid}/exe");
    let link = fs::link(&own).context(KIND, format_args!("reading the exe link"))?;
    let path = link.to_string_lossy().into_owned();
    if path.ends_with(" (deleted)") {
        let remedy = "start it from a file that stays";
        return Err(Refusal::new(format!("its program {path} was deleted"), remedy));
    }
    let own = identity(&own);
    match shared.place(&|root| own.is_some() && identity(&format!("{root}{path}")) == own) {
        Some(spaces) => Ok((path, spaces)),
        None => {
            let reason = format!("the name of its program {path} leads to another file, or nowhere");
            Err(Refusal::new(reason, "restart it after an update"))
        }
    }
}

/// What is behind a mapping.
///
/// # Errors
/// It cannot be carried.
pub fn backing(pid: u32, map: &Mapping, shared: &mut Shared) -> Result<Backing, Refusal> {
    let deleted = map.name.strip_suffix(" (deleted)");
    let segment = deleted.is_some_and(|name| name.starts_with("/SYSV"));
    // PID 1 is laid out after the commit, when nothing may be missing.
    if map.has(b"ht") && (segment || pid == 1) {
        return Err(Refusal::new("it is on huge pages of a segment or of PID 1", "rerun the service"));
    }
    // Before all others: an id may be 0, and it is the inode number.
    if segment {
        return super::segment::backing(pid, map, shared);
    }
    if map.ino == 0 {
        return match map.name.as_str() {
            "" | "[heap]" | "[stack]" => Ok(Backing::Anonymous),
            name if name.starts_with("[anon") => Ok(Backing::Anonymous),
            name => Err(Refusal::new(format!("{name} is a mapping of an unknown sort"), "rerun the service")),
        };
    }
    match deleted {
        Some("/anon_hugepage") if !map.shared => Ok(Backing::Anonymous),
        Some("/dev/zero" | "/anon_hugepage") => Ok(Backing::Shared(shared.object(pid, map, ""))),
        Some(name) => nameless(pid, map, name, shared),
        None if map.name.starts_with('/') => {
            let spaces = shared.check(pid, map)?;
            let root = if spaces.of[MOUNT] == shared.spaces.of[MOUNT] { &shared.root } else { &shared.home };
            let writable = map.shared && map.has(b"mw");
            if writable && map.prot & 2 != 0 && is_persistent(root, &map.name) {
                let reason = "it is a shared, writable mapping of a file on persistent storage";
                return Err(Refusal::new(reason, "rerun the service"));
            }
            Ok(Backing::File(shared.file(&map.name, writable, &spaces)))
        }
        None => {
            Err(Refusal::new(format!("{} is a mapping of an unknown sort", map.name), "rerun the service"))
        }
    }
}

/// A memfd, or a file that was deleted. What nobody has open any more is an object of its own.
fn nameless(pid: u32, map: &Mapping, name: &str, shared: &mut Shared) -> Result<Backing, Refusal> {
    let own = format!("/proc/{pid}/map_files/{:x}-{:x}", map.start, map.end);
    let found = stat(&own).context(KIND, format_args!("looking at {own}"))?;
    let id = (found.dev, found.ino);
    // A mapping that may be written cannot be made through a description that only reads.
    let writes = map.shared && map.has(b"mw");
    let mut open = shared.entries.iter().filter(|open| open.id == id).peekable();
    if open.peek().is_some() {
        let fit = open.find(|open| open.writes || !writes);
        let reason = "it may be written, and what is open of the file behind it only reads";
        return fit
            .map(|open| Backing::Entry(open.entry))
            .ok_or_else(|| Refusal::new(reason, "rerun the service"));
    }
    // What the kernel makes has made-up names, and lies on no file system that is mounted.
    let folder = text::split_last(name, '/').map_or("/", |(folder, _)| folder);
    let there = identity(&format!("{}{folder}/", shared.root)).is_some_and(|(device, _)| device == id.0);
    if name.starts_with("/memfd:") || there && found.nlink == 0 && !map.has(b"ht") {
        return Ok(Backing::Shared(shared.object(pid, map, name)));
    }
    Err(Refusal::new(
        "the file behind it was deleted, and has another name, no directory or huge pages",
        "restart it after an update",
    ))
}

/// The size of the huge pages of a mapping.
pub fn huge(pid: u32, map: &Mapping) -> Result<u32> {
    let (file, _) = open_object(pid, (map.start, map.end))?;
    vm::huge(file.as_fd()).context(KIND, format_args!("asking for huge pages"))
}

/// Whether a file lies on a file system that outlives a reboot.
fn is_persistent(root: &str, path: &str) -> bool {
    use nix::sys::statfs::{self, FsType};
    const RAMFS: FsType = FsType(0x8584_58f6);
    // A deleted file is looked for where it was: in its directory.
    let folder = text::split_last(path, '/').map_or("/", |(folder, _)| folder);
    let full = format!("{root}{folder}/");
    let volatile =
        [statfs::TMPFS_MAGIC, statfs::PROC_SUPER_MAGIC, statfs::SYSFS_MAGIC, statfs::HUGETLBFS_MAGIC, RAMFS];
    let found = path::text(full.as_ref()).and_then(|full| statfs::statfs(&*full));
    found.map_or(true, |fs| !volatile.contains(&fs.filesystem_type()))
}

/// Device and inode number of what a path leads to.
fn identity(path: &str) -> Option<(u64, u64)> {
    let found = stat(path).ok()?;
    #[allow(clippy::useless_conversion, reason = "the fields are narrower on 32-bit targets")]
    Some((found.dev, found.ino))
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
    use super::{Found, Shared, exe, leads_to};
    use crate::proc::smaps;
    use crate::proc::sysvipc::Perm;

    #[test]
    fn segment_that_others_have_attached_too_is_refused() {
        let perm = Perm { key: 1, id: 2, mode: 0o600, uid: 0, gid: 0, cuid: 0, cgid: 0 };
        let segment = Some((perm, 4096, 2));
        let (dev, path) = (String::new(), String::new());
        let spaces = crate::task::namespace::Spaces::HOME;
        let mut found = Found { dev, ino: 2, pid: 1, range: (0, 4096), path, segment, met: 1, spaces };
        assert!(found.outside().unwrap().reason.contains("outside the image"));
        found.met = 2;
        assert!(found.outside().is_none());
    }

    #[test]
    fn mapped_files_are_known_by_more_than_their_names() {
        let own = std::process::id();
        let program = exe(own, &Shared::default()).unwrap().0;
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut map = smaps::parse(&text).into_iter().find(|map| map.name == program).unwrap();
        assert!(leads_to(own, &map, ""));
        assert!(leads_to(own, &map, &format!("/proc/{own}/root")));
        map.name = "/proc/version".into();
        assert!(!leads_to(own, &map, ""));
        map.name = "/nonexistent".into();
        assert!(!leads_to(own, &map, ""));
        let shared = Shared { root: "/nonexistent".into(), ..Shared::default() };
        assert!(exe(own, &shared).unwrap_err().reason.contains("leads to another file"));
    }
}
