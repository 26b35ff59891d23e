//! The commands, one file each.
//!
//! Exit statuses: 0 done; 1 an error; 2 a mistake in the arguments; 3 obstacles stand in the way of a capture
//! (`check`, `capture`); 4 there is no image (`inspect`). `restore --wait` ends with the status of the tree.

pub mod abi;
pub mod capture;
pub mod check;
pub mod config;
pub mod confirm;
pub mod discard;
pub mod inspect;
pub mod key;
pub mod ready;
pub mod restore;
pub mod source;
pub mod status;

use argh::FromArgs;

use crate::error::Result;
use crate::log;
use crate::sys::{descriptor, fs};

/// Everything went well.
pub const DONE: u8 = 0;
/// An error, told on stderr.
pub const FAILED: u8 = 1;
/// The arguments make no sense.
pub const USAGE: u8 = 2;
/// Something cannot be captured faithfully.
pub const OBSTACLES: u8 = 3;
/// There is no image.
pub const NO_IMAGE: u8 = 4;

/// Boots an embedded Linux board from a picture of itself.
#[derive(FromArgs)]
#[argh(
    note = "As PID 1 it boots the board; see docs/.",
    error_code(1, "An error, told on stderr."),
    error_code(2, "A mistake in the arguments."),
    error_code(3, "Obstacles stand in the way of a capture (check, capture)."),
    error_code(4, "There is no image (inspect).")
)]
struct Args {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Abi(abi::Args),
    Capture(capture::Args),
    Check(check::Args),
    Config(config::Args),
    Confirm(confirm::Args),
    Discard(discard::Args),
    Inspect(inspect::Args),
    Key(key::Args),
    Ready(ready::Args),
    Restore(restore::Args),
    Status(status::Args),
}

/// The verbs, for telling a command from a boot.
const VERBS: [&str; 11] = [
    "abi", "capture", "check", "config", "confirm", "discard", "inspect", "key", "ready", "restore", "status",
];

/// Whether a first argument is a command of rcsnap.
#[must_use]
pub fn is_command(word: &str) -> bool {
    VERBS.contains(&word) || matches!(word, "help" | "--help")
}

/// Runs the command in the arguments and gives its exit status.
#[must_use]
pub fn run(words: &[String]) -> u8 {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let args = match Args::from_args(&["rcsnap"], words.get(1..).unwrap_or_default()) {
        Ok(args) => args,
        Err(early) if early.status.is_ok() => {
            print(early.output.trim_end());
            return DONE;
        }
        Err(early) => {
            let _ =
                fs::write_all(descriptor::standard()[2], format!("{}\n", early.output.trim_end()).as_bytes());
            return USAGE;
        }
    };
    let done = match args.command {
        Command::Abi(args) => abi::run(&args),
        Command::Capture(args) => capture::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Confirm(args) => confirm::run(&args),
        Command::Discard(args) => discard::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Key(args) => key::run(&args),
        Command::Ready(args) => ready::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Status(args) => status::run(&args),
    };
    done.unwrap_or_else(|error| {
        log!(Error, "{error}");
        FAILED
    })
}

/// One line on stdout. Unlike `println!` it does not panic when nobody reads any more.
pub fn print(text: &str) {
    let _ = fs::write_all(descriptor::standard()[1], format!("{text}\n").as_bytes());
}

/// What a command ends with: its exit status, or an error for stderr.
pub type Outcome = Result<u8>;

#[cfg(test)]
mod tests {
    use super::{Args, VERBS, is_command};
    use argh::FromArgs;

    #[test]
    fn every_verb_has_its_help() {
        for verb in VERBS {
            let help = Args::from_args(&["rcsnap"], &[verb, "--help"]).err().unwrap();
            assert!(help.status.is_ok() && help.output.contains("Usage: rcsnap"), "{verb}: {}", help.output);
        }
        assert!(is_command("ready") && !is_command("single"));
    }

    #[test]
    fn the_list_of_verbs_is_complete() {
        let help = Args::from_args(&["rcsnap"], &["--help"]).err().unwrap().output;
        let commands = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
        for line in commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
            assert!(VERBS.contains(&line.split_whitespace().next().unwrap()), "{line}");
        }
    }
}
