//! One daemon in fresh namespaces: pid, mount, network, host name and IPC. Their PID 1 is the lab (`keeper.rs`),
//! which is killed by the number of the process that was started for it, with everything below it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::entry::Entry;
use super::keeper::Verdict;
use crate::case::zoo::namespace::{fresh, keep};

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
        fresh(&folder)?;
        let mut words = [OsStr::new("daemon-keeper"), entry.name.as_ref()].to_vec();
        words.extend([OsStr::new("--root"), self.root.as_ref(), "--folder".as_ref(), folder.as_ref()]);
        words.extend([OsStr::new("--rcsnap"), self.rcsnap.as_ref()]);
        if self.plain {
            words.push("--plain".as_ref());
        }
        let verdict = keep(&words, &folder, LIMIT)?;
        Ok(verdict.unwrap_or_else(|(stage, problem)| Verdict::failed(stage, problem)))
    }
}
