//! The wall clock: fresh, never replayed.
//!
//! # What
//! CLOCK_REALTIME, its rate and leap seconds, and the kernel's time zone.
//! # Reads
//! Nothing.
//! # Rebuilds
//! Nothing: the kernel has read the hardware clock at boot (CONFIG_RTC_HCTOSYS), and a time that was right at
//! the capture is wrong on every later boot. Monotonic clocks go on through a time namespace, which is the
//! business of the tasks.
//! # Loses
//! What hwclock(8) --hctosys or --systz did: on a board that needs it, the script is a rerun.
//! # Refuses
//! Nothing.
