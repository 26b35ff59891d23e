//! The promises of board.toml that are sizes. The one that is a time is judged by `cargo lab demo`, which
//! has the machine to itself.

use anyhow::{Context, Result, ensure};

use super::{Bench, Case};
use crate::demo;
use crate::guest::Running;

pub fn cases() -> Vec<Case> {
    vec![Case::new("budget", "binary", binary), Case::new("budget", "image", image)]
}

fn binary(bench: &Bench, _: &str) -> Result<()> {
    let (is, limit) = (bench.guest.binary.bytes, bench.guest.board.budget.binary_bytes);
    ensure!(is <= limit, "the binary has {is} bytes; the budget is {limit}");
    Ok(())
}

fn image(bench: &Bench, _: &str) -> Result<()> {
    let line = &bench.captured()?.published;
    let before = line.split(" KiB").next().and_then(|t| t.rsplit(' ').next());
    let kib: u64 = before.and_then(|n| n.parse().ok()).with_context(|| format!("reading {line}"))?;
    let limit = bench.guest.board.budget.image_bytes >> 10;
    ensure!(kib <= limit, "the image has {kib} KiB; the budget is {limit}");
    Ok(())
}

/// What the conductor of this restored boot took. Looked at on a boot that is made anyway.
pub fn conductor(running: &mut Running, limit: u64) -> Result<()> {
    let note = running.must("cat /run/rcsnap/boot.json")?;
    let is = demo::conductor_bytes(&serde_json::from_str(&note).context("reading the note of the boot")?)?;
    ensure!(
        is <= limit,
        "the conductor took {is} bytes beside the pages that it held; the budget is {limit}"
    );
    Ok(())
}
