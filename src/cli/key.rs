//! `rcsnap key`: what the key of this boot is made of.

use super::args::{Args, Verb};
use super::source::config;
use super::{DONE, Outcome, print};
use crate::boot::cmdline::Cmdline;
use crate::key::Key;

/// `rcsnap key`.
pub const VERB: Verb = Verb {
    name: "key",
    about: "Print each part of the key with the beginning of its hash, and the key: why an image is not used any more.",
    takes: &[],
    run,
};

/// Prints.
///
/// # Errors
/// None: what cannot be read is part of the key as such.
fn run(_: &Args) -> Outcome {
    print(Key::take(&config(), Cmdline::kernel().words()).describe().trim_ascii_end());
    Ok(DONE)
}
