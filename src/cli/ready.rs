//! `rcsnap ready`: the last line of the rc scripts, and the point where the picture is taken.

use argh::FromArgs;

use super::{DONE, Outcome, print};
use crate::boot::ready::{Answer, ask};
use crate::log;

/// Say that the rc scripts are done. Prints "cold" on the boot that is captured and "restored" on every boot
/// from the image; the exit status is 0 both times.
#[derive(FromArgs)]
#[argh(subcommand, name = "ready")]
pub struct Args {}

/// Waits for the capture, or comes back from it.
///
/// # Errors
/// None: a boot without a watcher is a cold boot.
pub fn run(_: &Args) -> Outcome {
    let answer = ask().unwrap_or_else(|error| {
        log!(Notice, "{error}");
        Answer::Cold
    });
    print(answer.word());
    Ok(DONE)
}
