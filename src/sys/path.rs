//! nix's calls that take a path. nix compiles each of them anew for every type of path, with the making of a C
//! string in it; here there is one of each.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags};
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::unistd::UnlinkatFlags;

use crate::sys::ptrace::Sys;

/// A path as the kernel takes it.
///
/// # Errors
/// EINVAL if there is a NUL in it.
pub fn text(path: &Path) -> Sys<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

/// stat(2).
///
/// # Errors
/// The errno of the call, as for all below.
pub fn stat(path: impl AsRef<Path>) -> Sys<FileStat> {
    nix::sys::stat::stat(&*text(path.as_ref())?)
}

/// lstat(2).
///
/// # Errors
/// The errno.
pub fn lstat(path: impl AsRef<Path>) -> Sys<FileStat> {
    nix::sys::stat::lstat(&*text(path.as_ref())?)
}

/// open(2). The descriptor is closed at execve(2).
///
/// # Errors
/// The errno.
pub fn open(path: &Path, flags: OFlag, mode: Mode) -> Sys<OwnedFd> {
    nix::fcntl::open(&*text(path)?, flags | OFlag::O_CLOEXEC, mode)
}

/// openat(2). The descriptor is closed at execve(2).
///
/// # Errors
/// The errno.
pub fn openat(directory: impl AsFd, path: &str, flags: OFlag, mode: Mode) -> Sys<OwnedFd> {
    nix::fcntl::openat(directory.as_fd(), &*text(path.as_ref())?, flags | OFlag::O_CLOEXEC, mode)
}

/// unlink(2).
///
/// # Errors
/// The errno.
pub fn unlink(path: &str) -> Sys<()> {
    nix::unistd::unlink(&*text(path.as_ref())?)
}

/// unlinkat(2).
///
/// # Errors
/// The errno.
pub fn unlinkat(directory: &OwnedFd, path: &str, flag: UnlinkatFlags) -> Sys<()> {
    nix::unistd::unlinkat(directory, &*text(path.as_ref())?, flag)
}

/// renameat(2) within one directory.
///
/// # Errors
/// The errno.
pub fn rename(directory: &OwnedFd, from: &str, to: &str) -> Sys<()> {
    nix::fcntl::renameat(directory, &*text(from.as_ref())?, directory, &*text(to.as_ref())?)
}

/// mknod(2).
///
/// # Errors
/// The errno.
pub fn mknod(path: &Path, kind: SFlag, mode: Mode, device: u64) -> Sys<()> {
    nix::sys::stat::mknod(&*text(path)?, kind, mode, device)
}

/// chdir(2).
///
/// # Errors
/// The errno.
pub fn chdir(path: impl AsRef<Path>) -> Sys<()> {
    nix::unistd::chdir(&*text(path.as_ref())?)
}

/// mount(2).
///
/// # Errors
/// The errno.
pub fn mount(
    source: Option<&str>,
    target: impl AsRef<Path>,
    kind: Option<&str>,
    flags: MsFlags,
    data: Option<&str>,
) -> Sys<()> {
    mount_at(target.as_ref(), [source, kind, data], flags)
}

fn mount_at(target: &Path, words: [Option<&str>; 3], flags: MsFlags) -> Sys<()> {
    let mut texts: [Option<CString>; 3] = [None, None, None];
    for (text, word) in texts.iter_mut().zip(words) {
        *text = word.map(|word| self::text(word.as_ref())).transpose()?;
    }
    let [source, kind, data] = &texts;
    nix::mount::mount::<CStr, CStr, CStr, CStr>(
        source.as_deref(),
        &text(target)?,
        kind.as_deref(),
        flags,
        data.as_deref(),
    )
}

/// umount2(2).
///
/// # Errors
/// The errno.
pub fn umount2(path: impl AsRef<Path>, flags: MntFlags) -> Sys<()> {
    nix::mount::umount2(&*text(path.as_ref())?, flags)
}
