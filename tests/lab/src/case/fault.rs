//! Something has changed or is broken. Each time the board must come up and work, one line must say why
//! it was not restored, and where it makes sense the system is captured anew.

use anyhow::{Context, Result, ensure};

use super::{Bench, Case, cold_and_works, restored_and_works};
use crate::disk::Disks;
use crate::guest::{BOOT_LIMIT, Boot};

/// Where the first slot begins in a store: behind two copies of the directory, of 4 KiB each.
const SLOT: u64 = 8192;

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
        says: &["config", "rcsnap.conf", "/etc changed"],
        captures: true,
    },
    Fault { name: "daemon's binary replaced", change: daemon_replaced, says: &["lighttpd"], captures: true },
    Fault {
        name: "image cut short",
        change: |disks, _| zero(disks, middle(disks)?),
        says: &["image", "slot", "section", "block"],
        captures: true,
    },
    Fault {
        name: "bit flipped in the header",
        change: |disks, _| flip(disks, SLOT + 0x14),
        says: &[""],
        captures: true,
    },
    Fault {
        name: "bit flipped in the sections",
        change: |disks, _| flip(disks, SLOT + 4096),
        says: &[""],
        captures: true,
    },
    Fault {
        name: "bit flipped in the pages",
        change: |disks, _| flip(disks, middle(disks)?),
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
    let cold = FAULTS.into_iter().map(|f| Case::new("fault", f.name, move |bench, id| run(&f, bench, id)));
    cold.chain([Case::new("fault", "bit flipped in one copy of the directory", directory)]).collect()
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

/// The middle of what is written in the store: among the pages.
fn middle(disks: &Disks) -> Result<u64> {
    let bytes = disks.store_bytes()?;
    let last = bytes.iter().rposition(|b| *b != 0).context("looking at the store: empty")?;
    Ok(SLOT + (last as u64 - SLOT) / 2)
}

/// Zeroes everything from here on.
fn zero(disks: &Disks, at: u64) -> Result<()> {
    let length = disks.store_bytes()?.len();
    disks.empty_store_from(at, length as u64)
}

/// Flips one bit.
fn flip(disks: &Disks, at: u64) -> Result<()> {
    let byte = disks.store_bytes()?.get(usize::try_from(at)?).copied().context("looking at the store")?;
    disks.write_store(at, &[byte ^ 0x10])
}

/// The store keeps its directory twice: damage to one copy costs nothing.
fn directory(bench: &Bench, id: &str) -> Result<()> {
    let disks = bench.copy(id)?;
    flip(&disks, 0x14)?;
    let mut running = bench.guest.boot(&disks, &Boot::new(id))?;
    restored_and_works(&mut running)?;
    running.qemu.kill()
}
