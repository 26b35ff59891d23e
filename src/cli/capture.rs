//! `rcsnap capture`: one process tree into a file.

use std::path::Path;

use super::args::{Args, Form, Takes, Verb};
use super::source::{ALLOW, config_with};
use super::{DONE, OBSTACLES, Outcome, USAGE, print};
use crate::capture;
use crate::sys::descriptor;

/// `rcsnap capture`.
pub const VERB: Verb = Verb {
    name: "capture",
    about: "Capture a process tree into a file. What it shares with the outside is an obstacle, except stdin, stdout \
        and stderr of this command: the restore gives its own.",
    takes: &[
        Takes { name: "tree", form: Form::NeededNumber, about: "the root of the tree" },
        Takes { name: "kill", form: Form::Switch, about: "end the tree after the capture" },
        ALLOW,
        Takes { name: "file", form: Form::NeededFile, about: "the image to write" },
    ],
    run,
};

/// Captures.
///
/// # Errors
/// The capture's.
fn run(args: &Args) -> Outcome {
    let own = descriptor::standard();
    let (Some(tree), Some(file)) = (args.number, &args.file) else { return Ok(USAGE) };
    let obstacles = capture::tree(&config_with(&args.lines), tree, Path::new(file), args.has("kill"), &own)?;
    for obstacle in &obstacles {
        print(&obstacle.to_string());
    }
    Ok(if obstacles.is_empty() { DONE } else { OBSTACLES })
}
