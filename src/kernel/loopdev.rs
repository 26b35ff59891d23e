//! Block devices that programs made: loop, device mapper, md and network block devices.
//!
//! # What
//! Devices of these drivers that the scripts set up.
//! # Reads
//! /sys/block: `loop/backing_file`, `dm/name`, `md/array_state`, `pid` of nbd.
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
const SIGNS: &[(&str, &str)] =
    &[("loop", "loop/backing_file"), ("dm-", "dm/name"), ("md", "md/array_state"), ("nbd", "pid")];

/// The devices in use, each with what backs it.
#[must_use]
pub fn baseline(root: &Root) -> Vec<String> {
    let mut found = Vec::new();
    for name in root.sys.names("block").unwrap_or_default() {
        let Some((_, sign)) = SIGNS.iter().find(|(start, _)| name.name.starts_with(start)) else { continue };
        let path = format!("block/{}/{sign}", name.name);
        if root.sys.exists(&path) {
            found.push(format!("{} ({})", name.name, root.sys.line(&path)));
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
        "set it up after the ready line",
    )
}
