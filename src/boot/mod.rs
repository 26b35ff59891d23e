//! PID 1's story, top to bottom.
//!
//! ```text
//! kernel -> rcsnap (PID 1, from an initramfs or init=)
//!   early      /proc /sys /dev, command line, console, log
//!   initramfs  modules, root, switch                        (only from an initramfs)
//!   guard      from here on a fatal signal starts the real init
//!   choice     configuration, key, store -> plan            (plan: a pure function)
//!   attempt    a conductor restores the image; PID 1 is replaced, or
//!   cold       a watcher stays behind, PID 1 becomes the real init;
//!              the scripts end in `rcsnap ready` -> take: capture, seal, publish
//! ```

#[cfg(feature = "fault")]
pub mod again;
pub mod attempt;
pub mod choice;
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
pub mod take;
pub mod watcher;

use std::convert::Infallible;
use std::time::Duration;

use choice::{Choice, note};
use cmdline::Cmdline;
use guard::Guard;
use plan::Plan;
use take::Take;

use crate::config::{Config, Key};
use crate::error::Result;
use crate::log;
use crate::stage::{Stage, Times};
use crate::sys::start::Given;
use crate::sys::stat::exists;

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
    let mut times = Times::new();
    times.enter(Stage::Early)?;
    let mut early = early::open(given);
    let line = early.line.clone();
    if initramfs::is_here(&line) {
        times.enter(Stage::Root)?;
        initramfs::load_modules();
        initramfs::enter(&line, &mut early)?;
    }
    let config = load(&line);
    let init = cold::real_init(&line, Some(config.text(Key::Init)))?;
    let mut guard = Guard::install(&init, given, &early, &times);
    let (reason, watch) = match begin(&line, &config, &mut guard, &mut times) {
        Ok(decided) => decided,
        Err(error) => (error.to_string(), None),
    };
    log!(Notice, "cold: {reason}");
    let limit = Duration::from_secs(config.number(Key::LimitReady).into());
    if watch.is_some() && !early.cell {
        // While there is a /proc.
        diag::load();
    }
    // Before the watcher looks at the kernel: what rcsnap mounted is none of the system's.
    early.close();
    if let Some(key) = watch {
        let words = line.words().to_vec();
        let work = Take { config, words, key, reason, times, before: None };
        note(watcher::start(early.cell, limit, work));
    }
    cold::exec(&init, given, &mut early)
}

/// The configuration, with its warnings told once.
fn load(line: &Cmdline) -> Config {
    let config = Config::load(line.words());
    log::set_level(config.level());
    for warning in &config.warnings {
        log!(Warning, "{warning}");
    }
    #[cfg(feature = "fault")]
    if let Some(fault) = line.get("rcsnap.fault") {
        crate::stage::set_fault(fault);
    }
    config
}

/// Decides, and tries to restore if that is the plan. What comes back is a cold boot: why, and with the key
/// if it is to be captured.
fn begin(
    line: &Cmdline,
    config: &Config,
    guard: &mut Guard,
    times: &mut Times,
) -> Result<(String, Option<crate::key::Key>)> {
    let mut choice = choice::choose(line, config, times)?;
    if let Some(image) = choice.candidate()
        && let Some(store) = choice.store.take()
    {
        let key = choice.key.filter(|key| plan::may_capture(store.history(), &key.hash));
        let end = attempt::run(store, &image, line, config, guard, times)?;
        // An image that was of no use before anything was tried makes room for a new one, within the limits.
        let limited = if end.burn && key.is_none() { plan::LIMITED } else { "" };
        return Ok((end.reason + limited, key.filter(|_| end.burn)));
    }
    choice.close();
    let Choice { plan, key, .. } = choice;
    Ok(match plan {
        Plan::Cold { why, capture } => {
            let limited = if capture || !why.is_missing() { "" } else { plan::LIMITED };
            (why.to_string() + limited, key.filter(|_| capture))
        }
        Plan::Restore { slot } => (format!("slot {slot} is gone"), None),
    })
}

/// Restarts the board; in a cell this ends the namespace. Comes back only if that is not allowed.
fn reboot() {
    nix::unistd::sync();
    let Err(errno) = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT);
    log!(Error, "reboot: {}", crate::error::name(errno));
}
