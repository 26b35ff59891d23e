//! The root that all daemons share: their packages side by side, unpacked and never installed. No maintainer
//! script is run. It stays read-only; /etc and /var are copied to a tmpfs for every run, as a board's script does.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::entry::Entry;
use crate::run::output;
use crate::{cache, packages};

/// Raised when the steps below change.
const RECIPE: &str = "1";
/// What every root has: an init that keeps orphans, a shell and its programs, Python for clients.
const COMMON: [&str; 19] = [
    "base-passwd",
    "busybox-static",
    "coreutils",
    "dash",
    "bash",
    "findutils",
    "grep",
    "iproute2",
    "libc-bin",
    "libpam-modules",
    "mawk",
    "ncurses-base",
    "netbase",
    "python3",
    "sed",
    "tini",
    "tzdata",
    "util-linux",
    "procps",
];
/// For installing, for people, or for what a board leaves out: the daemons do without.
const WITHOUT: [&str; 43] = [
    "fontconfig-config",
    "fonts-dejavu-core",
    "libc-l10n",
    "libnss3-tools",
    "locales",
    "makedev",
    "netavark",
    "perl-modules-5.36",
    "systemd-sysv",
    "adduser",
    "base-files",
    "bsd-mailx",
    "ca-certificates",
    "ca-certificates-java",
    "cdebconf",
    "debconf",
    "debconf-2.0",
    "dpkg",
    "exim4",
    "exim4-daemon-light",
    "gcc-12-base",
    "init-system-helpers",
    "install-info",
    "libgl1",
    "libpam-runtime",
    "libpam-systemd",
    "lsb-base",
    "mailcap",
    "passwd",
    "perl",
    "perl-base",
    "postgresql-common",
    "postgresql-client-common",
    "python3-samba",
    "python3-tdb",
    "samba-dsdb-modules",
    "ssl-cert",
    "systemd",
    "sysvinit-utils",
    "tdb-tools",
    "ucf",
    "update-inetd",
    "galera-4",
];
/// Left out: nothing reads it.
const UNWANTED: [&str; 5] =
    ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/icons"];
/// Mount points, and the place of rcsnap.
const FOLDERS: [&str; 9] = ["dev", "proc", "sys", "run", "tmp", "root", "home", "mnt", "etc"];
/// The client for everything that speaks in lines.
const TALK: &str = include_str!("talk.py");
/// Where rcsnap is bound to.
pub const RCSNAP: &str = "/opt/rcsnap";
/// Where /etc and /var of the packages are kept.
pub const KEPT: &str = "/usr/share/board";

/// The root of all daemons, from the cache or made now; and the version of each one's first package.
pub fn make(all: &[Entry]) -> Result<(PathBuf, Vec<String>)> {
    let mut named: Vec<String> = COMMON.map(Into::into).to_vec();
    named.extend(all.iter().flat_map(|entry| entry.packages.iter().cloned()));
    named.sort();
    named.dedup();
    let repository = packages::pristine()?;
    let list = repository.closure(&named, |name| !WITHOUT.contains(&name))?;
    let programs = repository.unpack("daemons", &list)?;
    let firsts: Vec<String> = all.iter().map(|entry| entry.packages[0].clone()).collect();
    let root = cache::entry("daemons-root", &format!("{RECIPE} {} {TALK}", programs.display()), |folder| {
        output(Command::new("cp").args(["-a", "-l"]).arg(programs.join(".")).arg(folder))?;
        fill(folder)
    })?;
    Ok((root, repository.versions(&firsts)?))
}

fn fill(root: &Path) -> Result<()> {
    for unwanted in UNWANTED {
        fs::remove_dir_all(root.join(unwanted)).ok();
    }
    let kept = root.join(KEPT.trim_start_matches('/'));
    fs::create_dir_all(&kept)?;
    for name in ["etc", "var"] {
        fs::rename(root.join(name), kept.join(name)).with_context(|| format!("keeping {name}"))?;
        fs::create_dir(root.join(name))?;
    }
    for name in FOLDERS {
        fs::create_dir_all(root.join(name))?;
    }
    let rcsnap = root.join(RCSNAP.trim_start_matches('/'));
    fs::create_dir_all(rcsnap.parent().context("placing rcsnap")?)?;
    fs::write(rcsnap, b"")?;
    let talk = root.join("usr/local/bin/talk");
    fs::create_dir_all(talk.parent().context("placing the client")?)?;
    fs::write(&talk, TALK)?;
    fs::set_permissions(&talk, fs::Permissions::from_mode(0o755))?;
    // Maintainer scripts choose the awk; none was run.
    symlink("mawk", root.join("usr/bin/awk")).context("linking awk")?;
    // As the packages have been one for years, and scripts expect.
    for shell in ["sh", "bash"] {
        let place = root.join("usr/bin").join(shell);
        if fs::symlink_metadata(&place).is_err() {
            symlink(format!("../../bin/{shell}"), place)?;
        }
    }
    Ok(())
}
