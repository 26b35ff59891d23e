//! Inputs: files that the cold boot depended on, and whether they are still the same.
//!
//! All of /etc but a skip list, and the files that captured processes have open for reading or mapped. A
//! restore is allowed only if every one of them is what it was at the capture:
//!
//! | where | what must be equal |
//! |---|---|
//! | a file system on a block device | its UUID; inode, size, mtime and ctime in nanoseconds |
//! | without one (overlay, network, an initramfs that stays), or `input.verify = content` | size, mode, SHA-256 |
//! | /etc on squashfs, whose UUID and times may outlast an update of a few bytes | size, mode, SHA-256 |
//! | a directory in /etc, or where a link in /etc leads | the names in it, but for the skipped ones |
//! | a symbolic link in /etc, and each that it leads to | its target, as text |
//!
//! ctime cannot be set back by any program, so a file that was replaced shows even if its times were copied.
//! Files in memory (tmpfs, proc and the like) are no inputs: the image itself brings them along.
//!
//! Before a restore the rc scripts have not run, so a file system may not be mounted yet. It is then mounted
//! privately, read-only, to look at its files, and nobody else sees it. One without a UUID cannot be found again like
//! that: if the scripts mount it, an input on it ends the capture.
//!
//! The identities are taken after the processes go on. An input that has changed since they were stopped ends the
//! capture too; what a script changes after a daemon has read it, and before the stop, is not seen.

use crate::sorted::Listed;
use std::fmt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use sha2::{Digest, Sha256};

mod check;

pub use check::check;

use crate::config::{Config, Key};
use crate::error::{Context, Error, Result};
use crate::glob;
use crate::proc::mountinfo::{self, Mount};
use crate::sorted::{self, Set};
use crate::store::spec;
use crate::sys::fs;
use crate::sys::ptrace::Sys;
use crate::sys::stat::{Stat, Time, lstat};
use crate::sys::time;
use crate::text;

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

/// Links that follow each other before Linux gives up (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// The wall clock, as it stamps files.
///
/// # Errors
/// The errno of clock_gettime(2).
pub fn now() -> Sys<Time> {
    let (seconds, ns) = time::now(libc::CLOCK_REALTIME)?;
    Ok((seconds, u32::try_from(ns).unwrap_or(0)))
}

/// Takes the identity of all inputs: /etc, and the given paths of open and mapped files. `before` are the mounts before
/// the scripts, `since` is the wall clock when the processes were about to be stopped.
///
/// # Errors
/// One of them cannot be read, or not compared before a restore; then there is no capture.
pub fn take(config: &Config, open: &[String], before: Option<&[Mount]>, since: Time) -> Result<Inputs> {
    let skip: Vec<String> = config.list(Key::InputSkip).map(Into::into).list();
    let mut taker = Taker {
        table: mounts()?,
        before,
        since,
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
struct Taker<'a> {
    table: Vec<Mount>,
    before: Option<&'a [Mount]>,
    since: Time,
    by_content: bool,
    /// Id of the mount of each file system in `found`, and whether its files are compared by content.
    places: Vec<(u32, bool)>,
    found: Inputs,
    /// What was added. The walk goes in order, so that little is moved.
    seen: Set<String>,
}

impl Taker<'_> {
    /// A directory and all that is in it, once.
    fn walk(&mut self, directory: &Path) -> Result<()> {
        let known = directory.to_str().is_some_and(|text| self.seen.contains(&text.to_owned()));
        if known || !self.add(directory)? {
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
                self.follow(path)?;
            }
        }
        Ok(())
    }

    /// What a link points to counts too: /etc/localtime is a file of /usr/share.
    fn follow(&mut self, mut path: PathBuf) -> Result<()> {
        for _ in 0..MAX_LINKS {
            let Ok(target) = fs::link(&path) else { break };
            let from = path.to_string_lossy();
            // Beside the link, and then without what leads up again.
            let joined =
                Path::new(text::split_last(&from, '/').map_or("", |(folder, _)| folder)).join(target);
            let whole = joined.to_string_lossy();
            let Some((folder, name)) = text::split_last(text::without_end(&whole, "/"), '/') else { break };
            let Ok(folder) = fs::real(format!("{folder}/")) else { break };
            path = folder.join(name);
            match lstat(&path) {
                Ok(meta) if meta.is_dir() => return fs::real(&path).map_or(Ok(()), |real| self.walk(&real)),
                Ok(meta) if meta.is_file() || meta.is_link() => self.add(&path)?,
                _ => break,
            };
        }
        Ok(())
    }

    /// One path. Says whether it is an input.
    fn add(&mut self, path: &Path) -> Result<bool> {
        let doing = format_args!("reading {}", path.to_string_lossy());
        let Some(text) = path.to_str() else {
            return Err(Error::new(KIND, doing.to_string(), "its name is not UTF-8"));
        };
        if self.found.skip.iter().any(|skip| glob::matches(skip, text)) {
            return Ok(false);
        }
        let Some((place, by_content)) = self.place(text)? else { return Ok(false) };
        if !self.seen.insert(text.to_owned()) {
            return Ok(true);
        }
        let kind = self.found.file_systems[place].kind.as_str();
        let by_content = by_content || kind == "squashfs" && text.starts_with("/etc/");
        let proof =
            prove(path, by_content, MADE_UP.contains(&kind), &self.found.skip).context(KIND, doing)?;
        let (meta, now) = (lstat(path).context(KIND, doing)?, now().context(KIND, doing)?);
        // Not what is later than now: a board without a clock has that from where its files were made.
        if meta.is_file() && (self.since..=now).contains(&meta.ctime) {
            return Err(Error::new(
                KIND,
                doing.to_string(),
                "it has changed since the processes were stopped",
            ));
        }
        let file_system = u32::try_from(place).unwrap_or(u32::MAX);
        self.found.files.push(Input { path: text.into(), file_system, proof });
        Ok(true)
    }

    /// The number of the file system that a path is on. None for files in memory.
    fn place(&mut self, path: &str) -> Result<Option<(usize, bool)>> {
        let Some(mount) = mount_of(&self.table, path) else { return Ok(None) };
        let is_memory = VOLATILE.contains(&mount.fstype.as_str());
        if is_memory && mount.point != "/" {
            return Ok(None);
        }
        if let Some(at) = self.places.iter().position(|(id, _)| *id == mount.id) {
            return Ok(Some((at, self.places[at].1)));
        }
        let uuid = uuid_of(mount);
        let is_new =
            |before: &[Mount]| before.iter().all(|old| (old.dev, &old.point) != (mount.dev, &mount.point));
        if uuid.is_empty() && self.before.is_some_and(is_new) {
            let cause = format!(
                "the scripts mount {} ({}), which has no UUID: it cannot be compared before them; \
                 input.skip leaves it out",
                mount.point, mount.fstype
            );
            return Err(Error::new(KIND, format!("reading {path}"), cause));
        }
        let by_content = self.by_content || uuid.is_empty();
        self.places.push((mount.id, by_content));
        self.found.file_systems.push(FileSystem {
            uuid,
            kind: mount.fstype.clone(),
            point: mount.point.clone(),
            root: mount.root.clone(),
        });
        Ok(Some((self.places.len() - 1, by_content)))
    }
}

/// The UUID of the file system that is mounted; empty if it has none.
fn uuid_of(mount: &Mount) -> String {
    let device = nix::sys::stat::makedev(mount.dev.0.into(), mount.dev.1.into());
    spec::file_system(device).map(|(_, found)| found.uuid).unwrap_or_default()
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
