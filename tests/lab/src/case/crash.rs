//! rcsnap breaks itself on purpose, once in every stage of a restore. Before the commit the board boots
//! cold, in the same boot or after one reboot; from the commit on the slot is burned and the board
//! reboots. In every case it ends up working.

use anyhow::{Result, ensure};
use rcsnap::stage::Stage;

use super::{Bench, Case, Kind, begins, come_up, works};
use crate::guest::Boot;
use crate::timeline::START;

/// The stages a restore goes through, from the first in which faults are known: the command line names them. In the
/// last one nothing is left to break, and what comes after it belongs to the capture.
fn stages() -> impl Iterator<Item = Stage> {
    Stage::ALL.iter().copied().skip_while(|s| *s < Stage::Key).take_while(|s| *s < Stage::Done)
}

/// Stages whose boots are followed until every daemon answers, one of each sort: nothing was changed, the kernel was
/// changed, PID 1 was. The others are followed until the real init runs its first script.
const FOLLOWED: [Stage; 3] = [Stage::Check, Stage::Memory, Stage::Release];

pub fn cases() -> Vec<Case> {
    stages().map(|s| Case::new("crash", s.name(), move |bench, id| run(bench, id, s))).collect()
}

fn run(bench: &Bench, id: &str, stage: Stage) -> Result<()> {
    let guest = bench.faulty()?;
    let disks = bench.faulty_captured()?.disks.copy(&bench.folder.join(id))?;
    let boot = Boot::new(id).words(&format!("rcsnap.fault={}", stage.name()));
    let mut running = guest.boot(&disks, &boot)?;
    if FOLLOWED.contains(&stage) {
        let (kind, timeline) = come_up(&running)?;
        ensure!(kind == Kind::Cold, "a broken {} and a restored boot:\n{}", stage.name(), timeline.show());
        works(&mut running)?;
    } else {
        begins(&running)?;
    }
    let starts = running.qemu.console.lines(0).iter().filter(|l| l.text.contains(START)).count();
    ensure!(starts <= 2, "the board rebooted {} times", starts - 1);
    ensure!(stage.changes_kernel() || starts == 1, "a reboot, and no kernel state was changed yet");
    ensure!(!stage.is_committed() || starts == 2, "a broken {} and no reboot", stage.name());
    running.qemu.kill()
}
