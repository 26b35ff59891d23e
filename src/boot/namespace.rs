//! Where the watcher lives: mount namespaces in which it holds nothing of the system busy.
//!
//! While the scripts run it rests in a namespace of three mounts, its own /proc and /sys and the system's /dev:
//! a mount that it had copied would keep a file system alive that a script unmounts. For the capture it enters
//! a private copy of PID 1's namespace: there every path of the system means what it means to the system, and
//! what the capture mounts (the store, a fresh /proc) nobody else sees.

use std::path::Path;

use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chroot, pivot_root};

use crate::error::{Context, Result};
use crate::sys::fs;
use crate::sys::path::{chdir, mkdir, mount, umount2};
use crate::sys::stat::exists;

/// A directory that every root has, also a read-only one.
const BASE: &str = "/proc";

fn attach(source: &str, target: &Path, kind: Option<&str>, flags: MsFlags) -> Result<()> {
    mount(Some(source), target, kind, flags, None)
        .context("watcher", format_args!("mounting {}", target.to_string_lossy()))
}

/// A namespace of our own, from which nothing spreads.
fn private_copy() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("watcher", format_args!("unsharing the mount namespace"))?;
    attach("none", Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE)
}

/// Moves this process to a namespace with /proc, /sys and /dev and nothing else.
///
/// # Errors
/// EPERM, or one of the three cannot be mounted.
pub fn rest() -> Result<()> {
    private_copy()?;
    let base = Path::new(BASE);
    attach("rcsnap", base, Some("tmpfs"), MsFlags::MS_NOSUID)?;
    for name in ["proc", "sys", "dev"] {
        mkdir(base.join(name), 0o777).context("watcher", format_args!("making /{name}"))?;
    }
    attach("proc", &base.join("proc"), Some("proc"), MsFlags::empty())?;
    attach("sysfs", &base.join("sys"), Some("sysfs"), MsFlags::empty())?;
    if exists("/dev/null") {
        attach("/dev", &base.join("dev"), None, MsFlags::MS_BIND | MsFlags::MS_REC)?;
    } else {
        attach("devtmpfs", &base.join("dev"), Some("devtmpfs"), MsFlags::empty())?;
    }
    chdir(base).context("watcher", format_args!("entering the new root"))?;
    // pivot_root(c".", c".") puts the old root on top of the new one, from where it is taken off. It does not
    // work on an initramfs, whose mounts then stay: they are the kernel's and nobody unmounts them.
    if pivot_root(c".", c".").is_ok() {
        umount2(".", MntFlags::MNT_DETACH).context("watcher", format_args!("leaving the old root"))?;
    } else {
        chroot(c".").context("watcher", format_args!("changing the root"))?;
    }
    chdir("/").context("watcher", format_args!("entering /"))
}

/// Moves this process to a private copy of PID 1's namespace, with a /proc and /sys that hide nothing.
///
/// # Errors
/// EPERM, or a file system that cannot be mounted.
pub fn enter_system() -> Result<()> {
    let of_init = fs::open("/proc/1/ns/mnt", OFlag::O_RDONLY)
        .context("watcher", format_args!("opening PID 1's mount namespace"))?;
    setns(of_init, CloneFlags::CLONE_NEWNS)
        .context("watcher", format_args!("entering PID 1's mount namespace"))?;
    private_copy()?;
    attach("proc", Path::new("/proc"), Some("proc"), MsFlags::empty())?;
    if !exists("/sys/kernel") {
        attach("sysfs", Path::new("/sys"), Some("sysfs"), MsFlags::empty())?;
    }
    if !exists("/dev/null") {
        attach("devtmpfs", Path::new("/dev"), Some("devtmpfs"), MsFlags::empty())?;
    }
    Ok(())
}
