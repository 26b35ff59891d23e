//! What: interval timers (setitimer(2), alarm(2)) and POSIX timers (timer_create(2)) of a process.
//! Reads: clock_gettime(2), getitimer(2) and timer_gettime(2) inside the process, /proc/PID/timers for ids and clocks.
//! Rebuilds: POSIX timers under their exact ids, with PR_TIMER_CREATE_RESTORE_IDS (6.15) or by creating and
//!   deleting upwards; all are armed last, for the moment when they were due: what a capture and a restore take counts.
//!   Without time namespaces, with what was left.
//! Loses: overruns that were not collected yet. Whether a timer on the wall clock was set for a moment.
//! Refuses: timers on the CPU clock of another process, or on that of one thread of several if it is not named
//!   (CLOCK_THREAD_CPUTIME_ID); ids above 5000.

use crate::error::{Refusal, Result};
use crate::sorted;
use crate::sys::abi;
use crate::task::batch::{LONG, long};
use crate::task::clock::{self, Offsets};
use crate::task::remote::{Batch, Script};

/// Bytes of struct itimerspec, which has 64-bit members everywhere.
const ITIMER: usize = 32;
const NANO: u64 = 1_000_000_000;
/// The CPU clock of the process that asks, as the kernel numbers it.
const OWN: i32 = -6;
/// Without PR_TIMER_CREATE_RESTORE_IDS every id below must be created once.
const MAX_ID: u32 = 5000;

crate::section! {
    /// All timers of a process.
    #[derive(Default)]
    pub struct State {
        /// CLOCK_MONOTONIC and CLOCK_BOOTTIME when the times left were read, in nanoseconds.
        pub read: [i64; 2],
        /// ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF: interval s, us, remaining s, us.
        pub intervals: [[u64; 4]; 3],
        /// POSIX timers by id.
        pub posix: Vec<Posix>,
    }
}

crate::section! {
    /// One POSIX timer.
    pub struct Posix {
        /// Its id.
        pub id: u32,
        /// Clock.
        pub clock: i32,
        /// SIGEV_SIGNAL 0, SIGEV_NONE 1, SIGEV_THREAD_ID 4 set.
        pub notify: i32,
        /// Thread for SIGEV_THREAD_ID.
        pub tid: u32,
        /// Signal.
        pub signal: i32,
        /// sigev_value.
        pub value: u64,
        /// Interval s, ns, remaining s, ns.
        pub setting: [u64; 4],
    }
}

/// Parses /proc/PID/timers.
#[must_use]
pub fn parse(text: &str) -> Vec<Posix> {
    let mut timers: Vec<Posix> = Vec::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim_ascii();
        if name == "ID" {
            timers.push(Posix {
                id: value.parse().unwrap_or(u32::MAX),
                clock: 0,
                notify: 0,
                tid: 0,
                signal: 0,
                value: 0,
                setting: [0; 4],
            });
        }
        let Some(timer) = timers.last_mut() else { continue };
        match name {
            // "signal: 14/00007ffc1f6b2a10": number and value; the value is a pointer printed with %px.
            "signal" => {
                let (signal, pointer) = value.split_once('/').unwrap_or((value, "0"));
                timer.signal = signal.parse().unwrap_or(0);
                timer.value = u64::from_str_radix(pointer, 16).unwrap_or(0);
            }
            // "notify: signal/pid.42", "none/...", "thread/...": with "tid." for SIGEV_THREAD_ID.
            "notify" => {
                let (how, whom) = value.split_once('/').unwrap_or((value, ""));
                timer.notify = match how {
                    "none" => 1,
                    "thread" => 2,
                    _ => 0,
                };
                if let Some(tid) = whom.strip_prefix("tid.") {
                    timer.notify |= libc::SIGEV_THREAD_ID;
                    timer.tid = tid.parse().unwrap_or(0);
                }
            }
            "ClockID" => timer.clock = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    // The kernel lists the newest first.
    sorted::sort_by_key(&mut timers, |timer| timer.id);
    timers
}

/// Whether a negative clock is that of the process or of a thread of it. It names whose it is, and 0 is who made the
/// timer (CPUCLOCK_PID and its like of include/linux/posix-timers.h).
fn is_own(clock: i32, pid: u32, threads: &[u32]) -> bool {
    const PER_THREAD: i32 = 4;
    match (!(clock >> 3)).cast_unsigned() {
        0 => clock & PER_THREAD == 0 || threads.len() == 1,
        tid if clock & PER_THREAD != 0 => threads.contains(&tid),
        other => other == pid,
    }
}

/// Refuses what cannot be rebuilt.
///
/// # Errors
/// The refusal.
pub fn check(timers: &[Posix], pid: u32, threads: &[u32]) -> Result<(), Refusal> {
    for timer in timers {
        if timer.clock < 0 && !is_own(timer.clock, pid, threads) {
            let reason = "a timer runs on the CPU clock of another process, or of one of several threads";
            return Err(Refusal::new(reason, "rerun the service"));
        }
        if timer.notify & libc::SIGEV_THREAD_ID != 0 && !threads.contains(&timer.tid) {
            return Err(Refusal::new("a timer tells a thread that has ended", "rerun the service"));
        }
        if timer.id > MAX_ID {
            return Err(Refusal::new(format!("timer id {} is too high", timer.id), "rerun the service"));
        }
    }
    Ok(())
}

/// Asks for the values; the rooms of the interval timers, then of the POSIX timers, then of two clocks.
pub fn ask(batch: &mut Batch, posix: &[Posix]) -> Vec<u64> {
    let mut rooms = Vec::new();
    for which in 0..3 {
        // struct itimerval: seconds are `long` on 32 bit too, where no newer call exists.
        let room = batch.room(4 * LONG);
        batch.call(libc::SYS_getitimer, &[which, room]);
        rooms.push(room);
    }
    for timer in posix {
        let room = batch.room(ITIMER);
        batch.call(abi::TIMER_GETTIME, &[u64::from(timer.id), room]);
        rooms.push(room);
    }
    for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME] {
        let room = batch.room(16);
        batch.call(abi::CLOCK_GETTIME, &[clock as u64, room]);
        rooms.push(room);
    }
    rooms
}

/// The answers to [`ask`].
#[must_use]
pub fn capture(batch: &Batch, rooms: &[u64], mut posix: Vec<Posix>) -> State {
    let four = |room: u64| [0, 8, 16, 24].map(|at| batch.word(room + at));
    let mut state = State::default();
    for (into, room) in state.intervals.iter_mut().zip(rooms) {
        *into = [0, 1, 2, 3].map(|index| batch.long(*room, index));
    }
    for (timer, room) in posix.iter_mut().zip(rooms.iter().skip(3)) {
        timer.setting = four(*room);
    }
    for (read, room) in state.read.iter_mut().zip(rooms.iter().skip(3 + posix.len())) {
        *read = nanoseconds([batch.word(*room), batch.word(*room + 8)], 1);
    }
    state.posix = posix;
    state
}

/// struct sigevent: the value, a pointer or a number, comes first.
fn event(timer: &Posix) -> [u8; 64] {
    let mut bytes = [0; 64];
    let (value, rest) = bytes.split_at_mut(LONG);
    value.copy_from_slice(&long(timer.value));
    rest[..4].copy_from_slice(&timer.signal.to_ne_bytes());
    rest[4..8].copy_from_slice(&timer.notify.to_ne_bytes());
    rest[8..12].copy_from_slice(&timer.tid.to_ne_bytes());
    bytes
}

/// Creates the POSIX timers under their ids, not armed. All threads exist. `exact` says whether the kernel
/// has PR_TIMER_CREATE_RESTORE_IDS.
///
/// # Errors
/// As [`Script::ensure`].
pub fn restore(script: &mut Script<'_>, state: &State, exact: bool) -> Result<()> {
    const PR_TIMER_CREATE_RESTORE_IDS: u64 = 77;
    if state.posix.is_empty() {
        return Ok(());
    }
    script.ensure(1, 0)?;
    if exact {
        script.batch.call(libc::SYS_prctl, &[PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0, 0]);
    }
    let mut next = 0;
    for timer in &state.posix {
        if !exact {
            // Ids count up from 0 in a fresh process: spend those below.
            for id in next..timer.id {
                script.ensure(2, 16)?;
                let at = script.batch.room(8);
                script.batch.call(libc::SYS_timer_create, &[libc::CLOCK_MONOTONIC as u64, 0, at]);
                script.batch.call(libc::SYS_timer_delete, &[u64::from(id)]);
            }
        }
        next = timer.id + 1;
        script.ensure(1, 96)?;
        let event = script.batch.bytes(&event(timer));
        let at = script.batch.bytes(&timer.id.to_ne_bytes());
        let clock = u64::from(timer.clock.cast_unsigned());
        script.batch.call(libc::SYS_timer_create, &[clock, event, at]);
        script.batch.doing("creating a timer");
    }
    if exact {
        script.ensure(1, 0)?;
        script.batch.call(libc::SYS_prctl, &[PR_TIMER_CREATE_RESTORE_IDS, 0, 0, 0, 0]);
    }
    Ok(())
}

/// Seconds and a rest in units of so many nanoseconds.
fn nanoseconds([seconds, rest]: [u64; 2], unit: u64) -> i64 {
    seconds.saturating_mul(NANO).saturating_add(rest * unit).cast_signed()
}

/// Arms every timer: the last thing before a process runs. `ahead` says how far its clocks are ahead of ours, if they
/// go on.
///
/// # Errors
/// As [`Script::ensure`].
pub fn arm(script: &mut Script<'_>, state: &State, ahead: Option<Offsets>) -> Result<()> {
    // How to set a timer that goes by this clock.
    let due = |clock: i32, interval: i64, left: i64| {
        let now = ahead.filter(|_| clock >= 0);
        let read = state.read[usize::from(clock::is_boottime(clock))];
        now.map_or(Err(left.max(1)), |ahead| clock::due(clock, read, (left, interval), ahead.of(clock)))
    };
    for (which, setting) in (0..).zip(&state.intervals) {
        if *setting == [0; 4] {
            continue;
        }
        script.ensure(1, ITIMER)?;
        let mut setting = *setting;
        // Only the first goes by a clock; the others count what the process uses. Relative, like those of
        // CLOCK_REALTIME, and at least one of its units.
        let clock = if which == 0 { libc::CLOCK_REALTIME } else { OWN };
        // Stopped, the others still have an interval.
        if setting[2..] != [0, 0]
            && let Err(left) = due(clock, 0, nanoseconds([setting[2], setting[3]], 1000))
        {
            let left = left.cast_unsigned().div_ceil(1000);
            (setting[2], setting[3]) = (left / 1_000_000, left % 1_000_000);
        }
        let room = script.batch.longs(&setting);
        script.batch.call(libc::SYS_setitimer, &[which, room, 0]);
        script.batch.doing("arming an interval timer");
    }
    for timer in state.posix.iter().filter(|t| t.setting != [0; 4]) {
        script.ensure(1, ITIMER)?;
        let mut setting = timer.setting;
        let [every, left] =
            [[setting[0], setting[1]], [setting[2], setting[3]]].map(|pair| nanoseconds(pair, 1));
        let (flags, at) = match due(timer.clock, every, left) {
            _ if left == 0 => (0, 0),
            Ok((at, _)) => (libc::TIMER_ABSTIME as u64, at.cast_unsigned()),
            Err(left) => (0, left.cast_unsigned()),
        };
        (setting[2], setting[3]) = (at / NANO, at % NANO);
        let room = script.batch.bytes(&abi::bytes(&setting));
        script.batch.call(abi::TIMER_SETTIME, &[u64::from(timer.id), flags, room, 0]);
        script.batch.doing("arming a timer");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{check, parse};

    #[test]
    fn timers_are_parsed() {
        let timers = parse(
            "ID: 1\nsignal: 10/000000000000002a\nnotify: signal/pid.77\nClockID: 1\nID: 3\nsignal: 0/0\nnotify: none/tid.78\nClockID: 0\n",
        );
        assert_eq!(timers.len(), 2);
        assert_eq!((timers[0].id, timers[0].signal, timers[0].value, timers[0].clock), (1, 10, 42, 1));
        assert_eq!((timers[1].notify, timers[1].tid), (1 | libc::SIGEV_THREAD_ID, 78));
        assert!(check(&timers, 77, &[77, 78]).is_ok());
        // The thread that it tells has ended.
        assert!(check(&timers, 77, &[77]).is_err());
    }

    #[test]
    fn a_cpu_clock_of_somebody_else_is_refused() {
        let mut timers = parse("ID: 0\nsignal: 14/0\nnotify: signal/pid.7\nClockID: -6\n");
        let mut is_carried = |clock: i32, threads: &[u32]| {
            timers[0].clock = clock;
            check(&timers, 7, threads).is_ok()
        };
        // The process and its one thread; then by their numbers.
        assert!(is_carried(-6, &[7]) && is_carried(-2, &[7]));
        assert!(is_carried(!7 << 3 | 2, &[7, 8]) && is_carried(!8 << 3 | 6, &[7, 8]));
        assert!(
            !is_carried(-2, &[7, 8])
                && !is_carried(!9 << 3 | 2, &[7, 8])
                && !is_carried(!9 << 3 | 6, &[7, 8])
        );
    }
}
