//! One run of one program in fresh namespaces: pid, mount, network, host name and IPC.
//!
//! The namespaces' PID 1 is the lab itself (`keeper.rs`). It is killed by the number of the process that was
//! started for it, with everything below it, when its time is over.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::keeper::{Outcome, Verdict};
use super::mutation::Mutation;

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
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--mount-proc", "--net", "--ipc", "--uts", "--kill-child=KILL", "--"])
            .arg(std::env::current_exe()?)
            .arg("zoo-keeper")
            .args(["--rounds", &if mode == Mode::Plain { 0 } else { self.rounds }.to_string()])
            .arg(self.programs.join(program))
            .arg(&folder);
        if mode != Mode::Plain {
            command.arg("--rcsnap").arg(&self.rcsnap);
        }
        if mode != Mode::Attached {
            command.arg("--session");
        }
        if program == "rng" && mode == Mode::Restored {
            command.arg("--twice");
        }
        if let Mode::Mutated(mutation) = mode {
            command.args(["--mutation", mutation.name]);
        }
        let log = fs::File::options().create(true).append(true).open(folder.join("keeper"))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("running unshare")?;
        let start = Instant::now();
        loop {
            if child.try_wait()?.is_some() {
                return Ok(read(&folder));
            }
            if start.elapsed() > LIMIT {
                child.kill()?;
                child.wait()?;
                return Ok(Verdict::failed("time", format!("not done after {} s", LIMIT.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What the keeper wrote; if it wrote nothing, what it said.
fn read(folder: &Path) -> Verdict {
    let verdict = fs::read(folder.join("verdict")).ok().and_then(|text| serde_json::from_slice(&text).ok());
    verdict.unwrap_or_else(|| {
        let said = fs::read(folder.join("keeper")).unwrap_or_default();
        Verdict { outcome: Outcome::Failed, ..Verdict::failed("keeper", crate::run::tail(&said, 3)) }
    })
}
