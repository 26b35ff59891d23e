//! `rcsnap capture`: one process tree into a file.

use std::path::Path;

use argh::FromArgs;

use super::{DONE, OBSTACLES, Outcome, print};
use crate::capture;
use crate::sys::descriptor;

/// Capture a process tree into a file. What the tree shares with the outside is an obstacle, except
/// descriptions that are the same as stdin, stdout and stderr of this command: the restore gives its own.
#[derive(FromArgs)]
#[argh(subcommand, name = "capture")]
pub struct Args {
    /// the root of the tree
    #[argh(option)]
    tree: u32,
    /// end the tree after the capture
    #[argh(switch)]
    kill: bool,
    /// the image to write
    #[argh(positional)]
    file: String,
}

/// Captures.
///
/// # Errors
/// The capture's.
pub fn run(args: &Args) -> Outcome {
    let own = descriptor::standard();
    let obstacles = capture::tree(args.tree, Path::new(&args.file), args.kill, &own)?;
    for obstacle in &obstacles {
        print(&obstacle.to_string());
    }
    Ok(if obstacles.is_empty() { DONE } else { OBSTACLES })
}
