//! `rcsnap config`: the effective configuration.

use super::args::{Args, Verb};
use super::source::config;
use super::{DONE, Outcome, print};

/// `rcsnap config`.
pub const VERB: Verb = Verb {
    name: "config",
    about: "Print every setting with its value and where that came from.",
    takes: &[],
    run,
};

/// Prints.
///
/// # Errors
/// None: a setting that is not understood is a warning.
fn run(_: &Args) -> Outcome {
    print(config().describe().trim_ascii_end());
    Ok(DONE)
}
