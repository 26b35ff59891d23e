//! The commands, one file each.
//!
//! Exit statuses: 0 done; 1 an error; 2 a mistake in the arguments; 3 obstacles stand in the way of a capture
//! (`check`, `capture`); 4 there is no image (`inspect`). `restore --wait` ends with the status of the tree.

use crate::sorted::Listed;
pub mod abi;
pub mod args;
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

use args::{Asked, Verb};

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

/// The commands.
static VERBS: [Verb; 11] = [
    abi::VERB,
    capture::VERB,
    check::VERB,
    config::VERB,
    confirm::VERB,
    discard::VERB,
    inspect::VERB,
    key::VERB,
    ready::VERB,
    restore::VERB,
    status::VERB,
];

/// Whether a first argument is a command of rcsnap.
#[must_use]
pub fn is_command(word: &str) -> bool {
    VERBS.iter().any(|verb| verb.name == word) || matches!(word, "help" | "--help")
}

/// Runs the command in the arguments and gives its exit status.
#[must_use]
pub fn run(words: &[String]) -> u8 {
    let words: Vec<&str> = words.iter().map(String::as_str).list();
    let done = match args::read(words.get(1..).unwrap_or_default(), &VERBS) {
        Asked::Run(verb, args) => (verb.run)(&args),
        Asked::Help(text) => {
            print(text.trim_ascii_end());
            return DONE;
        }
        Asked::Mistake(text) => {
            let _ =
                fs::write_all(descriptor::standard()[2], format!("{}\n", text.trim_ascii_end()).as_bytes());
            return USAGE;
        }
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
    use super::args::{Asked, read};
    use super::{VERBS, is_command};

    #[test]
    fn every_verb_has_its_help() {
        for verb in &VERBS {
            match read(&[verb.name, "--help"], &VERBS) {
                Asked::Help(text) => assert!(text.starts_with(&format!("Usage: rcsnap {}", verb.name))),
                _ => panic!("{}", verb.name),
            }
        }
        assert!(is_command("ready") && !is_command("single"));
    }
}
