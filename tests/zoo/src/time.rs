//! Clocks in nanoseconds and short sleeps.

/// How late a busy machine may deliver, in milliseconds.
pub const SLACK_MS: i64 = 4000;

/// When what is armed before the capture is due: later than a capture and a restore take.
pub const LATER_MS: i64 = 2500;

/// clock_gettime(2) in nanoseconds.
#[must_use]
pub fn clock(id: libc::clockid_t) -> i64 {
    let mut now: libc::timespec = crate::sys::zeroed();
    // SAFETY: `now` is a timespec.
    unsafe { libc::clock_gettime(id, &raw mut now) };
    now.tv_sec as i64 * 1_000_000_000 + now.tv_nsec as i64
}

/// CLOCK_MONOTONIC in nanoseconds.
#[must_use]
pub fn monotonic() -> i64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// A timespec of milliseconds.
#[must_use]
pub fn spec(ms: i64) -> libc::timespec {
    nano_spec(ms * 1_000_000)
}

/// A timespec of nanoseconds.
#[must_use]
pub fn nano_spec(ns: i64) -> libc::timespec {
    let mut spec: libc::timespec = crate::sys::zeroed();
    spec.tv_sec = (ns / 1_000_000_000) as _;
    spec.tv_nsec = (ns % 1_000_000_000) as _;
    spec
}

/// Nanoseconds of a timespec.
#[must_use]
pub fn nanos(spec: &libc::timespec) -> i64 {
    spec.tv_sec as i64 * 1_000_000_000 + spec.tv_nsec as i64
}

/// A timeval of milliseconds.
#[must_use]
pub fn val(ms: i64) -> libc::timeval {
    let mut val: libc::timeval = crate::sys::zeroed();
    val.tv_sec = (ms / 1000) as _;
    val.tv_usec = (ms % 1000 * 1000) as _;
    val
}

/// Sleeps about so long; a signal may cut it short.
pub fn nap(ms: i64) {
    let spec = spec(ms);
    // SAFETY: a timespec and no remainder.
    unsafe { libc::nanosleep(&raw const spec, std::ptr::null_mut()) };
}

/// Sleeps until CLOCK_MONOTONIC reads `ns`, whatever interrupts.
pub fn sleep_until(ns: i64) {
    while monotonic() < ns {
        nap(((ns - monotonic()) / 1_000_000).clamp(1, 50));
    }
}
