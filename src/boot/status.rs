//! /run/rcsnap: what this boot was and why, for `rcsnap status`, scripts and daemons.
//!
//! `state` is for people and shells: its first line says what the boot was and why, those after it the capture,
//! the time of each stage and the obstacles. `boot.json` is the same with every figure, `generation` a random id
//! that is new on every boot, so that a daemon can see that it was restored and draw new secrets. The folder
//! is never in an image: a restored boot has its own. `attempt` is there until a restored boot is confirmed. In a
//! cell `cmdline` holds the words that PID 1 was given: those that speak to rcsnap do not reach the real init.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::cmdline::Cmdline;
use super::early;
use super::ready::Answer;
use crate::config::Config;
use crate::error::{Context, Obstacle, Result};
use crate::json::{self, Object};
use crate::key::hex;
use crate::stage::{Times, milliseconds, now};
use crate::store::device::Access;
use crate::store::spec;
use crate::sys::ptrace::Sys;
use crate::sys::{fs, path};
use crate::task::clock;
use crate::text;

/// Where it all lies.
pub const FOLDER: &str = "/run/rcsnap";
/// The words of a cell.
const CMDLINE: &str = "cmdline";

/// What is known about this boot.
#[derive(Debug)]
pub struct Status<'a> {
    /// Cold or restored.
    pub boot: Answer,
    /// Why it was cold; for a restored boot, from what.
    pub reason: &'a str,
    /// The marks of the stages.
    pub times: &'a Times,
    /// What became of the capture; empty where none was tried.
    pub capture: &'a str,
    /// Figures of the capture or the restore, by name: bytes, milliseconds.
    pub figures: &'a [(&'a str, u64)],
    /// What stood in the way of a capture.
    pub obstacles: &'a [Obstacle],
}

impl Status<'_> {
    fn line(&self) -> String {
        let mut line = format!("{}: {}\n", self.boot.word(), self.reason);
        if !self.capture.is_empty() {
            line += &format!("capture: {}\n", self.capture);
        }
        for (stage, ns) in self.times.durations(now()) {
            line += &format!("stage {}: {} ms\n", stage.name(), milliseconds(ns));
        }
        if !clock::can_go_on() {
            line += &format!("clocks: {}\n", clock::BEGIN_ANEW);
        }
        for obstacle in self.obstacles {
            line += &format!("{obstacle}\n");
        }
        line
    }

    fn json(&self) -> String {
        let end = now();
        let mut object = Object::new();
        object
            .text("boot", self.boot.word())
            .text("reason", self.reason)
            .raw("written_ms", &milliseconds(end))
            .raw("stages_ms", &self.times.json(end))
            .raw("clocks_go_on", if clock::can_go_on() { "true" } else { "false" });
        if !self.capture.is_empty() {
            object.text("capture", self.capture);
        }
        for (name, value) in self.figures {
            object.number(name, *value);
        }
        object.raw("obstacles", &json::array(self.obstacles.iter().map(obstacle))).end()
    }

    /// Writes the folder anew, in the mount namespace of the caller.
    ///
    /// # Errors
    /// /run is not there or cannot be written.
    pub fn write(&self) -> Result<()> {
        let doing = format_args!("writing {FOLDER}");
        let _ = folder("/run");
        folder(FOLDER).context("status", doing)?;
        put("state", &self.line())?;
        put("boot.json", &(self.json() + "\n"))?;
        put("generation", &random_id().context("status", format_args!("drawing a generation"))?)
    }
}

/// Notes the words of this boot's command line for the commands, where /proc/cmdline is not this boot's.
///
/// # Errors
/// They cannot be written.
pub fn note_words(words: &[String]) -> Result<()> {
    if early::is_cell() { put(CMDLINE, &Cmdline::note(words)) } else { Ok(()) }
}

/// The command line of this boot, for the commands.
#[must_use]
pub fn words() -> Cmdline {
    if !early::is_cell() {
        return Cmdline::kernel();
    }
    // Without the note, what the real init was given.
    let noted = fs::read(format!("{FOLDER}/{CMDLINE}")).or_else(|_| fs::read("/proc/1/cmdline"));
    Cmdline::noted(&noted.unwrap_or_default())
}

/// Notes in /run/rcsnap that this boot came from an image and must be confirmed.
///
/// # Errors
/// It cannot be written.
pub fn note_attempt(generation: &[u8; 16]) -> Result<()> {
    put("attempt", &(hex(generation) + "\n"))
}

/// Confirms the attempt that this boot came from. False when there is none, or no more.
///
/// # Errors
/// The store's.
pub fn confirm(config: &Config) -> Result<bool> {
    let path = format!("{FOLDER}/attempt");
    let Some(generation) = fs::text(&path).ok().and_then(|text| unhex(text.trim_ascii())) else {
        return Ok(false);
    };
    spec::open(config, Access::Write)?.confirm(&generation)?;
    path::unlink(&path).context("status", format_args!("removing {path}"))?;
    Ok(true)
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u64::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?.try_into().ok()?;
    }
    Some(bytes)
}

/// The reason that PID 1 gave in the kernel log for a cold boot. A boot without a watcher leaves nothing else:
/// there is no /run yet when PID 1 hands over.
#[must_use]
pub fn reason_in_log() -> Option<String> {
    let log = fs::open("/dev/kmsg", OFlag::O_RDONLY | OFlag::O_NONBLOCK).ok()?;
    let mut record = [0; 8192];
    let mut reason = None;
    loop {
        match nix::unistd::read(&log, &mut record) {
            // "priority,number,time,flags;text"
            Ok(length) if length > 0 => {
                let text = String::from_utf8_lossy(&record[..length]);
                let text = text.lines().next().and_then(|line| text::split(line, ";rcsnap: cold: "));
                reason = text.map(|(_, found)| found.to_owned()).or(reason);
            }
            // Records were overwritten while we read: the next ones are there.
            Err(Errno::EPIPE | Errno::EINTR) => {}
            _ => return reason,
        }
    }
}

/// One obstacle as JSON.
#[must_use]
pub fn obstacle(obstacle: &Obstacle) -> String {
    Object::new()
        .text("kind", &obstacle.kind)
        .number("pid", obstacle.pid.into())
        .text("process", &obstacle.process)
        .text("object", &obstacle.object)
        .text("reason", &obstacle.reason)
        .text("remedy", &obstacle.remedy)
        .end()
}

/// Makes a directory, if it is not there.
fn folder(path: &str) -> Sys<()> {
    match path::mkdir(path, 0o755) {
        Err(Errno::EEXIST) => Ok(()),
        made => made,
    }
}

/// Writes one file whole: a reader sees the old or the new one.
fn put(name: &str, text: &str) -> Result<()> {
    let path = format!("{FOLDER}/{name}");
    let new = format!("{path}.new");
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
    let written = path::open(new.as_ref(), flags, Mode::from_bits_retain(0o644))
        .and_then(|file| fs::write_all(file.as_fd(), text.as_bytes()))
        .and_then(|()| path::rename(&new, &path));
    written.context("status", format_args!("writing {path}"))
}

/// 16 random bytes in hexadecimal. The kernel's generator is fresh on every boot, also on a restored one.
fn random_id() -> Result<String, Errno> {
    let mut bytes = [0; 16];
    let random = fs::open("/dev/urandom", OFlag::O_RDONLY)?;
    if nix::unistd::read(&random, &mut bytes)? < bytes.len() {
        return Err(Errno::EIO);
    }
    Ok(hex(&bytes) + "\n")
}

#[cfg(test)]
mod tests {
    use super::{Status, hex, unhex};
    use crate::boot::ready::Answer;
    use crate::error::{Obstacle, Refusal};
    use crate::stage::Times;

    #[test]
    fn generations_are_written_in_hexadecimal() {
        let generation = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff];
        assert_eq!(unhex(&hex(&generation)), Some(generation));
        assert_eq!(unhex("zz"), None);
    }

    #[test]
    fn state_and_json_tell_the_same() {
        let times = Times::new();
        let obstacles = [Obstacle::process("inet", 9, "d", "fd 4", Refusal::new("peer outside", "rerun"))];
        let status = Status {
            boot: Answer::Cold,
            reason: "store is empty",
            times: &times,
            capture: "refused",
            figures: &[("image_bytes", 7)],
            obstacles: &obstacles,
        };
        let line = status.line();
        let clocks = |line: &&str| !line.starts_with("clocks: ");
        assert_eq!(line.lines().all(|line| clocks(&line)), super::clock::can_go_on());
        assert_eq!(
            line.lines().filter(clocks).collect::<Vec<_>>(),
            [
                "cold: store is empty",
                "capture: refused",
                "obstacle: inet: d[9]: fd 4: peer outside (remedy: rerun)"
            ]
        );
        let json = status.json();
        assert!(
            json.starts_with("{\"boot\":\"cold\",\"reason\":\"store is empty\",\"written_ms\":"),
            "{json}"
        );
        assert!(json.ends_with("\"image_bytes\":7,\"obstacles\":[{\"kind\":\"inet\",\"pid\":9,\"process\":\"d\",\"object\":\"fd 4\",\"reason\":\"peer outside\",\"remedy\":\"rerun\"}]}"), "{json}");
    }
}
