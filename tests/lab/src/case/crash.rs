//! rcsnap breaks itself on purpose, once in every stage of a restore. Before the commit the board boots
//! cold, in the same boot or after one reboot; from the commit on the slot is burned and the board
//! reboots. In every case it ends up working.

use anyhow::{Result, ensure};
use rcsnap::stage::Stage;

use super::{Bench, Case, Kind, come_up, works};
use crate::guest::Boot;
use crate::timeline::START;

/// The stages a restore goes through. In the last one nothing is left to break, and what comes after it belongs
/// to the capture.
fn stages() -> impl Iterator<Item = Stage> {
    Stage::ALL.iter().copied().take_while(|s| *s < Stage::Done)
}

pub fn cases() -> Vec<Case> {
    stages().map(|s| Case::new("crash", s.name(), move |bench, id| run(bench, id, s))).collect()
}

fn run(bench: &Bench, id: &str, stage: Stage) -> Result<()> {
    let guest = bench.faulty()?;
    let disks = bench.faulty_captured()?.disks.copy(&bench.folder.join(id))?;
    let boot = Boot::new(id).words(&format!("rcsnap.fault={}", stage.name()));
    let mut running = guest.boot(&disks, &boot)?;
    let (kind, timeline) = come_up(&running)?;
    let starts = running.qemu.console.lines(0).iter().filter(|l| l.text.contains(START)).count();
    ensure!(starts <= 2, "the board rebooted {} times", starts - 1);
    ensure!(stage.changes_kernel() || starts == 1, "a reboot, and no kernel state was changed yet");
    if stage.is_committed() {
        ensure!(
            kind == Kind::Cold && starts == 2,
            "a broken {} must burn the slot:\n{}",
            stage.name(),
            timeline.show()
        );
    }
    works(&mut running)?;
    running.qemu.kill()
}
