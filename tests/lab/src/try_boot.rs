//! `cargo lab boot`: boots the guest once and hands over what was heard.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use argh::FromArgs;

use crate::guest::{BOOT_LIMIT, Boot, Guest};
use crate::initramfs::Entry;
use crate::report::Report;
use crate::timeline::Timeline;
use crate::{board, toolchain};

/// Boot the guest once, log in, run commands, and say what happened. The disks stay: the next boot
/// goes on from them.
#[derive(FromArgs)]
#[argh(subcommand, name = "boot")]
pub struct Args {
    /// board, qemu-x86_64 by default
    #[argh(option, default = "String::from(board::DEFAULT)")]
    board: String,
    /// initramfs (rcsnap is /init; the default) or init (init= behind the lab's initramfs)
    #[argh(option, default = "Entry::Initramfs")]
    entry: Entry,
    /// with `--entry init`: which program, /sbin/rcsnap by default
    #[argh(option)]
    init: Option<String>,
    /// words for the kernel command line
    #[argh(option, default = "String::new()")]
    words: String,
    /// cargo features of the binary
    #[argh(option, default = "String::new()")]
    features: String,
    /// keep panic messages in the binary
    #[argh(switch)]
    messages: bool,
    /// a binary that is built already, instead of building one
    #[argh(option)]
    binary: Option<PathBuf>,
    /// begin with fresh disks
    #[argh(switch)]
    fresh: bool,
    /// a shell command to run in the guest after the boot; may be given several times
    #[argh(option)]
    run: Vec<String>,
    /// end after this many seconds, even if nothing came up
    #[argh(option, default = "BOOT_LIMIT.as_secs()")]
    limit: u64,
    /// write the figures to this file; without a file, to standard output
    #[argh(option)]
    json: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<bool> {
    let wish = toolchain::Wish {
        features: args.features.clone(),
        messages: args.messages,
        ..toolchain::Wish::new(board::load(&args.board)?.target()?)
    };
    let binary = match &args.binary {
        Some(path) => toolchain::Binary::given(path)?,
        None => toolchain::build_as(&wish)?,
    };
    let folder = toolchain::own_folder()?.join("boot");
    std::fs::create_dir_all(&folder)?;
    let guest = Guest::prepare(&args.board, binary, &folder)?;
    let disks = if args.fresh || !folder.join("disks/root.img").exists() {
        guest.disks("disks")?
    } else {
        guest.old_disks("disks")?
    };
    let mut boot = Boot::new("boot").words(&args.words).entry(args.entry);
    if let Some(init) = &args.init {
        boot.init = init.clone();
    }
    let mut running = guest.boot(&disks, &boot)?;
    let limit = Duration::from_secs(args.limit);
    let up = running.follow(&[" login: "], limit);
    let mut report = Report::new("boot");
    let mut good = up.is_ok();
    if good {
        good = talk(&mut running, &args.run, &mut report)?;
    }
    let lines = running.qemu.console.lines(0);
    match Timeline::read(&lines) {
        Some(timeline) => println!("{}", timeline.show()),
        None => println!("rcsnap did not say it started"),
    }
    println!("console: {}", log(&folder).display());
    report.write(args.json.as_deref())?;
    up.map(|_| good)
}

fn talk(running: &mut crate::guest::Running, commands: &[String], report: &mut Report) -> Result<bool> {
    let mut good = true;
    for (name, answer) in running.daemons() {
        report.put(name, answer.is_ok());
        match answer {
            Ok(()) => println!("{name}: answers"),
            Err(error) => {
                good = false;
                println!("{name}: {error:#}");
            }
        }
    }
    println!("{}", serde_json::to_string(&running.app()?)?);
    if !commands.is_empty() {
        running.login()?;
    }
    for command in commands {
        let done = running.command(command)?;
        println!("$ {command}\n{}[{}]", done.output, done.status);
        good &= done.status == 0;
    }
    Ok(good)
}

fn log(folder: &Path) -> PathBuf {
    folder.join("boot.console")
}
