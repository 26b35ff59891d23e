//! Devices that programs made: loop, device mapper, md, network block devices and UBI.
//!
//! # What
//! Devices of these drivers that the scripts set up.
//! # Reads
//! /sys/block: `loop/backing_file`, `dm/name`, `md/array_state`, `pid` of nbd; /sys/class/ubi: `mtd_num`.
//! # Rebuilds
//! Nothing yet.
//! # Loses
//! Nothing.
//! # Refuses
//! Any such device that was not in use before the scripts.

use super::root::Root;
use super::{refuse_new, sysfs};
use crate::error::Obstacle;

/// Files that exist only while a device is in use.
const SIGNS: &[&str] = &[
    "block/*/loop/backing_file",
    "block/*/dm/name",
    "block/*/md/array_state",
    "block/*/pid",
    "class/ubi/*/mtd_num",
];

/// The devices in use, each with what backs it.
#[must_use]
pub fn baseline(root: &Root) -> Vec<String> {
    let mut found = Vec::new();
    for path in SIGNS.iter().flat_map(|sign| sysfs::paths(sign, root)) {
        if root.sys.exists(&path) {
            found.push(format!("/sys/{path} ({})", root.sys.line(&path)));
        }
    }
    found
}

/// Refuses what is new.
#[must_use]
pub fn capture(before: &[String], root: &Root) -> Vec<Obstacle> {
    refuse_new(
        "loopdev",
        before,
        baseline(root),
        "devices made by programs are not carried yet",
        "set it up in a rerun script",
    )
}

#[cfg(test)]
mod tests {
    use super::{baseline, capture};
    use crate::kernel::Root;
    use std::fs::{create_dir_all, write};

    #[test]
    fn what_is_attached_meanwhile_is_refused() {
        let dir = std::env::temp_dir().join(format!("rcsnap-loopdev-{}", std::process::id()));
        let device = |name: &str, sign: &str, value: &str| {
            create_dir_all(dir.join(name)).unwrap();
            if !sign.is_empty() {
                create_dir_all(dir.join(name).join(sign).parent().unwrap()).unwrap();
                write(dir.join(name).join(sign), value).unwrap();
            }
        };
        device("block/loop0", "", "");
        device("class/ubi/ubi0", "mtd_num", "2\n");
        let root = Root::open("/proc".as_ref(), &dir, "/".as_ref(), "self").unwrap();
        let before = baseline(&root);
        device("block/loop0", "loop/backing_file", "/data\n");
        device("class/ubi/ubi1", "mtd_num", "5\n");
        device("class/ubi/ubi1_0", "", "");
        let objects = capture(&before, &root).into_iter().map(|obstacle| obstacle.object);
        assert_eq!(
            objects.collect::<Vec<_>>(),
            ["/sys/block/loop0/loop/backing_file (/data)", "/sys/class/ubi/ubi1/mtd_num (5)"]
        );
        std::fs::remove_dir_all(dir).unwrap();
    }
}
