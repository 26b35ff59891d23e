//! A character device whose driver remembers nothing about the description.
//!
//! What: an open device node.
//! Reads: its number and name, and its path in sysfs: numbers and probe order may differ on another boot.
//! Rebuilds: by opening the same name, after comparing the path in sysfs.
//! Loses: for the devices that the configuration allows (`reopen = ...`), whatever the driver remembered:
//!   settings made with ioctl(2), queued input. For /dev/kmsg, the position: the new boot has a new log.
//! Refuses: every other character device and every block device: what their drivers remember cannot be read.

use std::os::fd::OwnedFd;

use super::place::{self, Place};
use super::{Description, Opener, Stat, World};
use crate::config::Key;
use crate::error::{Error, Refusal, Result};
use crate::sys::fs;
use crate::text;

const KIND: &str = "device";

/// null, zero, full, random, urandom, kmsg (Documentation/admin-guide/devices.txt).
const TRANSPARENT: [(u64, u64); 6] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (1, 11)];
/// Kernel log records.
const KMSG: (u64, u64) = (1, 11);

crate::section! {
    /// A device in the image.
    pub struct State {
        /// Its name.
        pub place: Place,
        /// Whether it is a block device.
        pub block: bool,
        /// Its path in sysfs: `devices/virtual/mem/null`. Empty for a device that sysfs does not know.
        pub sysfs: String,
        /// The offset, for devices that have one.
        pub offset: u64,
    }
}

/// Major and minor number.
#[must_use]
pub fn numbers(rdev: u64) -> (u64, u64) {
    (nix::sys::stat::major(rdev), nix::sys::stat::minor(rdev))
}

/// Reads which device it is.
///
/// # Errors
/// A refusal unless it is known to have no state, or allowed.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    let (major, minor) = numbers(desc.stat.rdev);
    let block = desc.stat.format() == libc::S_IFBLK;
    let transparent = !block && TRANSPARENT.contains(&(major, minor));
    let place = place::find(desc, world)?;
    if !transparent && let Some(remedy) = world.lacks(Key::Reopen, desc, &place.path) {
        let sort = if block { "block" } else { "character" };
        return Err(Refusal::new(
            format!("what the driver of {sort} device {major}:{minor} remembers cannot be read"),
            remedy,
        ));
    }
    let offset = if (major, minor) == KMSG { 0 } else { desc.info.pos };
    Ok(Box::new(State { place, block, sysfs: sysfs(desc.stat.rdev, block, world.root), offset }))
}

/// The path of a device in sysfs, below /sys.
#[must_use]
pub fn sysfs(rdev: u64, block: bool, root: &str) -> String {
    let (major, minor) = numbers(rdev);
    let link = format!("{root}/sys/dev/{}/{major}:{minor}", if block { "block" } else { "char" });
    let target = fs::link(link).ok();
    let target = target.as_deref().and_then(std::path::Path::to_str).unwrap_or("");
    text::from_top(target).to_owned()
}

/// Opens it again.
///
/// # Errors
/// The errno of open(2); another device with the name.
pub fn restore(state: &State, opener: &mut Opener) -> Result<OwnedFd> {
    let format = if state.block { libc::S_IFBLK } else { libc::S_IFCHR };
    let fd = place::reopen(&state.place, opener.flags(), format, KIND)?;
    same(&place::stat(&fd, KIND)?, &state.sysfs, state.block, &state.place.path)?;
    // Most devices have no offset, and take any.
    let _ = super::regular::seek(&fd, state.offset, &state.place.path);
    Ok(fd)
}

/// Makes sure that an opened node is the device with this path in sysfs.
///
/// # Errors
/// If it is another one.
pub fn same(stat: &Stat, path: &str, block: bool, name: &str) -> Result<()> {
    let found = sysfs(stat.rdev, block, "");
    if found == path {
        return Ok(());
    }
    Err(Error::new(KIND, format!("opening {name}"), format!("it is {found}, and was {path}")))
}

#[cfg(test)]
mod tests {
    use crate::file::State;
    use crate::file::place::open;
    use crate::file::testing::{cured, entries_with, states};

    #[test]
    fn null_and_urandom_come_back() {
        let null = open("/dev/null", libc::O_RDWR, "device").unwrap();
        let random = open("/dev/urandom", libc::O_RDONLY, "device").unwrap();
        let found = states(&[&null, &random]);
        assert_eq!(found.before, found.after);
    }

    #[test]
    fn device_with_a_driver_of_its_own_is_refused_unless_it_may_be_opened_afresh() {
        let Ok(fd) = open("/dev/fuse", libc::O_RDWR, "device") else { return };
        let (line, state) = cured(&[&fd]);
        assert_eq!(line, "reopen = EXE: /dev/fuse");
        assert!(matches!(state, State::Device(state) if state.place.path == "/dev/fuse"));
        assert!(entries_with("reopen = /dev/f*", &[&fd]).is_ok());
        assert!(entries_with("reopen = /dev/fus", &[&fd]).is_err());
    }
}
