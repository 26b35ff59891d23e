//! `cargo lab`: the host side of rcsnap. It builds the target binary and a guest made of real
//! distribution programs, boots that guest in QEMU, and says in numbers what happened.
//!
//! Everything fetched or built is kept in one cache folder outside the tree (`cache.rs`), so a second
//! run takes seconds, and a clean clone needs nothing but Rust and apt.

mod answer;
mod board;
mod cache;
mod case;
mod check;
mod console;
mod cpio;
mod demo;
mod disk;
mod guest;
mod initramfs;
mod kernel;
mod packages;
mod progress;
mod qemu;
mod report;
mod rootfs;
mod run;
mod timeline;
mod toolchain;
mod try_boot;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use argh::FromArgs;
use report::Report;

/// The lab of rcsnap: build it, boot it, break it, measure it.
#[derive(FromArgs)]
struct Args {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Build(Build),
    Boot(try_boot::Args),
    Cell(case::cell::Args),
    Demo(demo::Args),
    Zoo(case::zoo::Args),
    ZooKeeper(case::zoo::keeper::Args),
    Test(check::Args),
}

/// Build the static target binary.
#[derive(FromArgs)]
#[argh(subcommand, name = "build")]
struct Build {
    /// cargo features of rcsnap, for example `fault`
    #[argh(option)]
    features: Option<String>,
    /// use the musl target of rustup and its std as it is: larger, nothing to download
    #[argh(switch)]
    plain: bool,
    /// keep panic messages, for debugging: larger
    #[argh(switch)]
    messages: bool,
    /// write the figures to this file
    #[argh(option)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(argh::from_env()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True when what was asked for came out well; an error when it could not be tried.
fn run(args: Args) -> Result<bool> {
    match args.command {
        Command::Build(args) => build(&args),
        Command::Boot(args) => try_boot::run(&args),
        Command::Cell(args) => case::cell::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Zoo(args) => case::zoo::run(&args),
        Command::ZooKeeper(args) => case::zoo::keeper::run(&args),
        Command::Test(args) => check::run(&args),
    }
}

fn build(args: &Build) -> Result<bool> {
    let wish = toolchain::Wish {
        features: args.features.clone().unwrap_or_default(),
        plain: args.plain,
        messages: args.messages,
    };
    let binary = toolchain::build_as(&wish)?;
    println!("{} ({} bytes)", binary.path.display(), binary.bytes);
    let mut report = Report::new("build");
    report.put("path", binary.path.display().to_string());
    report.put("binary_bytes", binary.bytes);
    report.put("recipe", binary.recipe);
    report.write(args.json.as_deref())?;
    Ok(true)
}
