//! The package's rules, run by Buildroot up to the installation, with the lab's compiler in place of host-rustc and
//! of the toolchain, which Buildroot would download.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Trees, value};
use crate::run::output;
use crate::toolchain::{self, Wish, target};

/// Packages that are taken as built.
const GIVEN: [&str; 4] = ["host-rustc", "host-skeleton", "skeleton", "toolchain"];

/// Syncs, vendors, builds and installs. Returns the size of the binary.
pub fn install(trees: &Trees, name: &str) -> Result<u64> {
    let out = trees.folder(name);
    let variables = trees.make(name, &["printvars", "VARS=RUSTC_TARGET_NAME TARGET_CROSS RCSNAP_DIR"])?;
    let triple = value(&variables, "RUSTC_TARGET_NAME")?;
    let target = target::TARGETS.iter().find(|target| target.triple == triple);
    let target = target.with_context(|| format!("{triple}: not a target of the lab"))?;
    compiler(target, &out.join("host/bin"), value(&variables, "TARGET_CROSS")?)?;

    let mut make = trees.command("make");
    make.arg("-s").arg(format!("O={}", out.display())).args(GIVEN.iter().flat_map(|package| ["-o", package]));
    // The crates come from where the lab's own came from.
    output(make.arg("rcsnap-install-target"))?;
    ensure!(Path::new(value(&variables, "RCSNAP_DIR")?).join("VENDOR").is_dir(), "nothing was vendored");

    let place = out.join("target/sbin/rcsnap");
    let found = fs::metadata(&place).context("finding the binary in the target")?;
    ensure!(found.permissions().mode() & 0o7777 == 0o755, "the binary has another mode");
    let kind = output(std::process::Command::new("file").arg(&place))?;
    ensure!(kind.contains("statically linked"), "{kind}");
    let conf = fs::read_to_string(out.join("target/etc/rcsnap.conf"))?;
    ensure!(conf == "store = PARTLABEL=rcsnap\n", "rcsnap.conf says {conf}");
    // With Buildroot's own profile it would be half as large again. On x86_64 the lab's linker goes over the program
    // once more, which saves a tenth.
    let own = toolchain::build(target, "")?.bytes;
    ensure!(found.len() < own + own / 8, "{} bytes, and the lab's own binary has {own}", found.len());
    Ok(found.len())
}

/// Puts `cargo`, `rustc` and the linker where Buildroot's rules find them.
fn compiler(target: &'static target::Target, bin: &Path, cross: &str) -> Result<()> {
    let (cargo, _) = Wish::new(target).cargo()?;
    let variables: Vec<(String, String)> = cargo
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value?.to_str()?.to_owned())))
        .collect();
    let of = |name: &str| {
        let found = variables.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        found.with_context(|| format!("the lab sets no {name}: there is no compiler of the distribution"))
    };
    fs::create_dir_all(bin)?;
    let flags = of(&target.variable("RUSTFLAGS"))?;
    let rustc = format!(
        "#!/bin/sh\nexport RUSTC_BOOTSTRAP=1 LD_LIBRARY_PATH='{}'\n\
         case \"$*\" in\n*'--target {triple}'*|*'--target={triple}'*) exec '{rustc}' \"$@\" {flags} ;;\n\
         *) exec '{rustc}' \"$@\" ;;\nesac\n",
        of("LD_LIBRARY_PATH")?,
        triple = target.triple,
        rustc = of("RUSTC")?,
    );
    let linker = format!("#!/bin/sh\nexec '{}' \"$@\"\n", of(&target.variable("LINKER"))?);
    let linker_name = Path::new(cross).file_name().context("reading TARGET_CROSS")?.to_string_lossy();
    for (name, text) in [("rustc".to_owned(), rustc), (format!("{linker_name}gcc"), linker)] {
        let place = bin.join(name);
        fs::write(&place, text)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
    }
    let cargo = which(cargo.get_program())?;
    symlink(cargo, bin.join("cargo")).context("placing cargo")
}

/// The path of a program.
fn which(program: &std::ffi::OsStr) -> Result<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    let found = folders.find_map(|folder| Some(folder.join(program)).filter(|place| place.is_file()));
    found.with_context(|| format!("finding {}", program.display()))
}
