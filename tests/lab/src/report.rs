//! The figures of one lab command, as one JSON object: `--json FILE`, or `--json` alone for standard output.
//! Then nothing else is written there: what is meant for a person goes to standard error.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// The option that every command with figures has.
const OPTION: &str = "--json";
/// Its value that stands for standard output.
const HERE: &str = "-";

/// Standard output as it was when the lab began, where figures go there.
static OUT: OnceLock<File> = OnceLock::new();

/// The words of the command line, with the value that a lone `--json` means. Called before anything is written.
pub fn prepare(words: Vec<String>) -> Result<Vec<String>> {
    let words = complete(words);
    if words.windows(2).any(|pair| pair == [OPTION, HERE]) {
        let out = nix::unistd::dup(std::io::stdout()).context("keeping standard output")?;
        nix::unistd::dup2_stdout(std::io::stderr()).context("turning output to standard error")?;
        OUT.get_or_init(|| out.into());
    }
    Ok(words)
}

/// Adds the value to each `--json` that has none: it is the last word, or another option follows. Words behind
/// `--` are not the lab's own.
fn complete(words: Vec<String>) -> Vec<String> {
    let mut done = Vec::with_capacity(words.len() + 1);
    let mut own = true;
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        own &= word != "--";
        let alone = word == OPTION && words.peek().is_none_or(|next| next.len() > 1 && next.starts_with('-'));
        done.push(word);
        if own && alone {
            done.push(HERE.into());
        }
    }
    done
}

/// Figures in the order they were put.
pub struct Report {
    figures: Map<String, Value>,
}

impl Report {
    pub fn new(command: &str) -> Self {
        let mut report = Self { figures: Map::new() };
        report.put("command", command);
        report
    }

    pub fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.into(), value.into());
    }

    /// Nothing is written when the figures were not asked for.
    pub fn write(&self, place: Option<&Path>) -> Result<()> {
        let Some(place) = place else { return Ok(()) };
        let text = serde_json::to_string_pretty(&self.figures)? + "\n";
        match OUT.get() {
            Some(mut out) if place == Path::new(HERE) => out.write_all(text.as_bytes()),
            _ => std::fs::write(place, text),
        }
        .with_context(|| format!("writing {}", place.display()))
    }
}

#[cfg(test)]
mod tests {
    fn complete(line: &str) -> String {
        super::complete(line.split(' ').map(Into::into).collect()).join(" ")
    }

    #[test]
    fn figures_without_a_file_go_to_standard_output() {
        assert_eq!(complete("build --board x --json"), "build --board x --json -");
        assert_eq!(complete("build --json --board x"), "build --json - --board x");
        assert_eq!(complete("build --json - --board x"), "build --json - --board x");
        assert_eq!(complete("build --json file --board x"), "build --json file --board x");
        assert_eq!(complete("cargo -- metadata --json"), "cargo -- metadata --json");
    }
}
