//! `cargo lab buildroot`: what can be said of `buildroot/` with a tree of Buildroot at hand, without what that
//! downloads for a system. CI has no such tree; what needs none is in `case/shipped.rs`.

mod kernel;
mod package;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use argh::FromArgs;

use crate::report::Report;
use crate::run::{output, raw, tail};
use crate::{packages, pages, progress, toolchain};

/// Check the external tree against a tree of Buildroot.
#[derive(FromArgs)]
#[argh(subcommand, name = "buildroot")]
pub struct Args {
    /// where Buildroot's own tree is
    #[argh(option)]
    tree: PathBuf,
    /// only configurations whose name contains this
    #[argh(option, default = "String::new()")]
    only: String,
    /// write the figures to this file; without a file, to standard output
    #[argh(option)]
    json: Option<PathBuf>,
}

/// What Buildroot asks a machine to have, and what its tools for developers are written with.
const PROGRAMS: [&str; 14] = [
    "bc",
    "bzip2",
    "cpio",
    "file",
    "flake8",
    "g++",
    "gcc",
    "make",
    "patch",
    "perl",
    "rsync",
    "shellcheck",
    "unzip",
    "wget",
];
/// Modules for the distribution's own Python.
const MODULES: [(&str, &str); 3] = [
    ("/usr/lib/python3/dist-packages/magic/__init__.py", "python3-magic"),
    ("/usr/lib/python3/dist-packages/nose2/__init__.py", "python3-nose2"),
    ("/usr/lib/python3/dist-packages/pexpect/__init__.py", "python3-pexpect"),
];

/// Buildroot's tree, this one's, and a folder for what is made.
struct Trees {
    buildroot: PathBuf,
    own: PathBuf,
    out: tempfile::TempDir,
}

pub fn run(args: &Args) -> Result<bool> {
    packages::need(&PROGRAMS.map(|program| (program, program)))?;
    packages::need(&MODULES)?;
    let trees = Trees {
        buildroot: fs::canonicalize(&args.tree)
            .with_context(|| format!("finding {}", args.tree.display()))?,
        own: toolchain::workspace().canonicalize()?.join("buildroot"),
        out: tempfile::tempdir()?,
    };
    let mut report = Report::new("buildroot");
    let mut step = |name: &str, done: Result<u64>| -> Result<()> {
        let count = done.with_context(|| name.to_owned())?;
        progress::say(format!("pass  {name}  ({count})"));
        report.put(name, count);
        Ok(())
    };
    let begin = Instant::now();
    step("utils/check-package: files", trees.linter())?;
    let mut names = trees.defconfigs()?;
    names.retain(|name| name.contains(&args.only));
    for name in &names {
        step(&format!("{name}: lines"), trees.defconfig(name))?;
        step(&format!("{name}: kernel options"), kernel::options(&trees, name))?;
    }
    step("docs/integration/buildroot.md: lines", trees.page())?;
    for name in &names {
        step(&format!("{name}: bytes of the binary"), package::install(&trees, name))?;
    }
    pages::all_taken(true)?;
    report.put("seconds", begin.elapsed().as_secs());
    report.write(args.json.as_deref())?;
    Ok(true)
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

/// The value of a line that `make printvars` wrote.
fn value<'t>(variables: &'t str, name: &str) -> Result<&'t str> {
    let found = variables.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found.with_context(|| format!("Buildroot has no {name}"))
}

impl Trees {
    /// A program run in Buildroot's tree. Its scripts look for python3 on the path: the distribution's comes first.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("/usr/bin:{path}")).env("LC_ALL", "C");
        command.env("BR2_DL_DIR", self.out.path().join("dl")).current_dir(&self.buildroot);
        command
    }

    /// Where a configuration is made, and what is built of it.
    fn folder(&self, name: &str) -> PathBuf {
        self.out.path().join(name)
    }

    /// make in Buildroot's tree, for a configuration.
    fn make(&self, name: &str, words: &[&str]) -> Result<String> {
        let mut make = self.command("make");
        make.arg("-s").arg(format!("O={}", self.folder(name).display()));
        output(make.arg(format!("BR2_EXTERNAL={}", self.own.display())).args(words))
    }

    /// Buildroot's linter, for an external tree. Returns how many files there were.
    fn linter(&self) -> Result<u64> {
        let mut all = Vec::new();
        files(&self.own, &mut all)?;
        let mut check = self.command(self.buildroot.join("utils/check-package"));
        let done = raw(check.arg("-b").args(&all).current_dir(&self.own))?;
        let said = format!("{}{}", tail(&done.stdout, 40), tail(&done.stderr, 40));
        ensure!(done.status.success() && said.contains("0 warnings generated"), "{said}");
        Ok(all.len() as u64)
    }

    /// Names of the configurations.
    fn defconfigs(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(self.own.join("configs"))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    }

    /// Loads a configuration: every line of it survives, and it is what Buildroot itself would keep.
    fn defconfig(&self, name: &str) -> Result<u64> {
        self.make(name, &[name])?;
        let out = self.folder(name);
        let config = fs::read_to_string(out.join(".config"))?;
        let file = fs::read_to_string(self.own.join("configs").join(name))?;
        for wanted in file.lines().chain(["BR2_PACKAGE_HOST_RUSTC=y"]) {
            ensure!(config.lines().any(|line| line == wanted), "{wanted} does not survive");
        }
        let kept = out.join("kept");
        self.make(name, &["savedefconfig", &format!("BR2_DEFCONFIG={}", kept.display())])?;
        ensure!(fs::read_to_string(&kept)? == file, "it is not what savedefconfig writes");
        let info: serde_json::Value = serde_json::from_str(&self.make(name, &["rcsnap-show-info"])?)?;
        let needs = info["rcsnap"]["dependencies"].as_array().context("reading rcsnap-show-info")?;
        if !needs.iter().any(|package| package == "host-rustc") {
            bail!("the package does not need host-rustc: {info}");
        }
        let variables = self.make(name, &["printvars", "VARS=RCSNAP_TARGET_FINALIZE_HOOKS"])?;
        value(&variables, "RCSNAP_TARGET_FINALIZE_HOOKS")?;
        Ok(file.lines().count() as u64)
    }

    /// The lines of the page. Those that build whole systems are asked what they would do.
    fn page(&self) -> Result<u64> {
        let run = pages::lines("buildroot.md", "run")?;
        let build = pages::lines("buildroot.md", "build")?;
        let test = pages::lines("buildroot.md", "test")?;
        let would_build = build.lines().map(|line| match line.ends_with("config") {
            true => format!("{line} -n >/dev/null\n"),
            // Resolves every package that it builds.
            false => format!("{line} show-info >/dev/null\n"),
        });
        let name = test.trim().split(' ').next_back().context("reading the name of the test")?;
        let load = "import sys, unittest\n\
                    found = unittest.defaultTestLoader.loadTestsFromName(sys.argv[1])\n\
                    sys.exit(found.countTestCases() != int(sys.argv[2]))";
        let count = self.defconfigs()?.len();
        let lines = format!(
            "{run}{}{} --list >/dev/null 2>&1\ncd support/testing\npython3 -c '{load}' {name} {count}\n",
            would_build.collect::<String>(),
            test.trim()
        );
        let mut typed = self.command("sh");
        typed.args(["-e", "-c", &lines]).env("OUT", self.folder("lines"));
        let done = output(typed.env("RCSNAP", toolchain::workspace().canonicalize()?));
        // The tree is as it was.
        fs::remove_file(self.buildroot.join("support/testing/tests/package/test_rcsnap.py")).ok();
        done?;
        Ok([run, build, test].iter().map(|lines| lines.lines().count() as u64).sum())
    }
}
