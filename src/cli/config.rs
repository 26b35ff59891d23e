//! `rcsnap config`: the effective configuration.

use argh::FromArgs;

use super::source::config;
use super::{DONE, Outcome, print};

/// Print every setting with its effective value and where that came from: a line of /etc/rcsnap.conf, the
/// kernel command line, or the default.
#[derive(FromArgs)]
#[argh(subcommand, name = "config")]
pub struct Args {}

/// Prints.
///
/// # Errors
/// None: a setting that is not understood is a warning.
pub fn run(_: &Args) -> Outcome {
    print(config().describe().trim_end());
    Ok(DONE)
}
