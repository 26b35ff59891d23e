//! `cargo lab buildroot`: what can be said of `buildroot/` with a tree of Buildroot at hand, without building a
//! system. CI has no such tree; what needs none is in `case/shipped.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use argh::FromArgs;

use crate::run::{output, raw, tail};
use crate::{packages, pages, progress, toolchain};

/// Check the external tree against a tree of Buildroot.
#[derive(FromArgs)]
#[argh(subcommand, name = "buildroot")]
pub struct Args {
    /// where Buildroot's own tree is
    #[argh(option)]
    tree: PathBuf,
}

pub fn run(args: &Args) -> Result<bool> {
    let programs = ["make", "gcc", "shellcheck", "flake8", "rsync", "cpio", "bc", "unzip", "file", "wget"];
    packages::need(&programs.map(|program| (program, program)))?;
    let modules = raw(Command::new("python3").args(["-c", "import magic, pexpect, nose2"]))?;
    ensure!(
        modules.status.success(),
        "Buildroot's tools need python3-magic, python3-pexpect and python3-nose2"
    );
    let tree = fs::canonicalize(&args.tree).with_context(|| format!("finding {}", args.tree.display()))?;
    let out = tempfile::tempdir()?;
    let own = toolchain::workspace().canonicalize()?.join("buildroot");
    say("utils/check-package", linter(&tree, &own)?);
    for name in defconfigs(&own)? {
        say(&name, defconfig(&tree, &own, &out.path().join(&name), &name)?);
    }
    let lines = pages::lines("buildroot.md", "buildroot")?;
    let mut typed = Command::new("sh");
    typed.args(["-e", "-c", &lines]).current_dir(&tree);
    typed.env("RCSNAP", toolchain::workspace().canonicalize()?).env("OUT", out.path().join("lines"));
    output(&mut typed)?;
    say("docs/integration/buildroot.md", lines.lines().count());
    Ok(true)
}

fn say(what: &str, count: usize) {
    progress::say(format!("pass  {what}  ({count})"));
}

/// Files of a folder, all of them.
fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => files(&entry.path(), found)?,
            false => found.push(entry.path()),
        }
    }
    Ok(())
}

/// Buildroot's linter, for an external tree. It says how many files there were.
fn linter(tree: &Path, own: &Path) -> Result<usize> {
    let mut all = Vec::new();
    files(own, &mut all)?;
    let mut check = Command::new(tree.join("utils/check-package"));
    let done = raw(check.arg("-b").args(&all).current_dir(own))?;
    let said = format!("{}{}", tail(&done.stdout, 40), tail(&done.stderr, 40));
    ensure!(done.status.success() && said.contains("0 warnings generated"), "utils/check-package:\n{said}");
    Ok(all.len())
}

/// Names of the configurations.
fn defconfigs(own: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(own.join("configs"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Loads a configuration; the package must be in the result, and what Buildroot would keep of it must be the file.
fn defconfig(tree: &Path, own: &Path, out: &Path, name: &str) -> Result<usize> {
    let make = |words: &[&str]| {
        let mut make = Command::new("make");
        make.arg("-s").arg("-C").arg(tree).arg(format!("O={}", out.display()));
        output(make.arg(format!("BR2_EXTERNAL={}", own.display())).args(words))
    };
    make(&[name])?;
    let config = fs::read_to_string(out.join(".config"))?;
    let kept = out.join("kept");
    make(&["savedefconfig", &format!("BR2_DEFCONFIG={}", kept.display())])?;
    let file = fs::read_to_string(own.join("configs").join(name))?;
    ensure!(fs::read_to_string(kept)? == file, "{name} is not what savedefconfig writes");
    for wanted in file.lines().chain(["BR2_PACKAGE_HOST_RUSTC=y"]) {
        ensure!(config.lines().any(|line| line == wanted), "{name}: {wanted} does not survive");
    }
    let variables = make(&["printvars", "VARS=RCSNAP_% RUSTC_TARGET_NAME"])?;
    let value = |key: &str| {
        let found = variables.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.with_context(|| format!("{name}: {key} is not set"))
    };
    let target = value("RUSTC_TARGET_NAME")?.replace('-', "_").to_uppercase();
    let environment = value("RCSNAP_CARGO_ENV")?;
    ensure!(environment.contains(&format!("CARGO_TARGET_{target}_RUSTFLAGS=")), "{name}: {environment}");
    ensure!(
        Path::new(value("RCSNAP_SITE")?).join("Cargo.lock").exists(),
        "{name}: no Cargo.lock at its site"
    );
    let info: serde_json::Value = serde_json::from_str(&make(&["rcsnap-show-info"])?)?;
    let needs = info["rcsnap"]["dependencies"].as_array().context("reading rcsnap-show-info")?;
    if !needs.iter().any(|package| package == "host-rustc") {
        bail!("{name}: the package does not need host-rustc: {info}");
    }
    Ok(file.lines().count())
}
