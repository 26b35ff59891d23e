//! `rcsnap restore`: a process tree from a file.

use std::os::fd::AsFd;
use std::path::Path;

use argh::FromArgs;

use super::{DONE, FAILED, Outcome};
use crate::error::Context;
use crate::restore;

/// Restore a process tree from a file. Its process ids must be free. Returns when the tree runs.
#[derive(FromArgs)]
#[argh(subcommand, name = "restore")]
pub struct Args {
    /// wait for the root of the tree and end with its status (128 and the number after a signal)
    #[argh(switch)]
    wait: bool,
    /// the image to read
    #[argh(positional)]
    file: String,
}

/// Restores.
///
/// # Errors
/// The restore's; nothing runs then.
pub fn run(args: &Args) -> Outcome {
    let doing = format_args!("copying stdin, stdout and stderr");
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let own = [input.as_fd(), output.as_fd(), error.as_fd()];
    let own = own.iter().map(|fd| fd.try_clone_to_owned()).collect::<Result<Vec<_>, _>>();
    let status = restore::tree(Path::new(&args.file), args.wait, own.context("restore", doing)?)?;
    let status = status.map_or(i32::from(DONE), |status| match status & 0x7f {
        0 => status >> 8 & 0xff,
        signal => 128 + signal,
    });
    Ok(u8::try_from(status).unwrap_or(FAILED))
}
