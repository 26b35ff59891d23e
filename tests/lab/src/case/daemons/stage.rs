//! The place of one daemon: a read-only root, tmpfs where a board writes, and a folder of the lab at /mnt.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};

use super::entry::Entry;
use super::root::RCSNAP;

/// The lab's own folder inside.
pub const HERE: &str = "/mnt";
/// What daemon, capture and restore write to.
pub const LOG: &str = "/mnt/log";
/// The script that starts the daemon.
pub const START: &str = "/etc/start";
/// What a board's init has set.
pub const VARIABLES: [(&str, &str); 4] = [
    ("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LC_ALL", "C"),
    ("TERM", "linux"),
];
/// Where a board has memory.
const MEMORY: [&str; 7] = ["dev", "etc", "run", "tmp", "var", "root", "home"];
/// Run in the new root, before anything else.
const SETUP: &str = include_str!("setup.sh");

/// Run in every fresh network namespace.
const NETWORK: &str = include_str!("network.sh");

/// Makes the mounts and changes the root.
pub fn enter(root: &Path, folder: &Path, rcsnap: &Path) -> Result<()> {
    let none: Option<&str> = None;
    let bind = |from: &Path, to: &Path| {
        mount(Some(from), to, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("binding {} to {}", from.display(), to.display()))
    };
    let fresh = |what: &str, at: &str, flags: MsFlags, options: &str| {
        mount(Some(what), &root.join(at), Some(what), flags, Some(options))
            .with_context(|| format!("mounting {at}"))
    };
    bind(root, root)?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, root, none, read_only, none).context("making the root read-only")?;
    for at in MEMORY {
        fresh("tmpfs", at, MsFlags::empty(), "mode=0755")?;
    }
    fresh("proc", "proc", MsFlags::empty(), "")?;
    fresh("sysfs", "sys", MsFlags::MS_RDONLY, "")?;
    bind(folder, &root.join(HERE.trim_start_matches('/')))?;
    bind(rcsnap, &root.join(RCSNAP.trim_start_matches('/')))?;
    let dev = root.join("dev");
    fs::create_dir(dev.join("pts"))?;
    fresh("devpts", "dev/pts", MsFlags::empty(), "newinstance,ptmxmode=0666,mode=0620,gid=5")?;
    std::os::unix::fs::symlink("pts/ptmx", dev.join("ptmx"))?;
    fs::create_dir(dev.join("old"))?;
    fs::File::create(dev.join("null"))?;
    chdir(root)?;
    pivot_root(".", "dev/old").context("changing the root")?;
    chdir("/")?;
    umount2("/dev/old", MntFlags::MNT_DETACH).context("leaving the old root")?;
    fs::remove_dir("/dev/old").context("removing the place of the old root")
}

/// The script of the first steps; its arguments are users.
pub fn setup() -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-e", "-c", SETUP, "setup"]);
    command
}

/// The script of the network.
pub fn network() -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-e", "-c", NETWORK]);
    command
}

/// The files of the entry, and its start script, which must outlive a daemon that forks.
pub fn write(entry: &Entry) -> Result<()> {
    for (name, text) in &entry.files {
        let parent = Path::new(name).parent().context("a file at the root")?;
        fs::create_dir_all(parent)?;
        fs::write(name, text).with_context(|| format!("writing {name}"))?;
        if text.starts_with("#!") {
            fs::set_permissions(name, fs::Permissions::from_mode(0o755))?;
        }
    }
    fs::write(START, format!("{}\nexec sleep 100000\n", entry.command)).context("writing the start script")
}
