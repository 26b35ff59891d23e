//! The ways onto a board, each made by the tool an integrator uses, with the lines of docs/integration, and
//! booted twice: the cold boot publishes an image, the second boot restores it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Bench, Case, cold_and_works, restored_and_works};
use crate::chroot::Chroot;
use crate::disk::Disks;
use crate::guest::{BOOT_LIMIT, Boot, Running};
use crate::run::output;
use crate::{cache, packages, pages, toolchain};

pub fn cases() -> Vec<Case> {
    let case = |name, run| Case::new("packaging", name, run);
    vec![
        case("an initramfs by initramfs-tools", initramfs_tools as fn(&Bench, &str) -> Result<()>),
        case("an initramfs by dracut", dracut),
        case("an initramfs by the kernel's own build", kernel),
        case("init= behind the scripts of initramfs-tools", init),
        case("a disk by genimage, found by its labels", genimage),
    ]
}

/// Two boots of fresh disks. `look` gets each machine while it runs.
fn two_boots(
    bench: &Bench,
    id: &str,
    disks: &Disks,
    boot: &Boot,
    look: impl Fn(&mut Running, bool) -> Result<()>,
) -> Result<()> {
    let named = |part: &str| Boot { name: format!("{id}-{part}"), ..boot.clone() };
    let mut running = bench.guest.boot(disks, &named("cold"))?;
    cold_and_works(&mut running)?;
    let end = running.qemu.console.wait(0, &["rcsnap: published: ", "rcsnap: not captured: "], BOOT_LIMIT)?;
    ensure!(end.text.contains("published"), "{}", end.text);
    look(&mut running, false).context("on the cold boot")?;
    running.qemu.kill()?;
    let mut running = bench.guest.boot(disks, &named("restored"))?;
    restored_and_works(&mut running)?;
    look(&mut running, true).context("on the restored boot")
}

/// Two boots with this initramfs, in which rcsnap is /init.
fn by_archive(bench: &Bench, id: &str, archive: PathBuf) -> Result<()> {
    let disks = bench.guest.disks(id)?;
    let boot = Boot { archive: Some(archive), ..Boot::new(id) };
    two_boots(bench, id, &disks, &boot, |_, _| Ok(()))
}

fn initramfs_tools(bench: &Bench, id: &str) -> Result<()> {
    let lines = pages::lines("initramfs.md", "initramfs-tools")?;
    by_archive(bench, id, in_chroot(bench, id, "initramfs-tools", &lines)?)
}

fn dracut(bench: &Bench, id: &str) -> Result<()> {
    let lines = pages::lines("initramfs.md", "dracut")?;
    by_archive(bench, id, in_chroot(bench, id, "dracut-core", &lines)?)
}

/// Runs lines in a root with this package; they leave an image in /boot.
fn in_chroot(bench: &Bench, id: &str, wanted: &str, lines: &str) -> Result<PathBuf> {
    let release = bench.guest.release();
    let chroot = Chroot::make(&bench.folder.join(format!("{id}-root")), &[wanted], bench.guest.kernel())?;
    bring(bench, |path| chroot.bring(path))?;
    chroot.run(lines, &[("RELEASE", release)])?;
    let image = bench.folder.join(format!("{id}.img"));
    chroot.keep(&format!("/boot/initrd.img-{release}"), &image)?;
    Ok(image)
}

/// What an integrator has at hand when the lines of a page begin: the binary, and this tree's folder.
fn bring(bench: &Bench, put: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let binary = folder.path().join("rcsnap");
    fs::copy(&bench.guest.binary.path, &binary)?;
    put(&binary)?;
    put(&toolchain::workspace().join("initramfs"))
}

/// The script that a kernel build runs on CONFIG_INITRAMFS_SOURCE, and its gen_init_cpio, from the
/// distribution's kernel source.
fn kernel(bench: &Bench, id: &str) -> Result<()> {
    packages::need(&[("gcc", "gcc"), ("xz", "xz-utils"), ("modprobe", "kmod"), ("depmod", "kmod")])?;
    let folder = bench.folder.join(format!("{id}-build"));
    fs::create_dir_all(folder.join("modules"))?;
    let copy =
        |from: &Path, to: &Path| output(Command::new("cp").args(["-R", "-p"]).arg(from).arg(to)).map(drop);
    copy(&kernel_usr()?, &folder.join("usr"))?;
    copy(&bench.guest.kernel().folder.join("lib"), &folder.join("modules"))?;
    bring(bench, |path| copy(path, &folder))?;
    output(packages::sbin("depmod").arg("-b").arg(folder.join("modules")).arg(bench.guest.release()))?;
    let lines = pages::lines("initramfs.md", "kernel")?;
    let mut run = Command::new("sh");
    output(run.args(["-e", "-c", &lines]).env("RELEASE", bench.guest.release()).current_dir(&folder))?;
    by_archive(bench, id, folder.join("initramfs.cpio"))
}

/// The folder usr/ of a kernel source, with gen_init_cpio built.
fn kernel_usr() -> Result<PathBuf> {
    let repository = packages::own()?;
    let mut wanted = repository.closure(&["linux-source".into()], |p| p.starts_with("linux-source-"))?;
    wanted.retain(|p| p != "linux-source");
    let name = wanted.first().context("finding the kernel's source: linux-source needs none")?.clone();
    let source = repository.unpack("linux-source", &wanted)?;
    let entry = cache::entry("linux-usr", &source.display().to_string(), |folder| {
        let archive = source.join("usr/src").join(format!("{name}.tar.xz"));
        let mut extract = Command::new("tar");
        extract
            .args(["-x", "--strip-components=1", "--occurrence=1", "-f"])
            .arg(archive)
            .arg("-C")
            .arg(folder);
        output(
            extract.args(["gen_init_cpio.c", "gen_initramfs.sh"].map(|file| format!("{name}/usr/{file}"))),
        )?;
        let program = folder.join("usr/gen_init_cpio");
        output(Command::new("gcc").arg("-O1").arg("-o").arg(&program).arg(program.with_extension("c")))
            .map(drop)
    })?;
    Ok(entry.join("usr"))
}

/// initramfs-tools without the hook: its scripts mount the root and start init=. The lines of init.md are typed
/// into the guest.
fn init(bench: &Bench, id: &str) -> Result<()> {
    let make = "printf '%s\\n' virtio_pci virtio_blk >>/etc/initramfs-tools/modules\n\
                sed -i s/^MODULES=.*/MODULES=list/ /etc/initramfs-tools/initramfs.conf\n\
                update-initramfs -c -k \"$RELEASE\"";
    let archive = in_chroot(bench, id, "initramfs-tools", make)?;
    let boot = Boot { archive: Some(archive), ..Boot::new(id) }.words("init=/sbin/rcsnap");
    let (cold, restored) = (pages::lines("init.md", "cold")?, pages::lines("init.md", "restored")?);
    two_boots(bench, id, &bench.guest.disks(id)?, &boot, |running, is_restored| {
        let lines = if is_restored { &restored } else { &cold };
        lines.lines().try_for_each(|line| running.must(line).map(drop))
    })
}

/// The disk of the Buildroot boards: genimage puts the root and an empty store side by side. Root and store are
/// found by what is written on them.
fn genimage(bench: &Bench, id: &str) -> Result<()> {
    packages::need(&[("genimage", "genimage")])?;
    let parts = bench.guest.disks(id)?;
    let folder = bench.folder.join(format!("{id}-genimage"));
    for name in ["root", "input"] {
        fs::create_dir_all(folder.join(name))?;
    }
    fs::rename(&parts.root, folder.join("input/rootfs.ext4"))?;
    let uuid = uuid(&folder.join("input/rootfs.ext4"))?;
    let config = toolchain::workspace().join("buildroot/board/qemu/genimage.cfg");
    let mut make = Command::new("genimage");
    make.arg("--config").arg(config).arg("--rootpath").arg(folder.join("root"));
    make.arg("--tmppath").arg(folder.join("tmp")).arg("--inputpath").arg(folder.join("input"));
    output(make.arg("--outputpath").arg(&folder))?;
    let disk = Disks { root: folder.join("disk.img"), store: parts.store };
    let boot = |root: &str| {
        let place = format!("root={root} rootfstype=ext4 rootwait ro rcsnap.store=PARTLABEL=rcsnap");
        Boot { place: Some(place), store: false, ..Boot::new(id) }
    };
    two_boots(bench, id, &disk, &boot("LABEL=root"), |running, _| {
        let mounts = running.must("grep ' / ext4 ' /proc/mounts")?;
        ensure!(mounts.contains("/dev/vda1"), "the root is not the first partition: {mounts}");
        Ok(())
    })?;
    for (number, root) in ["PARTLABEL=rootfs", &format!("UUID={uuid}")].into_iter().enumerate() {
        let boot = Boot { name: format!("{id}-shell-{number}"), ..boot(root) }.words("init=/bin/sh");
        let mut running = bench.guest.boot(&disk, &boot)?;
        running.qemu.console.prompt(0, &["# "], BOOT_LIMIT).with_context(|| format!("root={root}"))?;
        std::thread::sleep(Duration::from_millis(500));
        running.must("test -x /sbin/rcsnap").with_context(|| format!("root={root}"))?;
    }
    Ok(())
}

/// The UUID of an ext4 file system (struct ext4_super_block, s_uuid).
fn uuid(image: &Path) -> Result<String> {
    use std::os::unix::fs::FileExt;
    let mut bytes = [0; 16];
    fs::File::open(image)?.read_exact_at(&mut bytes, 1024 + 0x68)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}
