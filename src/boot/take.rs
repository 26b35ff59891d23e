//! The watcher's work: it looks at the kernel before the scripts, and takes the picture after them.

use std::path::Path;
use std::time::Duration;

use super::attempt::Notes;
use super::ready::{self, Answer};
use super::status::{self, Status};
use super::{namespace, rerun, watcher};
use crate::capture::{self, Outcome, Picture, Request};
use crate::config::{Config, Key as Setting};
use crate::error::{Context, Error, Obstacle, Result};
use crate::file::Scope;
use crate::image::{self, header::Header};
use crate::inputs::{self, Inputs};
use crate::kernel::{self, Baseline, Root};
use crate::key::Key;
use crate::log;
use crate::stage::{Stage, Times};
use crate::store::device::Access;
use crate::store::{Sealed, Store, spec};

/// What the watcher knows from PID 1, and what it finds out.
pub struct Take {
    /// The configuration of this boot.
    pub config: Config,
    /// The words of the command line.
    pub words: Vec<String>,
    /// The key before the scripts.
    pub key: Key,
    /// Why this boot is cold.
    pub reason: String,
    /// When the stages began.
    pub times: Times,
    /// The kernel before the scripts.
    pub before: Option<(Baseline, Root)>,
}

/// What became of it.
enum Taken {
    /// An image, in this slot.
    Published(usize, Header, Box<Picture>),
    /// There is none, because of these.
    Refused(Vec<Obstacle>),
}

impl watcher::Work for Take {
    fn baseline(&mut self) -> Result<()> {
        self.times.enter(Stage::Baseline)?;
        let root = Root::watcher()?;
        self.before = Some((kernel::baseline(&root)?, root));
        self.times.enter(Stage::Ready)
    }

    fn capture(&mut self, ready: u32) {
        self.tell("under way", &[], &[]);
        let mut answered = false;
        let taken = self.take(ready, &mut answered);
        if !answered {
            ready::answer(ready, Answer::Cold);
        }
        match taken {
            Ok(Taken::Published(slot, header, picture)) => {
                log!(Notice, "published: slot {slot}, {} KiB", header.total.div_ceil(1024));
                let figures = [
                    ("slot", slot as u64),
                    ("image_bytes", header.total),
                    ("stopped_ms", picture.meta.stopped_ms.into()),
                    ("processes", picture.meta.processes.into()),
                    ("threads", picture.meta.threads.into()),
                ];
                self.tell(&format!("published in slot {slot}"), &figures, &[]);
            }
            Ok(Taken::Refused(obstacles)) => {
                for obstacle in &obstacles {
                    log!(Warning, "{obstacle}");
                }
                log!(Warning, "not captured: {} obstacles", obstacles.len());
                self.tell("refused", &[], &obstacles);
            }
            Err(error) => self.failed(&error),
        }
    }

    fn give_up(&mut self, why: &Error) {
        // The watcher rests in a namespace without /run.
        if namespace::enter_system().is_err() {
            return;
        }
        self.tell(&format!("given up: {why}"), &[], &[]);
    }
}

impl Take {
    fn failed(&self, error: &Error) {
        log!(Warning, "not captured: {error}");
        self.tell(&format!("failed: {error}"), &[], &[]);
    }

    /// Writes /run/rcsnap. In the system's own namespace, as long as that is where we are.
    fn tell(&self, capture: &str, figures: &[(&str, u64)], obstacles: &[Obstacle]) {
        let status = Status {
            boot: Answer::Cold,
            reason: &self.reason,
            times: &self.times,
            capture,
            figures,
            obstacles,
        };
        if let Err(error) = status.write().and_then(|()| status::note_words(&self.words)) {
            log!(Info, "{error}");
        }
    }

    /// The capture from its hooks to the store.
    fn take(&mut self, ready: u32, answered: &mut bool) -> Result<Taken> {
        let limit = Duration::from_millis(self.config.number(Setting::LimitHook).into());
        let hooks = Path::new(self.config.text(Setting::Hooks)).join("before-capture.d");
        let failed = rerun::hooks(&hooks, "cold", limit);
        if failed > 0 {
            return Err(Error::new("hook", "before the capture", format!("{failed} failed")));
        }
        let key = Key::take(&self.config, &self.words);
        if let Some(change) = key.change(&self.key) {
            return Err(Error::new(
                "key",
                "comparing with the start of the boot",
                format!("{change} changed"),
            ));
        }
        if let Some(script) = rerun::missing(&self.config.reruns()) {
            return Err(Error::new(
                "rerun",
                format!("looking for {}", script.to_string_lossy()),
                "it is not there",
            ));
        }
        let mut store = spec::open(&self.config, Access::Write)?;
        store.count_boot();
        store.count_capture(&key.hash)?;
        self.times.enter(Stage::Freeze)?;
        let before = self.before.as_ref().map(|(baseline, root)| (baseline, root));
        let times = &mut self.times;
        let (picture, inputs) =
            match picture(&self.config, before, None, &mut || times.enter(Stage::Capture))? {
                (Outcome::Obstacles(obstacles), _) => return Ok(Taken::Refused(obstacles)),
                (Outcome::Picture(picture), inputs) => (picture, inputs?),
            };
        // It answers for the boot, and has the services started that are run anew.
        if !picture.tree.processes.iter().any(|process| process.ids.pid == ready && process.body.is_some()) {
            return Err(Error::new("ready", "capturing", "the process that says so has ended"));
        }
        let meta = &picture.meta;
        let (processes, threads, stopped) = (meta.processes, meta.threads, meta.stopped_ms);
        log!(Notice, "captured: {processes} processes, {threads} threads, stopped for {stopped} ms");
        // The system goes on while the image is written.
        ready::answer(ready, Answer::Cold);
        *answered = true;
        self.times.enter(Stage::Seal)?;
        let (slot, sealed) = seal(&mut store, &picture, &inputs, key.hash, ready)?;
        // What the captured processes have written must be there when they go on after a power cut.
        nix::unistd::sync();
        self.times.enter(Stage::Publish)?;
        Ok(Taken::Published(slot, sealed.publish(key.hints)?, picture))
    }
}

/// Writes the image with what the boot adds to it into the slot that is next, down to the medium. `ready` is the process
/// that waits for the answer.
///
/// # Errors
/// The store's.
pub fn seal<'a>(
    store: &'a mut Store,
    picture: &Picture,
    inputs: &Inputs,
    key: [u8; 32],
    ready: u32,
) -> Result<(usize, Sealed<'a>)> {
    let slot = store.history().choose(&key);
    let mut writer = store.slot_writer(slot)?;
    picture.write(&mut writer, key, &mut |to| {
        to.section(image::INPUTS, inputs)?;
        to.section(image::BOOT, &Notes { ready })
    })?;
    Ok((slot, writer.seal()?))
}

/// Stops everything but us and `outside`, reads it, and lets it go, which is when `captured` is called; then the
/// identity of the inputs.
///
/// # Errors
/// Something that must work does not; everything runs on.
pub fn picture(
    config: &Config,
    before: Option<(&Baseline, &Root)>,
    outside: Option<u32>,
    captured: &mut dyn FnMut() -> Result<()>,
) -> Result<(Outcome, Result<Inputs>)> {
    // One limit for both: tasks on their way to a stop stand still already.
    let limit = Duration::from_millis(config.number(Setting::LimitStop).into());
    let mut leave_out = rerun::processes(&config.reruns());
    leave_out.extend(outside);
    let request = Request {
        scope: Scope::System,
        root: 1,
        except: std::process::id(),
        patience: limit,
        limit,
        pages: true,
        prefix: "/proc/1/root",
        externals: &[],
        config,
        baseline: before,
        leave_out: &leave_out,
    };
    let since = inputs::now().context("input", format_args!("reading the wall clock"))?;
    let outcome = capture::capture(&request, false)?;
    captured()?;
    let open = match &outcome {
        Outcome::Picture(picture) => picture.inputs.as_slice(),
        Outcome::Obstacles(_) => &[],
    };
    let inputs = inputs::take(config, open, before.map(|(before, _)| before.mounts()), since);
    Ok((outcome, inputs))
}
