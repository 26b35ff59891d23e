//! `cargo lab demo`: one board, booted cold, captured, and booted from its picture, in numbers.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use argh::FromArgs;
use serde_json::{Map, Value, json};

use crate::disk::Disks;
use crate::guest::{BOOT_LIMIT, Boot, Guest};
use crate::initramfs::Entry;
use crate::report::Report;
use crate::timeline::{Timeline, ms};
use crate::{board, progress, toolchain};

/// Boot a board of real daemons cold, capture it, boot it restored, and compare.
#[derive(FromArgs)]
#[argh(subcommand, name = "demo")]
pub struct Args {
    /// board, qemu-x86_64 by default
    #[argh(option, default = "String::from(board::DEFAULT)")]
    board: String,
    /// init (the kernel has mounted the root, as with drivers built in; the default) or initramfs (rcsnap is
    /// /init, loads the drivers' modules and mounts the root: on either kind of boot that is added)
    #[argh(option, default = "Entry::Init")]
    entry: Entry,
    /// write the figures to this file; without a file, to standard output
    #[argh(option)]
    json: Option<PathBuf>,
}

/// What one of the two boots showed.
struct Seen {
    timeline: Timeline,
    /// what the application said of itself
    app: Value,
    daemons: Vec<(&'static str, bool)>,
    /// what rcsnap noted about the boot
    note: Value,
}

pub fn run(args: &Args) -> Result<bool> {
    let target = board::load(&args.board)?.target()?;
    let binary = toolchain::build(target, "")?;
    let folder = toolchain::own_folder()?.join("demo");
    std::fs::create_dir_all(&folder)?;
    let guest = Guest::prepare(&args.board, binary, &folder)?;
    let disks = guest.disks("disks")?;
    println!("board {}, Linux {}, rcsnap {} bytes", args.board, guest.release(), guest.binary.bytes);

    progress::say("cold boot: the rc scripts run, then the system is captured");
    let cold = boot(&guest, &disks, &Boot::new("cold").entry(args.entry))?;
    progress::say("power off; now a boot from the image");
    let restored = boot(&guest, &disks, &Boot::new("restored").entry(args.entry))?;

    println!("\ncold boot\n{}", cold.timeline.show());
    println!("restored boot\n{}", restored.timeline.show());
    let mut report = Report::new("demo");
    let good = judge(&guest, args.entry, &cold, &restored, &mut report)?;
    report.put("cold_note", cold.note);
    report.put("restored_note", restored.note);
    report.write(args.json.as_deref())?;
    Ok(good)
}

/// Boots, asks every daemon, reads rcsnap's own note of the boot, and cuts the power.
fn boot(guest: &Guest, disks: &Disks, how: &Boot) -> Result<Seen> {
    let mut running = guest.boot(disks, how)?;
    running.follow(&["login: "], BOOT_LIMIT)?;
    let timeline = Timeline::read(&running.qemu.console.lines(0)).context("reading the console: no start")?;
    if timeline.moments.iter().any(|(_, m)| m.starts_with("rcsnap: captured")) {
        running.qemu.console.wait(0, &["rcsnap: published"], BOOT_LIMIT)?;
    }
    let app = running.app()?;
    let daemons = running.daemons().into_iter().map(|(n, answer)| (n, told(n, answer))).collect();
    running.login()?;
    let note = running.must("cat /run/rcsnap/boot.json").unwrap_or_default();
    let timeline = Timeline::read(&running.qemu.console.lines(0)).unwrap_or(timeline);
    running.qemu.kill()?;
    Ok(Seen { timeline, app, daemons, note: serde_json::from_str(&note).unwrap_or(Value::Null) })
}

fn told(name: &str, answer: Result<()>) -> bool {
    if let Err(error) = &answer {
        println!("{name} does not answer: {error:#}");
    }
    answer.is_ok()
}

fn judge(guest: &Guest, entry: Entry, cold: &Seen, restored: &Seen, report: &mut Report) -> Result<bool> {
    let captured = cold.timeline.text("rcsnap: captured: ").context("the cold boot was not captured")?;
    let image_bytes = restored.note["image_bytes"].as_u64().context("reading the image's size")?;
    let stopped_ms = number_after(&captured, "stopped for ").context("reading the stopped time")?;
    // Without capture the cold boot would have been ready when its last script was: count no more.
    let cold_ready = cold.timeline.last("rc: ").context("finding the last rc script")?;
    let with_capture = cold.timeline.ready().context("the cold boot never was ready")?;
    if !restored.timeline.moments.iter().any(|(_, m)| m == "restored") {
        bail!("the second boot was not restored:\n{}", restored.timeline.show());
    }
    let ready = restored.timeline.ready().context("the restored boot never was ready")?;
    let speedup = cold_ready.as_secs_f64() / ready.as_secs_f64();
    let same = |name: &str| cold.app[name] == restored.app[name];
    let carried = same("token") && same("redis_connection") && same("pid");
    ensure!(carried, "the application lost its state: it was {}\nand is {}", cold.app, restored.app);

    report.put("cold_ms", ms(cold_ready));
    report.put("cold_with_capture_ms", ms(with_capture));
    report.put("restored_ms", ms(ready));
    report.put("speedup", speedup);
    report.put("image_bytes", image_bytes);
    report.put("binary_bytes", guest.binary.bytes);
    report.put("stopped_ms", stopped_ms);
    report.put("phases", phases(&restored.note));
    report.put("daemons", Map::from_iter(restored.daemons.iter().map(|(n, up)| ((*n).into(), json!(up)))));
    report.put("kernel", guest.release());
    report.put("entry", entry.word());
    println!(
        "PID 1 to ready: cold {:.0} ms, restored {:.0} ms: {speedup:.1} times faster",
        ms(cold_ready),
        ms(ready)
    );
    for (name, ms) in phases(&restored.note) {
        println!("  {name:8} {ms:>10} ms");
    }
    println!(
        "image {image_bytes} bytes, tasks stopped for {stopped_ms} ms, binary {} bytes",
        guest.binary.bytes
    );
    let conductor = conductor_bytes(&restored.note)?;
    println!("the conductor took {conductor} bytes beside the pages that it held");
    report.put("conductor_bytes", conductor);
    let within = within_budget(guest, speedup, image_bytes, conductor, report);
    let silent: Vec<_> = restored.daemons.iter().filter(|(_, up)| !up).map(|(n, _)| *n).collect();
    if !silent.is_empty() {
        println!("restored, but silent: {}", silent.join(", "));
    }
    Ok(within && silent.is_empty())
}

/// What a restore's conductor took beside the pages that it held for PID 1, from rcsnap's note.
pub fn conductor_bytes(note: &Value) -> Result<u64> {
    let number =
        |name: &str| note[name].as_u64().filter(|n| *n > 0).with_context(|| format!("reading {name}"));
    Ok(number("conductor_peak_bytes")?.saturating_sub(number("conductor_kept_bytes")?))
}

/// Compares with board.toml. The binary's size is only reported here: `cargo lab test` judges it.
fn within_budget(guest: &Guest, speedup: f64, image: u64, conductor: u64, report: &mut Report) -> bool {
    let budget = &guest.board.budget;
    let mut within = true;
    if speedup < budget.speedup {
        println!("over budget: {speedup:.1} times faster, and it must be {:.1}", budget.speedup);
        within = false;
    }
    for (what, is, limit) in
        [("an image", image, budget.image_bytes), ("a conductor", conductor, budget.conductor_bytes)]
    {
        if is > limit {
            println!("over budget: {what} of {is} bytes, of at most {limit}");
            within = false;
        }
    }
    report.put("within_budget", within);
    within
}

/// Stage to milliseconds, from rcsnap's note.
fn phases(note: &Value) -> Map<String, Value> {
    note["stages_ms"].as_object().cloned().unwrap_or_default()
}

/// The figure behind a mark in a line.
pub fn number_after(text: &str, mark: &str) -> Option<f64> {
    text.split(mark).nth(1)?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_figure_behind_a_mark_is_read() {
        let line = "captured: 11 processes, 17 threads, stopped for 2189 ms";
        assert_eq!(super::number_after(line, "stopped for "), Some(2189.0));
        assert_eq!(super::number_after(line, "image "), None);
    }
}
