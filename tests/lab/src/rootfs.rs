//! The guest's root file system: an ext4 image made from distribution packages and the board's own
//! files, without mounting anything and without being root.
//!
//! The image is kept in the cache without rcsnap in it; `disk.rs` copies it and puts rcsnap in.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::board::Board;
use crate::kernel::Kernel;
use crate::run::output;
use crate::toolchain::target::Target;
use crate::{cache, packages, progress};

/// What a stage is made by; raised when the steps below change.
const RECIPE: &str = "4";

/// Where Buildroot's skeleton points what may change at run time: tmpfs.
const LINKS: [(&str, &str); 8] = [
    ("var/log", "../tmp"),
    ("var/run", "../run"),
    ("var/tmp", "../tmp"),
    ("var/lock", "../run/lock"),
    ("var/cache", "../tmp"),
    ("var/spool", "../tmp"),
    ("usr/bin/python3", "python3.11"),
    ("etc/mtab", "../proc/self/mounts"),
];

/// What packages do not bring: mount points, and folders that scripts expect.
const FOLDERS: [&str; 15] = [
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "root",
    "mnt",
    "sbin",
    "usr/sbin",
    "var/lib",
    "etc/dropbear",
    "etc/network/if-pre-up.d",
    "etc/network/if-up.d",
    "etc/network/if-down.d",
    "etc/network/if-post-down.d",
];

/// Left out: nothing in the guest reads it.
const UNWANTED: [&str; 8] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bash-completion",
    "lib/systemd",
    "usr/lib/systemd",
    "usr/share/bug",
];

/// The image without rcsnap, from the cache or made now.
pub fn image(board: &Board, kernel: &Kernel) -> Result<PathBuf> {
    packages::need(&[("mke2fs", "e2fsprogs"), ("depmod", "kmod"), ("debugfs", "e2fsprogs")])?;
    if !nix::unistd::geteuid().is_root() {
        packages::need(&[("fakeroot", "fakeroot")])?;
    }
    let without = &board.guest.without;
    let target = board.target()?;
    packages::need(target.emulator.as_slice())?;
    let repository = packages::of(target.debian)?;
    let list = repository.closure(&board.guest.packages, |p| !without.iter().any(|w| w == p))?;
    let programs = repository.unpack(&format!("guest-{}", target.arch), &list)?;
    let busybox = repository.unpack(&format!("busybox-{}", target.arch), &["busybox-static".into()])?;
    let own: Vec<PathBuf> = board.folders.iter().map(|f| f.join("rootfs")).filter(|f| f.is_dir()).collect();
    let texts: String = own.iter().map(|o| tree_text(o, o)).collect::<Result<_>>()?;
    let key = format!(
        "{RECIPE} {} {} {} {:?} {} {} {texts}",
        programs.display(),
        busybox.display(),
        kernel.folder.display(),
        board.guest.modules,
        board.disk.root_mib,
        board.tty
    );
    let entry = cache::entry(&format!("rootfs-{}", board.name), &key, |folder| {
        let stage = folder.join("stage");
        copy(&programs, &stage)?;
        for unwanted in UNWANTED {
            fs::remove_dir_all(stage.join(unwanted)).ok();
        }
        for own in &own {
            copy(own, &stage)?;
        }
        fs::copy(busybox.join("bin/busybox"), stage.join("bin/busybox-static"))?;
        fill(&stage, board, kernel)?;
        make_image(&stage, &folder.join("root.ext4"), board.disk.root_mib)?;
        fs::remove_dir_all(&stage).context("removing the stage")
    })?;
    Ok(entry.join("root.ext4"))
}

fn fill(stage: &Path, board: &Board, kernel: &Kernel) -> Result<()> {
    for folder in FOLDERS {
        fs::create_dir_all(stage.join(folder))?;
    }
    for (link, target) in LINKS {
        let link = stage.join(link);
        fs::remove_dir_all(&link).or_else(|_| fs::remove_file(&link)).ok();
        symlink(target, &link).with_context(|| format!("linking {}", link.display()))?;
    }
    progress::say("guest: applets, keys, compiled Python, modules");
    serial(stage, &board.tty)?;
    let target = board.target()?;
    applets(stage, target)?;
    for kind in ["ed25519", "ecdsa"] {
        let key = stage.join(format!("etc/dropbear/dropbear_{kind}_host_key"));
        output(guest_program(stage, target, "usr/bin/dropbearkey").args(["-t", kind, "-f"]).arg(key))?;
    }
    let machine_id = output(&mut guest_program(stage, target, "usr/bin/dbus-uuidgen"))?;
    fs::write(stage.join("etc/machine-id"), machine_id)?;
    let mut compile = guest_program(stage, target, "usr/bin/python3.11");
    compile.args(["-m", "compileall", "-q", "-s"]).arg(stage).args(["-p", "/"]);
    output(compile.arg(stage.join("usr/lib/python3.11")).env("PYTHONHOME", stage.join("usr")))?;
    modules(stage, board, kernel)
}

/// The port of the login, in the line that Buildroot would write as well.
fn serial(stage: &Path, tty: &str) -> Result<()> {
    let place = stage.join("etc/inittab");
    let text = fs::read_to_string(&place)?;
    let line = |line: &str| match line.ends_with("# GENERIC_SERIAL") {
        true => format!("{tty}::respawn:/sbin/getty -L {tty} 115200 vt100 # GENERIC_SERIAL\n"),
        false => format!("{line}\n"),
    };
    fs::write(&place, text.lines().map(line).collect::<String>()).context("writing the inittab")
}

/// One link an applet, as `busybox --install -s` makes them; a package's own program goes first. The
/// distribution's dynamic BusyBox lacks some: those run from the static one, so both kinds are aboard.
fn applets(stage: &Path, target: &Target) -> Result<()> {
    let own = output(guest_program(stage, target, "bin/busybox").arg("--list-full"))?;
    let of_static = ["usr/sbin/crond", "sbin/ifup", "sbin/ifdown"].map(|p| (p, "/bin/busybox-static"));
    for (path, busybox) in of_static.into_iter().chain(own.lines().map(|p| (p, "/bin/busybox"))) {
        let place = stage.join(path);
        fs::create_dir_all(place.parent().context("placing an applet")?)?;
        if fs::symlink_metadata(&place).is_err() {
            symlink(busybox, &place).with_context(|| format!("linking {path}"))?;
        }
    }
    Ok(())
}

/// A program of the guest, run here by the guest's own loader and libraries, and by QEMU where this machine
/// is another.
fn guest_program(stage: &Path, target: &Target, program: &str) -> Command {
    let libraries = ["lib", "usr/lib"].map(|l| stage.join(l).join(target.libraries));
    let loader = stage.join(target.loader);
    let mut command = match target.emulator {
        Some((emulator, _)) => {
            let mut command = Command::new(emulator);
            command.arg(loader);
            command
        }
        None => Command::new(loader),
    };
    command.arg("--library-path").arg(format!("{}:{}", libraries[0].display(), libraries[1].display()));
    command.arg(stage.join(program));
    command
}

fn modules(stage: &Path, board: &Board, kernel: &Kernel) -> Result<()> {
    let base = Path::new("lib/modules").join(&kernel.release);
    let mut wanted = board.guest.early_modules.clone();
    wanted.extend(board.guest.modules.iter().cloned());
    for path in kernel.in_order(&wanted)? {
        let place = stage.join(&base).join(&path);
        fs::create_dir_all(place.parent().context("placing a module")?)?;
        fs::copy(kernel.module(&path), place)?;
    }
    for list in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        fs::copy(kernel.module(Path::new(list)), stage.join(&base).join(list))?;
    }
    output(packages::sbin("depmod").arg("-b").arg(stage).arg(&kernel.release)).map(drop)
}

/// fakeroot makes the files root's where this is not run by root.
fn make_image(stage: &Path, image: &Path, mib: u64) -> Result<()> {
    progress::say("guest: making the root file system image");
    fs::File::create(image)?.set_len(mib << 20)?;
    let mke2fs = packages::sbin("mke2fs");
    let mut make = mke2fs;
    if !nix::unistd::geteuid().is_root() {
        let program = make.get_program().to_owned();
        make = Command::new("fakeroot");
        make.arg(program);
    }
    make.args(["-q", "-F", "-t", "ext4", "-L", "root", "-m", "0", "-E"]);
    make.args(["lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", "-d"]);
    output(make.arg(stage).arg(image)).map(drop)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    // cp keeps links and modes, and the board's files replace the packages'.
    output(
        Command::new("cp")
            .args(["-R", "-P", "--preserve=mode,timestamps", "--remove-destination"])
            .arg(from.join("."))
            .arg(to),
    )
    .map(drop)
}

/// Every file with its mode and content: what the cache key must depend on.
fn tree_text(root: &Path, folder: &Path) -> Result<String> {
    let mut text = String::new();
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            text += &tree_text(root, &path)?;
        } else {
            let mode = entry.metadata()?.permissions().mode();
            text += &format!(
                "{} {mode:o}\n{}\n",
                path.strip_prefix(root)?.display(),
                String::from_utf8_lossy(&fs::read(&path)?)
            );
        }
    }
    Ok(text)
}
