//! `rcsnap restore`: a process tree from a file.

use std::path::Path;

use super::args::{Args, Form, Takes, Verb};
use super::{DONE, FAILED, Outcome};
use crate::error::Context;
use crate::restore;
use crate::sorted::Listed;
use crate::sys::descriptor;

/// `rcsnap restore`.
pub const VERB: Verb = Verb {
    name: "restore",
    about: "Restore a process tree from a file. Its process ids must be free. Returns when the tree runs.",
    takes: &[
        Takes {
            name: "wait",
            form: Form::Switch,
            about: "wait for the root of the tree and end with its status (128 and the number after a signal)",
        },
        Takes { name: "file", form: Form::NeededFile, about: "the image to read" },
    ],
    run,
};

/// Restores.
///
/// # Errors
/// The restore's; nothing runs then.
fn run(args: &Args) -> Outcome {
    let doing = format_args!("copying stdin, stdout and stderr");
    let own = descriptor::standard().iter().map(|fd| descriptor::copy(*fd, 3)).whole();
    let status = restore::tree(
        Path::new(args.file.as_deref().unwrap_or_default()),
        args.has("wait"),
        own.context("restore", doing)?,
    )?;
    let status = status.map_or(i32::from(DONE), |status| match status & 0x7f {
        0 => status >> 8 & 0xff,
        signal => 128 + signal,
    });
    Ok(u8::try_from(status).unwrap_or(FAILED))
}
