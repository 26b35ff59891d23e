//! Compressed memory as block devices.
//!
//! # What
//! zram devices that the scripts gave a size.
//! # Reads
//! /sys/block/zramN/disksize.
//! # Rebuilds
//! Nothing yet.
//! # Loses
//! Nothing.
//! # Refuses
//! Any device with a size that had none before the scripts.

use super::refuse_new;
use super::root::Root;
use crate::error::Obstacle;
use crate::sorted::Listed;

/// The devices in use.
#[must_use]
pub fn baseline(root: &Root) -> Vec<String> {
    let names = root.sys.names("block").unwrap_or_default();
    let used = |name: &String| {
        let size = root.sys.line(&format!("block/{name}/disksize"));
        name.starts_with("zram") && !size.is_empty() && size != "0"
    };
    names.into_iter().map(|name| name.name).filter(used).list()
}

/// Refuses what is new.
#[must_use]
pub fn capture(before: &[String], root: &Root) -> Vec<Obstacle> {
    refuse_new(
        "zram",
        before,
        baseline(root),
        "zram devices are not carried yet",
        "set it up after the ready line",
    )
}
