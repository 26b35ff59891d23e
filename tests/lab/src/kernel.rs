//! The guest's kernel: the distribution's package, unpacked. Its modules are addressed by name; what
//! a module needs is read from the module itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::board::Board;
use crate::packages;

/// An unpacked kernel package.
pub struct Kernel {
    pub image: PathBuf,
    pub release: String,
    /// the folder that holds `lib/modules/<release>`
    pub folder: PathBuf,
    /// module name to its path under `lib/modules/<release>`
    modules: BTreeMap<String, PathBuf>,
    /// names of those that are part of the kernel itself
    builtin: Vec<String>,
}

/// Downloads and unpacks the board's kernel, or finds it in the cache.
pub fn fetch(board: &Board) -> Result<Kernel> {
    unpack(board, &board.kernel, &format!("kernel-{}", board.arch))
}

/// The same for the board's other kernel.
pub fn fetch_other(board: &Board) -> Result<Kernel> {
    let package = board.other_kernel.as_ref().context("choosing another kernel: board.toml names none")?;
    unpack(board, package, &format!("kernel-{}-other", board.arch))
}

/// Unpacks a kernel's package; a metapackage is followed.
fn unpack(board: &Board, package: &String, name: &str) -> Result<Kernel> {
    let repository = packages::of(board.target()?.debian)?;
    let mut wanted = repository.closure(std::slice::from_ref(package), |p| p.starts_with("linux-image-"))?;
    if wanted.len() > 1 {
        // The metapackage itself holds nothing.
        wanted.retain(|p| p != package);
    }
    let folder = repository.unpack(name, &wanted)?;
    let release = only_entry(&folder.join("lib/modules"))?;
    let image = folder.join(format!("boot/vmlinuz-{release}"));
    let root = folder.join("lib/modules").join(&release);
    let mut modules = BTreeMap::new();
    walk(&root, &root, &mut modules)?;
    let builtin = fs::read_to_string(root.join("modules.builtin")).context("reading modules.builtin")?;
    let builtin = builtin.lines().map(|line| module_name(Path::new(line))).collect();
    Ok(Kernel { image, release, folder, modules, builtin })
}

impl Kernel {
    /// Paths under `lib/modules/<release>` of these modules and of what they need, needed ones first.
    pub fn in_order(&self, names: &[String]) -> Result<Vec<PathBuf>> {
        let mut order = Vec::new();
        for name in names {
            self.add(name, &mut order)?;
        }
        Ok(order)
    }

    /// Where a path of `in_order` is on this machine.
    pub fn module(&self, path: &Path) -> PathBuf {
        self.folder.join("lib/modules").join(&self.release).join(path)
    }

    /// What it was built with.
    pub fn configuration(&self) -> PathBuf {
        self.folder.join(format!("boot/config-{}", self.release))
    }

    fn add(&self, name: &str, order: &mut Vec<PathBuf>) -> Result<()> {
        let Some(path) = self.modules.get(name) else {
            if self.builtin.iter().any(|builtin| builtin == name) {
                return Ok(());
            }
            bail!("looking for module {name} of {}: not there", self.release);
        };
        if order.contains(path) {
            return Ok(());
        }
        for needed in needs(&fs::read(self.module(path))?) {
            self.add(&needed, order)?;
        }
        order.push(path.clone());
        Ok(())
    }
}

/// The `depends=` entry of a module's .modinfo section.
fn needs(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|w| w == key) else { return Vec::new() };
    let rest = &module[at + key.len()..];
    let end = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
    let text = String::from_utf8_lossy(&rest[..end]);
    text.split(',').filter(|n| !n.is_empty()).map(|n| n.replace('-', "_")).collect()
}

/// A module's name, by the name of its file.
fn module_name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_")
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            walk(root, &path, found)?;
        } else if path.extension().is_some_and(|e| e == "ko") {
            found.insert(module_name(&path), path.strip_prefix(root)?.to_path_buf());
        }
    }
    Ok(())
}

fn only_entry(folder: &Path) -> Result<String> {
    let entry = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?.next();
    Ok(entry.context("finding the kernel's modules: none")??.file_name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn needed_modules_are_read_from_modinfo() {
        let module = b"junk\0license=GPL\0depends=virtio,virtio-ring\0name=x\0";
        assert_eq!(super::needs(module), ["virtio", "virtio_ring"]);
        assert!(super::needs(b"\0depends=\0").is_empty());
    }
}
