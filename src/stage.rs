//! The stages of a boot: where it is, when it got there, and where a lab build breaks it on purpose.
//!
//! The number of the current stage stands in memory that PID 1 and the conductor share. So PID 1 knows how far
//! a conductor came that died without a word, and whether the kernel's state had been changed by then.

use crate::sorted::Listed;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::sorted;
use crate::sys::{self, time};

macro_rules! stages {
    ($( $name:ident $text:literal $sentence:literal ),* $(,)?) => {
        /// One step of a boot, in the order of a restore; the steps of a capture come last.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Stage { $( #[doc = $sentence] $name ),* }

        impl Stage {
            /// All of them.
            pub const ALL: &'static [Stage] = &[ $( Stage::$name ),* ];

            /// The word used in boot.json, on the command line and in the log.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( Stage::$name => $text ),* }
            }

            /// What happens in it.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self { $( Stage::$name => $sentence ),* }
            }
        }
    };
}

stages! {
    Early "early" "PID 1 mounts /proc, /sys and /dev and reads the command line",
    Root "root" "the initramfs loads its modules, mounts the root and switches to it",
    Key "key" "the key of this boot is computed",
    Plan "plan" "the store is read and it is decided between a restore and a cold boot",
    Wait "wait" "PID 1 waits for the conductor",
    Open "open" "the conductor reads the image's sections",
    Check "check" "the conductor checks the kernel, inputs and devices",
    Arm "arm" "the attempt is noted in the store",
    Kernel "kernel" "the state of the kernel is restored; from here on a failure needs a reboot",
    Puppet "puppet" "the tasks are created with their pids",
    File "file" "the open file descriptions are opened and handed out",
    Memory "memory" "the memory of the tasks is placed",
    Seize "seize" "PID 1 is stopped and its batch prepared",
    Commit "commit" "the memory of PID 1 is replaced; there is no way back",
    Release "release" "the tasks get their last state and run",
    Done "done" "the restore is complete",
    Baseline "baseline" "the watcher looks at the kernel before the scripts",
    Ready "ready" "the watcher waits for the scripts to end",
    Freeze "freeze" "the tasks are stopped for the capture",
    Capture "capture" "the tasks and the kernel are read",
    Seal "seal" "the image is written and read back",
    Publish "publish" "the image becomes bootable",
}

impl Stage {
    /// The stage of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Stage> {
        Stage::ALL.iter().copied().find(|stage| stage.name() == name)
    }

    /// The stage with this number, as the shared word has it.
    #[must_use]
    pub fn numbered(number: u32) -> Option<Stage> {
        Stage::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Whether kernel state may have been changed when a restore was in this stage.
    #[must_use]
    pub fn changes_kernel(self) -> bool {
        self >= Stage::Kernel
    }

    /// Whether PID 1 may have been replaced when a restore was in this stage.
    #[must_use]
    pub fn is_committed(self) -> bool {
        self >= Stage::Commit
    }
}

/// Now on CLOCK_MONOTONIC, in nanoseconds.
#[must_use]
pub fn now() -> u64 {
    time::nanoseconds(libc::CLOCK_MONOTONIC).map_or(0, i64::cast_unsigned)
}

/// Room for every stage once.
const MARKS: usize = Stage::ALL.len();

/// When each stage began. Cheap: a restore makes about fifteen marks.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    begun: [u64; MARKS],
    shared: Option<&'static [AtomicU32; 2]>,
}

impl Times {
    /// No marks yet. The stage is published to later children when memory can be shared.
    #[must_use]
    pub fn new() -> Times {
        Times { begun: [0; MARKS], shared: sys::process::shared_words().ok() }
    }

    /// A stage begins: its time is marked and its number published, then a lab build may break here.
    ///
    /// # Errors
    /// Only a fault that was asked for.
    pub fn enter(&mut self, stage: Stage) -> Result<()> {
        self.begun[stage as usize] = now();
        if let Some(words) = self.shared {
            words[0].store(stage as u32, Ordering::SeqCst);
        }
        fault(stage)
    }

    /// Publishes the errno of the failure that ends the process, for PID 1's line about it.
    pub fn fail(&self, error: &Error) {
        if let Some(words) = self.shared {
            let errno = error.errno().map_or(0, |errno| (errno as i32).cast_unsigned());
            words[1].store(errno, Ordering::SeqCst);
        }
    }

    /// The current stage, also when another process has entered it, and the errno of its failure.
    #[must_use]
    pub fn report(&self) -> (Stage, Option<Errno>) {
        let Some(words) = self.shared else { return (Stage::Early, None) };
        let stage = Stage::numbered(words[0].load(Ordering::SeqCst)).unwrap_or(Stage::Early);
        let errno = words[1].load(Ordering::SeqCst).cast_signed();
        (stage, (errno != 0).then(|| Errno::from_raw(errno)))
    }

    /// The word with the current stage, for the crash guard.
    #[must_use]
    pub fn word(&self) -> Option<&'static AtomicU32> {
        self.shared.map(|words| &words[0])
    }

    /// When a stage began, in nanoseconds; `None` when it did not.
    #[must_use]
    pub fn begun(&self, stage: Stage) -> Option<u64> {
        Some(self.begun[stage as usize]).filter(|time| *time != 0)
    }

    /// The stages in the order in which they began, each with its duration up to the next one or to `end`.
    #[must_use]
    pub fn durations(&self, end: u64) -> Vec<(Stage, u64)> {
        let mut begun: Vec<(u64, Stage)> =
            Stage::ALL.iter().filter_map(|stage| Some((self.begun(*stage)?, *stage))).list();
        sorted::sort(&mut begun);
        let ends = begun.iter().skip(1).map(|(time, _)| *time).chain([end]);
        begun.iter().zip(ends).map(|((time, stage), end)| (*stage, end.saturating_sub(*time))).list()
    }

    /// A JSON object, stage to milliseconds: `{"early":1.204,"key":0.810}`.
    #[must_use]
    pub fn json(&self, end: u64) -> String {
        let mut text = String::from("{");
        for (stage, ns) in self.durations(end) {
            let comma = if text.len() > 1 { "," } else { "" };
            let _ = write!(text, "{comma}\"{}\":{}", stage.name(), milliseconds(ns));
        }
        text.push('}');
        text
    }
}

impl Default for Times {
    fn default() -> Times {
        Times::new()
    }
}

/// Nanoseconds as milliseconds with three decimals, without floating point.
#[must_use]
pub fn milliseconds(ns: u64) -> String {
    let us = ns / 1000;
    format!("{}.{:03}", us / 1000, us % 1000)
}

/// What a fault point does: stage number plus one in the low byte, the way in the next; 0 is no fault.
#[cfg(feature = "fault")]
static FAULT: AtomicU32 = AtomicU32::new(0);

/// Arms the fault point named by `rcsnap.fault=STAGE[:exit|segv|hang|error]`. Lab builds only: a board's
/// binary has no such code.
#[cfg(feature = "fault")]
pub fn set_fault(text: &str) {
    let (name, way) = text.split_once(':').unwrap_or((text, "exit"));
    let way = ["exit", "segv", "hang", "error"].iter().position(|w| *w == way);
    match (Stage::named(name), way.and_then(|way| u32::try_from(way).ok())) {
        (Some(stage), Some(way)) => FAULT.store(stage as u32 + 1 + (way << 8), Ordering::Relaxed),
        _ => crate::log!(Warning, "fault: no such stage or way: {text}"),
    }
}

/// Breaks here if this stage was named. Without the feature there is no such code.
///
/// # Errors
/// The error that was asked for.
#[cfg(feature = "fault")]
pub fn fault(stage: Stage) -> Result<()> {
    let armed = FAULT.load(Ordering::Relaxed);
    if armed & 0xff != stage as u32 + 1 {
        return Ok(());
    }
    crate::log!(Warning, "fault: {}", stage.name());
    match armed >> 8 {
        // PID 1 has no exit status to give: a kernel panic would be all there is to see.
        0 if std::process::id() != 1 => sys::process::leave(99),
        0 => sys::crash::segv(),
        1 => sys::crash::segv(),
        2 => loop {
            nix::unistd::pause();
        },
        _ => {}
    }
    Err(Error::new("fault", stage.name(), "asked for"))
}

/// Breaks here if this stage was named. Without the feature there is no such code.
///
/// # Errors
/// None.
#[cfg(not(feature = "fault"))]
#[inline]
pub fn fault(_: Stage) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Stage, Times, milliseconds};
    use crate::error::Error;
    use nix::errno::Errno;

    #[test]
    fn names_and_numbers_lead_back_to_the_stage() {
        for stage in Stage::ALL {
            assert_eq!(Stage::named(stage.name()), Some(*stage));
            assert_eq!(Stage::numbered(*stage as u32), Some(*stage));
            assert!(!stage.sentence().is_empty());
        }
        assert!(!Stage::Arm.changes_kernel() && Stage::Kernel.changes_kernel());
        assert!(!Stage::Seize.is_committed() && Stage::Commit.is_committed());
    }

    #[test]
    fn durations_run_from_one_stage_to_the_next() {
        let mut times = Times::new();
        times.begun[Stage::Key as usize] = 2_000_000;
        times.begun[Stage::Early as usize] = 1_000_000;
        assert_eq!(times.durations(5_500_000), [(Stage::Early, 1_000_000), (Stage::Key, 3_500_000)]);
        assert_eq!(times.json(5_500_000), "{\"early\":1.000,\"key\":3.500}");
        assert_eq!(milliseconds(12_345_678), "12.345");
    }

    #[test]
    fn the_report_carries_stage_and_errno() {
        let mut times = Times::new();
        times.enter(Stage::Check).unwrap();
        times.fail(&Error::os("check", "opening /dev/ttyS0", Errno::ENXIO));
        assert_eq!(times.report(), (Stage::Check, Some(Errno::ENXIO)));
    }
}
