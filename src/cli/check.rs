//! `rcsnap check`: what would stand in the way of a capture.

use argh::FromArgs;

use super::source::config;
use super::{DONE, OBSTACLES, Outcome, print};
use crate::boot::status;
use crate::task::clock;
use crate::{capture, json};

/// List everything in the running system that cannot be captured, without capturing. Tasks stand still for
/// a moment. What the scripts did to the kernel is only known to the watcher: for that, see `rcsnap status`.
#[derive(FromArgs)]
#[argh(subcommand, name = "check")]
pub struct Args {
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// look at one process tree instead
    #[argh(option)]
    tree: Option<u32>,
}

/// Looks.
///
/// # Errors
/// This is not a system that rcsnap booted.
pub fn run(args: &Args) -> Outcome {
    let obstacles = capture::check(&config(), args.tree)?;
    if args.json {
        print(&json::array(obstacles.iter().map(status::obstacle)));
    } else {
        obstacles.iter().for_each(|obstacle| print(&obstacle.to_string()));
        if !clock::can_go_on() {
            print(&format!("note: {}", clock::BEGIN_ANEW));
        }
    }
    Ok(if obstacles.is_empty() { DONE } else { OBSTACLES })
}
