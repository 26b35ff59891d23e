//! Something has changed or is broken. Each time the board must come up and work, one line must say why
//! it was not restored, and where it makes sense the system is captured anew.

use anyhow::{Context, Result, ensure};

use super::{Bench, Case, cold_and_works};
use crate::disk::Disks;
use crate::guest::{BOOT_LIMIT, Boot};

/// One way to break a captured system.
struct Fault {
    name: &'static str,
    /// done to the disks while the power is off
    change: fn(&Disks, &mut Boot) -> Result<()>,
    /// the reason must contain one of these
    says: &'static [&'static str],
    /// a new image must follow
    captures: bool,
}

const FAULTS: [Fault; 13] = [
    Fault {
        name: "rc script edited",
        change: script_edited,
        says: &["scripts", "S02sysctl"],
        captures: true,
    },
    Fault {
        name: "kernel command line changed",
        change: |_, boot| {
            boot.words = "lab.changed=1".into();
            Ok(())
        },
        says: &["command line", "cmdline"],
        captures: true,
    },
    Fault {
        name: "config changed",
        change: |disks, _| disks.put_text("# an integrator was here\n", "/etc/rcsnap.conf", 0o644),
        says: &["config", "rcsnap.conf"],
        captures: true,
    },
    Fault { name: "daemon's binary replaced", change: daemon_replaced, says: &["lighttpd"], captures: true },
    Fault {
        name: "image cut short",
        change: |disks, _| zero(disks, 0.75),
        says: &["image", "slot", "section", "block"],
        captures: true,
    },
    Fault {
        name: "bit flipped in the header",
        change: |disks, _| flip(disks, 0.0),
        says: &[""],
        captures: true,
    },
    Fault {
        name: "bit flipped in the sections",
        change: |disks, _| flip(disks, 0.02),
        says: &[""],
        captures: true,
    },
    Fault {
        name: "bit flipped in the pages",
        change: |disks, _| flip(disks, 0.6),
        says: &[""],
        captures: true,
    },
    Fault {
        name: "store empty",
        change: |disks, _| disks.empty_store(disks.store_bytes()?.len() as u64),
        says: &["empty", "no image"],
        captures: true,
    },
    Fault {
        name: "store full",
        change: |disks, _| disks.empty_store(96 << 10),
        says: &[""],
        captures: false,
    },
    Fault {
        name: "store device missing",
        change: |_, boot| {
            boot.store = false;
            Ok(())
        },
        says: &["store"],
        captures: false,
    },
    Fault {
        name: "rcsnap=off",
        change: |_, boot| {
            boot.words = "rcsnap=off".into();
            Ok(())
        },
        says: &["off"],
        captures: false,
    },
    Fault {
        name: "rcsnap=refresh",
        change: |_, boot| {
            boot.words = "rcsnap=refresh".into();
            Ok(())
        },
        says: &["refresh"],
        captures: true,
    },
];

pub fn cases() -> Vec<Case> {
    FAULTS.into_iter().map(|f| Case::new("fault", f.name, move |bench, id| run(&f, bench, id))).collect()
}

fn run(fault: &Fault, bench: &Bench, id: &str) -> Result<()> {
    let disks = bench.copy(id)?;
    let mut boot = Boot::new(id);
    (fault.change)(&disks, &mut boot)?;
    let mut running = bench.guest.boot(&disks, &boot)?;
    let reason = cold_and_works(&mut running)?;
    let said = fault.says.iter().any(|s| reason.to_lowercase().contains(&s.to_lowercase()));
    ensure!(said, "the reason names none of {:?}: {reason}", fault.says);
    let console = &running.qemu.console;
    if fault.captures {
        console.wait(0, &["rcsnap: published: "], BOOT_LIMIT).context("a new image must follow")?;
    } else {
        let published = console.lines(0).iter().any(|l| l.text.contains("rcsnap: published: "));
        ensure!(!published, "an image was published");
    }
    running.qemu.kill()
}

fn script_edited(disks: &Disks, _: &mut Boot) -> Result<()> {
    let place = "/etc/init.d/S02sysctl";
    let text = disks.text(place)?;
    disks.put_text(&format!("{text}# edited\n"), place, 0o755)
}

/// The same bytes in a new file: identity is what is checked, and it changed.
fn daemon_replaced(disks: &Disks, _: &mut Boot) -> Result<()> {
    let place = "/usr/sbin/lighttpd";
    let copy = tempfile::NamedTempFile::new()?;
    disks.get(place, copy.path())?;
    disks.put(copy.path(), place, 0o755)
}

/// Where in the store something is written: from the first byte that is not zero to the last.
fn used(disks: &Disks) -> Result<(usize, usize)> {
    let bytes = disks.store_bytes()?;
    let first = bytes.iter().position(|b| *b != 0).context("looking at the store: empty")?;
    let last = bytes.iter().rposition(|b| *b != 0).unwrap_or(first);
    Ok((first, last))
}

/// Zeroes everything behind this part of what is written.
fn zero(disks: &Disks, part: f64) -> Result<()> {
    let (first, last) = used(disks)?;
    let at = place(first, last, part);
    disks.write_store(at as u64, &vec![0; last + 1 - at])
}

/// Flips one bit at this part of what is written.
fn flip(disks: &Disks, part: f64) -> Result<()> {
    let (first, last) = used(disks)?;
    let at = place(first, last, part);
    let byte = disks.store_bytes()?.get(at).copied().context("looking at the store")?;
    disks.write_store(at as u64, &[byte ^ 0x10])
}

/// Whole thousandths, so that no float needs to become an index.
fn place(first: usize, last: usize, part: f64) -> usize {
    let thousandths = (1..=1000).take_while(|n| f64::from(*n) <= part * 1000.0).count();
    first + (last - first) / 1000 * thousandths
}
