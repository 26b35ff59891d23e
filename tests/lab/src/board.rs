//! A board: `board/<name>/board.toml` and the files beside it.

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
    pub arch: String,
    /// the kernel's package; a metapackage is followed
    pub kernel: String,
    /// QEMU's program and the package it is in
    pub qemu: [String; 2],
    pub machine: Vec<String>,
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
    pub folder: PathBuf,
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
    pub speedup: f64,
}

/// Reads `board/<name>/board.toml`.
pub fn load(name: &str) -> Result<Board> {
    let folder = toolchain::workspace().join("board").join(name);
    let file = folder.join("board.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let board: Board = toml::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    Ok(Board { folder, ..board })
}

impl Board {
    /// What its programs are built for.
    pub fn target(&self) -> Result<&'static Target> {
        target::of(&self.arch)
    }
}
