//! PID 1 stays safe: whatever happens to it, the board goes on.
//!
//! A mistake in PID 1 would be a kernel panic. So from the first decision on a fatal signal makes PID 1 the
//! real init ([`crash`]), or reboots when a restore has changed the kernel by then. A panic of the kernel
//! itself during a restore reboots after two seconds (kernel.panic), so that the armed attempt is over and the
//! next boot is a cold one; a stock kernel would wait for ever.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;

use super::{cold, early::Early};
use crate::error::{Context, Result};
use crate::log;
use crate::stage::{Stage, Times};
use crate::sys::crash::{self, WayOut};
use crate::sys::fs;
use crate::sys::start::Given;

/// Seconds from a kernel panic to a reboot; 0 means never.
const PANIC: &str = "/proc/sys/kernel/panic";

/// The value while a restore is under way. Not 1, which scripts set as well: a restored kernel.panic must be
/// told from ours when it is put back.
const ARMED: &str = "2";

/// The guard of PID 1.
pub struct Guard {
    init: PathBuf,
    args: Vec<CString>,
    env: Vec<CString>,
    mounts: Vec<CString>,
    stage: Option<&'static AtomicU32>,
    cell: bool,
    /// The text of kernel.panic before it was armed.
    panic: Option<String>,
}

impl Guard {
    /// Installs the handlers: from here on a fatal signal in PID 1 starts the real init.
    #[must_use]
    pub fn install(init: &Path, given: &Given, early: &Early, times: &Times) -> Guard {
        let guard = Guard {
            init: init.to_owned(),
            args: cold::arguments(init, given, early.cell),
            env: given.env.clone(),
            mounts: early.mount_points(),
            stage: times.word(),
            cell: early.cell,
            panic: None,
        };
        guard.renew();
        guard
    }

    /// Hands the present way out to the handlers.
    fn renew(&self) {
        let way = WayOut {
            init: CString::new(self.init.as_os_str().as_bytes()).unwrap_or_default(),
            args: self.args.clone(),
            env: self.env.clone(),
            mounts: self.mounts.clone(),
            panic: self.panic.as_ref().and_then(|text| CString::new(text.as_str()).ok()),
            reboot_from: self.stage.map(|word| (word, Stage::Kernel as u32)),
        };
        if let Err(error) = crash::install(way).context("guard", format_args!("installing the handlers")) {
            log!(Warning, "{error}");
        }
    }

    /// A restore begins: a kernel panic reboots. Not in a cell, where the setting is the host's.
    pub fn arm(&mut self) {
        if self.cell {
            return;
        }
        let Ok(before) = fs::text(PANIC) else { return };
        if let Err(error) = fs::write(PANIC, ARMED).context("guard", format_args!("setting kernel.panic")) {
            log!(Warning, "{error}");
            return;
        }
        self.panic = Some(before.trim_ascii().to_owned());
        self.renew();
    }

    /// Puts kernel.panic back: by PID 1 when it goes on cold, by the conductor when the restore is done.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn disarm(&mut self) -> Result<()> {
        let Some(before) = self.panic.take() else { return Ok(()) };
        // The image brings the value that its scripts had set.
        if fs::text(PANIC).is_ok_and(|now| now.trim_ascii() != ARMED) {
            return Ok(());
        }
        fs::write(PANIC, before).context("guard", format_args!("putting kernel.panic back"))
    }
}
