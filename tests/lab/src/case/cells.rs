//! The boot flow in cells: what a boot decides, and that every way out of it leads to a working system.
//!
//! One cold boot makes the image; each case begins with that root again, so that a case is one or two boots
//! of some milliseconds.

mod policy;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rcsnap::stage::Stage;

use super::cell::{Boot, Cell};
use crate::progress;

/// How long anything in a cell may take, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a conductor may take.
const ALARM: Duration = Duration::from_secs(60);
/// Restored boots of one image in a row.
const RESTORES: usize = 5;
/// Where the first slot begins in a store (two copies of its directory of 4 KiB each).
const SLOT: u64 = 8192;

type Check = fn(&Cell) -> Result<()>;

const CASES: [(&str, Check); 14] = [
    ("restored again and again", again),
    ("rcsnap=off leaves the boot alone", off),
    ("rcsnap=refresh captures anew", refresh),
    ("an edited script means another key", script),
    ("an edited configuration means another key", configuration),
    ("an edited input makes the image useless", input),
    ("an input that changes each time is captured within the limits", inputs),
    ("a store that is gone", no_store),
    ("a store that is empty", empty_store),
    ("a flipped bit in the header", header),
    ("a flipped bit in the pages", pages),
    ("ready is called twice", twice),
    ("a restore that never begins is given up", given_up),
    ("each obstacle names the line that allows it", policy::check),
];

/// Runs all cases and one for each fault; says how many.
pub fn check(rcsnap: &Path) -> Result<usize> {
    let first = captured(rcsnap)?;
    let saved = first.save()?;
    let ways = ["exit", "segv", "error"];
    let faults: Vec<(Stage, &str)> = stages().flat_map(|stage| ways.map(|way| (stage, way))).collect();
    let mut failed = Vec::new();
    std::thread::scope(|scope| {
        // A hang is ended by the conductor's alarm, after a minute: too long to try it for every stage, or to wait for.
        let hang = scope.spawn(|| note("fault memory:hang", hang(rcsnap)));
        for (name, case) in CASES {
            failed.extend(note(name, first.reset(saved.path()).and_then(|()| case(&first))));
        }
        for (stage, way) in faults.iter().copied() {
            let done = first.reset(saved.path()).and_then(|()| fault(&first, stage, way));
            failed.extend(note(&format!("fault {}:{way}", stage.name()), done));
        }
        failed.extend(hang.join().unwrap_or_else(|_| Some("cell: a worker panicked".into())));
    });
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    Ok(CASES.len() + faults.len() + 1)
}

/// A hang, in a cell of its own.
fn hang(rcsnap: &Path) -> Result<()> {
    fault(&captured(rcsnap)?, Stage::Memory, "hang")
}

/// A cell whose cold boot has made an image.
fn captured(rcsnap: &Path) -> Result<Cell> {
    let cell = Cell::new(rcsnap)?;
    cold(&cell, &[], "no image yet")?.wait_for("rcsnap: published: slot 0", LIMIT)?;
    Ok(cell)
}

/// The stages of a restore that a cell goes through: it has no initramfs, and a fault is set only when the
/// command line has been read.
fn stages() -> impl Iterator<Item = Stage> {
    Stage::ALL.iter().copied().filter(|stage| *stage > Stage::Root && *stage < Stage::Done)
}

/// Says what has passed; returns what has not.
fn note(name: &str, result: Result<()>) -> Option<String> {
    let failed = result.err().map(|error| format!("cell: {name}: {error:#}"));
    if failed.is_none() {
        progress::say(format!("  cell: {name}"));
    }
    failed
}

/// A boot that must be cold for this reason, up to its getty.
fn cold(cell: &Cell, words: &[&str], reason: &str) -> Result<Boot> {
    let mut boot = cell.boot(words)?;
    boot.wait_for("getty", LIMIT)?;
    let console = boot.console()?;
    let told = console.lines().any(|line| line.starts_with("rcsnap: cold: ") && line.contains(reason));
    ensure!(told, "not cold because \"{reason}\":\n{console}");
    ensure!(console.lines().any(|line| line == "rcS: end"), "the scripts did not run:\n{console}");
    Ok(boot)
}

/// A boot that must be restored, up to its getty, with what only the cold boot can have made.
fn restored(cell: &Cell) -> Result<Boot> {
    let token = fs::read_to_string(cell.path("var/lib/token")).context("the token of the cold boot")?;
    let mut boot = cell.boot(&[])?;
    boot.wait_for("getty", LIMIT)?;
    let console = boot.console()?;
    ensure!(console.contains("rcsnap: restored: ") && !console.contains("rcS"), "not restored:\n{console}");
    let now = boot.run(&["/bin/cat", "/run/counter"])?;
    ensure!(now.starts_with(token.trim()), "the counter lost its token: {now}");
    ensure!(boot.run(&["/bin/hostname"])?.trim() == "cell", "the host name is lost");
    Ok(boot)
}

/// A cold boot for this reason, a capture, and a restored boot from it.
fn anew(cell: &Cell, words: &[&str], reason: &str) -> Result<()> {
    cold(cell, words, reason)?.wait_for("rcsnap: published: ", LIMIT)?;
    restored(cell).map(drop)
}

fn again(cell: &Cell) -> Result<()> {
    for _ in 0..RESTORES {
        let boot = restored(cell)?;
        let status = boot.run(&["/sbin/rcsnap", "status"])?;
        ensure!(status.starts_with("restored: slot 0") && !status.contains("not confirmed"), "{status}");
        let tasks = boot.run(&["/bin/ps"])?;
        ensure!(!tasks.contains("{rcsnap") && !tasks.contains("rcsnap-watcher"), "rcsnap is left:\n{tasks}");
    }
    Ok(())
}

fn off(cell: &Cell) -> Result<()> {
    let token = fs::read_to_string(cell.path("var/lib/token"))?;
    drop(cold(cell, &["rcsnap=off"], "turned off by rcsnap=off")?);
    // The scripts of that boot have drawn another one.
    cell.write("var/lib/token", &token)?;
    restored(cell).map(drop)
}

fn refresh(cell: &Cell) -> Result<()> {
    anew(cell, &["rcsnap=refresh"], "rcsnap=refresh")
}

fn script(cell: &Cell) -> Result<()> {
    let text = fs::read_to_string(cell.path("etc/init.d/rcS"))?;
    cell.script("etc/init.d/rcS", &(text + "echo more\n"))?;
    anew(cell, &[], "no image with this key")
}

fn configuration(cell: &Cell) -> Result<()> {
    cell.write("etc/rcsnap.conf", "store = /var/lib/store\nlimit.hook_ms = 9000\n")?;
    anew(cell, &[], "no image with this key")
}

fn input(cell: &Cell) -> Result<()> {
    cell.write("etc/hosts", "127.0.0.1 localhost other\n")?;
    anew(cell, &[], "stage check")
}

/// Edits that the boots between them have confirmed are captured on; those that nothing is restored between are not.
fn inputs(cell: &Cell) -> Result<()> {
    let edit = |text: &str| cell.write("etc/hosts", &format!("127.0.0.1 localhost {text}\n"));
    for text in ["one", "two"] {
        edit(text)?;
        anew(cell, &[], "stage check")?;
        restored(cell)?;
    }
    for text in ["three", "four"] {
        edit(text)?;
        cold(cell, &[], "stage check")?.wait_for("rcsnap: published: ", LIMIT)?;
    }
    edit("five")?;
    drop(cold(cell, &[], "no capture: too many were begun")?);
    cold(cell, &[], "burned; no capture: too many were begun").map(drop)
}

fn no_store(cell: &Cell) -> Result<()> {
    fs::remove_file(cell.path("var/lib/store"))?;
    cold(cell, &[], "no store: ").map(drop)
}

fn empty_store(cell: &Cell) -> Result<()> {
    fs::write(cell.path("var/lib/store"), vec![0; 32 << 20])?;
    anew(cell, &[], "no image yet")
}

fn header(cell: &Cell) -> Result<()> {
    flip(cell, SLOT + 0x14)?;
    anew(cell, &[], "burned")
}

/// The damage shows when the kernel was changed already: a reboot, and the next boot captures.
fn pages(cell: &Cell) -> Result<()> {
    flip(cell, SLOT + 8192)?;
    let mut boot = cell.boot(&[])?;
    let end = boot.wait_for_end(LIMIT)?;
    ensure!(boot.console()?.contains("rcsnap: reboot: "), "it ended otherwise ({end}): {}", boot.console()?);
    drop(boot);
    anew(cell, &[], "burned")
}

fn flip(cell: &Cell, at: u64) -> Result<()> {
    let store = fs::File::options().read(true).write(true).open(cell.path("var/lib/store"))?;
    let mut byte = [0];
    store.read_exact_at(&mut byte, at)?;
    Ok(store.write_all_at(&[byte[0] ^ 4], at)?)
}

fn twice(cell: &Cell) -> Result<()> {
    let boot = restored(cell)?;
    let answer = boot.run(&["/sbin/rcsnap", "ready"])?;
    ensure!(answer.trim() == "cold", "{answer}");
    Ok(())
}

/// As with a device that the image refers to and that does not come any more.
fn given_up(cell: &Cell) -> Result<()> {
    for _ in 0..2 {
        drop(cold(cell, &["rcsnap.fault=check:error"], "stage check")?);
    }
    anew(cell, &[], "burned")
}

/// A fault in a stage: the boot goes on cold, or the cell reboots and the next boot is cold. Then all is well.
fn fault(cell: &Cell, stage: Stage, way: &str) -> Result<()> {
    let mut boot = cell.boot(&[&format!("rcsnap.fault={}:{way}", stage.name())])?;
    if stage.changes_kernel() {
        let limit = if way == "hang" { LIMIT + ALARM } else { LIMIT };
        boot.wait_for_end(limit).with_context(|| format!("the cell must reboot:\n{}", shown(&boot)))?;
        drop(boot);
        drop(cold(cell, &[], "")?);
        return Ok(());
    }
    boot.wait_for("getty", LIMIT)?;
    ensure!(boot.console()?.contains("rcS: end"), "it was restored all the same:\n{}", shown(&boot));
    Ok(())
}

fn shown(boot: &Boot) -> String {
    boot.console().unwrap_or_default()
}
