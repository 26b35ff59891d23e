//! What: interval timers (setitimer(2), alarm(2)) and POSIX timers (timer_create(2)) of a process.
//! Reads: getitimer(2) and timer_gettime(2) inside the process, /proc/PID/timers for ids and clocks.
//! Rebuilds: POSIX timers under their exact ids, with PR_TIMER_CREATE_RESTORE_IDS (6.15) or by creating and
//!   deleting upwards; all are armed last.
//! Loses: overruns that were not collected yet.
//! Refuses: timers on the CPU clock of another process, and ids too high to reach.

use crate::error::{Refusal, Result};
use crate::sorted;
use crate::sys::abi;
use crate::task::batch::{LONG, long};
use crate::task::remote::{Batch, Script};

/// Bytes of struct itimerspec, which has 64-bit members everywhere.
const ITIMER: usize = 32;
/// Without PR_TIMER_CREATE_RESTORE_IDS every id below must be created once.
const MAX_ID: u32 = 5000;

crate::section! {
    /// All timers of a process.
    #[derive(Default)]
    pub struct State {
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

/// Refuses what cannot be rebuilt.
///
/// # Errors
/// The refusal.
pub fn check(timers: &[Posix]) -> Result<(), Refusal> {
    for timer in timers {
        // Negative clocks name a process or thread (clock_getcpuclockid(3)); -6 and -2 are one's own.
        if timer.clock < 0 {
            return Err(Refusal::new("a timer runs on a CPU clock of its own", "rerun the service"));
        }
        if timer.id > MAX_ID {
            return Err(Refusal::new(format!("timer id {} is too high", timer.id), "rerun the service"));
        }
    }
    Ok(())
}

/// Asks for the values; the rooms of the interval timers, then of the POSIX timers.
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

/// Arms every timer: the last thing before a process runs.
///
/// # Errors
/// As [`Script::ensure`].
pub fn arm(script: &mut Script<'_>, state: &State) -> Result<()> {
    let words = |w: &[u64; 4]| w.iter().flat_map(|w| w.to_ne_bytes()).collect::<Vec<u8>>();
    for (which, setting) in (0..).zip(&state.intervals) {
        if *setting == [0; 4] {
            continue;
        }
        script.ensure(1, ITIMER)?;
        let mut setting = *setting;
        if setting[2] == 0 && setting[3] == 0 {
            setting[3] = 1; // about to fire
        }
        let room = script.batch.longs(&setting);
        script.batch.call(libc::SYS_setitimer, &[which, room, 0]);
        script.batch.doing("arming an interval timer");
    }
    for timer in state.posix.iter().filter(|t| t.setting != [0; 4]) {
        script.ensure(1, ITIMER)?;
        let mut setting = timer.setting;
        if setting[2] == 0 && setting[3] == 0 {
            setting[3] = 1;
        }
        let room = script.batch.bytes(&words(&setting));
        script.batch.call(abi::TIMER_SETTIME, &[u64::from(timer.id), 0, room, 0]);
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
        assert!(check(&timers).is_ok());
    }

    #[test]
    fn a_cpu_clock_of_its_own_is_refused() {
        let timers = parse("ID: 0\nsignal: 14/0\nnotify: signal/pid.7\nClockID: -1234\n");
        assert!(check(&timers).is_err());
    }
}
