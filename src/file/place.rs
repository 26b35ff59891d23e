//! A file by its name: finding out whether the name still leads to it, and opening it again.
//!
//! The link text of /proc/PID/fd/N can lie: the name may be hidden by a later mount, or be reused. So the
//! name is walked again and compared before it is believed.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

use super::{Description, Stat, World};
use crate::error::{Context, Error, Refusal, Result};
use crate::sys::stat::{self, lstat};
use crate::sys::{abi, descriptor, fs};
use crate::text;

/// File systems whose contents live in memory or are made up by the kernel (linux/magic.h): tmpfs, ramfs
/// (devtmpfs may be either), proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs, configfs, devpts,
/// mqueue, pstore, binfmt_misc, hugetlbfs, bpf, efivarfs.
const VOLATILE: [u32; 17] = [
    0x0102_1994,
    0x8584_58f6,
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6265_6570,
    0x1cd1,
    0x1980_0202,
    0x6165_676c,
    0x4249_4e4d,
    0x9584_58f6,
    0xcafe_4a11,
    0xde5e_81e4,
];
/// tmpfs and ramfs: memory that holds files, and that the image carries.
const MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];
/// procfs. What is not of a process is checked by its device only: an inode of it can be made anew at any walk. One of a
/// process stays as long as it is open and the process lives: another inode is of another process with that number.
const PROC: u32 = 0x9fa0;

crate::section! {
    /// Where a file is.
    pub struct Place {
        /// Its absolute path in the captured system.
        pub path: String,
        /// Whether it is on storage that outlives the boot.
        pub persistent: bool,
    }
}

/// The magic number of the file system that a description is on.
///
/// # Errors
/// The errno of fstatfs(2).
pub fn magic(desc: &Description) -> Result<u32> {
    magic_of(&desc.fd).context("place", format_args!("asking where {} is", desc.link))
}

/// The magic number of the file system of an open file.
///
/// # Errors
/// The errno of fstatfs(2).
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "f_type is 32 bits in a word")]
pub fn magic_of(file: &OwnedFd) -> nix::Result<u32> {
    Ok(nix::sys::statfs::fstatfs(file)?.filesystem_type().0 as u32)
}

/// Whether a file system with this magic number lives in memory and takes ordinary files.
#[must_use]
pub fn in_memory(magic: u32) -> bool {
    MEMORY.contains(&magic)
}

/// Finds the place of a description that has a name, by walking it.
///
/// # Errors
/// A refusal if the name leads elsewhere now.
pub fn find(desc: &Description, world: &World<'_>) -> Result<Place, Refusal> {
    let magic = magic(desc)?;
    let at = |path: &str| lstat(world.inside(path)).ok();
    let owned = if magic == PROC { of_process(&desc.link, world) } else { None };
    if owned == Some(false) {
        return Err(Refusal::new(
            "it is of a descriptor, a thread of init or outside the image",
            "start its owner after `rcsnap ready`",
        ));
    }
    let loose = magic == PROC && owned.is_none();
    let same = |found: Stat| found.dev == desc.stat.dev && (loose || found.ino == desc.stat.ino);
    // A device is what its number says: the console of init may come from a root that was left behind.
    let is_device = matches!(desc.stat.format(), libc::S_IFCHR | libc::S_IFBLK);
    let device =
        |found: Stat| is_device && found.format() == desc.stat.format() && found.rdev == desc.stat.rdev;
    let mut names = vec![desc.link.clone()];
    if is_device {
        names.extend(desc.link.strip_suffix(" (deleted)").map(str::to_owned));
        names.extend(device_name(desc.stat.rdev, desc.stat.format() == libc::S_IFBLK, world.root));
    }
    // One of several names may be gone: the others are looked for beside it.
    if let Some((folder, _)) = desc.link.strip_suffix(" (deleted)").and_then(|old| text::split_last(old, '/'))
    {
        for other in fs::entries(world.inside(&format!("{folder}/"))).unwrap_or_default() {
            names.push(format!("{folder}/{}", other.name.to_string_lossy()));
        }
    }
    let leads =
        |name: &String| name.starts_with('/') && at(name).is_some_and(|found| same(found) || device(found));
    let Some(path) = names.into_iter().find(leads) else {
        return Err(Refusal::new(
            format!("its name {} no longer leads to it", desc.link),
            "keep the file where it was opened, and do not mount over it",
        ));
    };
    Ok(Place { path, persistent: !VOLATILE.contains(&magic) })
}

/// For the name of a file of procfs that belongs to a process or thread: whether it is there when files are opened. Then
/// they are there, but not their descriptors.
fn of_process(link: &str, world: &World<'_>) -> Option<bool> {
    let mut parts = link.split('/').skip(2);
    let has = |number: &str| Some(world.has_task(number.parse().ok()?));
    let mut inside = has(parts.next()?)?;
    let mut name = parts.next();
    if name == Some("task")
        && let Some(thread) = parts.next()
    {
        inside &= has(thread)?;
        name = parts.next();
    }
    let late = matches!(name, Some("fd" | "fdinfo")) && parts.next().is_some();
    Some(inside && !late)
}

/// The name that the kernel gives a device in devtmpfs: DEVNAME of its uevent file.
#[must_use]
pub fn device_name(rdev: u64, block: bool, root: &str) -> Option<String> {
    let sort = if block { "block" } else { "char" };
    let (major, minor) = super::device::numbers(rdev);
    let text = fs::text(format!("{root}/sys/dev/{sort}/{major}:{minor}/uevent")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("DEVNAME=")).map(|name| format!("/dev/{name}"))
}

/// The flags of a description that may be given to open(2) again.
#[must_use]
pub fn reopen_flags(flags: i32) -> i32 {
    // O_ASYNC needs its owner first. O_TMPFILE contains O_DIRECTORY.
    flags
        & (libc::O_ACCMODE
            | libc::O_APPEND
            | libc::O_NONBLOCK
            | libc::O_DIRECT
            | libc::O_NOATIME
            | libc::O_SYNC
            | libc::O_DSYNC
            | libc::O_PATH
            | abi::LARGE)
}

/// Opens a path with these flags, `O_CLOEXEC`, and `O_NOCTTY`, so that nothing becomes a controlling terminal by
/// chance.
///
/// # Errors
/// The errno of open(2).
pub fn open(path: &str, flags: i32, kind: &'static str) -> Result<OwnedFd> {
    let doing = format_args!("opening {path}");
    let path = CString::new(path).map_err(|_| Errno::EINVAL).context(kind, doing)?;
    descriptor::open(&path, flags | libc::O_CLOEXEC | libc::O_NOCTTY).context(kind, doing)
}

/// fstat(2).
///
/// # Errors
/// The errno of the call.
pub fn stat(fd: &OwnedFd, kind: &'static str) -> Result<Stat> {
    stat::of(fd).context(kind, format_args!("looking at descriptor {}", fd.as_raw_fd()))
}

/// Opens a place again and makes sure that a file of the same type is there.
///
/// # Errors
/// The errno of open(2), or that something else has the name.
pub fn reopen(place: &Place, flags: i32, format: u32, kind: &'static str) -> Result<OwnedFd> {
    let fd = open(&place.path, reopen_flags(flags), kind)?;
    if stat(&fd, kind)?.format() != format {
        return Err(Error::new(kind, format!("opening {}", place.path), "another type of file has its name"));
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use crate::file::testing::{beside, entries};

    #[test]
    fn files_of_proc_are_refused_if_they_are_not_there_in_time() {
        let own = std::process::id();
        let open = |name: &str| super::open(&format!("/proc/{own}{name}"), libc::O_RDONLY, "test").unwrap();
        let refused =
            |name: &str| entries(&[&open(name)]).is_err_and(|r| r.reason.contains("a thread of init"));
        let thread = format!("/task/{own}");
        for name in ["/fd", "/fdinfo", "/stat", &thread, &format!("{thread}/stat"), &format!("{thread}/fd")] {
            assert!(!refused(name), "{name}");
        }
        for name in ["/fdinfo/0", &format!("{thread}/fdinfo/0")] {
            assert!(refused(name), "{name}");
        }
        beside(|tid| {
            for name in [format!("/task/{tid}"), format!("/task/{tid}/stat"), format!("/../{tid}/stat")] {
                assert!(refused(&name), "{name}");
            }
        });
    }
}
