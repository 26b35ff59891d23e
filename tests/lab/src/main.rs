//! `cargo lab`: the host side of rcsnap. It builds the target binary and a guest made of real
//! distribution programs, boots that guest in QEMU, and says in numbers what happened.
//!
//! Everything fetched or built is kept in one cache folder outside the tree (`cache.rs`), so a second
//! run takes seconds, and a clean clone needs nothing but Rust and apt.

mod answer;
mod board;
mod buildroot;
mod cache;
mod case;
mod check;
mod chroot;
mod console;
mod cpio;
mod demo;
mod disk;
mod guest;
mod initramfs;
mod kernel;
mod kernel_check;
mod kernel_source;
mod make;
mod packages;
mod pages;
mod progress;
mod qemu;
mod report;
mod rootfs;
mod run;
mod timeline;
mod toolchain;
mod try_boot;
mod workers;

use std::process::ExitCode;

use anyhow::Result;
use argh::FromArgs;

/// The lab of rcsnap: build it, boot it, break it, measure it.
#[derive(FromArgs)]
struct Args {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Build(make::Build),
    Cargo(make::Cargo),
    Check(make::Check),
    Boot(try_boot::Args),
    Buildroot(buildroot::Args),
    Cell(case::cell::Args),
    DaemonKeeper(case::daemons::keeper::Args),
    Daemons(case::daemons::Args),
    Demo(demo::Args),
    KernelCheck(kernel_check::Args),
    Zoo(case::zoo::Args),
    ZooKeeper(case::zoo::keeper::Args),
    Test(check::Args),
}

fn main() -> ExitCode {
    match arguments() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what the command line asks for; help and mistakes are answered as by `argh::from_env`.
fn arguments() -> Result<bool> {
    let words = report::prepare(std::env::args().skip(1).collect())?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match Args::from_args(&["lab"], &words) {
        Ok(args) => run(args),
        Err(early) if early.status.is_ok() => {
            println!("{}", early.output);
            Ok(true)
        }
        Err(early) => {
            eprintln!("{}\nRun lab --help for more information.", early.output);
            Ok(false)
        }
    }
}

/// True when what was asked for came out well; an error when it could not be tried.
fn run(args: Args) -> Result<bool> {
    match args.command {
        Command::Build(args) => make::build(&args),
        Command::Cargo(args) => make::cargo(&args),
        Command::Check(args) => make::check(&args),
        Command::Boot(args) => try_boot::run(&args),
        Command::Buildroot(args) => buildroot::run(&args),
        Command::Cell(args) => case::cell::run(&args),
        Command::DaemonKeeper(args) => case::daemons::keeper::run(&args),
        Command::Daemons(args) => case::daemons::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::KernelCheck(args) => kernel_check::run(&args),
        Command::Zoo(args) => case::zoo::run(&args),
        Command::ZooKeeper(args) => case::zoo::keeper::run(&args),
        Command::Test(args) => check::run(&args),
    }
}
