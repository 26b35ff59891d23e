//! What a store lies on: a block device, a partition, or a file of fixed length.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FlockArg, OFlag, PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::Mode;
use nix::unistd::{Whence, fdatasync, lseek};

use crate::error::{Context, Error, Result};
use crate::image::medium::{Source, Target};
use crate::sys::{fs, path, stat};

/// Bytes that stay when the power goes. The tests have one that stops after any number of sectors.
pub trait Medium {
    /// How many bytes there are.
    fn length(&self) -> u64;
    /// Fills the buffer from an offset.
    ///
    /// # Errors
    /// The device's.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// Writes all bytes at an offset; they may stay in a cache.
    ///
    /// # Errors
    /// The device's, or there is no room.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// Returns when all that was written is on the medium.
    ///
    /// # Errors
    /// The device's.
    fn sync(&mut self) -> Result<()>;
    /// Drops cached bytes, so that the next reads come from the medium.
    ///
    /// # Errors
    /// The device's.
    fn forget(&mut self) -> Result<()>;
}

/// Whether a store is opened to look or to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only reads.
    Read,
    /// Reads and writes, and keeps others out.
    Write,
}

/// A block device, or a file.
pub struct Device {
    file: OwnedFd,
    length: u64,
    name: String,
}

/// How long another rcsnap may keep the store to itself.
const BUSY: Duration = Duration::from_secs(3);

impl Device {
    /// Opens a block device or an existing file.
    ///
    /// For writing a block device is opened with O_EXCL, which fails while it is mounted or is part of
    /// something else (open(2)), and a file is locked (flock(2)): two processes of rcsnap must not change one
    /// directory at the same time.
    ///
    /// # Errors
    /// It cannot be opened, or somebody keeps it.
    pub fn open(path: &Path, access: Access) -> Result<Device> {
        let doing = format_args!("opening {}", path.to_string_lossy());
        let found = stat::stat(path).context("store", doing)?;
        let device = found.format() == libc::S_IFBLK;
        if !device && !found.is_file() {
            return Err(Error::new("store", doing.to_string(), "neither a block device nor a file"));
        }
        let write = access == Access::Write;
        let mut flags = if write { OFlag::O_RDWR } else { OFlag::O_RDONLY };
        flags.set(OFlag::O_EXCL, write && device);
        let begin = Instant::now();
        let file = loop {
            match fs::open(path, flags) {
                Err(Errno::EBUSY) if begin.elapsed() < BUSY => std::thread::sleep(Duration::from_millis(5)),
                file => break file.context("store", doing)?,
            }
        };
        Device::new(file, path.to_string_lossy().into_owned(), write && !device)
    }

    /// Takes an open device or file.
    ///
    /// # Errors
    /// Its length cannot be found, or another process keeps it locked.
    pub fn new(file: OwnedFd, name: String, lock: bool) -> Result<Device> {
        if lock {
            keep_out(&file, &name)?;
        }
        // stat(2) gives no size for a block device.
        let length = lseek(&file, 0, Whence::SeekEnd).context("store", format_args!("measuring {name}"))?;
        Ok(Device { file, length: length.unsigned_abs(), name })
    }
}

/// Waits for the lock of a file. It goes with the open description, at the latest when the process ends.
fn keep_out(file: &OwnedFd, name: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        #[allow(deprecated, reason = "nix's Flock owns the descriptor")]
        match nix::fcntl::flock(file.as_raw_fd(), FlockArg::LockExclusiveNonblock) {
            Err(Errno::EWOULDBLOCK) if begin.elapsed() < BUSY => {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done.context("store", format_args!("locking {name}")),
        }
    }
}

impl Medium for Device {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        fs::read_at(&self.file, offset, buffer).context("store", format_args!("reading {}", self.name))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        fs::write_at(&self.file, offset, bytes).context("store", format_args!("writing {}", self.name))
    }

    fn sync(&mut self) -> Result<()> {
        // fdatasync(2) also makes the device flush its own cache.
        fdatasync(&self.file).context("store", format_args!("flushing {}", self.name))
    }

    fn forget(&mut self) -> Result<()> {
        // Only clean pages are dropped: sync() comes before.
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .context("store", format_args!("dropping the cache of {}", self.name))
    }
}

impl Source for Device {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        Medium::read_at(self, offset, buffer)
    }
}

impl Target for Device {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        Medium::write_at(self, offset, bytes)
    }
}

/// The file of `capture --tree PID FILE`: made anew, readable for its owner alone, as it holds memory.
///
/// # Errors
/// It cannot be made.
pub fn create(path: &Path) -> Result<Device> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_TRUNC;
    let file = path::open(path, flags, Mode::S_IRUSR | Mode::S_IWUSR)
        .context("store", format_args!("creating {}", path.to_string_lossy()))?;
    Device::new(file, path.to_string_lossy().into_owned(), false)
}

#[cfg(test)]
mod tests {
    use super::{Access, Device};
    use crate::store::{Store, spec};
    use std::path::PathBuf;
    use std::process::Command;

    #[test]
    #[ignore = "needs root and a loop device; the lab runs it"]
    fn a_block_device_has_one_writer() {
        let run = |command: &str| {
            let out = Command::new("sh").args(["-c", command]).output().unwrap();
            assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap().trim().to_owned()
        };
        let file = std::env::temp_dir().join(format!("rcsnap-device-{}", std::process::id()));
        let device = run(&format!("truncate -s 16M {0} && losetup -f --show {0}", file.display()));
        let device = PathBuf::from(device);
        let open = |access| Device::open(&device, access);
        let mut store = Store::new(Box::new(open(Access::Write).unwrap()), 2).unwrap();
        let busy = open(Access::Write).map(|_| ()).unwrap_err();
        store.count_boot();
        store.settle().unwrap();
        let seen = Store::new(Box::new(open(Access::Read).unwrap()), 2).unwrap().history().boots;
        drop(store);
        let name = device.file_name().unwrap().to_str().unwrap();
        let number = std::fs::read_to_string(format!("/sys/class/block/{name}/dev")).unwrap();
        let found = spec::find(number.trim());
        run(&format!("losetup -d {}", device.display()));
        std::fs::remove_file(file).unwrap();
        assert_eq!(busy.errno(), Some(nix::errno::Errno::EBUSY));
        assert_eq!((seen, found), (1, Some(device)));
    }
}
