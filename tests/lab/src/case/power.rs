//! The power goes while the image is written. Whatever point that is, the next boot comes up and works,
//! from the image or cold.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Bench, Case, come_up, works};
use crate::guest::{BOOT_LIMIT, Boot};
use crate::progress;

/// Milliseconds after the tasks were read, which is when writing begins, and whether an image was there
/// before.
const MOMENTS: [(u64, bool); 5] = [(0, false), (400, false), (40, true), (800, true), (2000, true)];

pub fn cases() -> Vec<Case> {
    let name = |ms, before| {
        format!("cut {ms} ms after the {}", if before { "capture, beside an image" } else { "first capture" })
    };
    MOMENTS
        .into_iter()
        .map(|(ms, before)| Case::new("power", name(ms, before), move |b, id| run(b, id, ms, before)))
        .collect()
}

/// `rcsnap=refresh` writes beside an image that is there: it must survive, or the new one be whole.
fn run(bench: &Bench, id: &str, ms: u64, before: bool) -> Result<()> {
    let disks = bench.copy(id)?;
    if !before {
        disks.empty_store(bench.guest.board.disk.store_mib << 20)?;
    }
    let boot = Boot::new(&format!("{id}-cut")).words("rcsnap=refresh");
    let mut running = bench.guest.boot(&disks, &boot)?;
    running.qemu.console.wait(0, &["rcsnap: captured: "], BOOT_LIMIT)?;
    std::thread::sleep(Duration::from_millis(ms));
    running.qemu.kill()?;
    let published = running.qemu.console.lines(0).iter().any(|l| l.text.contains("rcsnap: published: "));
    let mut running = bench.guest.boot(&disks, &Boot::new(&format!("{id}-after")))?;
    let (kind, _) = come_up(&running).context("the boot after the power cut")?;
    works(&mut running)?;
    progress::say(format!("      cut {ms} ms after the capture (published: {published}): then {kind:?}"));
    running.qemu.kill()
}
