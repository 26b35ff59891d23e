//! Lab builds only: with `rcsnap.again` on the command line, a restored system is captured once more before
//! `rcsnap ready` gets its answer, and the new image is published in the other slot.
//!
//! The lab compares the two images: what a restore does not bring back shows there, whatever kind it is of. The
//! kernel before the scripts is looked at as the watcher does it on a cold boot, before the first change.

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::cmdline::Cmdline;
use super::ready::{self, Answer};
use super::take::{picture, seal};
use super::{diag, namespace};
use crate::capture::Outcome;
use crate::config::Config;
use crate::error::{Context, Error, Result};
use crate::image::header::Header;
use crate::inputs::Inputs;
use crate::kernel::{self, Baseline, Root};
use crate::log;
use crate::restore::Image;
use crate::store::Store;
use crate::sys::process::{Fork, fork, leave};
use crate::sys::signal;

/// The word of the command line.
const WORD: &str = "rcsnap.again";

/// Whether this boot is to be captured again: then the answer to `ready` comes from here.
#[must_use]
pub fn is_wanted(line: &Cmdline) -> bool {
    line.get(WORD).is_some()
}

/// Looks at the kernel before the restore changes it. What rcsnap itself has mounted is none of the system's.
///
/// # Errors
/// An error of reading.
pub fn begin(line: &Cmdline, image: &Image, root: &Root) -> Result<Option<Baseline>> {
    if !is_wanted(line) {
        return Ok(None);
    }
    diag::load();
    let mut before = kernel::baseline(root)?;
    if let Some((state, _)) = &image.kernel {
        before.without_own(state)?;
    }
    Ok(Some(before))
}

/// Captures what the conductor has just let go, and ends the wait of `ready`. A child of the conductor does it, which
/// has the clocks of the system: the conductor makes them but does not have them. Neither is in the image.
///
/// # Errors
/// There is no such child.
pub fn capture(
    before: &Baseline,
    ready: u32,
    config: &Config,
    header: &Header,
    store: &mut Store,
) -> Result<()> {
    signal::alarm(0);
    let conductor = std::process::id();
    match fork().context("again", format_args!("making a process"))? {
        Fork::Child => {
            let taken = look(before, config, conductor);
            ready::answer(ready, Answer::Restored);
            if let Err(error) = taken.and_then(|taken| write(taken, ready, header, store)) {
                log!(Warning, "again: {error}");
            }
            leave(0)
        }
        Fork::Parent(child) => {
            let child = Pid::from_raw(child.cast_signed());
            waitpid(child, None).context("again", format_args!("waiting for it")).map(drop)
        }
    }
}

/// What came of a look.
type Taken = (Outcome, Result<Inputs>);

fn look(before: &Baseline, config: &Config, conductor: u32) -> Result<Taken> {
    namespace::enter_system()?;
    picture(config, Some((before, &Root::watcher()?)), Some(conductor), &mut || Ok(()))
}

fn write(taken: Taken, ready: u32, header: &Header, store: &mut Store) -> Result<()> {
    let (picture, inputs) = match taken {
        (Outcome::Obstacles(obstacles), _) => {
            for obstacle in &obstacles {
                log!(Warning, "{obstacle}");
            }
            return Err(Error::new("again", "capturing", "obstacles"));
        }
        (Outcome::Picture(picture), inputs) => (picture, inputs?),
    };
    let (slot, sealed) = seal(store, &picture, &inputs, header.key, ready)?;
    let published = sealed.publish([0; 8])?;
    log!(Notice, "again: published: slot {slot}, {} KiB", published.total.div_ceil(1024));
    Ok(())
}
