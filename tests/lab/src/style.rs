//! How the code must look beyond what clippy sees: sizes of files, and where `unsafe` may be.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::toolchain;

/// Lines of a file before its tests. Longer ones hold more than one thing.
const LONGEST_FILE: usize = 400;
/// Folders of src/ that may opt back in to unsafe code.
const FENCE: [&str; 2] = ["src/sys", "src/arch"];
/// Names that say nothing about what is in the file.
const EMPTY_NAMES: [&str; 4] = ["utils.rs", "util.rs", "helpers.rs", "common.rs"];

/// Everything that is wrong, in one error.
pub fn check() -> Result<()> {
    let root = toolchain::workspace();
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        rust_files(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        let name = file.strip_prefix(&root).unwrap_or(&file);
        wrong.extend(complaints(name, &text));
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

fn complaints(name: &Path, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = text.lines().take_while(|l| !l.starts_with("#[cfg(test)]")).count();
    if lines > LONGEST_FILE {
        wrong.push(format!("{}: {lines} lines; at most {LONGEST_FILE}", name.display()));
    }
    let base = name.file_name().unwrap_or_default().to_string_lossy();
    if EMPTY_NAMES.contains(&base.as_ref()) {
        wrong.push(format!("{}: a name that says nothing", name.display()));
    }
    let fenced = FENCE.iter().any(|f| name.starts_with(f)) || !name.starts_with("src");
    if !fenced && text.contains("allow(unsafe_code") {
        wrong.push(format!("{}: unsafe code outside {}", name.display(), FENCE.join(", ")));
    }
    wrong
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_outside_the_fence_is_found() {
        let text = "#![allow(unsafe_code)]\n";
        assert_eq!(complaints(Path::new("src/boot/early.rs"), text).len(), 1);
        assert!(complaints(Path::new("src/sys/vm.rs"), text).is_empty());
    }

    #[test]
    fn tests_do_not_count_as_length() {
        let long = "//\n".repeat(390) + "#[cfg(test)]\n" + &"//\n".repeat(100);
        assert!(complaints(Path::new("src/a.rs"), &long).is_empty());
        assert_eq!(complaints(Path::new("src/a.rs"), &"//\n".repeat(401)).len(), 1);
    }
}
