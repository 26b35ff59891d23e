//! One daemon, as its file in tests/lab/daemons says: its packages, its files, how it is started, known to be
//! ready, given state, and asked for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// What is expected to stand in the way of a capture, and what an integrator does about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// the kind, as in docs/kinds.md
    pub kind: String,
    /// the name of the process that has it
    pub process: String,
}

/// A daemon. Scripts are run by `sh -e` inside its root.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// its file's name
    #[serde(skip)]
    pub name: String,
    /// Debian packages; the first gives the version in the table
    pub packages: Vec<String>,
    /// users with groups of the same name, which maintainer scripts would have made
    #[serde(default)]
    pub users: Vec<String>,
    /// files to write, in /etc or on another tmpfs
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// starts it; it ends when the daemon has forked itself, or becomes the daemon
    pub command: String,
    /// repeated until it succeeds
    pub ready: String,
    /// puts state in, before the capture
    #[serde(default)]
    pub put: String,
    /// asks through the daemon's own protocol; what it prints must be the same before and after
    pub check: String,
    /// what must succeed after the restore, beside that
    #[serde(default)]
    pub after: String,
    /// obstacles; none means that it must be carried
    #[serde(default)]
    pub refused: Vec<Expected>,
    /// what to do on a board, if it cannot be carried; or what to know if it can
    #[serde(default)]
    pub advice: String,
}

/// Where the entries are.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("daemons")
}

impl Entry {
    pub fn read(name: &str) -> Result<Entry> {
        let place = folder().join(name).with_extension("toml");
        let text = fs::read_to_string(&place).with_context(|| format!("reading {}", place.display()))?;
        let mut entry: Entry =
            toml::from_str(&text).with_context(|| format!("reading {}", place.display()))?;
        entry.name = name.into();
        entry.refused.sort();
        Ok(entry)
    }
}

/// All entries in the order of the alphabet, and which of them are wanted: all when none is named.
pub fn all(wanted: &[String]) -> Result<(Vec<Entry>, Vec<Entry>)> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .with_context(|| format!("reading {}", folder().display()))?
        .filter_map(|file| Some(file.ok()?.path().file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(name)) {
        bail!("there is no daemon {unknown}; there are: {}", names.join(" "));
    }
    let all: Vec<Entry> = names.iter().map(|name| Entry::read(name)).collect::<Result<_>>()?;
    let chosen = all.iter().filter(|entry| wanted.is_empty() || wanted.contains(&entry.name));
    Ok((all.clone(), chosen.cloned().collect()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_entry_can_be_read() {
        let (all, chosen) = super::all(&[]).map_err(|error| format!("{error:#}")).unwrap_or_default();
        assert!(all.len() >= 30 && all.len() == chosen.len(), "{}", all.len());
        assert!(all.iter().all(|entry| entry.refused.is_empty() || !entry.advice.is_empty()));
    }

    #[test]
    fn lines_in_advice_are_lines_of_the_configuration() {
        let (all, _) = super::all(&[]).map_err(|error| format!("{error:#}")).unwrap_or_default();
        let quoted = all.iter().flat_map(|entry| entry.advice.split('`').skip(1).step_by(2));
        let known = |line: &&str| {
            let name = line.split(['+', '=']).next().unwrap_or_default().trim();
            rcsnap::config::KEYS.iter().any(|key| key.name == name)
        };
        let lines: Vec<&str> = quoted.filter(known).collect();
        let config = rcsnap::config::Config::parse(&lines.join("\n"), &[]);
        assert!(lines.len() >= 5 && config.warnings.is_empty(), "{lines:?}: {:?}", config.warnings);
    }
}
