//! `rcsnap check`: what would stand in the way of a capture.

use super::args::{Args, Form, Takes, Verb};
use super::source::{ALLOW, config_with};
use super::{DONE, OBSTACLES, Outcome, print};
use crate::boot::status;
use crate::task::clock;
use crate::{capture, json};

/// `rcsnap check`.
pub const VERB: Verb = Verb {
    name: "check",
    about: "List everything that cannot be captured. Tasks stand still for a moment. What the scripts did to the kernel \
        only the watcher knows: see `rcsnap status`.",
    takes: &[
        Takes { name: "json", form: Form::Switch, about: "print JSON" },
        Takes { name: "tree", form: Form::Number, about: "look at one process tree instead" },
        ALLOW,
    ],
    run,
};

/// Looks.
///
/// # Errors
/// This is not a system that rcsnap booted.
fn run(args: &Args) -> Outcome {
    let obstacles = capture::check(&config_with(&args.lines), args.number)?;
    if args.has("json") {
        print(&json::array(obstacles.iter().map(status::obstacle)));
    } else {
        obstacles.iter().for_each(|obstacle| print(&obstacle.to_string()));
        if !clock::can_go_on() {
            print(&format!("note: {}", clock::BEGIN_ANEW));
        }
    }
    Ok(if obstacles.is_empty() { DONE } else { OBSTACLES })
}
