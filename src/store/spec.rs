//! Where a store is, as configuration and command line spell it, and the device that a spelling stands for.
//!
//! | spelling | meaning |
//! |---|---|
//! | `/dev/vdb` | a block device or partition; also a file of fixed length |
//! | `PARTLABEL=x` `PARTUUID=x` | a partition, by its table |
//! | `LABEL=x` `UUID=x` | a device, by the file system on it |
//! | `254:16` | a device, by its number |
//! | `file:DEVICE:PATH` | a file on the file system of a device, mounted by rcsnap itself |
//! | `file:DEVICE:PATH:TYPE` | the same, with the type of the file system |
//!
//! `root=` takes the first four as well.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::device::{Access, Device, Medium};
use super::{Store, file, partition, superblock};
use crate::config::{Config, Key};
use crate::error::{Error, Result};
use crate::sorted::Listed;
use crate::sys::fs;
use crate::sys::stat::exists;
use crate::sys::time::milliseconds;
use crate::text;

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// On a device of its own.
    Device(String),
    /// In a file.
    File {
        /// The device of its file system.
        device: String,
        /// The path from the file system's root.
        path: String,
        /// The type of the file system; otherwise its superblock tells.
        kind: Option<String>,
    },
}

/// How often a device that is not there yet is looked for.
const INTERVAL: Duration = Duration::from_millis(5);
/// Where the kernel lists block devices.
const SYS: &str = "/sys/class/block";

impl Spec {
    /// Reads a spelling.
    ///
    /// # Errors
    /// It is empty, or `file:` lacks its parts.
    pub fn parse(text: &str) -> Result<Spec> {
        let bad = |cause: &'static str| Error::new("store", format!("reading store = {text}"), cause);
        if text.is_empty() {
            return Err(Error::new("store", "looking for the store", "none is configured (store = ...)"));
        }
        let Some(rest) = text.strip_prefix("file:") else { return Ok(Spec::Device(text.into())) };
        let (device, path) = text::split(rest, ":/").ok_or_else(|| bad("it is not file:DEVICE:/PATH"))?;
        let (path, kind) = match text::split_last(path, ':') {
            Some((path, kind)) => (path, Some(kind.to_owned())),
            None => (path, None),
        };
        if device.is_empty() || path.is_empty() || path.split('/').any(|part| part == "..") {
            return Err(bad("it is not file:DEVICE:/PATH"));
        }
        Ok(Spec::File { device: device.into(), path: path.into(), kind })
    }

    /// Opens what lies there, waiting for its device.
    ///
    /// # Errors
    /// The device does not appear, cannot be mounted or opened, or is in use.
    pub fn medium(&self, access: Access, wait: Duration, new_length: u64) -> Result<Box<dyn Medium>> {
        match self {
            Spec::Device(text) => Ok(Box::new(Device::open(&resolve(text, wait)?, access)?)),
            Spec::File { device, path, kind } => {
                let device = resolve(device, wait)?;
                Ok(Box::new(file::open(&device, path, kind.as_deref(), access, new_length)?))
            }
        }
    }
}

/// Opens the store of a configuration.
///
/// # Errors
/// None is configured, its device does not appear, or it is no store.
pub fn open(config: &Config, access: Access) -> Result<Store> {
    let spec = Spec::parse(config.text(Key::Store))?;
    let wait = Duration::from_millis(config.number(Key::LimitDevice).into());
    let new_length = u64::from(config.number(Key::StoreSize)) << 20;
    let medium = spec.medium(access, wait, new_length)?;
    Store::new(medium, (config.number(Key::StoreSlots) as usize).clamp(1, super::notes::MAX_SLOTS))
}

/// The device that a spelling stands for, looked for until it is there or the time is over. Also for `root=`.
///
/// # Errors
/// It does not appear.
pub fn resolve(text: &str, wait: Duration) -> Result<PathBuf> {
    let begin = Instant::now();
    loop {
        if let Some(path) = find(text) {
            return Ok(path);
        }
        if begin.elapsed() >= wait {
            let waited = milliseconds(wait);
            return Err(Error::new(
                "store",
                format!("looking for {text}"),
                format!("not there after {waited} ms"),
            ));
        }
        std::thread::sleep(INTERVAL);
    }
}

/// The device that a spelling stands for, if it is there now.
#[must_use]
pub fn find(text: &str) -> Option<PathBuf> {
    if text.starts_with('/') {
        let path = PathBuf::from(text);
        return exists(&path).then_some(path);
    }
    let Some((tag, value)) = text.split_once('=') else { return by_number(text) };
    let value = text::without_start(text::without_end(value, "\""), "\"");
    blocks().into_iter().find(|block| block.is(tag, value)).map(|block| block.path)
}

/// `MAJOR:MINOR`.
fn by_number(text: &str) -> Option<PathBuf> {
    let (major, minor) = text.split_once(':')?;
    let (_, _): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    device_node(&format!("/sys/dev/block/{text}"))
}

/// The device node of a directory in sysfs.
fn device_node(directory: &str) -> Option<PathBuf> {
    let uevent = fs::text(format!("{directory}/uevent")).ok()?;
    Some(Path::new("/dev").join(value(&uevent, "DEVNAME")?))
}

/// The superblock of the file system with this device number, and the device's node. None for file systems
/// without a block device, and where the device cannot be read.
#[must_use]
pub fn file_system(dev: u64) -> Option<(PathBuf, superblock::Superblock)> {
    let (major, minor) = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    let node = device_node(&format!("/sys/dev/block/{major}:{minor}"))?;
    let found = superblock::read(&node)?;
    Some((node, found))
}

/// A block device.
struct Block {
    /// Its directory in sysfs.
    sys: PathBuf,
    /// Its node.
    path: PathBuf,
    uevent: String,
}

/// The block devices that have a medium, by name. Drives with changeable media are left out: asking them
/// takes seconds.
fn blocks() -> Vec<Block> {
    let block = |name: OsString| {
        let odd = |kind: &&str| name.as_encoded_bytes().starts_with(kind.as_bytes());
        if ["fd", "sr", "ram", "zram"].iter().any(odd) {
            return None;
        }
        let sys = Path::new(SYS).join(&name);
        let size = fs::text(sys.join("size")).ok()?;
        let uevent = fs::text(sys.join("uevent")).ok()?;
        let path = Path::new("/dev").join(value(&uevent, "DEVNAME")?);
        (size.trim_ascii() != "0").then_some(Block { sys, path, uevent })
    };
    fs::names(SYS).unwrap_or_default().into_iter().filter_map(block).list()
}

impl Block {
    /// Whether the device is what `TAG=value` asks for.
    fn is(&self, tag: &str, wanted: &str) -> bool {
        let same = |found: &str| found.eq_ignore_ascii_case(wanted);
        match tag {
            "PARTLABEL" => value(&self.uevent, "PARTNAME") == Some(wanted),
            "PARTUUID" => match value(&self.uevent, "PARTUUID") {
                Some(found) => same(found),
                None => self.part_uuid().is_some_and(|found| same(&found)),
            },
            "LABEL" => superblock::read(&self.path).is_some_and(|found| found.label == wanted),
            "UUID" => superblock::read(&self.path).is_some_and(|found| same(&found.uuid)),
            _ => false,
        }
    }

    fn part_uuid(&self) -> Option<String> {
        let number = value(&self.uevent, "PARTN")?.parse().ok()?;
        // In sysfs a partition's directory is in its disk's.
        let real = fs::real(&self.sys).ok()?;
        let (disk, _) = text::split_last(real.to_str()?, '/')?;
        let sector = fs::text(format!("{disk}/queue/logical_block_size")).ok()?;
        let node = device_node(disk)?;
        partition::part_uuid(&node, number, sector.trim_ascii().parse().ok()?)
    }
}

/// The value of a line `NAME=value` of a uevent file.
fn value<'t>(uevent: &'t str, name: &str) -> Option<&'t str> {
    uevent.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::{Spec, find, resolve, value};
    use std::time::Duration;

    #[test]
    fn spellings_of_a_store() {
        assert_eq!(Spec::parse("/dev/vdb").unwrap(), Spec::Device("/dev/vdb".into()));
        assert_eq!(
            Spec::parse("file:UUID=1-2:/var/rcsnap.img:vfat").unwrap(),
            Spec::File {
                device: "UUID=1-2".into(),
                path: "var/rcsnap.img".into(),
                kind: Some("vfat".into())
            }
        );
        assert_eq!(
            Spec::parse("file:/dev/vda2:/x").unwrap(),
            Spec::File { device: "/dev/vda2".into(), path: "x".into(), kind: None }
        );
        for text in ["", "file:", "file:/dev/vda", "file::/x", "file:/dev/vda:/../x"] {
            assert!(Spec::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error_that_names_it() {
        let err = resolve("PARTLABEL=no such partition", Duration::ZERO).unwrap_err().to_string();
        assert_eq!(err, "store: looking for PARTLABEL=no such partition: not there after 0 ms");
        assert_eq!(find("/dev/null").unwrap().to_str(), Some("/dev/null"));
        assert!(find("mtd0").is_none() && find("999:999").is_none());
    }

    #[test]
    fn uevent_values_are_whole_names() {
        let text = "MAJOR=254\nDEVNAME=vda1\nPARTN=1\nPARTNAME=a=b\n";
        assert_eq!((value(text, "PARTN"), value(text, "PARTNAME")), (Some("1"), Some("a=b")));
        assert_eq!(value(text, "PART"), None);
    }
}
