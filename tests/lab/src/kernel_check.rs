//! `cargo lab kernel-check`: reads the configuration of a kernel, and says what rcsnap and a board miss in it and
//! what each costs. What is asked for, and why, is in board/kernel.config and the board's own kernel.config.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use argh::FromArgs;
use serde_json::json;

use crate::report::Report;
use crate::run::output;
use crate::toolchain;

/// List what a kernel lacks, and what each costs.
#[derive(FromArgs)]
#[argh(subcommand, name = "kernel-check")]
pub struct Args {
    /// the kernel's .config, or /proc/config.gz
    #[argh(positional)]
    config: PathBuf,
    /// look for what this board asks too, not only for what rcsnap does
    #[argh(option)]
    board: Option<String>,
    /// write the figures to this file; without a file, to standard output
    #[argh(option)]
    json: Option<PathBuf>,
}

/// One option that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    /// a module will do
    module: bool,
    pub required: bool,
    /// what for, or what is lost without it
    reason: String,
}

/// True when nothing required is missing.
pub fn run(args: &Args) -> Result<bool> {
    let wanted = wanted(args.board.as_deref())?;
    let has = options(&text(&args.config)?)?;
    let missing = missing(&wanted, &has);
    for option in &missing {
        let module = if option.module { " (or =m)" } else { "" };
        let (word, reason) = (option.word(), &option.reason);
        println!("{word}: CONFIG_{}=y{module}\n    {reason}", option.name);
    }
    let required = missing.iter().filter(|o| o.required).count();
    println!(
        "{} asked for, {required} required and {} optional missing",
        wanted.len(),
        missing.len() - required
    );
    let mut report = Report::new("kernel-check");
    report.put("asked", wanted.len());
    report.put("missing_required", required);
    report.put("missing_optional", missing.len() - required);
    let list = missing.iter().map(|o| {
        json!({ "option": format!("CONFIG_{}", o.name), "need": o.word(), "module": o.module, "reason": o.reason })
    });
    report.put("missing", list.collect::<Vec<_>>());
    report.write(args.json.as_deref())?;
    Ok(required == 0)
}

/// Fails when the kernel of this configuration lacks what rcsnap and the board require.
pub fn must(config: &Path, board: Option<&str>) -> Result<()> {
    let wanted = wanted(board)?;
    let has = options(&text(config)?)?;
    let required: Vec<&str> =
        missing(&wanted, &has).iter().filter(|o| o.required).map(|o| o.name.as_str()).collect();
    ensure!(required.is_empty(), "the kernel lacks {}", required.join(", "));
    Ok(())
}

impl Wanted {
    fn word(&self) -> &'static str {
        if self.required { "required" } else { "optional" }
    }
}

/// What rcsnap asks for, and a board.
pub fn wanted(board: Option<&str>) -> Result<Vec<Wanted>> {
    let folder = toolchain::workspace().join("board");
    let own = board.map(|name| folder.join(name).join("kernel.config"));
    let mut all = Vec::new();
    for file in [folder.join("kernel.config")].into_iter().chain(own) {
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        all.extend(fragment(&text).with_context(|| format!("reading {}", file.display()))?);
    }
    Ok(all)
}

/// Options that other files list: what stands between `begin` and `end` on lines of a text.
pub fn listed(text: &str, begin: &str, end: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix(begin)?.strip_suffix(end));
    lines.map(Into::into).collect()
}

/// Reads a fragment: a comment that begins with its word is the reason for the options right below it.
fn fragment(text: &str) -> Result<Vec<Wanted>> {
    let mut all = Vec::new();
    let mut names = BTreeSet::new();
    let mut comment = String::new();
    let mut begun = false;
    for line in text.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix('#') {
            if begun {
                comment.clear();
                begun = false;
            }
            comment = format!("{comment} {}", words.trim()).trim().into();
            continue;
        }
        if line.is_empty() {
            comment.clear();
            continue;
        }
        begun = true;
        let (name, value) = setting(line).with_context(|| format!("not an option: {line}"))?;
        let (required, reason) =
            match (comment.strip_prefix("required: "), comment.strip_prefix("optional: ")) {
                (Some(reason), _) => (true, reason),
                (_, Some(reason)) => (false, reason),
                _ => bail!("no reason for CONFIG_{name}"),
            };
        ensure!(matches!(value, "y" | "m"), "CONFIG_{name}={value}: neither y nor m");
        ensure!(names.insert(name.to_string()), "CONFIG_{name} comes twice");
        all.push(Wanted { name: name.into(), module: value == "m", required, reason: reason.into() });
    }
    Ok(all)
}

fn setting(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("CONFIG_")?.split_once('=')
}

/// The options of a kernel that are not off.
fn options(text: &str) -> Result<BTreeMap<String, String>> {
    let all: BTreeMap<_, _> =
        text.lines().filter_map(setting).map(|(name, value)| (name.into(), value.into())).collect();
    ensure!(!all.is_empty(), "this is not the configuration of a kernel: no CONFIG_ lines");
    Ok(all)
}

fn missing<'a>(wanted: &'a [Wanted], has: &BTreeMap<String, String>) -> Vec<&'a Wanted> {
    let there = |w: &Wanted| match has.get(&w.name).map(String::as_str) {
        Some("y") => true,
        Some("m") => w.module,
        _ => false,
    };
    wanted.iter().filter(|w| !there(w)).collect()
}

/// The file, unpacked when it is what gzip makes.
fn text(of: &Path) -> Result<String> {
    let bytes = fs::read(of).with_context(|| format!("reading {}", of.display()))?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return output(Command::new("gzip").args(["-dc", "--"]).arg(of));
    }
    String::from_utf8(bytes).with_context(|| format!("reading {}", of.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAGMENT: &str =
        "# A head.\n\n# required: ids\n# of tasks\nCONFIG_A=y\nCONFIG_B=m\n\n# optional: speed\nCONFIG_C=y\n";

    #[test]
    fn a_reason_belongs_to_the_options_below_it() {
        let read = fragment(FRAGMENT).unwrap();
        let told: Vec<_> =
            read.iter().map(|o| (o.name.as_str(), o.module, o.required, o.reason.as_str())).collect();
        assert_eq!(
            told,
            [
                ("A", false, true, "ids of tasks"),
                ("B", true, true, "ids of tasks"),
                ("C", false, false, "speed")
            ]
        );
        assert!(fragment("CONFIG_A=y\n").unwrap_err().to_string().contains("no reason for CONFIG_A"));
        assert!(
            fragment("# required: x\nCONFIG_A=y\nCONFIG_A=m\n").unwrap_err().to_string().contains("twice")
        );
    }

    #[test]
    fn a_module_does_only_where_it_may() {
        let wanted = fragment(FRAGMENT).unwrap();
        let lacks = |config: &str| {
            missing(&wanted, &options(config).unwrap()).iter().map(|o| o.name.clone()).collect::<String>()
        };
        assert_eq!(lacks("CONFIG_A=y\nCONFIG_B=m\nCONFIG_C=y\n"), "");
        assert_eq!(lacks("CONFIG_A=m\n# CONFIG_B is not set\nCONFIG_C=y\n"), "AB");
        assert_eq!(lacks("CONFIG_A=y\nCONFIG_B=y\n"), "C");
        assert!(options("hello\n").is_err());
    }

    #[test]
    fn a_packed_configuration_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("config");
        fs::write(&place, "CONFIG_A=y\n").unwrap();
        assert!(Command::new("gzip").arg(&place).status().unwrap().success());
        assert_eq!(text(&place.with_extension("gz")).unwrap(), "CONFIG_A=y\n");
    }

    #[test]
    fn every_board_says_what_it_wants_and_nothing_twice() {
        for folder in fs::read_dir(toolchain::workspace().join("board")).unwrap().flatten() {
            if !folder.path().is_dir() {
                continue;
            }
            let all = wanted(Some(&folder.file_name().to_string_lossy())).unwrap();
            let names: BTreeSet<_> = all.iter().map(|o| &o.name).collect();
            assert_eq!(names.len(), all.len(), "{:?}", folder.file_name());
            assert!(all.iter().all(|o| !o.reason.is_empty()));
        }
    }
}
