//! The guest's disks as files: made, copied, and edited between boots without mounting them.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages;
use crate::run::{output, raw, shown, tail};

/// The root file system and the store.
pub struct Disks {
    pub root: PathBuf,
    pub store: PathBuf,
}

/// A file of this machine that goes into the root file system.
pub struct Put {
    pub from: PathBuf,
    pub to: String,
    pub mode: u32,
}

impl Disks {
    /// A root from the base image with rcsnap in it, and an empty store.
    pub fn fresh(folder: &Path, base: &Path, rcsnap: &Path, store_mib: u64) -> Result<Self> {
        let disks = Self { root: folder.join("root.img"), store: folder.join("store.img") };
        copy_sparse(base, &disks.root)?;
        disks.put(rcsnap, "/sbin/rcsnap", 0o755)?;
        disks.empty_store(store_mib << 20)?;
        Ok(disks)
    }

    /// The same disks again, for a case that changes them.
    pub fn copy(&self, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let disks = Self { root: folder.join("root.img"), store: folder.join("store.img") };
        copy_sparse(&self.root, &disks.root)?;
        copy_sparse(&self.store, &disks.store)?;
        Ok(disks)
    }

    /// An all-zero store of this size.
    pub fn empty_store(&self, bytes: u64) -> Result<()> {
        File::create(&self.store)?.set_len(bytes).context("making the store")
    }

    /// Puts a file of this machine into the root file system.
    pub fn put(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        self.put_all(&[Put { from: from.into(), to: to.into(), mode }])
    }

    /// Puts files of this machine into the root file system.
    pub fn put_all(&self, files: &[Put]) -> Result<()> {
        let put = |Put { from, to, mode }: &Put| {
            format!("rm {to}\nwrite {} {to}\nsif {to} mode 0100{mode:o}\n", from.display())
        };
        self.edit(&files.iter().map(put).collect::<String>())
    }

    /// Makes a folder in the root file system, in one that is there.
    pub fn folder(&self, name: &str) -> Result<()> {
        self.edit(&format!("mkdir {name}\n"))
    }

    fn edit(&self, script: &str) -> Result<()> {
        self.replay_journal()?;
        let said = self.debugfs(script)?;
        // rm of a file that is not there is the one complaint that is fine.
        let complaint =
            said.lines().find(|l| !l.starts_with("rm: File not found") && !l.starts_with("debugfs 1"));
        match complaint {
            Some(line) => bail!("editing the root image: {line}"),
            None => Ok(()),
        }
    }

    /// Writes text as a file of the root file system.
    pub fn put_text(&self, text: &str, to: &str, mode: u32) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(text.as_bytes())?;
        self.put(file.path(), to, mode)
    }

    /// Copies a file out of the root file system.
    pub fn get(&self, from: &str, to: &Path) -> Result<()> {
        self.replay_journal()?;
        let mut dump = packages::sbin("debugfs");
        output(dump.args(["-R", &format!("dump {from} {}", to.display())]).arg(&self.root)).map(drop)
    }

    /// Reads a file of the root file system.
    pub fn text(&self, of: &str) -> Result<String> {
        self.replay_journal()?;
        let mut cat = packages::sbin("debugfs");
        output(cat.args(["-R", &format!("cat {of}")]).arg(&self.root))
    }

    /// Bytes of the store, to break it or to look at it.
    pub fn store_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(&self.store)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Overwrites a place in the store.
    pub fn write_store(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let mut file = OpenOptions::new().write(true).open(&self.store)?;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(bytes).context("writing the store")
    }

    /// Zeroes the store from a place on; its size stays.
    pub fn empty_store_from(&self, at: u64, bytes: u64) -> Result<()> {
        let file = OpenOptions::new().write(true).open(&self.store)?;
        file.set_len(at)?;
        file.set_len(bytes).context("emptying a part of the store")
    }

    /// A guest that was killed leaves its journal behind; it would undo an edit made before replay.
    fn replay_journal(&self) -> Result<()> {
        let mut check = packages::sbin("e2fsck");
        check.args(["-p"]).arg(&self.root);
        let done = raw(&mut check)?;
        // 1: errors were corrected, which is what the replay of a journal counts as.
        match done.status.code() {
            Some(0 | 1) => Ok(()),
            _ => bail!("{}: {}\n{}", shown(&check), done.status, tail(&done.stdout, 10)),
        }
    }

    /// debugfs exits 0 whatever happens; what it says on stderr is returned.
    fn debugfs(&self, script: &str) -> Result<String> {
        let mut commands = tempfile::NamedTempFile::new()?;
        commands.write_all(script.as_bytes())?;
        let mut run = packages::sbin("debugfs");
        let done = raw(run.args(["-w", "-f"]).arg(commands.path()).arg(&self.root))?;
        Ok(String::from_utf8_lossy(&done.stderr).into_owned())
    }
}

fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    output(copy.args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to)).map(drop)
}
