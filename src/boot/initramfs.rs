//! From the initramfs to the root: modules, `root=` and its companions, the switch.
//!
//! The words are the kernel's own (Documentation/admin-guide/kernel-parameters.rst: root, rootfstype,
//! rootflags, rootwait, rootdelay, ro, rw); LABEL= and UUID= are what every initramfs adds.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::unistd::chroot;

use super::cmdline::Cmdline;
use super::early::Early;
use crate::error::{Context, Error, Result};
use crate::sorted::Listed;
use crate::store::spec;
use crate::sys::fs;
use crate::sys::path::{chdir, mkdir, mount, remove, umount2};
use crate::sys::stat::{lstat, stat};
use crate::{log, sys};

/// Modules to load, one a line: a path below /lib/modules/RELEASE or an absolute one, then parameters.
const MODULES: &str = "/lib/rcsnap/modules";
/// Where the root is mounted before the switch.
const ROOT: &str = "/root";
/// How long a device may take to appear without `rootwait`: buses are probed in the background.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often we look for it.
const INTERVAL: Duration = Duration::from_millis(5);

/// Whether `/` is the initramfs and the command line names another root. A system that lives in its
/// initramfs for good has no `root=`.
#[must_use]
pub fn is_here(line: &Cmdline) -> bool {
    line.get("root").is_some() && is_root()
}

/// Whether `/` is the initramfs, as far as /proc tells.
#[must_use]
pub fn is_root() -> bool {
    top_type(&fs::text("/proc/self/mounts").unwrap_or_default()) == Some("rootfs")
}

/// The type of the file system on top of `/`: the last one that is mounted there.
fn top_type(mounts: &str) -> Option<&str> {
    let mut top = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        if fields.next() == Some("/") {
            top = fields.next();
        }
    }
    top
}

/// Loads the modules of the list, in its order. One that cannot be loaded is a warning: the root may not
/// need it, and if it does, that says so more plainly.
pub fn load_modules() {
    let Ok(list) = fs::text(MODULES) else { return };
    let release = fs::kernel("osrelease").unwrap_or_default();
    for line in list.lines().map(str::trim_ascii).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let end = line.bytes().position(|byte| byte.is_ascii_whitespace()).unwrap_or(line.len());
        let (name, parameters) = line.split_at(end);
        let path = Path::new("/lib/modules").join(&release).join(name);
        if let Err(error) = sys::module::load(&path, parameters.trim_ascii())
            .context("initramfs", format_args!("loading {name}"))
        {
            log!(Warning, "{error}");
        }
    }
}

/// Mounts the root of the command line and makes it `/`. The files of the initramfs are deleted: its memory
/// is given back.
///
/// # Errors
/// No such device, no file system on it. Nothing else can be booted then.
pub fn enter(line: &Cmdline, early: &mut Early) -> Result<()> {
    if let Some(seconds) = line.get("rootdelay").and_then(|text| text.parse().ok()) {
        std::thread::sleep(Duration::from_secs(seconds));
    }
    let wanted = line.get("root").unwrap_or_default();
    let source = wait_for(wanted, line)?;
    let _ = mkdir(ROOT, 0o777);
    mount_root(&source, line)?;
    log!(Info, "root: {wanted} on {}", source.to_string_lossy());
    switch(early)
}

/// Looks for the device until it is there or the patience is over.
fn wait_for(wanted: &str, line: &Cmdline) -> Result<PathBuf> {
    let limit = match (line.has("rootwait"), line.get("rootwait").and_then(|text| text.parse().ok())) {
        (true, _) => None,
        (false, Some(seconds)) => Some(Duration::from_secs(seconds)),
        (false, None) => Some(PATIENCE),
    };
    let start = Instant::now();
    loop {
        if let Some(source) = find(wanted) {
            return Ok(source);
        }
        if limit.is_some_and(|limit| start.elapsed() > limit) {
            return Err(Error::new("initramfs", format!("looking for root={wanted}"), "no such device"));
        }
        std::thread::sleep(INTERVAL);
    }
}

/// The device of a `root=` word. mtdN, ubiX:NAME and ubiX_Y are names that only the file system understands.
fn find(wanted: &str) -> Option<PathBuf> {
    if wanted.starts_with("mtd") || wanted.starts_with("ubi") {
        return Some(PathBuf::from(wanted));
    }
    spec::find(wanted)
}

/// mount(2) with the first type that fits.
fn mount_root(source: &Path, line: &Cmdline) -> Result<()> {
    let known = fs::text("/proc/filesystems").unwrap_or_default();
    let types: Vec<&str> = match line.get("rootfstype") {
        Some(list) => list.split(',').list(),
        None => block_types(&known),
    };
    // The last of `ro` and `rw` wins; the kernel's default is read-only.
    let read_only = line.words().iter().rev().find(|w| *w == "ro" || *w == "rw").is_none_or(|w| w == "ro");
    let mut last = Errno::ENODEV;
    for kind in types {
        for flags in [if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() }, MsFlags::MS_RDONLY] {
            match mount(source.to_str(), ROOT, Some(kind), flags, line.get("rootflags")) {
                Ok(()) => return Ok(()),
                // A write-protected device or squashfs: the second pass mounts it read-only, as the kernel does.
                Err(Errno::EACCES | Errno::EROFS) => last = Errno::EROFS,
                Err(errno) => {
                    last = errno;
                    break;
                }
            }
        }
    }
    Err(Error::os("initramfs", format!("mounting {}", source.to_string_lossy()), last))
}

/// The types of /proc/filesystems that live on a block device.
fn block_types(filesystems: &str) -> Vec<&str> {
    filesystems.lines().filter(|line| !line.starts_with("nodev")).map(str::trim_ascii).list()
}

/// Makes the mounted root `/`: the way of switch_root(8), since pivot_root(2) does not work on an initramfs.
fn switch(early: &mut Early) -> Result<()> {
    let root = Path::new(ROOT);
    early.move_to(root)?;
    delete_below(Path::new("/"), stat("/").map(|found| found.dev).unwrap_or(0));
    chdir(root).context("initramfs", format_args!("entering the root"))?;
    mount(Some("."), "/", None, MsFlags::MS_MOVE, None)
        .context("initramfs", format_args!("moving the root to /"))?;
    chroot(c".").context("initramfs", format_args!("changing to the root"))?;
    chdir("/").context("initramfs", format_args!("entering /"))
}

/// Deletes everything on this one file system; mount points lead to others and stay.
fn delete_below(directory: &Path, dev: u64) {
    for name in fs::names(directory).unwrap_or_default() {
        let path = directory.join(name);
        let Some(found) = lstat(&path).ok().filter(|found| found.dev == dev) else { continue };
        if found.is_dir() {
            delete_below(&path, dev);
        }
        let _ = remove(&path);
    }
}

/// Unmounts the root again: for a boot that cannot go on there.
pub fn leave() {
    let _ = umount2(ROOT, MntFlags::MNT_DETACH);
}

#[cfg(test)]
mod tests {
    use super::{block_types, top_type};

    #[test]
    fn the_last_mount_on_root_is_on_top() {
        let initramfs = "rootfs / rootfs rw 0 0\nproc /proc proc rw 0 0\n";
        assert_eq!(top_type(initramfs), Some("rootfs"));
        assert_eq!(top_type("rootfs / rootfs rw 0 0\n/dev/vda / ext4 ro 0 0\n"), Some("ext4"));
        assert_eq!(top_type(""), None);
    }

    #[test]
    fn only_types_on_devices_are_tried() {
        assert_eq!(block_types("nodev\tsysfs\n\text4\nnodev\ttmpfs\n\tsquashfs\n"), ["ext4", "squashfs"]);
    }
}
