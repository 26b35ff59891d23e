//! The log: lines `rcsnap: <kind>: <doing>: <cause>` in the kernel log, or on stderr for the commands.
//!
//! /dev/kmsg keeps one time line with the kernel's own messages and works before any syslogd
//! (`printk(9)`, Documentation/ABI/testing/dev-kmsg). The kernel's console level decides what a serial
//! console shows.

use std::fmt;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::fcntl::OFlag;

use crate::sys::{descriptor, fs};

/// Where lines go: 0 stderr, 1 kernel log.
static TARGET: AtomicU8 = AtomicU8::new(0);
/// The least severe level that is written (7 = debug too).
static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Severity, with syslog's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Something failed.
    Error = 3,
    /// Something is lost or odd, and the boot goes on.
    Warning = 4,
    /// What a boot decided.
    Notice = 5,
    /// What a boot did.
    Info = 6,
    /// For people who work on rcsnap.
    Debug = 7,
}

impl Level {
    /// The level of this name, as `rcsnap.log=` has it.
    #[must_use]
    pub fn named(name: &str) -> Option<Level> {
        Some(match name {
            "error" => Level::Error,
            "warning" => Level::Warning,
            "notice" => Level::Notice,
            "info" => Level::Info,
            "debug" => Level::Debug,
            _ => return None,
        })
    }
}

/// From now on lines go to the kernel log (PID 1, the watcher and the conductor).
pub fn to_kernel() {
    TARGET.store(1, Ordering::Relaxed);
}

/// Sets the least severe level that is written.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Writes one line. An error here has nowhere to go and is dropped.
pub fn line(level: Level, text: fmt::Arguments<'_>) {
    if level as u8 > LEVEL.load(Ordering::Relaxed) {
        return;
    }
    if TARGET.load(Ordering::Relaxed) == 1
        && let Ok(kmsg) = fs::open("/dev/kmsg", OFlag::O_WRONLY)
    {
        // One write is one record; "<n>" is its priority.
        let _ = fs::write_all(kmsg.as_fd(), format!("<{}>rcsnap: {text}\n", level as u8).as_bytes());
        return;
    }
    let _ = fs::write_all(descriptor::standard()[2], format!("rcsnap: {text}\n").as_bytes());
}

/// Logs an error or what a boot decided, and so on: `log!(Notice, "cold: {reason}")`.
#[macro_export]
macro_rules! log {
    ($level:ident, $($arg:tt)*) => {
        $crate::log::line($crate::log::Level::$level, format_args!($($arg)*))
    };
}
