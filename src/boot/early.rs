//! The first steps of PID 1: /proc, /sys and /dev, standard streams, the log, the command line.
//!
//! What was there already is used as it is. What rcsnap mounts itself is remembered, because the real init
//! gets back exactly what rcsnap was given.

use std::ffi::CString;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags};

use super::cmdline::Cmdline;
use super::initramfs;
use crate::error::{Context, Result};
use crate::log;
use crate::sorted::Listed;
use crate::sys::path::{mkdir, mount, umount2};
use crate::sys::start::Given;
use crate::sys::{fs, stat};
use crate::text;

/// Inode number of the initial pid namespace (PROC_PID_INIT_INO of <linux/proc_ns.h>).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// What the first steps found and made.
#[derive(Debug, Default)]
pub struct Early {
    /// The command line of this boot.
    pub line: Cmdline,
    /// Whether PID 1 is that of a pid namespace: no kernel log, no modules, reboot(2) ends the namespace.
    pub cell: bool,
    /// Mount points that rcsnap filled, in order.
    pub mounts: Vec<&'static str>,
}

/// The file systems that rcsnap needs: target, type, flags, a file that shows that it is there.
const NEEDED: [(&str, &str, MsFlags, &str); 3] = [
    (
        "/proc",
        "proc",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC),
        "/proc/self/stat",
    ),
    ("/sys", "sysfs", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC), "/sys/kernel"),
    ("/dev", "devtmpfs", MsFlags::MS_NOSUID, "/dev/null"),
];

/// Mounts what is missing, opens the log and reads the command line. Nothing here stops a boot: what cannot
/// be mounted shows later as the reason for a cold boot.
#[must_use]
pub fn open(given: &Given) -> Early {
    let mut early = Early::default();
    let mut missing = Vec::new();
    for (target, kind, flags, shows) in NEEDED {
        if stat::exists(shows) && !is_bare(target) {
            continue;
        }
        // In an initramfs the directory may be missing; on a read-only root mkdir fails, and so does mount.
        let _ = mkdir(target, 0o777);
        match mount(Some(kind), target, Some(kind), flags, None)
            .context("early", format_args!("mounting {target}"))
        {
            Ok(()) => early.mounts.push(target),
            Err(error) => missing.push(error),
        }
    }
    open_streams();
    early.cell = is_cell();
    if !early.cell {
        log::to_kernel();
    }
    early.line = if early.cell { Cmdline::of_cell(&given.words()) } else { Cmdline::kernel() };
    if let Some(level) = early.line.get("rcsnap.log").and_then(log::Level::named) {
        log::set_level(level);
    }
    log!(Notice, "start");
    for error in missing {
        log!(Warning, "{error}");
    }
    early
}

/// Whether a directory is the initramfs's own: some bring a few nodes in /dev, and the root's is not among them.
fn is_bare(target: &str) -> bool {
    let device = |path: &str| stat::stat(path).map(|found| found.dev).ok();
    device(target) == device("/") && initramfs::is_root()
}

/// Whether this process is in a pid namespace of its own. Without /proc nobody can say, and it is not.
#[must_use]
pub fn is_cell() -> bool {
    fs::link_text("/proc/self/ns/pid").is_ok_and(|link| link != INITIAL_PID_NAMESPACE)
}

/// Gives 0, 1 and 2 to the console, or to /dev/null, where the kernel found no console when it started us.
fn open_streams() {
    loop {
        let open = |path| fs::open(path, OFlag::O_RDWR);
        let Ok(file) = open("/dev/console").or_else(|_| open("/dev/null")) else { return };
        // The lowest free number is what open gives: once it is above 2, all three are there.
        if file.as_raw_fd() > 2 {
            return;
        }
        keep(file);
    }
}

/// Leaves a standard stream open over execve(2).
fn keep(file: OwnedFd) {
    let _ = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()));
    let _ = file.into_raw_fd();
}

impl Early {
    /// Takes away what rcsnap mounted: the real init mounts its own. Lazily, since an open console on our
    /// own /dev must not keep it.
    pub fn close(&mut self) {
        while let Some(target) = self.mounts.pop() {
            if let Err(error) =
                umount2(target, MntFlags::MNT_DETACH).context("early", format_args!("unmounting {target}"))
            {
                log!(Warning, "{error}");
            }
        }
    }

    /// The same mount points, innermost first, for the crash guard.
    #[must_use]
    pub fn mount_points(&self) -> Vec<CString> {
        self.mounts.iter().rev().filter_map(|target| CString::new(*target).ok()).list()
    }

    /// Takes /proc and /sys along to a new root and forgets /dev, which the real init keeps: as the kernel's
    /// own initramfs tools leave it.
    ///
    /// # Errors
    /// None that matters: a mount that cannot move is detached.
    pub fn move_to(&mut self, root: &Path) -> Result<()> {
        for target in std::mem::take(&mut self.mounts) {
            let below = root.join(text::without_start(target, "/"));
            let moved = mount(Some(target), &below, None, MsFlags::MS_MOVE, None);
            match moved {
                Ok(()) if target != "/dev" => self.mounts.push(target),
                Ok(()) => {}
                Err(_) => umount2(target, MntFlags::MNT_DETACH)
                    .context("early", format_args!("unmounting {target} of the initramfs"))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Early;

    #[test]
    fn mounts_are_taken_away_innermost_first() {
        let early = Early { mounts: vec!["/proc", "/sys"], ..Early::default() };
        assert_eq!(early.mount_points(), [c"/sys".to_owned(), c"/proc".to_owned()]);
    }
}
