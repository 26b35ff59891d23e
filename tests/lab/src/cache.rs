//! The cache folder: everything fetched or built that is not of this tree.
//!
//! One entry is a folder `<name>-<digest of its key>`. It is filled beside its place and renamed, so
//! an entry that exists is whole; a lock keeps two labs from filling the same one. When the key
//! changes (another package version, an edited recipe) a new entry is made, and only the newest few
//! of a name are kept.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::progress;

/// Entries of one name that are kept: branches of the tree may want different ones in turn.
const KEPT: usize = 4;

/// `$XDG_CACHE_HOME/rcsnap-lab`, else `~/.cache/rcsnap-lab`.
pub fn folder() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(std::env::var_os("HOME").context("finding the cache folder: no HOME")?)
            .join(".cache"),
    };
    let folder = base.join("rcsnap-lab");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// Held while something named `name` in the cache is changed.
pub fn lock(name: &str) -> Result<Flock<File>> {
    lock_file(&folder()?.join(format!("{name}.lock")))
}

/// The same for something that is elsewhere, by a file beside it.
pub fn lock_file(path: &Path) -> Result<Flock<File>> {
    let file = File::create(path).with_context(|| format!("opening {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| anyhow!("locking {}: {e}", path.display()))
}

/// The entry for `name` and `key`; `fill` makes it in the folder it is given when there is none yet.
pub fn entry(name: &str, key: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let root = folder()?;
    let place = root.join(format!("{name}-{}", digest(key)));
    let _lock = lock(name)?;
    if place.exists() {
        return Ok(place);
    }
    progress::say(format!("filling the cache: {name}"));
    let fresh = root.join(format!("{name}.part"));
    remove(&fresh)?;
    fs::create_dir(&fresh).with_context(|| format!("making {}", fresh.display()))?;
    fill(&fresh)?;
    fs::rename(&fresh, &place).with_context(|| format!("placing {}", place.display()))?;
    prune(&root, name)?;
    Ok(place)
}

/// Sixteen hex digits: enough to tell recipes apart, short enough for a path.
pub fn digest(key: &str) -> String {
    Sha256::digest(key.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

fn prune(root: &Path, name: &str) -> Result<()> {
    let prefix = format!("{name}-");
    let mut entries = Vec::new();
    for found in fs::read_dir(root)?.flatten() {
        let own = found.file_name().to_string_lossy().strip_prefix(&prefix).map(str::len) == Some(16);
        if own {
            entries.push((found.metadata()?.modified()?, found.path()));
        }
    }
    entries.sort();
    let surplus = entries.len().saturating_sub(KEPT);
    for (_, path) in entries.iter().take(surplus) {
        remove(path)?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn different_keys_have_different_places() {
        assert_ne!(super::digest("a 1.0"), super::digest("a 1.1"));
        assert_eq!(super::digest("a 1.0").len(), 16);
    }
}
