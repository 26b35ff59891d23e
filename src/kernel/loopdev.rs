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

use super::refuse_new;
use super::root::Root;
use crate::error::Obstacle;

/// Files that exist only while a device is in use, by the start of its name.
const SIGNS: &[(&str, &str)] = &[
    ("loop", "loop/backing_file"),
    ("dm-", "dm/name"),
    ("md", "md/array_state"),
    ("nbd", "pid"),
    ("ubi", "mtd_num"),
];

/// The devices in use, each with what backs it.
#[must_use]
pub fn baseline(root: &Root) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["block", "class/ubi"] {
        for name in root.sys.names(folder).unwrap_or_default() {
            let Some((_, sign)) = SIGNS.iter().find(|(start, _)| name.name.starts_with(start)) else {
                continue;
            };
            let path = format!("{folder}/{}/{sign}", name.name);
            if root.sys.exists(&path) {
                found.push(format!("{} ({})", name.name, root.sys.line(&path)));
            }
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
        "set it up in a rerun script, or after the ready line",
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
        assert_eq!(objects.collect::<Vec<_>>(), ["loop0 (/data)", "ubi1 (5)"]);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
