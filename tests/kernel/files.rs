//! Mounts and files in memory.

use std::fs::{File, Permissions, create_dir, create_dir_all, hard_link, set_permissions, write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{mkfifo, sethostname};

use rcsnap::error::Obstacle;
use rcsnap::kernel::mount::plan::Step;
use rcsnap::kernel::{self, Root};
use rcsnap::sys::xattr;

use crate::world::{capture, mount_flags, mount_type, restore, soon, with_world};

const FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// Makes state with `script`, captures it, makes it again elsewhere, captures that and compares.
fn round_trip(script: fn(), bind: fn(), check: fn()) {
    let (state, mut tmpfs) = with_world(move |root: &Root| {
        let before = kernel::baseline(root).unwrap();
        script();
        let (state, tmpfs, obstacles) = capture(&before, root);
        assert_eq!(obstacles, []);
        (state, tmpfs)
    });
    with_world(move |root: &Root| {
        let before = kernel::baseline(root).unwrap();
        restore(&state, &tmpfs, root, bind);
        check();
        let (state_again, mut tmpfs_again, obstacles) = capture(&before, root);
        assert_eq!(obstacles, []);
        assert_eq!(state_again, state);
        // An overlay empties its working directory when it is mounted.
        for filesystem in tmpfs_again.list.iter_mut().chain(&mut tmpfs.list) {
            filesystem.nodes.retain(|node| !node.path.starts_with("work"));
        }
        assert_eq!(tmpfs_again, tmpfs);
    });
}

/// The obstacles that `script` leaves behind.
fn obstacles(script: fn()) -> Vec<Obstacle> {
    with_world(move |root: &Root| {
        let before = kernel::baseline(root).unwrap();
        script();
        capture(&before, root).2
    })
}

fn nothing() {}

#[test]
fn files_in_memory_come_back() {
    fn script() {
        mount_type("tmpfs", "/run", FLAGS, "mode=750,size=2m,nr_inodes=300");
        create_dir_all("/run/d/e").unwrap();
        write("/run/d/plain", "text").unwrap();
        hard_link("/run/d/plain", "/run/second").unwrap();
        symlink("d/plain", "/run/link").unwrap();
        lchown("/run/link", Some(5), Some(6)).unwrap();
        mkfifo("/run/fifo", Mode::from_bits_retain(0o620)).unwrap();
        mknod("/run/null", SFlag::S_IFCHR, Mode::from_bits_retain(0o666), makedev(1, 3)).unwrap();
        mknod("/run/stale", SFlag::S_IFSOCK, Mode::from_bits_retain(0o600), 0).unwrap();
        drop(UnixListener::bind("/run/d/socket").unwrap());
        set_permissions("/run/d/socket", Permissions::from_mode(0o666)).unwrap();
        let sparse = File::create("/run/sparse").unwrap();
        sparse.write_all_at(b"far", 400_000).unwrap();
        sparse.set_len(900_001).unwrap();
        lchown("/run/d/plain", Some(7), Some(8)).unwrap();
        set_permissions("/run/d/plain", Permissions::from_mode(0o4711)).unwrap();
        xattr::set("/run/d/plain".as_ref(), "trusted.mark", b"\0x").unwrap();
        let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
        File::open("/run/d/plain").unwrap().set_modified(then).unwrap();
        File::open("/run/d/e").unwrap().set_modified(then).unwrap();
        create_dir("/run/rcsnap").unwrap();
        write("/run/rcsnap/watcher", "1").unwrap();
    }
    fn bind() {
        drop(UnixListener::bind("/run/d/socket").unwrap());
    }
    fn check() {
        let plain = std::fs::metadata("/run/d/plain").unwrap();
        assert_eq!((plain.nlink(), plain.uid(), plain.gid(), plain.mode() & 0o7777), (2, 7, 8, 0o4711));
        assert_eq!((plain.mtime(), plain.mtime_nsec()), (1_000_000_000, 123_456_789));
        assert_eq!(std::fs::metadata("/run/d/e").unwrap().mtime_nsec(), 123_456_789);
        assert_eq!(std::fs::read("/run/second").unwrap(), b"text");
        assert_eq!(xattr::all("/run/d/plain".as_ref()).unwrap(), [("trusted.mark".into(), b"\0x".to_vec())]);
        let sparse = std::fs::metadata("/run/sparse").unwrap();
        assert!(sparse.len() == 900_001 && sparse.blocks() * 512 < 100_000, "{sparse:?}");
        assert_eq!(std::fs::metadata("/run/d/socket").unwrap().mode() & 0o777, 0o666);
        assert!(!std::fs::exists("/run/rcsnap").unwrap());
    }
    round_trip(script, bind, check);
}

#[test]
fn mounts_come_back_in_their_order() {
    fn script() {
        umount2("/gone", MntFlags::empty()).unwrap();
        mount_flags(Some("/moved"), "/to", MsFlags::MS_MOVE);
        mount_type("tmpfs", "/run", FLAGS, "mode=755");
        create_dir_all("/run/lock").unwrap();
        write("/run/lock/hidden", "below a mount").unwrap();
        mount_type("tmpfs", "/run/lock", MsFlags::MS_NOATIME, "size=64k");
        write("/run/lock/seen", "above").unwrap();
        // The first is hidden by the second, and the second by the third.
        mount_type("proc", "/a/b", MsFlags::MS_RDONLY, "");
        mount_type("sysfs", "/a", MsFlags::empty(), "");
        mount_type("tmpfs", "/a", MsFlags::empty(), "");
        create_dir_all("/a/sub").unwrap();
        write("/a/sub/file", "bound").unwrap();
        mount_flags(Some("/a/sub"), "/a b", MsFlags::MS_BIND);
        mount_flags(None, "/a b", MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY);
        mount_type("devpts", "/dev", MsFlags::MS_NOEXEC, "gid=5,mode=620");
        // Read-only with something inside.
        mount_type("tmpfs", "/mnt", MsFlags::empty(), "");
        write("/mnt/file", "kept").unwrap();
        mount_flags(None, "/mnt", MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
        // A root in memory.
        write("/tmp/in-root", "new").unwrap();
        mount_type("tmpfs", "/", MsFlags::MS_REMOUNT | MsFlags::MS_NOATIME, "size=9m");
    }
    fn check() {
        assert_eq!(std::fs::read("/a b/file").unwrap(), b"bound");
        assert!(write("/a b/file", "").is_err() && write("/mnt/file", "").is_err());
        umount2("/run/lock", MntFlags::empty()).unwrap();
        assert_eq!(std::fs::read("/run/lock/hidden").unwrap(), b"below a mount");
        mount_type("tmpfs", "/run/lock", MsFlags::MS_NOATIME, "size=64k");
        write("/run/lock/seen", "above").unwrap();
    }
    // `check` looks below a mount, so what it puts back has another time: compare without it.
    let (state, tmpfs) = with_world(move |root: &Root| {
        let before = kernel::baseline(root).unwrap();
        script();
        let (state, tmpfs, obstacles) = capture(&before, root);
        assert_eq!(obstacles, []);
        (state, tmpfs)
    });
    with_world(move |root: &Root| {
        let before = kernel::baseline(root).unwrap();
        restore(&state, &tmpfs, root, nothing);
        let (state_again, tmpfs_again, _) = capture(&before, root);
        assert_eq!(state_again, state);
        assert_eq!(tmpfs_again, tmpfs);
        check();
    });
}

#[test]
fn propagation_comes_back() {
    fn script() {
        mount_type("tmpfs", "/a", MsFlags::empty(), "");
        create_dir_all("/a/sub").unwrap();
        mount_flags(None, "/a", MsFlags::MS_SHARED);
        mount_flags(Some("/a"), "/mnt", MsFlags::MS_BIND);
        mount_flags(Some("/a/sub"), "/run", MsFlags::MS_BIND);
        mount_flags(None, "/run", MsFlags::MS_SLAVE);
        mount_flags(None, "/run", MsFlags::MS_SHARED);
        mount_type("tmpfs", "/tmp", MsFlags::empty(), "");
        mount_flags(None, "/tmp", MsFlags::MS_UNBINDABLE);
    }
    fn check() {
        mount_type("tmpfs", "/mnt/sub", MsFlags::empty(), "size=4k");
        write("/mnt/sub/x", "").unwrap();
        assert!(std::fs::exists("/a/sub/x").unwrap(), "peers share mounts");
        umount2("/mnt/sub", MntFlags::empty()).unwrap();
        let at = File::open("/a/sub").unwrap();
        assert!(at.metadata().unwrap().is_dir());
    }
    round_trip(script, nothing, check);
}

#[test]
fn overlay_in_memory_comes_back() {
    fn script() {
        mount_type("tmpfs", "/run", MsFlags::empty(), "");
        for dir in ["/run/lower", "/run/upper", "/run/work"] {
            create_dir(dir).unwrap();
        }
        write("/run/lower/old", "old").unwrap();
        write("/run/lower/dropped", "").unwrap();
        mount_type(
            "overlay",
            "/mnt",
            MsFlags::empty(),
            "lowerdir=/run/lower,upperdir=/run/upper,workdir=/run/work",
        );
        write("/mnt/new", "new").unwrap();
        std::fs::remove_file("/mnt/dropped").unwrap();
    }
    fn check() {
        assert_eq!(std::fs::read("/mnt/new").unwrap(), b"new");
        assert_eq!(std::fs::read("/mnt/old").unwrap(), b"old");
        assert!(!std::fs::exists("/mnt/dropped").unwrap());
    }
    round_trip(script, nothing, check);
}

#[test]
fn hostname_comes_back() {
    fn script() {
        sethostname("board-7").unwrap();
        write("/proc/sys/kernel/domainname", "lab\n").unwrap();
    }
    fn check() {
        assert_eq!(nix::sys::utsname::uname().unwrap().nodename(), "board-7");
    }
    round_trip(script, nothing, check);
}

#[test]
fn parameters_of_a_namespace_come_back() {
    fn script() {
        write("/proc/sys/net/ipv4/ip_local_port_range", "20000 30000\n").unwrap();
        write("/proc/sys/net/ipv4/conf/all/forwarding", "1\n").unwrap();
        write("/proc/sys/net/ipv6/conf/lo/hop_limit", "33\n").unwrap();
    }
    fn check() {
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read("/proc/sys/net/ipv4/ip_local_port_range"), "20000\t30000\n");
        assert_eq!(read("/proc/sys/net/ipv4/conf/lo/forwarding"), "1\n");
        assert_eq!(read("/proc/sys/net/ipv6/conf/lo/hop_limit"), "33\n");
    }
    round_trip(script, nothing, check);
}

#[test]
fn our_own_mounts_make_room() {
    let (state, tmpfs) = with_world(|root: &Root| {
        let before = kernel::baseline(root).unwrap();
        mount_type("proc", "/mnt", MsFlags::MS_NOSUID, "");
        let (state, tmpfs, _) = capture(&before, root);
        (state, tmpfs)
    });
    with_world(move |root: &Root| {
        mount_type("tmpfs", "/mnt", MsFlags::empty(), "");
        mount_type("tmpfs", "/run", MsFlags::empty(), "");
        restore(&state, &tmpfs, root, nothing);
        assert!(std::fs::exists("/mnt/self/stat").unwrap());
        assert!(root.mounts().unwrap().iter().all(|mount| mount.point != "/run"));
    });
}

#[test]
fn another_table_before_the_scripts_is_refused_untouched() {
    let state = with_world(|root: &Root| capture(&kernel::baseline(root).unwrap(), root).0);
    with_world(move |root: &Root| {
        umount2("/gone", MntFlags::empty()).unwrap();
        let error = kernel::check(&state, root, soon()).unwrap_err();
        assert!(error.to_string().starts_with("mount: comparing the table: /gone is not mounted"), "{error}");
    });
}

#[test]
fn missing_device_is_refused_untouched() {
    with_world(|root: &Root| {
        let (mut state, _, _) = capture(&kernel::baseline(root).unwrap(), root);
        state.mount.steps.push(Step::New(kernel::mount::plan::New {
            point: "/mnt".into(),
            fstype: "ext4".into(),
            source: "/dev/vdz9".into(),
            options: "rw".into(),
            super_options: "rw".into(),
            device: Some("devices/none/block/vdz/vdz9".into()),
        }));
        let error = kernel::check(&state, root, soon()).unwrap_err();
        assert!(error.to_string().ends_with("no device devices/none/block/vdz/vdz9"), "{error}");
    });
}

#[test]
fn more_than_memory_takes_is_refused() {
    let found = obstacles(|| {
        mount_type("tmpfs", "/run", MsFlags::empty(), "size=100m");
        write("/run/large", vec![1; 65 << 20]).unwrap();
    });
    assert!(
        matches!(found.as_slice(), [one] if one.object == "mount /run" && one.reason.contains("larger")),
        "{found:?}"
    );
}

#[test]
fn hidden_files_in_memory_are_refused() {
    let found = obstacles(|| {
        mount_type("tmpfs", "/a/b", MsFlags::empty(), "");
        mount_type("tmpfs", "/a", MsFlags::empty(), "");
    });
    assert!(
        matches!(found.as_slice(), [one] if one.object == "mount /a/b" && one.kind == "tmpfs"),
        "{found:?}"
    );
}

#[test]
fn objects_in_file_systems_of_the_kernel_are_refused() {
    let found = obstacles(|| {
        mount_type("mqueue", "/mnt", MsFlags::empty(), "");
        write("/mnt/queue", "").unwrap();
    });
    assert!(matches!(found.as_slice(), [one] if one.object == "queue in /mnt (mqueue)"), "{found:?}");
}

#[test]
fn watcher_in_another_mount_namespace_sees_the_same() {
    with_world(|root: &Root| {
        let before = kernel::baseline(root).unwrap();
        mount_type("tmpfs", "/run", FLAGS, "");
        create_dir_all("/run/lock").unwrap();
        write("/run/lock/hidden", "below a mount").unwrap();
        mount_type("tmpfs", "/run/lock", MsFlags::empty(), "");
        let seen = capture(&before, root);
        assert_eq!(seen.2, []);
        let mut system = Command::new("sleep").arg("60").stdin(Stdio::inherit()).spawn().unwrap();
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        umount2("/run/lock", MntFlags::empty()).unwrap();
        let pid = system.id().to_string();
        let files = format!("/proc/{pid}/root");
        let watcher = Root::open("/proc".as_ref(), "/sys".as_ref(), files.as_ref(), &pid).unwrap();
        let from_outside = kernel::capture(&before, &Root { cell: true, ..watcher });
        system.kill().unwrap();
        system.wait().unwrap();
        assert_eq!(from_outside.unwrap(), seen);
        assert!(!std::fs::exists("/run/lock/seen").unwrap(), "we are back in our own namespace");
        assert_eq!(std::fs::read("/run/lock/hidden").unwrap(), b"below a mount");
    });
}
