//! The target binary: static, musl, as small as std allows.
//!
//! The default recipe needs no rustup target. It takes the distribution's newest rustc packages and
//! the std sources of the same version, unpacks them in the cache, and builds std together with
//! rcsnap: for size, and with panics that abort at once. That drops std's formatting of panics, the
//! backtrace machinery and the unwinder: a std hello world is 26 KB instead of 290 KB. rcsnap as
//! PID 1 handles the fatal signal that is left of a panic.
//!
//! Where those packages do not exist, or `--plain` asks for it, rustup's musl target does it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{output, raw};
use crate::{cache, packages, progress};

const TARGET: &str = "x86_64-unknown-linux-musl";

/// What to build.
#[derive(Default, Clone)]
pub struct Wish {
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

/// The release binary with these cargo features ("" for none).
pub fn build(features: &str) -> Result<Binary> {
    build_as(&Wish { features: features.into(), ..Wish::default() })
}

/// Builds, and places the result beside the lab itself, named after the wish.
pub fn build_as(wish: &Wish) -> Result<Binary> {
    packages::need(&[("gcc", "gcc"), ("ar", "binutils")])?;
    progress::say(format!("building the target binary{}", suffix(wish)));
    let target = cache::folder()?.join("target");
    // One std for all trees on this machine; the lock covers the copy, which cargo's own does not.
    let _lock = cache::lock("target")?;
    let (mut cargo, recipe, folder) = if wish.plain || !packages::known(&compiler_packages()?) {
        (plain()?, "rustup target", target.join("plain"))
    } else {
        (
            packaged(wish.messages)?,
            "packages, std rebuilt",
            target.join(if wish.messages { "messages" } else { "small" }),
        )
    };
    cargo.args(["build", "--release", "--locked", "--package", "rcsnap", "--bin", "rcsnap"]);
    cargo.args(["--target", TARGET, "--features", &wish.features]);
    cargo.env("CARGO_TARGET_DIR", &folder).current_dir(workspace());
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    output(&mut cargo)?;
    let built = folder.join(TARGET).join("release/rcsnap");
    let place = own_folder()?.join(format!("rcsnap{}", suffix(wish)));
    fs::copy(&built, &place).with_context(|| format!("copying {}", built.display()))?;
    Ok(Binary { bytes: fs::metadata(&place)?.len(), path: place, recipe })
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

fn suffix(wish: &Wish) -> String {
    let words = [wish.features.as_str(), if wish.messages { "messages" } else { "" }];
    words.iter().filter(|w| !w.is_empty()).map(|w| format!("-{}", w.replace(',', "-"))).collect()
}

/// The cargo that runs the lab.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn plain() -> Result<Command> {
    let libs = output(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]))?;
    if !Path::new(libs.trim()).exists() {
        bail!("building for {TARGET}: std is not installed; `rustup target add {TARGET}` gets it");
    }
    Ok(cargo())
}

/// All of one version; the libraries of rustc carry theirs in the package name, so apt is asked.
fn compiler_packages() -> Result<Vec<String>> {
    let own = ["rustc-web", "libstd-rust-web-dev", "rust-web-src", "musl-dev"].map(String::from);
    let mut all = packages::closure(&own, |p| {
        p.starts_with("libstd-rust-web-") || p.starts_with("libllvm") || p == "libz3-4"
    })?;
    all.retain(|p| !p.ends_with("-bpf"));
    Ok(all)
}

fn packaged(messages: bool) -> Result<Command> {
    let compiler = packages::unpack("rustc", &compiler_packages()?)?;
    let libraries = compiler.join("usr/lib/x86_64-linux-gnu");
    let rustc = compiler.join("usr/bin/rustc");
    let mut flags =
        vec!["-Clink-self-contained=no", "-Crelocation-model=static", "-Ctarget-feature=+crt-static"];
    let mut features = "optimize_for_size";
    let abort = ["-Cpanic=immediate-abort", "-Zunstable-options"];
    if !messages {
        // Nothing unwinds and nothing says where: no tables for the one, no file names for the other.
        flags.extend(["-Cforce-unwind-tables=no", "-Zlocation-detail=none"]);
        let mut probe = Command::new(&rustc);
        probe.args(abort).args(["--print", "cfg"]);
        probe.env("RUSTC_BOOTSTRAP", "1").env("LD_LIBRARY_PATH", &libraries);
        // Before 1.92 this panic strategy was a feature of std.
        match raw(&mut probe)?.status.success() {
            true => flags.extend(abort),
            false => features = "optimize_for_size,panic_immediate_abort",
        }
    }
    let mut cargo = cargo();
    cargo.args(["-Zbuild-std=std,panic_abort".into(), format!("-Zbuild-std-features={features}")]);
    cargo.env("RUSTC", &rustc).env("RUSTC_BOOTSTRAP", "1").env("LD_LIBRARY_PATH", &libraries);
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER", linker(&compiler)?);
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS", flags.join(" "));
    Ok(cargo)
}

/// gcc with musl's start files and libc.a in place of glibc's. rustc asks for libunwind by name; with
/// panics that abort nothing in it is called, so an empty one, backed by gcc's, answers.
fn linker(compiler: &Path) -> Result<PathBuf> {
    let musl = compiler.join("usr/lib/x86_64-linux-musl");
    let script = format!(
        "#!/bin/sh\nm='{}'\nexec gcc -nostdlib -static -no-pie \"$m/crt1.o\" \"$m/crti.o\" \"$@\" -L\"$m\" \
         -Wl,--start-group \"$m/dlstub.o\" -lgcc_eh -lgcc -lc -Wl,--end-group \"$m/crtn.o\"\n",
        musl.display()
    );
    let place = musl.join("musl-gcc");
    fs::remove_file(musl.join("libunwind.a")).ok();
    output(Command::new("ar").arg("crs").arg(musl.join("libunwind.a")))?;
    let stub = musl.join("dlstub.c");
    fs::write(&stub, "int _dl_find_object(void *pc, void *result) { (void)pc; (void)result; return -1; }\n")?;
    output(Command::new("gcc").args(["-Os", "-c", "-o"]).arg(musl.join("dlstub.o")).arg(&stub))?;
    fs::write(&place, script)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
    Ok(place)
}
