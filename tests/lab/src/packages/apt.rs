//! Whom to ask for packages: the machine's own apt, or, for another architecture, one with lists of its own
//! in the cache. The machine's configuration stays as it is: nothing foreign is ever installed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{output, raw, shown, tail};
use crate::{cache, progress};

/// The packages of one architecture.
pub struct Apt {
    /// where a foreign architecture's lists are
    state: Option<PathBuf>,
    arch: String,
    /// as if nothing were installed: only what the archive has counts
    blank: bool,
}

impl Apt {
    /// For dpkg's name of an architecture.
    pub fn of(arch: &str) -> Result<Self> {
        let own = output(Command::new("dpkg").arg("--print-architecture"))?;
        if own.trim() == arch {
            return Ok(Self { state: None, arch: arch.into(), blank: false });
        }
        let state = cache::folder()?.join("apt").join(arch);
        let apt = Self { state: Some(state.clone()), arch: arch.into(), blank: false };
        let _lock = cache::lock(&format!("apt-{arch}"))?;
        if !state.join("status").exists() {
            fs::create_dir_all(state.join("lists/partial"))?;
            fs::create_dir_all(state.join("cache/archives/partial"))?;
            apt.fetch_lists()?;
            // No program of that architecture is installed here, whatever dpkg knows.
            fs::write(state.join("status"), "").context("making the lists of an architecture")?;
        }
        Ok(apt)
    }

    /// The same, blind to what this machine has installed, perhaps from elsewhere.
    pub fn blank(self) -> Self {
        Self { blank: true, ..self }
    }

    /// `apt-get` or `apt-cache`. Unsandboxed, because the cache folder need not be readable for apt's own user.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]);
        if self.blank {
            command.args(["-o", "Dir::State::status=/dev/null"]);
        }
        if let Some(state) = &self.state {
            let state = state.display();
            let options = [
                format!("APT::Architecture={}", self.arch),
                format!("APT::Architectures={}", self.arch),
                format!("Dir::State={state}"),
                format!("Dir::State::status={state}/status"),
                format!("Dir::Cache={state}/cache"),
                "Acquire::Languages=none".into(),
            ];
            for option in &options {
                command.args(["-o", option]);
            }
        }
        command
    }

    /// Folders and files whose change means that answers may be others.
    pub fn sources(&self) -> Vec<PathBuf> {
        let lists = match &self.state {
            Some(state) => state.join("lists"),
            None => "/var/lib/apt/lists".into(),
        };
        vec![lists, "/etc/apt".into(), "/etc/apt/sources.list.d".into()]
    }

    /// Fetches the package lists anew.
    pub fn update(&self) -> Result<()> {
        let _lock = cache::lock(&format!("apt-{}", self.arch))?;
        self.fetch_lists()
    }

    fn fetch_lists(&self) -> Result<()> {
        let mut update = match &self.state {
            Some(_) => self.command("apt-get"),
            None => super::as_root("apt-get"),
        };
        update.arg("update");
        progress::say(format!("fetching package lists ({})", self.arch));
        let done = raw(&mut update)?;
        if !done.status.success() {
            // One list may be missing, of a mirror in the middle of an update; whether what is wanted is in the
            // others, the next question shows.
            progress::say(format!("{}: {}\n{}", shown(&update), done.status, tail(&done.stderr, 5)));
        }
        Ok(())
    }
}
