//! The kernel options of a configuration: what the package and the boards ask for, laid over the configuration that
//! Buildroot takes for the board, survives the kernel's own rules. They are the rules of the distribution's kernel
//! source: Buildroot's own kernel is not downloaded.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Trees, value};
use crate::run::output;
use crate::toolchain::target;
use crate::{kernel_check, kernel_source, packages};

/// Options that a machine of this architecture has not got, by the kernel's name of it.
const ABSENT: [(&str, &[&str]); 3] =
    [("arm", &["TIME_NS"]), ("arm64", &["RTC_DRV_CMOS"]), ("x86_64", &["RTC_DRV_PL031"])];

/// Makes the configuration. Returns how many options were asked for.
pub fn options(trees: &Trees, name: &str) -> Result<u64> {
    packages::need(&[("flex", "flex"), ("bison", "bison")])?;
    let set = fs::read_to_string(trees.folder(name).join(".config"))?;
    let of = |key: &str| Ok::<_, anyhow::Error>(value(&set, key)?.trim_matches('"'));
    let variables = trees.make(name, &["printvars", "VARS=KERNEL_ARCH RUSTC_TARGET_NAME"])?;
    let arch = value(&variables, "KERNEL_ARCH")?;
    let target = target::TARGETS.iter().find(|t| variables.contains(t.triple)).context("no such target")?;
    packages::need(&[target.gcc])?;

    let folder = trees.folder(name).join("kernel");
    fs::create_dir_all(&folder)?;
    let make = |word: &str| {
        let mut make = Command::new("make");
        make.arg("-s").arg("-C").arg(kernel_source::configure()?).arg(format!("O={}", folder.display()));
        let cross = target.gcc.0.strip_suffix("gcc").context("reading the name of the compiler")?;
        output(make.args([&format!("ARCH={arch}"), &format!("CROSS_COMPILE={cross}"), word]))
    };
    let place = folder.join(".config");
    match of("BR2_LINUX_KERNEL_CUSTOM_CONFIG_FILE") {
        Ok(base) => drop(fs::copy(trees.buildroot.join(base), &place).with_context(|| base.to_owned())?),
        Err(_) => drop(make("defconfig")?),
    }
    let external = trees.own.display().to_string();
    let fragment =
        of("BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES")?.replace("$(BR2_EXTERNAL_RCSNAP_PATH)", &external);
    let mut asked = BTreeSet::new();
    for (file, begin, end) in [
        (Path::new(&fragment), "CONFIG_", "=y"),
        (&trees.own.join("package/rcsnap/rcsnap.mk"), "$(call KCONFIG_ENABLE_OPT,CONFIG_", ")"),
    ] {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        asked.extend(kernel_check::listed(&text, begin, end));
    }
    lay_over(&place, &asked)?;
    make("olddefconfig")?;

    let made = fs::read_to_string(&place)?;
    let lost = asked.iter().filter(|option| {
        !["y", "m"].iter().any(|state| made.lines().any(|line| line == format!("CONFIG_{option}={state}")))
    });
    let absent = ABSENT.iter().find(|(own, _)| *own == arch).context("an architecture of no board")?.1;
    let lost: Vec<&str> = lost.map(String::as_str).collect();
    ensure!(lost == absent, "the kernel's rules leave out {lost:?}, not {absent:?}");
    kernel_check::must(&place, None)?;
    Ok(asked.len() as u64)
}

/// As KCONFIG_ENABLE_OPT does it: an option that is a module stays one.
fn lay_over(place: &Path, asked: &BTreeSet<String>) -> Result<()> {
    let text = fs::read_to_string(place)?;
    let module = |option: &String| text.lines().any(|line| line == format!("CONFIG_{option}=m"));
    let added = asked.iter().filter(|option| !module(option)).map(|option| format!("CONFIG_{option}=y\n"));
    fs::write(place, format!("{text}{}", added.collect::<String>())).context("writing the configuration")
}
