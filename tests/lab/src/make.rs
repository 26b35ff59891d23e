//! `cargo lab build`, `check` and `cargo`: the toolchain of a board, by hand.

use std::path::PathBuf;

use anyhow::{Context, Result};
use argh::FromArgs;

use crate::board;
use crate::report::Report;
use crate::toolchain::{self, Wish};

/// Build the static target binary.
#[derive(FromArgs)]
#[argh(subcommand, name = "build")]
pub struct Build {
    /// board, qemu-x86_64 by default
    #[argh(option, default = "String::from(board::DEFAULT)")]
    board: String,
    /// cargo features of rcsnap, for example `fault`
    #[argh(option, default = "String::new()")]
    features: String,
    /// use the musl target of rustup and its std as it is: larger, nothing to download
    #[argh(switch)]
    plain: bool,
    /// keep panic messages, for debugging: larger
    #[argh(switch)]
    messages: bool,
    /// write the figures to this file; without a file, to standard output
    #[argh(option)]
    json: Option<PathBuf>,
}

/// Type-check rcsnap for a board, without building it.
#[derive(FromArgs)]
#[argh(subcommand, name = "check")]
pub struct Check {
    /// board, qemu-x86_64 by default
    #[argh(option, default = "String::from(board::DEFAULT)")]
    board: String,
    /// cargo features of rcsnap
    #[argh(option, default = "String::new()")]
    features: String,
}

/// Run any cargo command for a board, as in `cargo lab cargo --board qemu-armv7 -- build --package rcsnap-zoo`.
#[derive(FromArgs)]
#[argh(subcommand, name = "cargo")]
pub struct Cargo {
    /// board, qemu-x86_64 by default
    #[argh(option, default = "String::from(board::DEFAULT)")]
    board: String,
    /// keep panic messages
    #[argh(switch)]
    messages: bool,
    /// words for cargo, behind `--`
    #[argh(positional, greedy)]
    words: Vec<String>,
}

/// Builds and says where and how large.
pub fn build(args: &Build) -> Result<bool> {
    let wish = Wish {
        features: args.features.clone(),
        plain: args.plain,
        messages: args.messages,
        ..Wish::new(board::load(&args.board)?.target()?)
    };
    let binary = toolchain::build_as(&wish)?;
    println!("{} ({} bytes)", binary.path.display(), binary.bytes);
    let mut report = Report::new("build");
    report.put("board", args.board.clone());
    report.put("target", wish.target.triple);
    report.put("path", binary.path.display().to_string());
    report.put("binary_bytes", binary.bytes);
    report.put("recipe", binary.recipe);
    report.write(args.json.as_deref())?;
    Ok(true)
}

/// True when it compiles.
pub fn check(args: &Check) -> Result<bool> {
    let (mut cargo, _) = Wish::new(board::load(&args.board)?.target()?).cargo()?;
    cargo.args(["check", "--package", "rcsnap", "--features", &args.features]);
    Ok(cargo.status().context("running cargo")?.success())
}

/// What cargo itself says.
pub fn cargo(args: &Cargo) -> Result<bool> {
    let target = board::load(&args.board)?.target()?;
    let (mut cargo, _) = Wish { messages: args.messages, ..Wish::new(target) }.cargo()?;
    cargo.args(args.words.iter().skip_while(|word| *word == "--"));
    Ok(cargo.current_dir(".").status().context("running cargo")?.success())
}
