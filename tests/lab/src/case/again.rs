//! `capture(restore(capture(x))) == capture(x)` for the whole guest.
//!
//! A lab build captures what it has just restored, before `rcsnap ready` goes on (`src/boot/again.rs`). Both images are
//! read on the board, whose registers they have, and compared here; then the second one must work as the first did.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use rcsnap::error::Error;
use rcsnap::image::Source;
use rcsnap::store::Store;
use rcsnap::store::device::Medium;
use rcsnap::store::notes::State;
use serde_json::Value;

use super::zoo::compare;
use super::{Bench, Case, Kind, come_up, restored_and_works};
use crate::disk::{Disks, Put};
use crate::guest::{BOOT_LIMIT, Boot};
use crate::progress;
use crate::toolchain::target::Target;
use crate::toolchain::{self, Wish};

/// Slots of a store that was not told otherwise.
const SLOTS: usize = 2;
/// O_APPEND.
const APPEND: u64 = 0o2000;
/// What runs on by itself between the restore and the second capture: those that the kernel's own messages wake
/// (syslogd, klogd), and those with a clock. All others are asleep, and must be the same page for page and register
/// for register.
const BUSY: [&str; 6] = ["syslogd", "klogd", "crond", "mosquitto", "redis-server", "python3"];
/// What else of them may differ: the signals that mosquitto blocks for as long as it waits.
const WAITING: &str = ".mask";
/// A capture may meet one of those in the middle of a word to another. What is lost is lost each time.
const TRIES: u32 = 3;
/// So many pages may they write meanwhile.
const MOST: usize = 100;
/// Where the images and their reader lie on the board.
const FOLDER: &str = "/root";
/// As the two images are called there.
const NAMES: [&str; 2] = ["first", "second"];

/// Pages by address, with hashes.
type Contents = BTreeMap<u64, u64>;

pub fn cases() -> Vec<Case> {
    vec![Case::new("roundtrip", "the guest captured again is the same", run)]
}

fn run(bench: &Bench, id: &str) -> Result<()> {
    let folder = bench.folder.join(id);
    let disks = bench.faulty_captured()?.disks.copy(&folder)?;
    let mut before = image(&disks).context("reading the first image")?;
    let mut found = Vec::new();
    for number in 1..=TRIES {
        // Each with the image that the last one has made: what met a first capture does not meet all.
        let after = again(bench, &format!("{id}-{number}"), &disks)?;
        ensure!(before != after, "there is no second image");
        let [mut ours, mut theirs] =
            views(bench, &format!("{id}-{number}-second"), &disks, [&before, &after])?;
        run_on(&mut ours, &mut theirs);
        found = differences(&ours, &theirs)?;
        if found.is_empty() {
            return Ok(());
        }
        progress::say(format!("      try {number}:\n{}", found.join("\n")));
        before = after;
    }
    bail!("{}", found.join("\n"))
}

/// Restores the captured system and captures it again: the image of that.
fn again(bench: &Bench, id: &str, disks: &Disks) -> Result<Vec<u8>> {
    let mut boot = Boot::new(id).words("rcsnap.again=1");
    // No full minute is near: crond sleeps.
    boot.clock = Some("2026-03-01T12:30:05".into());
    let mut running = bench.faulty()?.boot(disks, &boot)?;
    let (kind, timeline) = come_up(&running)?;
    ensure!(kind == Kind::Restored, "the boot was cold:\n{}", timeline.show());
    let said = running.qemu.console.wait(0, &["rcsnap: again: "], BOOT_LIMIT)?.text;
    ensure!(said.contains("published"), "the second capture: {said}");
    running.qemu.kill()?;
    image(disks).context("reading the second image")
}

/// Boots from the later one of two images, to see that it works, and reads both on the board.
fn views(bench: &Bench, id: &str, disks: &Disks, images: [&[u8]; 2]) -> Result<[Value; 2]> {
    let guest = bench.faulty()?;
    let folder = bench.folder.join(id);
    std::fs::create_dir_all(&folder)?;
    let reader = reader(guest.board.target()?)?;
    let mut puts = vec![Put { from: reader, to: format!("{FOLDER}/picture"), mode: 0o755 }];
    for (name, bytes) in NAMES.into_iter().zip(images) {
        let from = folder.join(name);
        std::fs::write(&from, bytes)?;
        puts.push(Put { from, to: format!("{FOLDER}/{name}"), mode: 0o600 });
    }
    disks.put_all(&puts)?;
    let mut running = guest.boot(disks, &Boot::new(id))?;
    restored_and_works(&mut running).context("the boot from the second image")?;
    for name in NAMES {
        running.must(&format!("{FOLDER}/picture {FOLDER}/{name} > {FOLDER}/{name}.json && sync"))?;
    }
    running.qemu.kill()?;
    let read = |name: &str| -> Result<Value> {
        let text = folder.join(format!("{name}.json"));
        disks.get(&format!("{FOLDER}/{name}.json"), &text)?;
        serde_json::from_slice(&std::fs::read(&text)?).with_context(|| format!("reading {name}"))
    };
    Ok([read(NAMES[0])?, read(NAMES[1])?])
}

/// All that differs and may not. Of what runs on by itself, its registers, what it blocks and some pages may.
fn differences(before: &Value, after: &Value) -> Result<Vec<String>> {
    let processes = before["tree"]["processes"].as_array().context("an image without processes")?;
    let busy: Vec<bool> = processes
        .iter()
        .map(|process| BUSY.iter().any(|name| process["comm"].as_str() == Some(name)))
        .collect();
    let mut found = compare::all(before, after);
    found.retain(|text| {
        let number = text.strip_prefix(".tree.processes[").and_then(|rest| rest.split_once(']'));
        let is_busy = number.and_then(|(number, _)| busy.get(number.parse::<usize>().ok()?).copied());
        let runs_on = compare::of_registers(text)
            || text.split_once(": ").is_some_and(|(place, _)| place.ends_with(WAITING));
        !(runs_on && is_busy == Some(true))
    });
    let contents = |of: &Value| serde_json::from_value::<Vec<Contents>>(of["contents"].clone());
    let (ours, theirs) = (contents(before)?, contents(after)?);
    ensure!(ours.len() == theirs.len(), "memory of {} and of {}", ours.len(), theirs.len());
    for (n, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let of = match processes.get(n) {
            Some(process) => format!("{} {}", process["ids"]["pid"], process["comm"]),
            None => format!("object {}", n - processes.len()),
        };
        let count = |from: &Contents, to: &Contents| {
            from.iter().filter(|(at, hash)| to.get(at) != Some(*hash)).count()
        };
        let changed = count(ours, theirs).max(count(theirs, ours));
        let most = if busy.get(n) == Some(&true) { MOST } else { 0 };
        if changed > 0 {
            progress::say(format!("      {of}: {changed} of {} pages have changed", ours.len()));
        }
        if changed > most {
            found.push(format!(
                "memory of {of}: {changed} of {} pages differ, at most {most} may",
                ours.len()
            ));
        }
    }
    Ok(found)
}

/// Makes two images the same where the system may have gone on, if that is all that it has done: a log that has grown,
/// with the position of its writer; the kernel's messages of a boot on their way to it; and the time of /run, in which
/// each boot makes /run/rcsnap.
fn run_on(before: &mut Value, after: &mut Value) {
    for image in [&mut *before, &mut *after] {
        for file in image["files"].as_array_mut().into_iter().flatten() {
            if let Some(queue) = file.pointer_mut("/state/Unix/queue").and_then(Value::as_array_mut) {
                queue.retain(|message| !of_the_kernel(message));
            }
        }
    }
    let logs: Vec<usize> = (0..before["files"].as_array().map_or(0, Vec::len))
        .filter(|n| before["files"][n]["flags"].as_u64().is_some_and(|flags| flags & APPEND != 0))
        .collect();
    for (i, list) in before["tmpfs"]["list"].as_array().into_iter().flatten().enumerate() {
        for (k, ours) in list["nodes"].as_array().into_iter().flatten().enumerate() {
            let mut theirs = after["tmpfs"]["list"][i]["nodes"][k].take();
            let path = format!("{}/{}", text(&list["point"]), text(&ours["path"]));
            let log = logs.iter().find(|n| before["files"][n]["state"]["Regular"]["place"]["path"] == *path);
            if let Some(log) = log.filter(|_| grew(&ours["content"], &theirs["content"])) {
                let position = &mut after["files"][log]["state"]["Regular"]["offset"];
                if *position == theirs["content"]["File"][0] {
                    *position = before["files"][log]["state"]["Regular"]["offset"].clone();
                    theirs["content"] = ours["content"].clone();
                    theirs["mtime"] = ours["mtime"].clone();
                }
            }
            if path == "/run/" {
                theirs["mtime"] = ours["mtime"].clone();
            }
            after["tmpfs"]["list"][i]["nodes"][k] = theirs;
        }
    }
}

/// Whether a queued message is one from klogd.
fn of_the_kernel(message: &Value) -> bool {
    let bytes = message["bytes"].as_array().into_iter().flatten().filter_map(Value::as_u64);
    let bytes: Vec<u8> = bytes.filter_map(|byte| u8::try_from(byte).ok()).collect();
    bytes.starts_with(b"<") && bytes.windows(9).any(|part| part == b" kernel: ")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// Whether a file has become longer, and is the same as far as it was. Its content is a length, and what lies where.
fn grew(before: &Value, after: &Value) -> bool {
    let bytes = |of: &Value| -> Option<(u64, Vec<u64>)> {
        let [part] = of["File"][1].as_array()?.as_slice() else { return None };
        let bytes = part[1].as_array()?.iter().filter_map(Value::as_u64).collect();
        (part[0] == 0).then_some((of["File"][0].as_u64()?, bytes))
    };
    let Some(((length, ours), (longer, theirs))) = bytes(before).zip(bytes(after)) else { return false };
    longer >= length && theirs.starts_with(&ours)
}

/// The reader of images for the board.
fn reader(target: &'static Target) -> Result<PathBuf> {
    progress::say(format!("building the reader of images for {}", target.arch));
    let (mut cargo, _) = Wish::new(target).cargo()?;
    cargo.args(["build", "--quiet", "--locked", "--package", "rcsnap-picture", "--bin", "picture"]);
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_DEV_STRIP", "symbols");
    let folder = toolchain::own_folder()?.join("build/picture");
    crate::run::output(cargo.env("CARGO_TARGET_DIR", &folder))?;
    Ok(folder.join(target.triple).join("debug/picture"))
}

/// The newest image of a store.
fn image(disks: &Disks) -> Result<Vec<u8>> {
    let store = Store::new(Box::new(Bytes(disks.store_bytes()?)), SLOTS)?;
    let published = store.slots().iter().enumerate().filter(|(_, slot)| slot.state == State::Published);
    let (slot, _) = published.max_by_key(|(_, slot)| slot.published).context("no image is published")?;
    let mut source = store.source(slot)?;
    let mut bytes = vec![0; usize::try_from(source.length())?];
    source.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// A store in memory, to read.
struct Bytes(Vec<u8>);

impl Medium for Bytes {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let at = usize::try_from(offset).ok();
        let found = at.and_then(|at| self.0.get(at..at.checked_add(buffer.len())?));
        buffer.copy_from_slice(found.ok_or_else(|| Error::new("store", "reading", "beyond its end"))?);
        Ok(())
    }

    fn write_at(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
        Err(Error::new("store", "writing", "only to be read"))
    }

    fn sync(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn forget(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{differences, run_on};
    use serde_json::{Value, json};

    fn image(name: &str, log: &[u8], page: u64) -> Value {
        json!({
            "files": [{"flags": 0o2001, "state": {"Regular": {"place": {"path": "/tmp/log"}, "offset": log.len()}}}],
            "tmpfs": {"list": [{"point": "/tmp", "nodes":
                [{"path": "log", "mtime": [log.len(), 0], "content": {"File": [log.len(), [[0, log]]]}}]}]},
            "tree": {"processes": [
                {"comm": name, "ids": {"pid": 1}, "regs": page, "threads": [{"mask": page}]}
            ]},
            "contents": [{"4096": page}],
        })
    }

    fn found(before: &Value, mut after: Value) -> Vec<String> {
        let mut before = before.clone();
        run_on(&mut before, &mut after);
        differences(&before, &after).unwrap()
    }

    #[test]
    fn a_log_may_grow_and_nothing_else() {
        let before = image("init", b"one\n", 7);
        assert!(found(&before, before.clone()).is_empty());
        assert!(found(&before, image("init", b"one\ntwo\n", 7)).is_empty());
        assert!(!found(&before, image("init", b"two\n", 7)).is_empty());
        let mut closed = image("init", b"one\ntwo\n", 7);
        closed["files"][0]["state"]["Regular"]["offset"] = json!(4);
        assert!(!found(&before, closed).is_empty());
    }

    #[test]
    fn messages_of_the_kernel_may_be_on_their_way() {
        let with = |messages: &[&[u8]]| {
            let queue: Vec<Value> = messages.iter().map(|bytes| json!({ "bytes": bytes })).collect();
            let mut image = image("init", b"", 7);
            image["files"][0] = json!({"flags": 0, "state": {"Unix": {"queue": queue}}});
            image
        };
        let (kernel, other): (&[u8], &[u8]) = (b"<6>Mar  1 12:30:13 kernel: [    3.8] ACPI", b"<30>cron");
        assert!(found(&with(&[other]), with(&[other, kernel])).is_empty());
        assert!(found(&with(&[kernel, other, kernel]), with(&[other])).is_empty());
        assert!(!found(&with(&[]), with(&[kernel, other])).is_empty());
        assert!(!found(&with(&[other]), with(&[])).is_empty());
    }

    #[test]
    fn only_the_busy_may_have_run() {
        assert!(found(&image("crond", b"", 7), image("crond", b"", 8)).is_empty());
        let found = found(&image("init", b"", 7), image("init", b"", 8));
        assert!(found.iter().any(|text| text.contains("regs")), "{found:?}");
        assert!(found.iter().any(|text| text.contains("mask")), "{found:?}");
        assert!(found.iter().any(|text| text.contains("memory of 1")), "{found:?}");
    }
}
