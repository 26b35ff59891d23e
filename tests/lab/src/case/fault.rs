//! Something has changed or is broken. Each time the board must come up and work, one line must say why
//! it was not restored, and where it makes sense the system is captured anew.

use anyhow::{Context, Result, ensure};

use super::{Bench, Case, Extent, cold_and_begins, cold_and_works, restored_and_works};
use crate::board::Board;
use crate::disk::Disks;
use crate::guest::{BOOT_LIMIT, Boot};
use crate::initramfs::{self, Entry};
use crate::kernel;

/// Where the first slot begins in a store: behind two copies of the directory, of 4 KiB each.
const SLOT: u64 = 8192;

/// One way to break a captured system.
struct Fault {
    name: &'static str,
    /// done to the disks while the power is off
    change: fn(&Disks, &mut Boot, &Board) -> Result<()>,
    /// the reason must contain one of these
    says: &'static [&'static str],
    /// a new image must follow
    captures: bool,
}

const FAULTS: [Fault; 14] = [
    Fault {
        name: "rc script edited",
        change: script_edited,
        says: &["scripts", "S02sysctl"],
        captures: true,
    },
    Fault {
        name: "kernel command line changed",
        change: |_, boot, _| {
            boot.words = "lab.changed=1".into();
            Ok(())
        },
        says: &["command line", "cmdline"],
        captures: true,
    },
    Fault {
        name: "another processor",
        change: |_, boot, board| {
            boot.cpu = Some(board.cpu.get(1).context("choosing another processor")?.clone());
            Ok(())
        },
        says: &["processor", "cpu"],
        captures: true,
    },
    Fault {
        name: "config changed",
        change: |disks, _, _| disks.put_text("# an integrator was here\n", "/etc/rcsnap.conf", 0o644),
        says: &["config", "rcsnap.conf", "/etc changed"],
        captures: true,
    },
    Fault { name: "daemon's binary replaced", change: daemon_replaced, says: &["lighttpd"], captures: true },
    Fault {
        name: "image cut short",
        change: |disks, _, _| zero(disks, middle(disks)?),
        says: &["image", "slot", "section", "block"],
        captures: true,
    },
    Fault {
        name: "bit flipped in the header",
        change: |disks, _, _| flip(disks, SLOT + 0x14),
        says: &[""],
        captures: true,
    },
    Fault {
        name: "bit flipped in the sections",
        change: |disks, _, _| flip(disks, SLOT + 4096),
        says: &[""],
        captures: true,
    },
    Fault {
        name: "bit flipped in the pages",
        change: |disks, _, _| flip(disks, middle(disks)?),
        says: &[""],
        captures: true,
    },
    Fault {
        name: "store empty",
        change: |disks, _, _| disks.empty_store(disks.store_bytes()?.len() as u64),
        says: &["empty", "no image"],
        captures: true,
    },
    Fault {
        name: "store full",
        change: |disks, _, _| disks.empty_store(96 << 10),
        says: &[""],
        captures: false,
    },
    Fault {
        name: "store device missing",
        change: |_, boot, _| {
            boot.store = false;
            Ok(())
        },
        says: &["store"],
        captures: false,
    },
    Fault {
        name: "rcsnap=off",
        change: |_, boot, _| {
            boot.words = "rcsnap=off".into();
            Ok(())
        },
        says: &["off"],
        captures: false,
    },
    Fault {
        name: "rcsnap=refresh",
        change: |_, boot, _| {
            boot.words = "rcsnap=refresh".into();
            Ok(())
        },
        says: &["refresh"],
        captures: true,
    },
];

pub fn cases(extent: Extent) -> Vec<Case> {
    let case = |fault: Fault| Case::new("fault", fault.name, move |bench, id| run(&fault, bench, id, extent));
    let one_copy = "bit flipped in one copy of the directory";
    let directory = Case::new("fault", one_copy, move |bench, id| directory(bench, id, extent));
    let kernel = Case::new("fault", "another kernel", another_kernel);
    let full = (extent == Extent::Full).then_some(kernel);
    FAULTS.into_iter().map(case).chain([directory]).chain(full).collect()
}

fn run(fault: &Fault, bench: &Bench, id: &str, extent: Extent) -> Result<()> {
    let (guest, captured) = bench.subject(extent)?;
    let disks = captured.disks.copy(&bench.folder.join(id))?;
    let mut boot = Boot::new(id);
    (fault.change)(&disks, &mut boot, &guest.board)?;
    let mut running = guest.boot(&disks, &boot)?;
    let reason = match extent {
        Extent::Full => cold_and_works(&mut running)?,
        Extent::Short => cold_and_begins(&running)?,
    };
    let said = fault.says.iter().any(|s| reason.to_lowercase().contains(&s.to_lowercase()));
    ensure!(said, "the reason names none of {:?}: {reason}", fault.says);
    let console = &running.qemu.console;
    if extent == Extent::Full && fault.captures {
        console.wait(0, &["rcsnap: published: "], BOOT_LIMIT).context("a new image must follow")?;
    }
    let published = console.lines(0).iter().any(|l| l.text.contains("rcsnap: published: "));
    ensure!(fault.captures || !published, "an image was published");
    running.qemu.kill()
}

fn script_edited(disks: &Disks, _: &mut Boot, _: &Board) -> Result<()> {
    let place = "/etc/init.d/S02sysctl";
    let text = disks.text(place)?;
    disks.put_text(&format!("{text}# edited\n"), place, 0o755)
}

/// The same bytes in a new file: identity is what is checked, and it changed.
fn daemon_replaced(disks: &Disks, _: &mut Boot, _: &Board) -> Result<()> {
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
fn directory(bench: &Bench, id: &str, extent: Extent) -> Result<()> {
    let (guest, captured) = bench.subject(extent)?;
    let disks = captured.disks.copy(&bench.folder.join(id))?;
    flip(&disks, 0x14)?;
    let mut running = guest.boot(&disks, &Boot::new(id))?;
    restored_and_works(&mut running)?;
    running.qemu.kill()
}

/// The root has no modules for this kernel, so the board is followed only as far as rcsnap has a part in it.
fn another_kernel(bench: &Bench, id: &str) -> Result<()> {
    let (guest, folder) = (&bench.guest, bench.folder.join(id));
    let disks = bench.captured()?.disks.copy(&folder)?;
    let kernel = kernel::fetch_other(&guest.board)?;
    let mut boot = Boot::new(id);
    boot.archive =
        Some(initramfs::write(Entry::Initramfs, &guest.board, &kernel, &guest.binary.path, &folder)?);
    boot.kernel = Some(kernel.image);
    let mut running = guest.boot(&disks, &boot)?;
    let reason = cold_and_begins(&running)?;
    ensure!(reason.contains("kernel"), "the reason does not name the kernel: {reason}");
    running.qemu.kill()
}
