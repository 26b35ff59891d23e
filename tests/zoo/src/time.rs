//! Clocks in nanoseconds and short sleeps.

/// Seconds and nanoseconds as the kernel takes them in the calls below: 64 bits each.
pub type Time = [i64; 2];

macro_rules! numbers {
    ($($name:ident = $wide:ident, $narrow:literal;)*) => {$(
        #[doc = concat!("`", stringify!($wide), "`, in the form with 64-bit times.")]
        #[cfg(target_pointer_width = "64")]
        pub const $name: libc::c_long = libc::$wide;
        #[doc = concat!("`", stringify!($wide), "`, in the form with 64-bit times.")]
        #[cfg(target_pointer_width = "32")]
        pub const $name: libc::c_long = $narrow;
    )*};
}

numbers! {
    CLOCK_GETTIME = SYS_clock_gettime, 403;
    CLOCK_NANOSLEEP = SYS_clock_nanosleep, 407;
    FUTEX = SYS_futex, 422;
    RT_SIGTIMEDWAIT = SYS_rt_sigtimedwait, 421;
    TIMER_GETTIME = SYS_timer_gettime, 408;
    TIMER_SETTIME = SYS_timer_settime, 409;
}

/// Nanoseconds as [`Time`].
#[must_use]
pub fn time(ns: i64) -> Time {
    [ns / 1_000_000_000, ns % 1_000_000_000]
}

/// [`Time`] in nanoseconds.
#[must_use]
pub fn from_time([seconds, nanoseconds]: Time) -> i64 {
    seconds * 1_000_000_000 + nanoseconds
}

/// How much longer things take here than in namespaces of a quiet machine: `ZOO_PACE`, 1 if it is not set.
#[must_use]
pub fn pace() -> i64 {
    static PACE: std::sync::OnceLock<i64> = std::sync::OnceLock::new();
    *PACE.get_or_init(|| std::env::var("ZOO_PACE").ok().and_then(|text| text.parse().ok()).unwrap_or(1))
}

/// How late a busy machine may deliver, in milliseconds.
#[must_use]
pub fn slack_ms() -> i64 {
    4000 * pace()
}

/// When what is armed before the capture is due, in milliseconds: later than a capture and a restore take.
#[must_use]
pub fn later_ms() -> i64 {
    2500 * pace()
}

/// clock_gettime(2) in nanoseconds.
#[must_use]
pub fn clock(id: libc::clockid_t) -> i64 {
    let mut now: libc::timespec = crate::sys::zeroed();
    // SAFETY: `now` is a timespec.
    unsafe { libc::clock_gettime(id, &raw mut now) };
    now.tv_sec as i64 * 1_000_000_000 + now.tv_nsec as i64
}

/// Whether this kernel has time namespaces, with which a restore lets the clocks go on from the capture.
#[must_use]
pub fn has_namespace() -> bool {
    // Signal handlers ask too: a system call, and nothing that takes a lock.
    crate::sys::exists(c"/proc/self/ns/time")
}

/// CLOCK_MONOTONIC in nanoseconds.
#[must_use]
pub fn monotonic() -> i64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// A clock that no restore turns back: CLOCK_MONOTONIC where it goes on from the capture, else the wall clock, which
/// goes on while the image lies on the shelf.
#[must_use]
pub fn steady() -> i64 {
    clock(if has_namespace() { libc::CLOCK_MONOTONIC } else { libc::CLOCK_REALTIME })
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
