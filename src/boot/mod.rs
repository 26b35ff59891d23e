//! PID 1's story, top to bottom.
//!
//! ```text
//! kernel -> rcsnap (PID 1, from an initramfs or init=)
//!   early      /proc /sys /dev, command line, console, log
//!   initramfs  modules, root, switch              (only from an initramfs)
//!   cold       the real init, with nothing of rcsnap left in its way
//! ```

pub mod cmdline;
pub mod cold;
pub mod conduct;
pub mod diag;
pub mod early;
pub mod guard;
pub mod initramfs;
pub mod namespace;
pub mod pids;
pub mod plan;
pub mod quiet;
pub mod ready;
pub mod rerun;
pub mod status;
pub mod watcher;

use std::convert::Infallible;

use crate::error::Result;
use crate::log;
use crate::sys::start::Given;

/// Runs PID 1. Comes back only when there is nothing that could be executed: the kernel then panics, as it
/// does without rcsnap.
#[must_use]
pub fn run(given: &Given) -> u8 {
    match boot(given) {
        Ok(never) => match never {},
        Err(error) => {
            log!(Error, "{error}");
            1
        }
    }
}

fn boot(given: &Given) -> Result<Infallible> {
    let mut early = early::open(given);
    let line = early.line.clone();
    if initramfs::is_here(&line) {
        initramfs::load_modules();
        initramfs::enter(&line, &mut early)?;
    }
    let init = cold::real_init(&line, None)?;
    let reason = line.left_alone().unwrap_or_else(|| "no store yet".into());
    log!(Notice, "cold: {reason}");
    cold::exec(&init, given, &mut early)
}
