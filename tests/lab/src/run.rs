//! Host programs, run so that a failure names the command and shows what it said.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// The command as one would type it, for messages.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs to the end and returns stdout; the error carries the end of stderr.
pub fn output(command: &mut Command) -> Result<String> {
    let done = raw(command)?;
    if !done.status.success() {
        bail!("{}: {}\n{}", shown(command), done.status, tail(&done.stderr, 30));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Runs to the end, whatever the exit status.
pub fn raw(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null());
    command.output().with_context(|| format!("running {}", shown(command)))
}

/// The last `lines` lines of what a program wrote.
pub fn tail(bytes: &[u8], lines: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
