//! One daemon in fresh namespaces: pid, mount, network, host name and IPC. Their PID 1 is the lab (`keeper.rs`),
//! which is killed by the number of the process that was started for it, with everything below it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::entry::Entry;
use super::keeper::Verdict;

/// Longer than the slowest daemon with its own limits: some look around once a minute.
const LIMIT: Duration = Duration::from_secs(240);

/// What all runs share.
pub struct Cage {
    root: PathBuf,
    rcsnap: PathBuf,
    logs: PathBuf,
    plain: bool,
}

impl Cage {
    pub fn new(root: &Path, rcsnap: &Path, logs: &Path, plain: bool) -> Result<Cage> {
        fs::create_dir_all(logs).with_context(|| format!("making {}", logs.display()))?;
        Ok(Cage { root: root.into(), rcsnap: rcsnap.into(), logs: logs.canonicalize()?, plain })
    }

    /// Runs it; an error is a fault of this machine or the harness, not of what is tested.
    pub fn run(&self, entry: &Entry) -> Result<Verdict> {
        let folder = self.logs.join(&entry.name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--mount-proc", "--net", "--ipc", "--uts", "--kill-child=KILL", "--"])
            .arg(std::env::current_exe()?)
            .args(["daemon-keeper", &entry.name])
            .arg("--root")
            .arg(&self.root)
            .arg("--folder")
            .arg(&folder)
            .arg("--rcsnap")
            .arg(&self.rcsnap);
        if self.plain {
            command.arg("--plain");
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
        Verdict::failed("keeper", crate::run::tail(&said, 3))
    })
}
