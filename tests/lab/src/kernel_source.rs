//! Parts of the distribution's kernel source: what a kernel's own build does with lists and options can be tried
//! without building a kernel.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::output;
use crate::{cache, packages};

/// Members of the archive, below its folder, that make `make olddefconfig` work.
const CONFIGURE: [&str; 6] =
    ["Makefile", "Kconfig", "*/Kconfig*", "scripts", "arch/*/configs", "arch/*/Makefile*"];

/// The folder usr/, with gen_init_cpio built.
pub fn usr() -> Result<PathBuf> {
    packages::need(&[("gcc", "gcc")])?;
    let entry = extract("linux-usr", &["usr/gen_init_cpio.c", "usr/gen_initramfs.sh"], |folder| {
        let program = folder.join("usr/gen_init_cpio");
        output(Command::new("gcc").arg("-O1").arg("-o").arg(&program).arg(program.with_extension("c")))
            .map(drop)
    })?;
    Ok(entry.join("usr"))
}

/// A tree in which configurations can be made, and nothing else.
pub fn configure() -> Result<PathBuf> {
    extract("linux-kconfig", &CONFIGURE, |_| Ok(()))
}

/// Unpacks members of the archive, and finishes what came out.
fn extract(name: &str, members: &[&str], finish: impl Fn(&Path) -> Result<()>) -> Result<PathBuf> {
    packages::need(&[("xz", "xz-utils")])?;
    let repository = packages::own()?;
    let mut wanted = repository.closure(&["linux-source".into()], |p| p.starts_with("linux-source-"))?;
    wanted.retain(|p| p != "linux-source");
    let version = wanted.first().context("finding the kernel's source: linux-source needs none")?.clone();
    let source = repository.unpack("linux-source", &wanted)?;
    let archive = source.join("usr/src").join(format!("{version}.tar.xz"));
    cache::entry(name, &format!("{} {}", archive.display(), members.join(" ")), |folder| {
        let mut tar = Command::new("tar");
        tar.args(["-x", "--strip-components=1", "--wildcards", "-f"]).arg(&archive).arg("-C").arg(folder);
        output(tar.args(members.iter().map(|member| format!("{version}/{member}"))))?;
        finish(folder)
    })
}
