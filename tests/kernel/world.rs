//! A thread in namespaces of its own, with a small root file system in memory.

use std::fs::{create_dir, create_dir_all};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, chdir, pivot_root};

use rcsnap::error::Obstacle;
use rcsnap::image::codec::{decode, encode};
use rcsnap::kernel::{self, Root, tmpfs};

const NONE: Option<&str> = None;

/// mount(8).
pub fn mount_type(fstype: &str, point: &str, flags: MsFlags, data: &str) {
    mount(Some("none"), point, Some(fstype), flags, Some(data))
        .unwrap_or_else(|err| panic!("{point}: {err}"));
}

/// mount --bind and other calls that take only flags.
pub fn mount_flags(source: Option<&str>, point: &str, flags: MsFlags) {
    mount(source, point, NONE, flags, NONE).unwrap_or_else(|err| panic!("{point}: {err}"));
}

/// New namespaces for this thread.
fn enter() {
    assert!(Uid::effective().is_root(), "these tests make namespaces and mounts: run them as root");
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC,
    )
    .expect("unshare");
    mount_flags(None, "/", MsFlags::MS_REC | MsFlags::MS_PRIVATE);
}

/// Runs `work` in a thread with its own namespaces and a small root in memory, with the machine's programs.
pub fn with_world<T: Send + 'static>(work: impl FnOnce(&Root) -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        enter();
        mount_type("tmpfs", "/mnt", MsFlags::empty(), "mode=755,size=8m");
        for dir in ["proc", "sys", "dev", "run", "tmp", "mnt", "a/b", "old", "gone", "moved", "to", "a b"] {
            create_dir_all(Path::new("/mnt").join(dir)).unwrap();
        }
        create_dir("/mnt/usr").unwrap();
        mount_flags(Some("/usr"), "/mnt/usr", MsFlags::MS_BIND);
        for dir in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{dir}"), format!("/mnt/{dir}")).unwrap();
        }
        pivot_root("/mnt", "/mnt/old").unwrap();
        chdir("/").unwrap();
        mount_type("proc", "/proc", MsFlags::empty(), "");
        mount_type("sysfs", "/sys", MsFlags::empty(), "");
        umount2("/old", MntFlags::MNT_DETACH).unwrap();
        mount_type("tmpfs", "/gone", MsFlags::empty(), "");
        mount_type("tmpfs", "/moved", MsFlags::empty(), "");
        let root = Root::open(Path::new("/proc"), Path::new("/sys"), Path::new("/"), "thread-self").unwrap();
        // What is the machine's is not ours.
        work(&Root { cell: true, ..root })
    });
    thread.join().unwrap_or_else(|err| std::panic::resume_unwind(err))
}

/// A deadline for what should be there at once.
pub fn soon() -> Instant {
    Instant::now() + Duration::from_millis(200)
}

/// Captures, and takes the result through its stored form.
pub fn capture(before: &kernel::Baseline, root: &Root) -> (kernel::State, tmpfs::State, Vec<Obstacle>) {
    let (state, tmpfs, obstacles) = kernel::capture(before, root).unwrap();
    let bytes = encode(&(state, tmpfs));
    let (state, tmpfs) = decode(&bytes).unwrap();
    (state, tmpfs, obstacles)
}

/// Restores into this thread's namespaces, in which nothing was done yet. `bind` stands for the processes.
pub fn restore(state: &kernel::State, tmpfs: &tmpfs::State, root: &Root, bind: impl FnOnce()) {
    kernel::check(state, root, soon()).unwrap();
    kernel::restore(state, tmpfs, root, soon(), &mut |_| {}).unwrap();
    bind();
    kernel::restore_late(state, tmpfs, root).unwrap();
}
