//! nix's calls that take a path. nix compiles each of them anew for every type of path, with the making of a C
//! string in it; here there is one of each.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::mount::{MntFlags, MsFlags};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag};
use nix::unistd::UnlinkatFlags;

use crate::sys::ptrace::Sys;
use crate::sys::stat::lstat;

/// The last part of a path.
#[must_use]
pub fn name(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// A path as the kernel takes it.
///
/// # Errors
/// EINVAL if there is a NUL in it.
pub fn text(path: &Path) -> Sys<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
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
pub fn unlink(path: impl AsRef<Path>) -> Sys<()> {
    nix::unistd::unlink(&*text(path.as_ref())?)
}

/// mkdir(2).
///
/// # Errors
/// The errno.
pub fn mkdir(path: impl AsRef<Path>, mode: u32) -> Sys<()> {
    nix::unistd::mkdir(&*text(path.as_ref())?, Mode::from_bits_retain(mode))
}

/// mkdirat(2).
///
/// # Errors
/// The errno.
pub fn mkdirat(directory: impl AsFd, path: &str, mode: u32) -> Sys<()> {
    nix::sys::stat::mkdirat(directory.as_fd(), &*text(path.as_ref())?, Mode::from_bits_retain(mode))
}

/// rmdir(2) of a directory, unlink(2) of anything else.
///
/// # Errors
/// The errno, ENOENT if there is nothing.
#[inline(never)]
pub fn remove(path: &Path) -> Sys<()> {
    let flag = if lstat(path)?.is_dir() { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
    nix::unistd::unlinkat(AT_FDCWD, &*text(path)?, flag)
}

/// rename(2).
///
/// # Errors
/// The errno.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Sys<()> {
    let (from, to) = (text(from.as_ref())?, text(to.as_ref())?);
    nix::fcntl::renameat(AT_FDCWD, &*from, AT_FDCWD, &*to)
}

/// link(2).
///
/// # Errors
/// The errno.
pub fn link(from: &Path, to: &Path) -> Sys<()> {
    nix::unistd::linkat(AT_FDCWD, &*text(from)?, AT_FDCWD, &*text(to)?, AtFlags::empty())
}

/// symlink(2).
///
/// # Errors
/// The errno.
pub fn symlink(target: &str, path: &Path) -> Sys<()> {
    nix::unistd::symlinkat(&*text(target.as_ref())?, AT_FDCWD, &*text(path)?)
}

/// chmod(2).
///
/// # Errors
/// The errno.
pub fn chmod(path: impl AsRef<Path>, mode: u32) -> Sys<()> {
    let mode = Mode::from_bits_retain(mode);
    nix::sys::stat::fchmodat(AT_FDCWD, &*text(path.as_ref())?, mode, FchmodatFlags::FollowSymlink)
}

/// lchown(2).
///
/// # Errors
/// The errno.
pub fn chown(path: impl AsRef<Path>, uid: u32, gid: u32) -> Sys<()> {
    let (uid, gid) = (Some(uid.into()), Some(gid.into()));
    nix::unistd::fchownat(AT_FDCWD, &*text(path.as_ref())?, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
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
pub fn rename_in(directory: &OwnedFd, from: &str, to: &str) -> Sys<()> {
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
