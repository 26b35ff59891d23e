//! One image, many boots: every daemon answers each time, and still holds what only the cold boot can
//! have made; what must be fresh on each boot is fresh.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Bench, Captured, Case, Extent, budget, restored_and_works};
use crate::answer;
use crate::board::Board;
use crate::guest::{Boot, Running};
use crate::initramfs::Entry;

/// Restored boots from one image, and for a short look.
const BOOTS: u64 = 10;
const SHORT: u64 = 2;
/// 2026-03-01T12:00:00Z.
const NOON: u64 = 1_772_366_400;
/// crond sleeps to the next minute.
const MINUTE: Duration = Duration::from_secs(75);

pub fn cases(extent: Extent) -> Vec<Case> {
    let again = |name, boots| Case::new("roundtrip", name, move |bench, id| again(bench, id, boots));
    let by_init =
        Case::new("roundtrip", "behind an initramfs of the board's own, init=/sbin/rcsnap", by_init);
    match extent {
        Extent::Full => vec![again("ten restored boots from one image", BOOTS), by_init],
        Extent::Short => vec![again("two restored boots from one image", SHORT)],
    }
}

fn again(bench: &Bench, id: &str, boots: u64) -> Result<()> {
    let captured = bench.captured()?;
    let disks = bench.copy(id)?;
    let mut cookies = vec![];
    for number in 1..=boots {
        let mut boot = Boot::new(&format!("{id}-{number}"));
        // Within the hour: crond takes a longer leap for a correction, and skips what it missed.
        let minute = 20 + 3 * number;
        boot.clock = Some(format!("2026-03-01T12:{minute}:00"));
        let mut running = bench.guest.boot(&disks, &boot)?;
        let seen = look(&mut running, &captured, NOON + 60 * minute, &bench.guest.board)
            .with_context(|| format!("restored boot {number}"))?;
        ensure!(
            !cookies.contains(&seen),
            "two boots gave the same SSH cookie: dropbear's randomness is replayed"
        );
        cookies.push(seen);
        running.qemu.kill()?;
    }
    Ok(())
}

/// Every daemon, its old state, and what must be new. Returns dropbear's first random bytes.
fn look(running: &mut Running, captured: &Captured, clock: u64, board: &Board) -> Result<Vec<u8>> {
    super::come_up(running)?;
    // The very first connection after the restore is the one that could repeat itself.
    let (_, cookie) = answer::retry(Duration::from_secs(20), || answer::ssh(running.qemu.port(22)))?;
    restored_and_works(running)?;
    application(running, captured, board.clocks_go_on())?;
    budget::conductor(running, board.budget.conductor_bytes)?;
    let id = running
        .must("dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetId")?;
    ensure!(id.contains("string \""), "dbus-daemon: {id}");
    running.must("logger -t lab restored-$$; sleep 1; grep -q \"lab: restored-$$\" /var/log/messages")?;
    // Its job notes the time: one of this boot shows that crond woke.
    let woke = |last: &str| number(last) >= clock;
    running.until("tail -n 1 /tmp/cron.log", MINUTE, woke).context("crond")?;
    let now = number(&running.must("date +%s")?);
    let fresh = (clock..clock + 300).contains(&now);
    ensure!(fresh, "the wall clock must be fresh: it is {now} and began at {clock}");
    running.must(
        "ip route | grep -q '192.168.78.0/24 via 192.168.77.2'; ip route | grep -q '^default via 10.0.2.2'",
    )?;
    running.must("test \"$(hostname)\" = rcsnap-qemu && test \"$(cat /proc/sys/vm/swappiness)\" = 10")?;
    running.must("! ps | grep -v grep | grep -q '[s]bin/rcsnap'").context("something of rcsnap is left")?;
    Ok(cookie)
}

/// Where the clocks do not go on, its threads sleep until the deadlines that they had: late by the uptime at the
/// capture, and no more.
fn application(running: &Running, captured: &Captured, clocks_go_on: bool) -> Result<()> {
    let first = running.app()?;
    let late = if clocks_go_on { 0.0 } else { captured.monotonic + 15.0 };
    let end = Instant::now() + Duration::from_secs_f64(late);
    let grown = |second: &Value| {
        ["counter", "redis_counter", "worker_done"]
            .iter()
            .all(|name| float(second, name) > float(&first, name))
    };
    let second = loop {
        std::thread::sleep(Duration::from_millis(500));
        let second = running.app()?;
        if grown(&second) || Instant::now() >= end {
            break second;
        }
    };
    for name in
        ["token", "redis_connection", "redis_connection_at_start", "pid", "threads", "worker", "table"]
    {
        ensure!(
            first[name] == captured.app[name],
            "{name} was {} and is {}",
            captured.app[name],
            first[name]
        );
    }
    ensure!(
        grown(&second),
        "the counter thread, redis or the worker stands still: {first} and then {second}"
    );
    if !clocks_go_on {
        return Ok(());
    }
    let clock = float(&first, "monotonic");
    // Its value at the capture is known only by the host's clock; a clock that starts anew is far below.
    ensure!(
        clock >= captured.monotonic - 6.0,
        "the monotonic clock went back: {:.1} at the capture, now {clock:.1}",
        captured.monotonic
    );
    let gap = float(&second, "largest_gap");
    ensure!(gap < 10.0, "the counter thread saw {gap:.1} s pass between two ticks of 0.1 s");
    Ok(())
}

/// A board whose kernel has its drivers built in says init=/sbin/rcsnap; capture and restore that way.
fn by_init(bench: &Bench, id: &str) -> Result<()> {
    let disks = bench.guest.disks(id)?;
    let boot = |part: &str| Boot::new(&format!("{id}-{part}")).entry(Entry::Init);
    let mut running = bench.guest.boot(&disks, &boot("cold"))?;
    super::cold_and_works(&mut running)?;
    running.qemu.console.wait(0, &["rcsnap: published: "], crate::guest::BOOT_LIMIT)?;
    running.qemu.kill()?;
    let mut running = bench.guest.boot(&disks, &boot("restored"))?;
    restored_and_works(&mut running).map(drop)
}

fn float(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or(-1.0)
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}
