//! What stat(2) and its kin say of a file, in fields that are as wide on every processor.

use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::stat::{FileStat, fstat};

use crate::sys::path::text;
use crate::sys::ptrace::Sys;

/// Seconds and nanoseconds since 1970.
pub type Time = (i64, u32);

/// What there is to know of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stat {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Hard links; 0 means deleted.
    pub nlink: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When its content changed.
    pub mtime: Time,
    /// When anything of it changed.
    pub ctime: Time,
}

impl From<FileStat> for Stat {
    #[allow(clippy::useless_conversion, reason = "the fields are narrower on 32-bit targets")]
    fn from(stat: FileStat) -> Stat {
        let nanoseconds = |count| u32::try_from(count).unwrap_or(0);
        Stat {
            dev: stat.st_dev.into(),
            ino: stat.st_ino.into(),
            mode: stat.st_mode,
            rdev: stat.st_rdev.into(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            nlink: stat.st_nlink.into(),
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime.into(), nanoseconds(stat.st_mtime_nsec)),
            ctime: (stat.st_ctime.into(), nanoseconds(stat.st_ctime_nsec)),
        }
    }
}

impl Stat {
    /// The type bits of the mode (`S_IFREG` and so on).
    #[must_use]
    pub fn format(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.format() == libc::S_IFDIR
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.format() == libc::S_IFREG
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_link(&self) -> bool {
        self.format() == libc::S_IFLNK
    }

    /// Whether it is the node of a device.
    #[must_use]
    pub fn is_device(&self) -> bool {
        matches!(self.format(), libc::S_IFCHR | libc::S_IFBLK)
    }
}

/// stat(2).
///
/// # Errors
/// The errno of the call, as for all below.
pub fn stat(path: impl AsRef<Path>) -> Sys<Stat> {
    stat_of(path.as_ref())
}

#[inline(never)]
fn stat_of(path: &Path) -> Sys<Stat> {
    nix::sys::stat::stat(&*text(path)?).map(Stat::from)
}

/// lstat(2).
///
/// # Errors
/// The errno.
pub fn lstat(path: impl AsRef<Path>) -> Sys<Stat> {
    lstat_of(path.as_ref())
}

#[inline(never)]
fn lstat_of(path: &Path) -> Sys<Stat> {
    nix::sys::stat::lstat(&*text(path)?).map(Stat::from)
}

/// fstat(2).
///
/// # Errors
/// The errno.
pub fn of(fd: impl AsFd) -> Sys<Stat> {
    fstat(fd.as_fd()).map(Stat::from)
}

/// How many blocks of 512 bytes a file takes.
///
/// # Errors
/// The errno of fstat(2).
#[allow(clippy::useless_conversion, reason = "the field is narrower on 32-bit targets")]
pub fn blocks(fd: impl AsFd) -> Sys<u64> {
    fstat(fd.as_fd()).map(|found| i64::from(found.st_blocks).cast_unsigned())
}

/// Whether stat(2) finds something there.
#[must_use]
pub fn exists(path: impl AsRef<Path>) -> bool {
    stat_of(path.as_ref()).is_ok()
}

/// Whether a directory is there.
#[must_use]
pub fn is_dir(path: impl AsRef<Path>) -> bool {
    stat_of(path.as_ref()).is_ok_and(|found| found.is_dir())
}
