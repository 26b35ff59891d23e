//! `rcsnap discard`: no image any more.

use argh::FromArgs;

use super::source::store;
use super::{DONE, Outcome};
use crate::store::device::Access;

/// Forget all images. The next boot is cold and captures anew.
#[derive(FromArgs)]
#[argh(subcommand, name = "discard")]
pub struct Args {
    /// overwrite their bytes too: an image holds every secret that was in memory. Flash that levels its wear
    /// may keep old copies all the same
    #[argh(switch)]
    erase: bool,
}

/// Discards.
///
/// # Errors
/// The store's.
pub fn run(args: &Args) -> Outcome {
    store(Access::Write)?.discard(args.erase)?;
    Ok(DONE)
}
