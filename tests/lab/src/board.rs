//! A board: `board/<name>/board.toml` and the files beside it. A board may name another as its base: it then says
//! only what differs, and its rootfs folder, if it has one, is laid over the other's.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::toolchain;
use crate::toolchain::target::{self, Target};

/// The board of commands that are told none.
pub const DEFAULT: &str = "qemu-x86_64";

/// What board.toml says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// another board, of which this one is a variant
    #[serde(rename = "base")]
    pub _base: Option<String>,
    pub arch: String,
    /// the kernel's package; a metapackage is followed
    pub kernel: String,
    /// that of another kernel, which must not be taken for this one
    pub other_kernel: Option<String>,
    /// QEMU's program and the package it is in
    pub qemu: [String; 2],
    pub machine: Vec<String>,
    /// QEMU's names of processors it can have; the first is the board's, the second another
    pub cpu: Vec<String>,
    /// the one with the most registers, for the zoo
    pub zoo_cpu: String,
    /// how devices are attached: `pci` or `mmio`
    pub bus: Bus,
    /// the serial port, with the console and a login on it
    pub tty: String,
    pub memory_mib: u32,
    /// how the kernel command line names the root file system
    pub root: String,
    /// and the store
    pub store: String,
    pub command_line: String,
    pub guest: Guest,
    pub disk: Disk,
    pub budget: Budget,
    #[serde(skip)]
    pub name: String,
    /// where its files are: those of its bases first
    #[serde(skip)]
    pub folders: Vec<PathBuf>,
}

/// How QEMU attaches what is virtual.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    Pci,
    Mmio,
}

impl Bus {
    /// The end of QEMU's device names.
    pub fn suffix(self) -> &'static str {
        match self {
            Bus::Pci => "pci",
            Bus::Mmio => "device",
        }
    }
}

/// What the guest is made of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    pub packages: Vec<String>,
    pub without: Vec<String>,
    pub early_modules: Vec<String>,
    pub modules: Vec<String>,
}

/// The board's flash.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    pub root_mib: u64,
    pub store_mib: u64,
}

/// Limits that the lab enforces.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    pub binary_bytes: u64,
    pub image_bytes: u64,
    /// the conductor's memory beside the pages that it holds for PID 1
    pub conductor_bytes: u64,
    pub speedup: f64,
}

/// Reads `board/<name>/board.toml`, on top of the board that it names as its base.
pub fn load(name: &str) -> Result<Board> {
    let (table, folders) = tables(name)?;
    let board: Board = table.try_into().with_context(|| format!("reading the board.toml of {name}"))?;
    Ok(Board { name: name.into(), folders, ..board })
}

/// A board's table over those of its bases, and the folders of all of them, the base first.
fn tables(name: &str) -> Result<(toml::Table, Vec<PathBuf>)> {
    let folder = toolchain::workspace().join("board").join(name);
    let file = folder.join("board.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let own: toml::Table = toml::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    let Some(base) = own.get("base") else { return Ok((own, vec![folder])) };
    let base = base.as_str().with_context(|| format!("reading the base in {}", file.display()))?;
    let (mut table, mut folders) = tables(base)?;
    lay_over(&mut table, own);
    folders.push(folder);
    Ok((table, folders))
}

/// What `own` says replaces what `table` said; tables are laid over each other in turn.
fn lay_over(table: &mut toml::Table, own: toml::Table) {
    for (name, value) in own {
        match (table.get_mut(&name), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => lay_over(below, above),
            (_, value) => drop(table.insert(name, value)),
        }
    }
}

impl Board {
    /// Whether a restored program's monotonic clock goes on: 32-bit ARM kernels of 6.1 have no time namespaces.
    pub fn clocks_go_on(&self) -> bool {
        self.arch != "armv7"
    }

    /// What its programs are built for.
    pub fn target(&self) -> Result<&'static Target> {
        target::of(&self.arch)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_board_says_only_what_differs_from_its_base() {
        let base: toml::Table = toml::from_str("tty = 'S0'\n[guest]\na = [1]\nb = 2").unwrap();
        let own: toml::Table = toml::from_str("tty = 'AMA0'\n[guest]\na = [3]").unwrap();
        let mut table = base;
        super::lay_over(&mut table, own);
        assert_eq!(table, toml::from_str("tty = 'AMA0'\n[guest]\na = [3]\nb = 2").unwrap());
    }

    #[test]
    fn every_board_is_read() {
        for folder in std::fs::read_dir(crate::toolchain::workspace().join("board")).unwrap().flatten() {
            if !folder.path().is_dir() {
                continue;
            }
            let board = super::load(&folder.file_name().to_string_lossy()).unwrap();
            assert!(board.target().is_ok() && !board.cpu.is_empty(), "{}", board.name);
        }
    }
}
