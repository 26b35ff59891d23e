//! What is shipped beside the binary (scripts, lists, an external tree, pages), as far as it can be checked
//! without building anything. `packaging.rs` boots what the scripts make.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rcsnap::config::{Config, Key};
use rcsnap::store::spec::Spec;

use crate::run::output;
use crate::{kernel_check, packages, pages, toolchain};

/// Scripts, and the shell that runs each.
const SCRIPTS: [(&str, &str); 4] = [
    ("initramfs/kernel/modules.sh", "sh"),
    ("initramfs/initramfs-tools/hooks/rcsnap", "sh"),
    ("initramfs/dracut/99rcsnap/module-setup.sh", "bash"),
    ("buildroot/package/rcsnap/add-ready.sh", "sh"),
];

/// Buildroot's inittab for BusyBox, as far as it counts here.
const BUSYBOX: &str = "::sysinit:/bin/mount -a\n# now run any rc scripts\n::sysinit:/etc/init.d/rcS\n\n\
                       ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100\n::shutdown:/etc/init.d/rcK\n";
/// And its inittab for sysvinit.
const SYSVINIT: &str = "id:3:initdefault:\nsi3::sysinit:/bin/mount -a\nrcS:12345:wait:/etc/init.d/rcS\n\
                        S0::respawn:/sbin/getty -L ttyS0 115200 vt100\n";

/// All of it; the number is how many things were looked at.
pub fn check() -> Result<usize> {
    let parts = [
        scripts,
        inittab,
        configuration,
        stores,
        kernel_build,
        vendor,
        versions,
        licences,
        kernel_options,
        runtime_test,
    ];
    parts.into_iter().map(|part| part()).sum()
}

fn path(name: &str) -> PathBuf {
    toolchain::workspace().join(name)
}

fn text(name: &str) -> Result<String> {
    fs::read_to_string(path(name)).with_context(|| format!("reading {name}"))
}

fn scripts() -> Result<usize> {
    packages::need(&[("shellcheck", "shellcheck")])?;
    for (name, shell) in SCRIPTS {
        output(Command::new("shellcheck").args(["-s", shell]).arg(path(name)))?;
    }
    Ok(SCRIPTS.len())
}

/// The package's script adds the line of the page behind the scripts, only once, and not where one was put out.
fn inittab() -> Result<usize> {
    let lines = pages::lines("integration.md", "inittab")?;
    let line = lines.trim();
    ensure!(
        add_ready(BUSYBOX)?.contains(&format!("/etc/init.d/rcS\n{line}\n")),
        "BusyBox: {}",
        add_ready(BUSYBOX)?
    );
    let entry = "/etc/init.d/rcS\nrdy:12345:wait:/sbin/rcsnap ready\nS0:";
    ensure!(add_ready(SYSVINIT)?.contains(entry), "sysvinit: {}", add_ready(SYSVINIT)?);
    let out = format!("{BUSYBOX}#{line}");
    for done in [add_ready(BUSYBOX)?, add_ready(SYSVINIT)?, out] {
        ensure!(add_ready(&done)? == done, "add-ready.sh adds to what is done:\n{done}");
    }
    ensure!(add_ready("::sysinit:/etc/rc\n").is_err(), "add-ready.sh finds a place where no rcS is");
    Ok(6)
}

fn add_ready(before: &str) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), before)?;
    output(Command::new("sh").arg(path("buildroot/package/rcsnap/add-ready.sh")).arg(file.path()))?;
    Ok(fs::read_to_string(file.path())?)
}

/// What is shipped and shown as rcsnap.conf is understood.
fn configuration() -> Result<usize> {
    let board = text("buildroot/board/qemu/rootfs_overlay/etc/rcsnap.conf")?;
    let shown = pages::lines("integration.md", "config")?;
    for text in [&board, &shown] {
        let config = Config::parse(text, &[]);
        ensure!(config.warnings.is_empty(), "{text}: {:?}", config.warnings);
    }
    ensure!(Config::parse("no such = key\n", &[]).warnings.len() == 1, "a wrong line is no warning");
    Ok(2)
}

/// The stores that are shown are spelled right.
fn stores() -> Result<usize> {
    let shown = pages::lines("integration.md", "store")?;
    for line in shown.lines() {
        let config = Config::parse(line, &[]);
        ensure!(config.warnings.is_empty(), "{line}: {:?}", config.warnings);
        Spec::parse(config.text(Key::Store)).with_context(|| line.to_owned())?;
    }
    ensure!(Spec::parse("file:LABEL=data").is_err(), "a wrong store is taken");
    Ok(shown.lines().count())
}

/// CONFIG_INITRAMFS_SOURCE, as it is shown, names the lists that the lines below it give to the kernel's script:
/// the kernel's build calls that script with its words.
fn kernel_build() -> Result<usize> {
    let shown = pages::lines("initramfs.md", "kernel-configuration")?;
    let value = shown.trim().strip_prefix("CONFIG_INITRAMFS_SOURCE=").context("reading the option")?;
    let lists = value.trim_matches('"').split(' ').map(|list| list.replace("/path/to/", ""));
    let lists = lists.collect::<Vec<_>>().join(" ");
    let lines = pages::lines("initramfs.md", "kernel")?;
    let call =
        lines.lines().find(|line| line.starts_with("usr/gen_initramfs.sh ")).context("no call of it")?;
    ensure!(call.ends_with(&format!(" {lists}")), "{call}: not with {lists}");
    Ok(1)
}

/// What is vendored beforehand is all that a build without a network and without anything downloaded needs.
fn vendor() -> Result<usize> {
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("rcsnap");
    fs::create_dir(&copy)?;
    for entry in fs::read_dir(toolchain::workspace())? {
        let entry = entry?;
        if !["target", ".git"].iter().any(|name| entry.file_name() == *name) {
            output(Command::new("cp").args(["-R", "-p"]).arg(entry.path()).arg(&copy))?;
        }
    }
    let lines = pages::lines("buildroot.md", "vendor")?;
    output(Command::new("sh").args(["-e", "-c", &lines]).current_dir(&copy))?;
    let mut resolve = toolchain::cargo();
    resolve.args(["metadata", "--offline", "--locked", "--format-version=1"]).current_dir(&copy);
    resolve.env("CARGO_HOME", folder.path().join("home"));
    output(&mut resolve)?;
    fs::remove_dir_all(copy.join("VENDOR"))?;
    ensure!(output(&mut resolve).is_err(), "cargo finds crates without VENDOR");
    Ok(1)
}

/// The runtime test for Buildroot is Python, and knows each configuration.
fn runtime_test() -> Result<usize> {
    packages::need(&[("flake8", "flake8")])?;
    let place = path("buildroot/support/testing/tests/package/test_rcsnap.py");
    // The one rule of Buildroot's own that is not flake8's default.
    output(Command::new("/usr/bin/flake8").args(["--isolated", "--max-line-length=132"]).arg(&place))?;
    let text = fs::read_to_string(&place)?;
    let mut count = 0;
    for entry in fs::read_dir(path("buildroot/configs"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let name = name.strip_suffix("_defconfig").context("a configuration with another name")?.to_owned();
        ensure!(
            text.contains(&format!("config = defconfig(\"{name}\")")),
            "test_rcsnap.py does not test {name}"
        );
        count += 1;
    }
    Ok(count)
}

/// The package's version is the crate's.
fn versions() -> Result<usize> {
    let manifest: toml::Table = toml::from_str(&text("Cargo.toml")?)?;
    let version = manifest["workspace"]["package"]["version"].as_str().context("reading the version")?;
    let line = format!("RCSNAP_VERSION = {version}");
    ensure!(
        text("buildroot/package/rcsnap/rcsnap.mk")?.lines().any(|l| l == line),
        "rcsnap.mk has no {line}"
    );
    Ok(1)
}

/// Buildroot compares the licences' digests.
fn licences() -> Result<usize> {
    use sha2::{Digest, Sha256};
    let list = text("buildroot/package/rcsnap/rcsnap.hash")?;
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let digest: String =
            Sha256::digest(fs::read(path(name))?).iter().map(|b| format!("{b:02x}")).collect();
        let line = format!("sha256  {digest}  {name}");
        ensure!(list.lines().any(|l| l == line), "rcsnap.hash has no {line}");
    }
    Ok(2)
}

/// Options that the Buildroot package enables for the sake of others: TIME_NS is below it.
const MENU: &str = "NAMESPACES";
/// Optional ones that a product decides about, not the package.
const PRODUCT: [&str; 5] = ["BLK_DEV_INITRD", "EFI_PARTITION", "PARTITION_ADVANCED", "PRINTK", "RTC_HCTOSYS"];
/// The clocks of the boards are below it.
const FRAGMENT: [&str; 1] = ["RTC_CLASS"];

/// The Buildroot package and its boards ask of a kernel what board/ asks.
fn kernel_options() -> Result<usize> {
    let asked = kernel_check::listed(
        &text("buildroot/package/rcsnap/rcsnap.mk")?,
        "$(call KCONFIG_ENABLE_OPT,CONFIG_",
        ")",
    );
    let wanted = kernel_check::wanted(None)?;
    let mut listed: BTreeSet<&str> = wanted.iter().map(|option| option.name.as_str()).collect();
    listed.retain(|name| !PRODUCT.contains(name));
    listed.insert(MENU);
    let names: BTreeSet<&str> = asked.iter().map(String::as_str).collect();
    let differ: Vec<_> = names.symmetric_difference(&listed).collect();
    ensure!(differ.is_empty(), "rcsnap.mk and board/kernel.config differ in {differ:?}");

    let mut known: BTreeSet<String> = FRAGMENT.map(Into::into).into();
    for board in fs::read_dir(path("board"))? {
        let board = board?;
        if board.file_type()?.is_dir() {
            let wanted = kernel_check::wanted(Some(&board.file_name().to_string_lossy()))?;
            known.extend(wanted.into_iter().map(|option| option.name));
        }
    }
    let fragment = kernel_check::listed(&text("buildroot/board/qemu/linux.fragment")?, "CONFIG_", "=y");
    let unknown: Vec<_> = fragment.difference(&known).collect();
    ensure!(!fragment.is_empty() && unknown.is_empty(), "linux.fragment: no board asks for {unknown:?}");
    Ok(asked.len() + fragment.len())
}
