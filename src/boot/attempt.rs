//! An attempt to restore: what the conductor does around [`restore::system`], and what PID 1 does when it
//! comes back.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::choice::note;
use super::cmdline::Cmdline;
use super::conduct::{Broken, End, Next};
use super::guard::Guard;
use super::ready::Answer;
use super::status::{self, Status};
use super::{conduct, pids, ready, reboot};
use crate::config::{Config, Key};
use crate::error::{Error, Failure, Result};
use crate::image::codec::Reader;
use crate::image::header::FLAG_SESSION_LEADER;
use crate::image::{self, Source};
use crate::inputs::{self, Inputs};
use crate::kernel::Root;
use crate::log;
use crate::restore::{self, Image};
use crate::stage::{Stage, Times, milliseconds, now};
use crate::store::device::Access;
use crate::store::{Store, Trusted, spec};
use crate::sys::fs;

/// Seconds that a restore may take before its conductor is ended. Boards restore in less than one.
const LIMIT: u32 = 60;

crate::section! {
    /// What the boot itself needs to know of a captured system.
    pub struct Notes {
        /// The process in `rcsnap ready`: it gets the answer.
        pub ready: u32,
    }
}

/// Tries the image. Comes back only when that did not work.
///
/// # Errors
/// The restore could not even begin.
pub fn run(
    store: Store,
    image: &Trusted,
    line: &Cmdline,
    config: &Config,
    guard: &mut Guard,
    times: &mut Times,
) -> Result<End> {
    guard.arm();
    times.enter(Stage::Wait)?;
    let leader = image.header.flags & FLAG_SESSION_LEADER != 0;
    let started = times.begun(Stage::Early).unwrap_or(0);
    let store = RefCell::new(store);
    let mut own = *times;
    let end = conduct::run(leader, LIMIT, times, || {
        conduct(&Conductor { store: &store, image, line, config, started }, guard, &mut own)
    });
    // The conductor has written to the store since we read it, and kept it locked through us.
    drop(store);
    note(guard.disarm());
    let end = end?;
    if end.burn || end.next == Next::Cold {
        note(spec::open(config, Access::Write).and_then(|mut store| count(&mut store, image.slot, &end)));
    }
    if end.next == Next::Reboot {
        log!(Error, "reboot: {}", end.reason);
        reboot();
    }
    Ok(end)
}

/// Notes an end. One before any change counts as an attempt that nobody confirmed: a device that never comes would
/// be waited for at each boot.
///
/// # Errors
/// The medium's.
pub fn count(store: &mut Store, slot: usize, end: &End) -> Result<()> {
    match end.next {
        _ if end.burn => store.burn(slot),
        Next::Cold => store.fail(slot).map(drop),
        Next::Reboot => Ok(()),
    }
}

/// What the conductor works with.
struct Conductor<'a> {
    store: &'a RefCell<Store>,
    image: &'a Trusted,
    line: &'a Cmdline,
    config: &'a Config,
    /// When PID 1 began.
    started: u64,
}

/// The whole work of the conductor.
fn conduct(this: &Conductor<'_>, guard: &mut Guard, times: &mut Times) -> Result<(), Broken> {
    let mut useless = false;
    match restore(this, times, &mut useless) {
        Ok(()) => {
            note(guard.disarm());
            let _ = times.enter(Stage::Done);
            let slot = this.image.slot;
            log!(Notice, "restored: slot {slot} in {} ms", milliseconds(now().saturating_sub(this.started)));
            Ok(())
        }
        Err(Failure::After(error)) => {
            // PID 1 is not there any more to do this.
            log!(Error, "reboot: {error}");
            note(this.store.borrow_mut().burn(this.image.slot));
            reboot();
            Err(Broken { failure: Failure::After(error), useless: true })
        }
        Err(failure) => {
            let useless = useless || failure.error().kind == "image";
            Err(Broken { failure, useless })
        }
    }
}

fn restore(this: &Conductor<'_>, times: &mut Times, useless: &mut bool) -> Result<(), Failure> {
    times.enter(Stage::Open).map_err(Failure::Clean)?;
    let root = Root::conductor().map_err(Failure::Clean)?;
    let mut source = Shelf { store: this.store, slot: this.image.slot };
    // What cannot be read now can never be read: a capture takes its place.
    let read = check_bytes(&mut source, this.config).and_then(|()| sections(&mut source));
    let read = read.inspect_err(|_| *useless = true);
    let (image, inputs, notes) = read.map_err(Failure::Clean)?;
    pids::pass(image.meta.highest_id).map_err(Failure::Clean)?;
    let wait = Duration::from_millis(this.config.number(Key::LimitDevice).into());
    #[cfg(feature = "fault")]
    let (again, ready) =
        (super::again::begin(this.line, &image, &root).map_err(Failure::Clean)?, notes.ready);
    let mut between = Between { conductor: this, inputs, notes, wait, useless };
    restore::system(&image, &mut source, &root, Instant::now() + wait, &mut between, times)?;
    #[cfg(feature = "fault")]
    if let Some(before) = again {
        let (header, store) = (&this.image.header, &mut this.store.borrow_mut());
        note(super::again::capture(&before, ready, this.config, header, store));
    }
    Ok(())
}

/// Every byte of the image, if that is wanted: an error then comes before anything was changed.
fn check_bytes(source: &mut dyn Source, config: &Config) -> Result<()> {
    if config.is_yes(Key::Verify) {
        image::verify::verify(source)?;
    }
    Ok(())
}

fn sections(source: &mut dyn Source) -> Result<(Image, Inputs, Notes)> {
    let image = Image::read(source)?;
    let mut reader = Reader::open(source, image::KINDS)?;
    Ok((image, reader.section(image::INPUTS)?, reader.section(image::BOOT)?))
}

/// What the boot does between the stages.
struct Between<'a> {
    conductor: &'a Conductor<'a>,
    inputs: Inputs,
    notes: Notes,
    wait: Duration,
    /// Set when the image is out of date.
    useless: &'a mut bool,
}

impl restore::Boot for Between<'_> {
    fn check(&mut self, _: &Image) -> Result<()> {
        inputs::check(&self.inputs, self.wait).map_err(|changed| {
            *self.useless = true;
            Error::new("input", "comparing with the capture", changed.to_string())
        })
    }

    fn arm(&mut self) -> Result<()> {
        self.conductor.store.borrow_mut().arm(self.conductor.image).map(drop)
    }

    fn before_release(&mut self, image: &Image, kept: u64, times: &Times) -> Result<()> {
        let this = self.conductor;
        let reason = format!("slot {}", this.image.slot);
        let status = Status {
            boot: Answer::Restored,
            reason: &reason,
            times,
            capture: "",
            figures: &[
                ("image_bytes", this.image.header.total),
                ("processes", image.meta.processes.into()),
                ("threads", image.meta.threads.into()),
                ("conductor_peak_bytes", peak()),
                ("conductor_kept_bytes", kept),
            ],
            obstacles: &[],
        };
        // Neither is worth a reboot: an attempt that is not noted here is not confirmed, and that is safe.
        note(status.write().and_then(|()| status::note_words(this.line.words())));
        note(status::note_attempt(&this.image.header.generation));
        #[cfg(feature = "fault")]
        if super::again::is_wanted(this.line) {
            return Ok(());
        }
        // Pending, since `ready` has it blocked; it is the first thing that `ready` sees.
        ready::answer(self.notes.ready, Answer::Restored);
        Ok(())
    }
}

/// The most memory that this process ever had (VmHWM of proc_pid_status(5)), the program's own pages among it.
fn peak() -> u64 {
    let text = fs::text("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim_ascii().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The bytes of a slot, while the store can still be written: the attempt is noted between two reads.
struct Shelf<'a> {
    store: &'a RefCell<Store>,
    slot: usize,
}

impl Source for Shelf<'_> {
    fn length(&self) -> u64 {
        self.store.borrow().source(self.slot).map_or(0, |source| source.length())
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.store.borrow().source(self.slot)?.read_at(offset, buffer)
    }
}
