//! What: the monotonic and boot-time clocks that processes see.
//! Reads: /proc/PID/timens_offsets.
//! Rebuilds: a time namespace (time_namespaces(7)) whose clocks go on from the captured moment.
//! Loses: nothing with CONFIG_TIME_NS; without it the clocks begin anew, and absolute deadlines come late by at
//!   most the uptime at the capture. The wall clock is never virtualised and never replayed.
//! Refuses: nothing.

use nix::errno::Errno;

use crate::error::{Context, Result};
use crate::image::Clocks;
use crate::sys::fs;
use crate::sys::time;
use crate::text;

const KIND: &str = "clock";
const SECOND: i64 = 1_000_000_000;

/// How far the clocks of a time namespace are ahead of the kernel's, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offsets {
    /// CLOCK_MONOTONIC.
    pub monotonic: i64,
    /// CLOCK_BOOTTIME.
    pub boottime: i64,
}

/// The offsets of a process's children, which are its own unless it has just called unshare(2). Zero
/// without CONFIG_TIME_NS.
///
/// # Errors
/// The process is gone.
pub fn offsets(pid: u32) -> Result<Offsets> {
    let path = format!("/proc/{pid}/timens_offsets");
    match fs::text(&path) {
        Ok(text) => Ok(parse(&text)),
        Err(Errno::ENOENT) => Ok(Offsets::default()),
        Err(error) => Err(error).context(KIND, format_args!("reading {path}")),
    }
}

fn parse(text: &str) -> Offsets {
    let mut offsets = Offsets::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().unwrap_or("");
        let mut number = || words.next().and_then(text::signed).unwrap_or(0);
        let value = number() * SECOND + number();
        match name {
            "monotonic" => offsets.monotonic = value,
            "boottime" => offsets.boottime = value,
            _ => {}
        }
    }
    offsets
}

impl Offsets {
    /// The one that a clock follows.
    #[must_use]
    pub fn of(&self, clock: i32) -> i64 {
        if is_boottime(clock) { self.boottime } else { self.monotonic }
    }
}

/// Whether a clock counts the time of sleep too.
#[must_use]
pub fn is_boottime(clock: i32) -> bool {
    matches!(clock, libc::CLOCK_BOOTTIME | libc::CLOCK_BOOTTIME_ALARM)
}

/// When a timer is due that had `left` nanoseconds to go when its clock read `read`: `Ok` on that clock, for those
/// that count from boot, and how often it has fired by then ([`begin`]); `Err` is what is left of it now, for all others,
/// whose timers go by CLOCK_MONOTONIC. `ahead` is how far the clocks of the one that arms it are ahead of ours.
///
/// # Errors
/// The time that is left.
pub fn due(
    clock: i32,
    read: i64,
    (left, interval): (i64, i64),
    ahead: i64,
) -> std::result::Result<(i64, u64), i64> {
    let at = read.saturating_add(left);
    if clock == libc::CLOCK_MONOTONIC || is_boottime(clock) {
        let (at, missed) = begin(at.saturating_sub(ahead), interval);
        return Ok((at.saturating_add(ahead), missed));
    }
    let now = time::nanoseconds(libc::CLOCK_MONOTONIC).unwrap_or(0);
    Err(at.saturating_sub(now + ahead).max(1))
}

/// The first moment from 1 on at which a timer is due that is due at `at`, and how often it was before. A capture may
/// have taken longer than the next boot has lasted, and no timer can be set for a moment before that boot.
fn begin(at: i64, interval: i64) -> (i64, u64) {
    if at > 0 || interval <= 0 {
        return (at.max(1), 0);
    }
    let missed = at.saturating_neg() / interval + 1;
    (at.saturating_add(missed.saturating_mul(interval)), missed.cast_unsigned())
}

/// How far the clocks of a process are ahead of ours.
///
/// # Errors
/// It is gone.
pub fn ahead(pid: u32) -> Result<Offsets> {
    let (theirs, ours) = (offsets(pid)?, offsets(std::process::id())?);
    Ok(Offsets { monotonic: theirs.monotonic - ours.monotonic, boottime: theirs.boottime - ours.boottime })
}

/// Lets everybody whom we make from now on see the clocks go on from `captured`. Returns how far theirs are ahead of
/// ours; nothing, if the kernel cannot.
///
/// # Errors
/// The offsets are not accepted.
pub fn go_on(captured: &Clocks) -> Result<Option<Offsets>> {
    let now = |clock| time::nanoseconds(clock).context(KIND, format_args!("reading a clock"));
    let own = offsets(std::process::id())?;
    // What the clocks of the kernel say, without our own namespace.
    let monotonic = captured.monotonic - (now(libc::CLOCK_MONOTONIC)? - own.monotonic);
    let boottime = captured.boottime - (now(libc::CLOCK_BOOTTIME)? - own.boottime);
    if crate::sys::clone::new_time_namespace().is_err() {
        return Ok(None);
    }
    let line = |name: &str, ns: i64| format!("{name} {} {}\n", ns.div_euclid(SECOND), ns.rem_euclid(SECOND));
    let text = line("monotonic", monotonic) + &line("boottime", boottime);
    fs::write("/proc/self/timens_offsets", text)
        .context(KIND, format_args!("setting the offsets of the clocks"))?;
    Ok(Some(Offsets { monotonic: monotonic - own.monotonic, boottime: boottime - own.boottime }))
}

/// What it means when the kernel has no time namespaces.
pub const BEGIN_ANEW: &str = "this kernel has no time namespaces (CONFIG_TIME_NS): after a restore the clocks begin \
                              anew, and absolute deadlines come late by at most the uptime at the capture";

/// Whether this kernel has time namespaces, so that [`go_on`] can.
#[must_use]
pub fn can_go_on() -> bool {
    crate::sys::stat::exists("/proc/self/ns/time_for_children")
}

/// The namespace that [`go_on`] made.
///
/// # Errors
/// /proc cannot be read.
pub fn namespace() -> Result<std::os::fd::OwnedFd> {
    let path = "/proc/self/ns/time_for_children";
    fs::open(path, nix::fcntl::OFlag::O_RDONLY).context(KIND, format_args!("opening {path}"))
}

#[cfg(test)]
mod tests {
    use super::{Offsets, due, parse};

    #[test]
    fn offsets_are_parsed() {
        let text = "monotonic           0         0\nboottime         -2 500000000\n";
        assert_eq!(parse(text), Offsets { monotonic: 0, boottime: -1_500_000_000 });
    }

    #[test]
    fn timer_from_before_this_boot_goes_on_in_step() {
        let due = |read, left, interval, ahead| due(libc::CLOCK_MONOTONIC, read, (left, interval), ahead);
        assert_eq!(due(100, 7, 10, 0), Ok((107, 0)));
        // Once, as soon as possible.
        assert_eq!(due(100, 7, 0, 500), Ok((501, 0)));
        // 107, 117 and so on to 497 come before 500; 507 does not.
        assert_eq!(due(100, 7, 10, 500), Ok((507, 40)));
        assert_eq!(due(100, 7, 10, 107), Ok((117, 1)));
        assert_eq!(due(i64::MIN, -1, i64::MAX, i64::MAX).map(|(_, missed)| missed), Ok(2));
    }
}
