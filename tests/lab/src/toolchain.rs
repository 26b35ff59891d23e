//! The target binary: static, musl, as small as std allows.
//!
//! The default recipe needs no rustup target. It takes the distribution's newest rustc packages and
//! the std sources of the same version, unpacks them in the cache, and builds std once for each
//! target: for size, and with panics that abort at once. That drops std's formatting of panics, the
//! backtrace machinery and the unwinder: a std hello world is 26 KB instead of 290 KB. rcsnap as
//! PID 1 handles the fatal signal that is left of a panic.
//!
//! Where those packages do not exist, or `--plain` asks for it, rustup's musl target does it.

mod elf;
mod sysroot;
pub mod target;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{output, shown};
use crate::{cache, progress};
use sysroot::Compiler;
use target::Target;

/// What to build.
#[derive(Clone)]
pub struct Wish {
    pub target: &'static Target,
    /// cargo features, comma separated
    pub features: String,
    /// rustup's target instead of the packages
    pub plain: bool,
    /// keep panic messages
    pub messages: bool,
}

/// A built target binary.
pub struct Binary {
    pub path: PathBuf,
    pub bytes: u64,
    /// how it was built, for reports
    pub recipe: &'static str,
}

impl Binary {
    /// One that was built elsewhere.
    pub fn given(path: &Path) -> Result<Self> {
        let bytes = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len();
        Ok(Self { path: path.into(), bytes, recipe: "given" })
    }
}

impl Wish {
    /// The release binary, without features.
    pub fn new(target: &'static Target) -> Self {
        Self { target, features: String::new(), plain: false, messages: false }
    }

    /// How its files are named.
    fn name(&self) -> String {
        let words = [self.target.arch, &self.features, if self.messages { "messages" } else { "" }];
        let words = words.iter().filter(|w| !w.is_empty());
        format!("rcsnap-{}", words.map(|w| w.replace(',', "-")).collect::<Vec<_>>().join("-"))
    }

    fn compiler(&self) -> Result<Option<Compiler>> {
        if self.plain { Ok(None) } else { Compiler::find() }
    }

    /// Options of rustc for the last step of the release binary.
    fn last(&self) -> Result<Vec<String>> {
        match self.compiler()? {
            Some(compiler) if !self.messages => compiler.last(self.target),
            _ => Ok(Vec::new()),
        }
    }

    /// A cargo set up for the target, and how it builds, in words.
    pub fn cargo(&self) -> Result<(Command, &'static str)> {
        let (mut cargo, recipe, folder) = match self.compiler()? {
            Some(compiler) => (
                compiler.cargo(self.target, self.messages)?,
                "packages, std rebuilt",
                if self.messages { "messages" } else { "small" },
            ),
            None => (plain(self.target)?, "rustup target", "plain"),
        };
        cargo.env("CARGO_BUILD_TARGET", self.target.triple);
        cargo.env("CARGO_TARGET_DIR", own_folder()?.join("build").join(folder));
        cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        cargo.current_dir(workspace());
        Ok((cargo, recipe))
    }
}

/// The release binary with these cargo features ("" for none).
pub fn build(target: &'static Target, features: &str) -> Result<Binary> {
    build_as(&Wish { features: features.into(), ..Wish::new(target) })
}

/// Builds, and places the result beside the lab itself, named after the wish.
pub fn build_as(wish: &Wish) -> Result<Binary> {
    progress::say(format!("building {}", wish.name()));
    let (mut cargo, recipe) = wish.cargo()?;
    cargo.args(["rustc", "--release", "--locked", "--package", "rcsnap", "--bin", "rcsnap"]);
    cargo.args(["--features", &wish.features, "--message-format=json-render-diagnostics", "--"]);
    cargo.args(wish.last()?);
    // With other features it is the same file: the lock covers the copy, which cargo's own does not.
    let _lock = cache::lock_file(&own_folder()?.join("build.lock"))?;
    let built = artifact(&mut cargo)?;
    let place = own_folder()?.join(wish.name());
    // It may be running, for another check.
    let new = place.with_extension("new");
    let copy = || -> Result<()> {
        // With its mode, which the second writing leaves.
        fs::copy(&built, &new)?;
        if !wish.messages {
            fs::write(&new, elf::loaded(fs::read(&built)?)?)?;
        }
        Ok(fs::rename(&new, &place)?)
    };
    copy().with_context(|| format!("copying {}", built.display()))?;
    Ok(Binary { bytes: fs::metadata(&place)?.len(), path: place, recipe })
}

/// Runs a cargo that builds one program and reports in JSON, and says where the program is.
fn artifact(cargo: &mut Command) -> Result<PathBuf> {
    let text = output(cargo)?;
    let messages = text.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let mut programs = messages.filter_map(|m| Some(PathBuf::from(m["executable"].as_str()?)));
    programs.next_back().with_context(|| format!("{}: built no program", shown(cargo)))
}

/// The tree this lab was built from.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `target/lab`, beside the profile folder the lab runs from.
pub fn own_folder() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("finding the lab itself")?;
    let target = exe.ancestors().nth(2).context("finding the target folder")?;
    let folder = target.join("lab");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// The cargo that runs the lab.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn plain(target: &Target) -> Result<Command> {
    let triple = target.triple;
    let libs = output(Command::new("rustc").args(["--print", "target-libdir", "--target", triple]))?;
    if !Path::new(libs.trim()).exists() {
        bail!("building for {triple}: std is not installed; `rustup target add {triple}` gets it");
    }
    Ok(cargo())
}
