//! A timer with a descriptor (timerfd_create(2)).
//!
//! What: clock, time left, interval, expirations that nobody has read.
//! Reads: fdinfo `clockid`, `ticks`, `settime flags`, `it_value` (what is left) and `it_interval`, and the clock.
//! Rebuilds: for the moment when it was due, so that what a capture and a restore take counts: on the clocks that
//!   count from boot, because the restored system lives in a time namespace in which they go on; on the wall clock,
//!   if it was set so. Without time namespaces, with what was left. The unread count goes in with TFD_IOC_SET_TICKS
//!   (CONFIG_CHECKPOINT_RESTORE).
//! Loses: without that option, the exact number of unread expirations: one is left.
//! Refuses: nothing.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{Description, Opener, World};
use crate::error::{Context, Error, Refusal, Result};
use crate::proc::fdinfo;
use crate::sys::{anonymous, fs, ioctl, time};
use crate::task::clock;
use crate::text;

const KIND: &str = "timerfd";
const NANO: i64 = 1_000_000_000;
/// How long one look at a timer may take before it is taken again, in nanoseconds; and how many looks there are.
const PROMPT: i64 = 2_000_000;
const TRIES: u32 = 8;

crate::section! {
    /// A timerfd in the image.
    pub struct State {
        /// CLOCK_*.
        pub clock: i32,
        /// TFD_TIMER_ABSTIME and TFD_TIMER_CANCEL_ON_SET.
        pub flags: i32,
        /// Expirations that were not read.
        pub ticks: u64,
        /// Time left in seconds and nanoseconds, or the moment it is due if the clock is the wall clock and
        /// the flags say so. (0, 0) means that it is not armed.
        pub value: (i64, i64),
        /// When the time left was read, in nanoseconds of the CLOCK_BOOTTIME
        /// or, for all other clocks, the CLOCK_MONOTONIC that its owner sees.
        pub read: i64,
        /// The interval.
        pub interval: (i64, i64),
    }
}

/// What fdinfo shows of a timer.
struct Shown {
    clock: i32,
    flags: i32,
    ticks: u64,
    left: (i64, i64),
    interval: (i64, i64),
}

impl Shown {
    /// Whether it has fired and goes on only when somebody reads it or asks for the time.
    fn waits(&self) -> bool {
        self.left == (0, 0) && self.interval != (0, 0) && self.ticks > 0
    }
}

fn show(fd: BorrowedFd<'_>) -> Result<Shown> {
    let doing = format_args!("reading the timer");
    let missing = || Error::new(KIND, "reading the timer", "fdinfo does not show it");
    let text = fs::text(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).context(KIND, doing)?;
    let info = fdinfo::parse(&text);
    let line = |name| info.value(name).ok_or_else(missing);
    Ok(Shown {
        clock: line("clockid")?.parse().map_err(|_| missing())?,
        flags: i32::from_str_radix(line("settime flags")?, 8).map_err(|_| missing())?,
        ticks: line("ticks")?.parse().map_err(|_| missing())?,
        left: pair(line("it_value")?).ok_or_else(missing)?,
        interval: pair(line("it_interval")?).ok_or_else(missing)?,
    })
}

/// Reads the timer.
///
/// # Errors
/// If fdinfo cannot be understood.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    let fd = desc.fd.as_fd();
    let doing = format_args!("reading the timer");
    let now = |clock| time::nanoseconds(clock).context(KIND, doing);
    let mut tries = 0;
    let (shown, mut read) = loop {
        let from = now(libc::CLOCK_MONOTONIC)?;
        // What the list of all descriptors says of it is older than the clock is now.
        anonymous::touch_timer(fd).context(KIND, doing)?;
        let shown = show(fd)?;
        let steady =
            if clock::is_boottime(shown.clock) { libc::CLOCK_BOOTTIME } else { libc::CLOCK_MONOTONIC };
        let read = now(steady)?;
        tries += 1;
        // Nothing may have held us up meanwhile, and it must not have fired.
        if !shown.waits() && now(libc::CLOCK_MONOTONIC)? - from < PROMPT || tries == TRIES {
            let read = read + world.ahead.of(shown.clock);
            break (shown, read);
        }
    };
    // What has fired since then waits for a reader.
    let left = if shown.waits() { shown.interval } else { shown.left };
    if left == (0, 0) {
        read = 0;
    }
    let Shown { clock, flags, ticks, interval, .. } = shown;
    let absolute = wall(clock) && flags & libc::TFD_TIMER_ABSTIME != 0 && left != (0, 0);
    if !absolute {
        return Ok(Box::new(State { clock, flags: 0, ticks, value: left, read, interval }));
    }
    let now = time::now(libc::CLOCK_REALTIME).context(KIND, format_args!("reading the wall clock"))?;
    Ok(Box::new(State { clock, flags, ticks, value: sum(left, now), read, interval }))
}

/// Whether a clock is set by people: CLOCK_REALTIME and CLOCK_REALTIME_ALARM.
fn wall(clock: i32) -> bool {
    clock == libc::CLOCK_REALTIME || clock == libc::CLOCK_REALTIME_ALARM
}

/// `(1, 20)`.
fn pair(text: &str) -> Option<(i64, i64)> {
    let (seconds, nanoseconds) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    Some((text::signed(seconds.trim_ascii())?, text::signed(nanoseconds.trim_ascii())?))
}

fn sum(a: (i64, i64), b: (i64, i64)) -> (i64, i64) {
    let nanoseconds = a.1 + b.1;
    (a.0.saturating_add(b.0).saturating_add(nanoseconds / NANO), nanoseconds % NANO)
}

/// Makes and arms it.
///
/// # Errors
/// The errno of the calls.
pub fn restore(state: &State, opener: &mut Opener) -> Result<OwnedFd> {
    let fd =
        anonymous::timerfd(state.clock).context(KIND, format_args!("making one on clock {}", state.clock))?;
    let set = |flags, value| {
        anonymous::set_timer(fd.as_fd(), flags, value, state.interval).context(KIND, format_args!("arming"))
    };
    let relative = state.flags == 0 && state.value != (0, 0);
    let mut ticks = state.ticks;
    match opener.actor.ahead(state.clock).filter(|_| relative) {
        None => set(state.flags, state.value)?,
        Some(ahead) => {
            let [left, interval] =
                [state.value, state.interval].map(|(s, ns)| s.saturating_mul(NANO).saturating_add(ns));
            let (flags, at) = match clock::due(state.clock, state.read - ahead, (left, interval), 0) {
                Ok((at, missed)) => {
                    ticks = ticks.saturating_add(missed);
                    (libc::TFD_TIMER_ABSTIME, at)
                }
                Err(left) => (0, left),
            };
            set(flags, (at / NANO, at % NANO))?;
        }
    }
    if ticks == 0 {
        return Ok(fd);
    }
    // After arming, which clears the count.
    let count = |ticks: u64| ioctl::set(fd.as_fd(), &ioctl::SET_TICKS, &ticks);
    if count(ticks).is_err() {
        if state.value == (0, 0) {
            set(0, (0, 1))?;
        }
        crate::log!(Warning, "timerfd: {} unread expirations are lost: no CONFIG_CHECKPOINT_RESTORE", ticks);
    } else if state.value != (0, 0) {
        // One that came between the two calls was overwritten: the timer waits for its reader and is not counted.
        let shown = show(fd.as_fd())?;
        if shown.waits() && shown.ticks == ticks {
            count(ticks + 1).context(KIND, format_args!("counting"))?;
        }
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use crate::file::testing::round_trip;
    use crate::sys::anonymous;

    #[test]
    fn time_left_and_interval_come_back() {
        let fd = anonymous::timerfd(libc::CLOCK_MONOTONIC).unwrap();
        anonymous::set_timer(fd.as_fd(), 0, (100, 5), (7, 9)).unwrap();
        let (state, again) = crate::file::testing::once(&fd, super::capture, super::restore);
        assert_eq!((state.clock, state.ticks, state.interval), (libc::CLOCK_MONOTONIC, 0, (7, 9)));
        assert!(state.value.0 >= 99 && state.value.0 <= 100);
        let (after, _) = crate::file::testing::once(&again, super::capture, super::restore);
        assert_eq!(after.interval, state.interval);
        assert!(after.value <= state.value && after.value.0 >= 98);
    }

    #[test]
    fn unread_expirations_come_back() {
        let fd = anonymous::timerfd(libc::CLOCK_MONOTONIC).unwrap();
        anonymous::set_timer(fd.as_fd(), 0, (0, 1), (0, 0)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let (state, again) = round_trip(&fd, super::capture, super::restore);
        assert_eq!((state.ticks, state.value), (1, (0, 0)));
        let mut bytes = [0; 8];
        nix::unistd::read(&again, &mut bytes).unwrap();
        assert_eq!(u64::from_ne_bytes(bytes), 1);
    }

    #[test]
    fn expiration_that_comes_while_it_is_armed_is_counted() {
        let fd = anonymous::timerfd(libc::CLOCK_MONOTONIC).unwrap();
        anonymous::set_timer(fd.as_fd(), 0, (0, 1), (1000, 0)).unwrap();
        let (mut state, _) = crate::file::testing::once(&fd, super::capture, super::restore);
        state.value = (0, 1);
        state.ticks = 7;
        let again = crate::file::testing::restored(&state, super::restore);
        let mut bytes = [0; 8];
        nix::unistd::read(&again, &mut bytes).unwrap();
        assert_eq!(u64::from_ne_bytes(bytes), 8);
    }

    #[test]
    fn wall_clock_timer_is_kept_as_the_moment_it_is_due() {
        let fd = anonymous::timerfd(libc::CLOCK_REALTIME).unwrap();
        let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
        anonymous::set_timer(fd.as_fd(), flags, (4_000_000_000, 0), (0, 0)).unwrap();
        let (state, again) = crate::file::testing::once(&fd, super::capture, super::restore);
        assert_eq!(state.flags, flags);
        assert!((3_999_999_999..=4_000_000_000).contains(&state.value.0));
        let (after, _) = crate::file::testing::once(&again, super::capture, super::restore);
        assert_eq!(after.flags, flags);
    }

    #[test]
    fn disarmed_timer_stays_disarmed() {
        let fd = anonymous::timerfd(libc::CLOCK_BOOTTIME).unwrap();
        let (state, _) = round_trip(&fd, super::capture, super::restore);
        assert_eq!((state.value, state.ticks), ((0, 0), 0));
    }
}
