//! `rcsnap key`: what the key of this boot is made of.

use argh::FromArgs;

use super::source::config;
use super::{DONE, Outcome, print};
use crate::boot::cmdline::Cmdline;
use crate::key::Key;

/// Print each part of the key with the beginning of its hash, and the key. Comparing this before and after a
/// change shows why an image is not used any more.
#[derive(FromArgs)]
#[argh(subcommand, name = "key")]
pub struct Args {}

/// Prints.
///
/// # Errors
/// None: what cannot be read is part of the key as such.
pub fn run(_: &Args) -> Outcome {
    print(Key::take(&config(), Cmdline::kernel().words()).describe().trim_end());
    Ok(DONE)
}
