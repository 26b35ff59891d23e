//! The ways onto a board, each made by the tool an integrator uses, with the lines of docs/integration, and
//! booted to a restored boot.

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
use crate::{kernel_source, packages, pages, toolchain};

pub fn cases() -> Vec<Case> {
    let case = |name, run| Case::new("packaging", name, run);
    vec![
        case("an initramfs by initramfs-tools", initramfs_tools as fn(&Bench, &str) -> Result<()>),
        case("an initramfs by dracut", dracut),
        case("an initramfs by the kernel's own build", kernel),
        case("init= behind the scripts of initramfs-tools, on a disk by genimage", init),
        case("a disk by genimage, found by its labels", labels),
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

/// Boots a captured system by this initramfs, in which rcsnap is /init. The capture was by the lab's own: what
/// the tools make of the same lists leads to the same system.
fn by_archive(bench: &Bench, id: &str, archive: PathBuf) -> Result<()> {
    let boot = Boot { archive: Some(archive), ..Boot::new(id) };
    let mut running = bench.guest.boot(&bench.copy(id)?, &boot)?;
    restored_and_works(&mut running).map(drop)
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
    packages::need(&[("modprobe", "kmod"), ("depmod", "kmod")])?;
    let folder = bench.folder.join(format!("{id}-build"));
    fs::create_dir_all(folder.join("modules"))?;
    let copy =
        |from: &Path, to: &Path| output(Command::new("cp").args(["-R", "-p"]).arg(from).arg(to)).map(drop);
    copy(&kernel_source::usr()?, &folder.join("usr"))?;
    copy(&bench.guest.kernel().folder.join("lib"), &folder.join("modules"))?;
    bring(bench, |path| copy(path, &folder))?;
    output(packages::sbin("depmod").arg("-b").arg(folder.join("modules")).arg(bench.guest.release()))?;
    let lines = pages::lines("initramfs.md", "kernel")?;
    let mut run = Command::new("sh");
    output(run.args(["-e", "-c", &lines]).env("RELEASE", bench.guest.release()).current_dir(&folder))?;
    by_archive(bench, id, folder.join("initramfs.cpio"))
}

/// initramfs-tools without the hook: its scripts mount the root and start init=. The lines of init.md are on the
/// command line, or typed into the guest.
fn init(bench: &Bench, id: &str) -> Result<()> {
    let make = "printf '%s\\n' virtio_pci virtio_blk >>/etc/initramfs-tools/modules\n\
                sed -i s/^MODULES=.*/MODULES=list/ /etc/initramfs-tools/initramfs.conf\n\
                update-initramfs -c -k \"$RELEASE\"";
    let archive = Some(in_chroot(bench, id, "initramfs-tools", make)?);
    let (disk, _) = genimage(bench, id)?;
    let place = Some("root=/dev/vda1 rootfstype=ext4 rootwait ro".into());
    let words = pages::lines("init.md", "kernel-command-line")?;
    let boot = Boot { archive, place, store: false, ..Boot::new(id) }.words(words.trim());
    let (cold, restored) = (pages::lines("init.md", "cold")?, pages::lines("init.md", "restored")?);
    two_boots(bench, id, &disk, &boot, |running, is_restored| {
        let lines = if is_restored { &restored } else { &cold };
        lines.lines().try_for_each(|line| running.must(line).map(drop))
    })
}

/// The disk of the Buildroot boards: genimage puts the root and an empty store side by side. The UUID is the
/// root's.
fn genimage(bench: &Bench, id: &str) -> Result<(Disks, String)> {
    packages::need(&[("genimage", "genimage")])?;
    let parts = bench.guest.disks(id)?;
    let folder = bench.folder.join(format!("{id}-genimage"));
    for name in ["root", "input"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let root = folder.join("input/rootfs.ext4");
    fs::rename(&parts.root, &root)?;
    let uuid = uuid(&root)?;
    let config = toolchain::workspace().join("buildroot/board/qemu/genimage.cfg");
    let mut make = Command::new("genimage");
    make.arg("--config").arg(config).arg("--rootpath").arg(folder.join("root"));
    make.arg("--tmppath").arg(folder.join("tmp")).arg("--inputpath").arg(folder.join("input"));
    output(make.arg("--outputpath").arg(&folder))?;
    Ok((Disks { root: folder.join("disk.img"), store: parts.store }, uuid))
}

/// rcsnap as /init finds the root by what is written on the disk, and on the file system.
fn labels(bench: &Bench, id: &str) -> Result<()> {
    let (disk, uuid) = genimage(bench, id)?;
    let roots = ["PARTLABEL=rootfs".into(), "LABEL=root".into(), format!("UUID={uuid}")];
    for (number, root) in roots.iter().enumerate() {
        let place = Some(format!("root={root} rootfstype=ext4 rootwait ro"));
        let name = format!("{id}-{number}");
        let boot = Boot { place, store: false, ..Boot::new(&name) }.words("init=/bin/sh");
        let mut running = bench.guest.boot(&disk, &boot)?;
        let look = |running: &mut Running| {
            running.qemu.console.prompt(0, &["# "], BOOT_LIMIT)?;
            std::thread::sleep(Duration::from_millis(500));
            let mounts = running.must("mount -t proc proc /proc && grep ' / ext4 ' /proc/mounts")?;
            ensure!(mounts.contains("/dev/vda1"), "the root is not the first partition: {mounts}");
            running.must("test -x /sbin/rcsnap").map(drop)
        };
        look(&mut running).with_context(|| format!("root={root}"))?;
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
