//! `rcsnap discard`: no image any more.

use super::args::{Args, Form, Takes, Verb};
use super::source::store;
use super::{DONE, Outcome};
use crate::store::device::Access;

/// `rcsnap discard`.
pub const VERB: Verb = Verb {
    name: "discard",
    about: "Forget all images. The next boot is cold and captures anew.",
    takes: &[Takes {
        name: "erase",
        form: Form::Switch,
        about: "overwrite their bytes too: they hold secrets. Flash that levels its wear may keep old copies",
    }],
    run,
};

/// Discards.
///
/// # Errors
/// The store's.
fn run(args: &Args) -> Outcome {
    store(Access::Write)?.discard(args.has("erase"))?;
    Ok(DONE)
}
