//! One run of one program in fresh namespaces: pid, mount, network, host name and IPC.
//!
//! The namespaces' PID 1 is the lab itself (`keeper.rs`). It is killed by the number of the process that was
//! started for it, with everything below it, when its time is over.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::group;
use super::keeper::Verdict;
use super::mutation::Mutation;
use super::namespace::{fresh, keep};

/// Longer than the slowest program with its own limits.
const LIMIT: Duration = Duration::from_secs(120);

/// How a program is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Without a capture.
    Plain,
    /// Captured, and told to go on in place.
    Live,
    /// Captured and restored, as the leader of its own session.
    Restored,
    /// Captured and restored, in the session and group of its parent.
    Attached,
    /// Restored from an image that was falsified; the program must notice.
    Mutated(Mutation),
}

impl Mode {
    pub fn name(self) -> String {
        match self {
            Mode::Plain => "plain".into(),
            Mode::Live => "live".into(),
            Mode::Restored => "restored".into(),
            Mode::Attached => "attached".into(),
            Mode::Mutated(mutation) => format!("mutated {}", mutation.name),
        }
    }
}

/// What all runs share.
pub struct Cage {
    programs: PathBuf,
    rcsnap: PathBuf,
    logs: PathBuf,
    rounds: u32,
}

impl Cage {
    pub fn new(programs: &Path, rcsnap: &Path, logs: &Path, rounds: u32) -> Result<Cage> {
        fs::create_dir_all(logs).with_context(|| format!("making {}", logs.display()))?;
        // Programs that become ordinary users must find their files.
        fs::set_permissions(logs, fs::Permissions::from_mode(0o755))?;
        let logs = logs.canonicalize()?;
        Ok(Cage { programs: programs.into(), rcsnap: rcsnap.into(), logs, rounds })
    }

    /// Runs it; an error is a fault of this machine or the harness, not of what is tested.
    pub fn run(&self, program: &str, mode: Mode) -> Result<Verdict> {
        let folder = self.logs.join(format!("{program}.{}", mode.name().replace(' ', ".")));
        fresh(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let rounds = if mode == Mode::Plain { 0 } else { self.rounds }.to_string();
        let place = self.programs.join(program);
        let mut words = [OsStr::new("zoo-keeper"), "--rounds".as_ref(), rounds.as_ref()].to_vec();
        words.extend([place.as_os_str(), folder.as_ref()]);
        if mode != Mode::Plain {
            words.extend([OsStr::new("--rcsnap"), self.rcsnap.as_ref()]);
        }
        if mode != Mode::Attached {
            words.push("--session".as_ref());
        }
        if program == "rng" && mode == Mode::Restored {
            words.push("--twice".as_ref());
        }
        if let Mode::Mutated(mutation) = mode {
            words.extend(["--mutation", mutation.name].map(OsStr::new));
        }
        let verdict = keep(&words, &folder, LIMIT)?;
        group::remove(program, &folder)?;
        Ok(verdict.unwrap_or_else(|(stage, problem)| Verdict::failed(stage, problem)))
    }
}
