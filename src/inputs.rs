//! Inputs: files that the cold boot depended on, and whether they are still the same.
//!
//! All of /etc but a skip list, and the files that captured processes have open for reading or mapped. A
//! restore is allowed only if every one of them is what it was at the capture:
//!
//! | where | what must be equal |
//! |---|---|
//! | a file system on a block device | its UUID; inode, size, mtime and ctime in nanoseconds |
//! | without one (overlay, network, an initramfs that stays), or `input.verify = content` | size, mode, SHA-256 |
//! | a directory in /etc | the names in it, but for the skipped ones |
//! | a symbolic link in /etc | its target, as text |
//!
//! ctime cannot be set back by any program, so a file that was replaced shows even if its times were copied.
//! Files in memory (tmpfs, proc and the like) are no inputs: the image itself brings them along.
//!
//! Before a restore the rc scripts have not run, so a file system may not be mounted yet. It is then mounted
//! privately, read-only, to look at its files, and nobody else sees it.

use crate::sorted::Listed;
use std::fmt;
use std::path::Path;

use nix::fcntl::OFlag;
use sha2::{Digest, Sha256};

mod check;

pub use check::check;

use crate::config::{Config, Key};
use crate::error::{Context, Result};
use crate::glob;
use crate::proc::mountinfo::{self, Mount};
use crate::sorted::{self, Set};
use crate::store::spec;
use crate::sys::fs;
use crate::sys::ptrace::Sys;
use crate::sys::stat::{Stat, Time, lstat};

const KIND: &str = "input";

crate::section! {
    /// A file system that inputs are on.
    pub struct FileSystem {
        /// The UUID of its superblock; empty if it has none.
        pub uuid: String,
        /// Its type.
        pub kind: String,
        /// Where it is mounted.
        pub point: String,
        /// Which of its directories is mounted there; `/` unless it is a bind mount.
        pub root: String,
    }
}

crate::section! {
    /// What shows that an input is the same.
    pub enum Proof {
        /// By identity.
        Stat {
            /// Inode number; 0 where the file system makes them up (vfat).
            inode: u64,
            /// Size in bytes.
            size: u64,
            /// mtime in nanoseconds.
            mtime: i64,
            /// ctime in nanoseconds.
            ctime: i64,
        },
        /// By content.
        Content {
            /// Size in bytes.
            size: u64,
            /// Type and permissions.
            mode: u32,
            /// SHA-256.
            digest: [u8; 32],
        },
        /// A directory: SHA-256 of the names in it.
        Names([u8; 32]),
        /// A symbolic link: its target.
        Link(String),
        /// Something else: a device node, a socket or a FIFO, by type, permissions and device number.
        Node {
            /// Type and permissions.
            mode: u32,
            /// Device number.
            rdev: u64,
        },
    }
}

crate::section! {
    /// One input.
    pub struct Input {
        /// Its path.
        pub path: String,
        /// Number of its file system.
        pub file_system: u32,
        /// What must be equal.
        pub proof: Proof,
    }
}

crate::section! {
    /// All inputs of an image.
    pub struct Inputs {
        /// Their file systems.
        pub file_systems: Vec<FileSystem>,
        /// The inputs, by path.
        pub files: Vec<Input>,
        /// The names that directories may gain and lose (`input.skip` at the capture).
        pub skip: Vec<String>,
    }
}

/// The first input that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Its path.
    pub path: String,
    /// What changed: `its content`.
    pub what: String,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "input {} changed: {}", self.path, self.what)
    }
}

/// File systems whose files live in memory or are no files: the image or the kernel brings them along.
const VOLATILE: [&str; 24] = [
    "proc",
    "sysfs",
    "devtmpfs",
    "devpts",
    "tmpfs",
    "ramfs",
    "rootfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
    "pstore",
    "configfs",
    "mqueue",
    "bpf",
    "hugetlbfs",
    "fusectl",
    "autofs",
    "rpc_pipefs",
    "binfmt_misc",
    "efivarfs",
    "selinuxfs",
    "nsfs",
];

/// File systems that give inode numbers anew at each mount.
const MADE_UP: [&str; 3] = ["vfat", "msdos", "exfat"];

/// Takes the identity of all inputs: /etc, and the given paths of open and mapped files.
///
/// # Errors
/// One of them cannot be read; then there is no capture.
pub fn take(config: &Config, open: &[String]) -> Result<Inputs> {
    let skip: Vec<String> = config.list(Key::InputSkip).map(Into::into).list();
    let mut taker = Taker {
        table: mounts()?,
        by_content: config.text(Key::InputVerify) == "content",
        places: Vec::new(),
        found: Inputs { file_systems: Vec::new(), files: Vec::new(), skip },
        seen: Set::new(),
    };
    if let Ok(etc) = fs::real("/etc") {
        taker.walk(&etc)?;
    }
    for path in open {
        taker.add(Path::new(path))?;
    }
    let mut inputs = taker.found;
    sorted::sort_by(&mut inputs.files, |a, b| a.path.cmp(&b.path));
    Ok(inputs)
}

fn mounts() -> Result<Vec<Mount>> {
    let text = fs::text("/proc/self/mountinfo").context(KIND, format_args!("reading the mounts"))?;
    mountinfo::parse(&text)
}

/// Collects inputs.
struct Taker {
    table: Vec<Mount>,
    by_content: bool,
    /// Id of the mount of each file system in `found`, and whether its files are compared by content.
    places: Vec<(u32, bool)>,
    found: Inputs,
    /// What was added. The walk goes in order, so that little is moved.
    seen: Set<String>,
}

impl Taker {
    /// A directory and all that is in it.
    fn walk(&mut self, directory: &Path) -> Result<()> {
        if !self.add(directory)? {
            return Ok(());
        }
        for name in
            fs::names(directory).context(KIND, format_args!("reading {}", directory.to_string_lossy()))?
        {
            let path = directory.join(name);
            let Ok(meta) = lstat(&path) else { continue };
            if meta.is_dir() {
                self.walk(&path)?;
            } else if self.add(&path)? && meta.is_link() {
                // What it points to counts too: /etc/localtime is a file of /usr/share.
                if let Ok(target) = fs::real(&path)
                    && lstat(&target).is_ok_and(|found| found.is_file())
                {
                    self.add(&target)?;
                }
            }
        }
        Ok(())
    }

    /// One path. Says whether it is an input.
    fn add(&mut self, path: &Path) -> Result<bool> {
        let doing = format_args!("reading {}", path.to_string_lossy());
        let Some(text) = path.to_str() else {
            return Err(crate::error::Error::new(KIND, doing.to_string(), "its name is not UTF-8"));
        };
        if self.found.skip.iter().any(|skip| glob::matches(skip, text)) {
            return Ok(false);
        }
        let Some((place, by_content)) = self.place(text) else { return Ok(false) };
        if !self.seen.insert(text.to_owned()) {
            return Ok(true);
        }
        let made_up = MADE_UP.contains(&self.found.file_systems[place].kind.as_str());
        let proof = prove(path, by_content, made_up, &self.found.skip).context(KIND, doing)?;
        let file_system = u32::try_from(place).unwrap_or(u32::MAX);
        self.found.files.push(Input { path: text.into(), file_system, proof });
        Ok(true)
    }

    /// The number of the file system that a path is on. None for files in memory.
    fn place(&mut self, path: &str) -> Option<(usize, bool)> {
        let mount = mount_of(&self.table, path)?;
        let is_memory = VOLATILE.contains(&mount.fstype.as_str());
        if is_memory && mount.point != "/" {
            return None;
        }
        if let Some(at) = self.places.iter().position(|(id, _)| *id == mount.id) {
            return Some((at, self.places[at].1));
        }
        let dev = nix::sys::stat::makedev(mount.dev.0.into(), mount.dev.1.into());
        let uuid = spec::file_system(dev).map(|(_, found)| found.uuid).unwrap_or_default();
        let by_content = self.by_content || uuid.is_empty();
        self.places.push((mount.id, by_content));
        self.found.file_systems.push(FileSystem {
            uuid,
            kind: mount.fstype.clone(),
            point: mount.point.clone(),
            root: mount.root.clone(),
        });
        Some((self.places.len() - 1, by_content))
    }
}

/// The mount that a path is on: the one with the longest path, and of those at one place the last.
fn mount_of<'t>(table: &'t [Mount], path: &str) -> Option<&'t Mount> {
    let covers = |point: &str| {
        point == "/" || path.strip_prefix(point).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    table.iter().filter(|mount| covers(&mount.point)).max_by_key(|mount| mount.point.len())
}

/// What shows that a path is the same later.
fn prove(path: &Path, by_content: bool, made_up: bool, skip: &[String]) -> Sys<Proof> {
    let meta = lstat(path)?;
    if meta.is_link() {
        return Ok(Proof::Link(fs::link(path)?.to_string_lossy().into_owned()));
    }
    if meta.is_dir() {
        return listing(path, path, skip);
    }
    if !meta.is_file() {
        return Ok(Proof::Node { mode: meta.mode, rdev: meta.rdev });
    }
    if by_content {
        return Ok(Proof::Content { size: meta.size, mode: meta.mode, digest: digest(path)? });
    }
    Ok(identity(&meta, made_up))
}

fn identity(meta: &Stat, made_up: bool) -> Proof {
    let time = |(seconds, ns): Time| seconds.saturating_mul(1_000_000_000).saturating_add(ns.into());
    Proof::Stat {
        inode: if made_up { 0 } else { meta.ino },
        size: meta.size,
        mtime: time(meta.mtime),
        ctime: time(meta.ctime),
    }
}

/// The names in a directory, without those that may come and go. `shown` is the path the globs know it by.
fn listing(directory: &Path, shown: &Path, skip: &[String]) -> Sys<Proof> {
    let mut sum = Sha256::new();
    for name in fs::names(directory)? {
        let path = shown.join(&name);
        if !skip.iter().any(|skip| glob::matches(skip, &path.to_string_lossy())) {
            sum.update(name.as_encoded_bytes());
            sum.update([0]);
        }
    }
    Ok(Proof::Names(sum.finalize().into()))
}

/// SHA-256 of a file's content.
pub(crate) fn digest(path: &Path) -> Sys<[u8; 32]> {
    let file = fs::open(path, OFlag::O_RDONLY)?;
    let mut sum = Sha256::new();
    let mut part = vec![0; 32 * 1024];
    loop {
        match nix::unistd::read(&file, &mut part)? {
            0 => return Ok(sum.finalize().into()),
            length => sum.update(&part[..length]),
        }
    }
}

#[cfg(test)]
mod tests;
