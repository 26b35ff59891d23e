//! A store in a file, on a file system that rcsnap mounts for itself.
//!
//! The mount is made with fsopen(2) and fsmount(2) and never attached anywhere: no other process sees it, no
//! directory is needed for it, and it ends with its descriptor, so nothing is left for the rc scripts to
//! trip over (they may want to check or mount the same file system). When the scripts have mounted the
//! file system already, the kernel shares its superblock with our mount.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{fsync, ftruncate};

use super::device::{Access, Device, Medium};
use super::superblock;
use crate::error::{Context, Error, Result};
use crate::sys::path::{mkdirat, openat};
use crate::sys::{fsmount, stat};

/// A file and the mount it is on. The file is closed first.
pub struct Mounted {
    device: Device,
    _mount: OwnedFd,
}

/// The largest file that is made when nobody said how large.
const LARGEST: u64 = 128 << 20;
/// The smallest file that is worth making.
const SMALLEST: u64 = 1 << 20;

/// Opens the file, and makes it if it is to be written and is not there. The file is sparse where the file
/// system can: it takes as much room as its images do.
///
/// # Errors
/// The file system cannot be mounted, the file cannot be made, or there is no room.
pub fn open(
    device: &Path,
    path: &str,
    kind: Option<&str>,
    access: Access,
    new_length: u64,
) -> Result<Mounted> {
    let mount = mount(device, kind, access == Access::Read)?;
    let name = format!("{}:/{path}", device.to_string_lossy());
    let doing = format_args!("opening {name}");
    let flags = match access {
        Access::Read => OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Access::Write => OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_CREAT,
    };
    if access == Access::Write {
        for (at, _) in path.match_indices('/') {
            match mkdirat(&mount, &path[..at], 0o700) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(Error::os("store", doing.to_string(), errno)),
            }
        }
    }
    let file = openat(&mount, path, flags | OFlag::O_NOFOLLOW, Mode::S_IRUSR | Mode::S_IWUSR)
        .context("store", doing)?;
    if access == Access::Write && stat::of(&file).context("store", doing)?.size == 0 {
        grow(&file, &name, new_length)?;
    }
    Ok(Mounted { device: Device::new(file, name, access == Access::Write)?, _mount: mount })
}

/// Gives a new file its length.
fn grow(file: &OwnedFd, name: &str, wanted: u64) -> Result<()> {
    let doing = format_args!("making {name}");
    let room = fstatvfs(file).context("store", doing)?;
    #[allow(clippy::useless_conversion, reason = "the counts have 32 bits on some processors")]
    let free = u64::from(room.blocks_available()).saturating_mul(u64::from(room.fragment_size()));
    let length = if wanted > 0 { wanted } else { (free / 2).min(LARGEST) };
    if length > free || length < SMALLEST {
        return Err(Error::new(
            "store",
            doing.to_string(),
            format!("{free} bytes are free on its file system"),
        ));
    }
    ftruncate(file, i64::try_from(length).unwrap_or(i64::MAX)).context("store", doing)?;
    fsync(file).context("store", doing)
}

/// Mounts the file system of a device, for this process alone.
///
/// # Errors
/// There is no file system that is known, or the errno of the last type that was tried.
pub fn mount(device: &Path, kind: Option<&str>, read_only: bool) -> Result<OwnedFd> {
    let doing = format_args!("mounting {}", device.to_string_lossy());
    let found = superblock::read(device);
    let types: Vec<&str> = match (kind, &found) {
        (Some(kind), _) => vec![kind],
        (None, Some(found)) => found.types.to_vec(),
        (None, None) => {
            return Err(Error::new("store", doing.to_string(), "no file system that rcsnap knows"));
        }
    };
    let mut last = Errno::ENODEV;
    for kind in types {
        match fsmount::mount(device, kind, read_only) {
            Ok(mount) => return Ok(mount),
            // Mounted read-only elsewhere: reading can share that.
            Err(Errno::EBUSY) if read_only => {
                if let Ok(mount) = fsmount::mount(device, kind, false) {
                    return Ok(mount);
                }
                last = Errno::EBUSY;
            }
            // This driver is not there; the next one may be.
            Err(Errno::ENODEV) => {}
            Err(errno) => last = errno,
        }
    }
    Err(Error::os("store", doing.to_string(), last))
}

impl Medium for Mounted {
    fn length(&self) -> u64 {
        Medium::length(&self.device)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        Medium::read_at(&self.device, offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        Medium::write_at(&mut self.device, offset, bytes)
    }

    fn sync(&mut self) -> Result<()> {
        self.device.sync()
    }

    fn forget(&mut self) -> Result<()> {
        self.device.forget()
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use crate::config::Config;
    use crate::store::device::Access;

    fn run(command: &str) -> String {
        let out = Command::new("sh").args(["-c", command]).output().unwrap();
        assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().into()
    }

    fn directory() -> PathBuf {
        let path = std::env::temp_dir().join(format!("rcsnap-file-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    #[ignore = "needs root, mkfs.ext4 and a loop device; the lab runs it"]
    fn a_store_in_a_file_is_made_where_nobody_sees_it() {
        let directory = directory();
        let image = directory.join("disk");
        run(&format!("truncate -s 32M {0} && mkfs.ext4 -q -L rcsnap-test {0}", image.display()));
        let device = run(&format!("losetup -f --show {}", image.display()));
        let text = format!("store = file:{device}:/a/b/store\nlog = info\n");
        let config = Config::parse(&text, &[]);
        assert!(crate::store::open(&config, Access::Read).is_err(), "nothing there yet");
        let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut store = crate::store::open(&config, Access::Write).unwrap();
        assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
        store.count_boot();
        store.settle().unwrap();
        // Mounted elsewhere at the same time, as rc scripts do: the kernel shares the superblock.
        let mountpoint = directory.join("mnt");
        std::fs::create_dir_all(&mountpoint).unwrap();
        run(&format!("mount {device} {}", mountpoint.display()));
        let length = mountpoint.join("a/b/store").metadata().unwrap().len();
        assert!(length > 8 << 20, "{length}");
        drop(store);
        run(&format!("umount {}", mountpoint.display()));
        assert_eq!(crate::store::open(&config, Access::Read).unwrap().history().boots, 1);
        let found = crate::store::spec::find("LABEL=rcsnap-test");
        run(&format!("fsck.ext4 -fn {device} && losetup -d {device}"));
        assert_eq!(found.as_deref(), Some(Path::new(&device)));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
