//! A root folder of distribution packages, to run a tool in that this machine does not have, and must not get:
//! initramfs-tools and dracut exclude each other, and installing either changes how the machine boots.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::kernel::Kernel;
use crate::packages;
use crate::run::output;

/// What every root has: a shell, and what scripts use without saying so because it is essential.
const ESSENTIAL: [&str; 12] = [
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "libc-bin",
    "mawk",
    "sed",
    "util-linux",
];
/// Pulled in by maintainer scripts or for people; the tools do without.
const WITHOUT: [&str; 13] = [
    "adduser",
    "base-files",
    "cdebconf",
    "debconf",
    "debconf-2.0",
    "gcc-12-base",
    "init-system-helpers",
    "install-info",
    "libpam-modules",
    "linux-base",
    "passwd",
    "perl-base",
    "systemd",
];
/// Where the script finds itself.
const HOME: &str = "root";

/// A root folder that is written to; the packages come from the cache.
pub struct Chroot {
    folder: PathBuf,
}

impl Chroot {
    /// A root at `folder`, with these packages, what they depend on, and the guest's kernel.
    pub fn make(folder: &Path, wanted: &[&str], kernel: &Kernel) -> Result<Self> {
        let named: Vec<String> = wanted.iter().chain(&ESSENTIAL).map(|name| (*name).into()).collect();
        let repository = packages::own()?;
        let list = repository.closure(&named, |name| !WITHOUT.contains(&name))?;
        let programs = repository.unpack(&format!("root-{}", wanted.join("-")), &list)?;
        fs::create_dir_all(folder)?;
        for from in [programs.as_path(), &kernel.folder] {
            output(Command::new("cp").args(["-R", "-p", "-P"]).arg(from.join(".")).arg(folder))?;
        }
        for name in ["dev", "proc", "sys", "tmp", "var/tmp", HOME] {
            fs::create_dir_all(folder.join(name))?;
        }
        // Maintainer scripts choose the awk; none was run.
        let awk = folder.join("usr/bin/awk");
        if fs::symlink_metadata(&awk).is_err() {
            symlink("mawk", &awk).context("linking awk")?;
        }
        output(packages::sbin("depmod").arg("-b").arg(folder).arg(&kernel.release))?;
        Ok(Self { folder: folder.into() })
    }

    /// Where a path of the root is on this machine.
    fn path(&self, inside: &str) -> PathBuf {
        self.folder.join(inside.trim_start_matches('/'))
    }

    /// Puts a file or folder where the script is run.
    pub fn bring(&self, from: &Path) -> Result<()> {
        let to = self.path(HOME);
        output(Command::new("cp").args(["-R", "-p"]).arg(from).arg(to)).map(drop)
    }

    /// Runs a shell script in there, as root, with this machine's /proc and /dev.
    pub fn run(&self, script: &str, variables: &[(&str, &str)]) -> Result<String> {
        let enter = "mount --rbind /proc \"$0/proc\" && mount --rbind /dev \"$0/dev\" && \
                     exec chroot \"$0\" /usr/bin/env -i \"$@\"";
        let mut run = packages::as_root("unshare");
        run.args(["--mount", "--propagation", "private", "sh", "-c", enter]).arg(&self.folder);
        run.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"]);
        run.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
        run.args(["/bin/sh", "-e", "-c", &format!("cd /{HOME}\n{script}")]);
        let said = output(&mut run)?;
        // Through sudo what the script made is root's, and whoever runs the lab must be able to remove it.
        let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
        if !user.is_root() {
            let mut own = packages::as_root("chown");
            output(own.args(["-R", &format!("{user}:{group}")]).arg(&self.folder))?;
        }
        Ok(said)
    }

    /// Takes a file out, and removes the rest.
    pub fn keep(self, inside: &str, at: &Path) -> Result<()> {
        fs::rename(self.path(inside), at).with_context(|| format!("taking {inside} out"))?;
        fs::remove_dir_all(&self.folder).with_context(|| format!("removing {}", self.folder.display()))
    }
}
