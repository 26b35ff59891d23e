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

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

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

/// Reads the timer.
///
/// # Errors
/// If fdinfo cannot be understood.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    let doing = format_args!("reading the timer");
    let missing = || Error::new(KIND, "reading the timer", "fdinfo does not show it");
    let monotonic = || time::nanoseconds(libc::CLOCK_MONOTONIC).context(KIND, doing);
    let mut tries = 0;
    let (set, clock, mut read, mut left, interval, ticks) = loop {
        let from = monotonic()?;
        // What the list of all descriptors says of it is older than the clock is now.
        anonymous::touch_timer(desc.fd.as_fd()).context(KIND, doing)?;
        let text = fs::text(format!("/proc/self/fdinfo/{}", desc.fd.as_raw_fd())).context(KIND, doing)?;
        let info = fdinfo::parse(&text);
        let line = |name| info.value(name).ok_or_else(missing);
        let clock: i32 = line("clockid")?.parse().map_err(|_| missing())?;
        let set = i32::from_str_radix(line("settime flags")?, 8).map_err(|_| missing())?;
        let steady = if clock::is_boottime(clock) { libc::CLOCK_BOOTTIME } else { libc::CLOCK_MONOTONIC };
        let now = time::nanoseconds(steady).context(KIND, doing)?;
        let left = pair(line("it_value")?).ok_or_else(missing)?;
        let interval = pair(line("it_interval")?).ok_or_else(missing)?;
        let ticks: u64 = line("ticks")?.parse().map_err(|_| missing())?;
        tries += 1;
        // Nothing may have held us up meanwhile, and it must not have fired.
        let fired = left == (0, 0) && interval != (0, 0) && ticks > 0;
        if !fired && monotonic()? - from < PROMPT || tries == TRIES {
            break (set, clock, now + world.ahead.of(clock), left, interval, ticks);
        }
    };
    if left == (0, 0) && ticks > 0 {
        // It has fired since, and waits for a reader.
        left = interval;
    }
    if left == (0, 0) {
        read = 0;
    }
    let absolute = wall(clock) && set & libc::TFD_TIMER_ABSTIME != 0 && left != (0, 0);
    if !absolute {
        return Ok(Box::new(State { clock, flags: 0, ticks, value: left, read, interval }));
    }
    let now = time::now(libc::CLOCK_REALTIME).context(KIND, format_args!("reading the wall clock"))?;
    Ok(Box::new(State { clock, flags: set, ticks, value: sum(left, now), read, interval }))
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
    match opener.actor.ahead(state.clock).filter(|_| relative) {
        None => set(state.flags, state.value)?,
        Some(ahead) => {
            let left = state.value.0 * NANO + state.value.1;
            let (flags, at) = match clock::due(state.clock, state.read - ahead, left, 0) {
                Ok(at) => (libc::TFD_TIMER_ABSTIME, at),
                Err(left) => (0, left),
            };
            set(flags, (at / NANO, at % NANO))?;
        }
    }
    // After arming, which clears the count.
    if state.ticks > 0 && ioctl::set(fd.as_fd(), &ioctl::SET_TICKS, &state.ticks).is_err() {
        if state.value == (0, 0) {
            set(0, (0, 1))?;
        }
        crate::log!(
            Warning,
            "timerfd: {} unread expirations are lost: no CONFIG_CHECKPOINT_RESTORE",
            state.ticks
        );
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
