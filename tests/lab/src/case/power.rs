//! The power goes while the image is written. Whatever point that is, the next boot comes up and works,
//! from the image or cold.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Bench, Case, Extent, come_up, works};
use crate::guest::{BOOT_LIMIT, Boot};
use crate::progress;

/// Milliseconds after the tasks were read, which is when writing begins, and whether an image was there
/// before.
const MOMENTS: [(u64, bool); 5] = [(0, false), (400, false), (40, true), (800, true), (2000, true)];

/// Those of them for a short look.
const SHORT: [(u64, bool); 2] = [MOMENTS[1], MOMENTS[3]];

pub fn cases(extent: Extent) -> Vec<Case> {
    let name = |ms, before| {
        format!("cut {ms} ms after the {}", if before { "capture, beside an image" } else { "first capture" })
    };
    let moments: &[(u64, bool)] = if extent == Extent::Full { &MOMENTS } else { &SHORT };
    let case = |&(ms, before): &(u64, bool)| {
        Case::new("power", name(ms, before), move |bench, id| run(bench, id, extent, ms, before))
    };
    moments.iter().map(case).collect()
}

/// `rcsnap=refresh` writes beside an image that is there: it must survive, or the new one be whole.
fn run(bench: &Bench, id: &str, extent: Extent, ms: u64, before: bool) -> Result<()> {
    let (guest, captured) = bench.subject(extent)?;
    let disks = captured.disks.copy(&bench.folder.join(id))?;
    if !before {
        disks.empty_store(guest.board.disk.store_mib << 20)?;
    }
    let boot = Boot::new(&format!("{id}-cut")).words("rcsnap=refresh");
    let mut running = guest.boot(&disks, &boot)?;
    running.qemu.console.wait(0, &["rcsnap: captured: "], BOOT_LIMIT)?;
    std::thread::sleep(Duration::from_millis(ms));
    running.qemu.kill()?;
    let published = running.qemu.console.lines(0).iter().any(|l| l.text.contains("rcsnap: published: "));
    let mut running = guest.boot(&disks, &Boot::new(&format!("{id}-after")))?;
    let (kind, _) = come_up(&running).context("the boot after the power cut")?;
    works(&mut running)?;
    progress::say(format!("      cut {ms} ms after the capture (published: {published}): then {kind:?}"));
    running.qemu.kill()
}
