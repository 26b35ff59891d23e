//! Globs of paths, as the configuration has them: `*`, `?`, and neither matches a `/`.

use std::path::{Path, PathBuf};

use crate::sys::fs;
use crate::sys::stat::lstat;

/// Whether a path matches. A glob that matches a directory above the path matches it too, so that
/// `/etc/network/run` covers all that is in there.
#[must_use]
pub fn matches(glob: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    glob.split('/')
        .all(|wanted| parts.next().is_some_and(|part| part_matches(wanted.as_bytes(), part.as_bytes())))
}

/// Whether one part of a path matches one part of a glob.
fn part_matches(glob: &[u8], part: &[u8]) -> bool {
    match (glob.split_first(), part.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=part.len()).any(|skip| part_matches(rest, &part[skip..])),
        (Some((b'?', glob)), Some((_, part))) => part_matches(glob, part),
        (Some((wanted, glob)), Some((found, part))) => wanted == found && part_matches(glob, part),
        _ => false,
    }
}

/// The paths that exist and match, sorted. A directory that cannot be read holds none.
#[must_use]
pub fn expand(glob: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in glob.split('/').filter(|part| !part.is_empty()) {
        let mut inside = Vec::new();
        for directory in &found {
            inside.append(&mut children(directory, part));
        }
        found = inside;
    }
    found
}

fn children(directory: &Path, part: &str) -> Vec<PathBuf> {
    if !part.bytes().any(|byte| matches!(byte, b'*' | b'?')) {
        let path = directory.join(part);
        return if lstat(&path).is_ok() { vec![path] } else { Vec::new() };
    }
    let mut names = fs::names(directory).unwrap_or_default();
    names.retain(|name| {
        // As in a shell, a leading dot must be written.
        (part.starts_with('.') || !name.as_encoded_bytes().starts_with(b"."))
            && part_matches(part.as_bytes(), name.as_encoded_bytes())
    });
    let mut found = Vec::new();
    for name in names {
        found.push(directory.join(name));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{expand, matches};

    #[test]
    fn stars_stay_within_one_part() {
        assert!(matches("/etc/init.d/*", "/etc/init.d/S01x"));
        assert!(matches("/etc/rc*.d/S??x", "/etc/rc5.d/S01x"));
        assert!(!matches("/etc/*", "/var/x"));
        assert!(!matches("/etc/a*b", "/etc/ac"));
        assert!(matches("BOOT_IMAGE=*", "BOOT_IMAGE=zImage"));
    }

    #[test]
    fn a_directory_covers_what_is_in_it() {
        assert!(matches("/etc/network/run", "/etc/network/run/ifstate"));
        assert!(!matches("/etc/network/run", "/etc/network"));
    }

    #[test]
    fn expansion_finds_what_is_there() {
        assert_eq!(expand("/proc/se*f"), [std::path::PathBuf::from("/proc/self")]);
        assert!(expand("/nonexistent/*").is_empty());
    }
}
