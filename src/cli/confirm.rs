//! `rcsnap confirm`: this restored boot is a good one.

use super::args::{Args, Verb};
use super::{DONE, Outcome, print};
use crate::boot::status;

/// `rcsnap confirm`.
pub const VERB: Verb = Verb {
    name: "confirm",
    about: "Confirm the restore that this boot came from, with \"confirm = manual\". One that nobody confirms makes the \
        next boot cold, and a second in a row burns the image.",
    takes: &[],
    run,
};

/// Confirms.
///
/// # Errors
/// The store's.
fn run(_: &Args) -> Outcome {
    if status::confirm(&super::source::config())? {
        print("confirmed");
    } else {
        print("nothing to confirm: this boot was not restored, or it is confirmed already");
    }
    Ok(DONE)
}
