//! The two ways into rcsnap.
//!
//! `Entry::Initramfs`: rcsnap is `/init` and mounts the root file system itself. `Entry::Init`: the
//! root is mounted already and the command line says `init=/sbin/rcsnap`; stock kernels have virtio
//! as modules, so a small script stands in for a kernel that has them built in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::board::Board;
use crate::cpio::Archive;
use crate::kernel::Kernel;
use crate::packages;

/// Loads the modules, mounts the root, hands over to `init=` as a kernel without modules would.
const SCRIPT: &str = include_str!("initramfs-init.sh");

/// How rcsnap is entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    Initramfs,
    Init,
}

impl Entry {
    /// As the command line of the lab and its reports have it.
    pub fn word(self) -> &'static str {
        match self {
            Entry::Initramfs => "initramfs",
            Entry::Init => "init",
        }
    }
}

impl argh::FromArgValue for Entry {
    fn from_arg_value(word: &str) -> Result<Self, String> {
        let known = [Entry::Initramfs, Entry::Init];
        known.into_iter().find(|e| e.word() == word).ok_or_else(|| format!("{word}: not initramfs or init"))
    }
}

/// Writes the archive for an entry into `folder`.
pub fn write(entry: Entry, board: &Board, kernel: &Kernel, rcsnap: &Path, folder: &Path) -> Result<PathBuf> {
    let (place, init) = match entry {
        Entry::Initramfs => (folder.join("initramfs-rcsnap"), fs::read(rcsnap)?),
        Entry::Init => (folder.join("initramfs-lab"), SCRIPT.as_bytes().to_vec()),
    };
    let mut archive = Archive::new(io::BufWriter::new(fs::File::create(&place)?));
    for name in ["dev", "proc", "sys", "root", "bin", "lib", "lib/rcsnap", "lib/modules"] {
        archive.folder(name)?;
    }
    archive.character_device("dev/console", 0o600, (5, 1))?;
    archive.file("init", 0o755, &init)?;
    let mut list = String::new();
    for path in kernel.in_order(&board.guest.early_modules)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let inside = format!("lib/modules/{name}");
        archive.file(&inside, 0o644, &fs::read(kernel.module(&path))?)?;
        list += &format!("/{inside}\n");
    }
    archive.file("lib/rcsnap/modules", 0o644, list.as_bytes())?;
    if entry == Entry::Init {
        let target = board.target()?;
        let busybox = packages::of(target.debian)?
            .unpack(&format!("busybox-{}", target.arch), &["busybox-static".into()])?;
        archive.file("bin/busybox", 0o755, &fs::read(busybox.join("bin/busybox"))?)?;
        archive.link("bin/sh", "busybox")?;
    }
    archive.finish().with_context(|| format!("writing {}", place.display()))?;
    Ok(place)
}
