//! Changes of files, each told by its name.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{FileSystem, Inputs, Proof, Taker, check, mount_of, mounts};
use crate::proc::mountinfo;

fn directory(name: &str) -> PathBuf {
    // Not /tmp, which may be in memory.
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

/// Inputs of a directory that stands for /etc.
fn take(directory: &Path, by_content: bool, skip: &[&str]) -> Inputs {
    let mut taker = taker(by_content);
    taker.found.skip = skip.iter().map(|name| directory.join(name).to_str().unwrap().to_owned()).collect();
    taker.walk(directory).unwrap();
    taker.found
}

fn taker(by_content: bool) -> Taker<'static> {
    Taker {
        table: mounts().unwrap(),
        before: None,
        since: (i64::MAX, 0),
        by_content,
        places: Vec::new(),
        found: Inputs { file_systems: Vec::new(), files: Vec::new(), skip: Vec::new() },
        seen: crate::sorted::Set::new(),
    }
}

fn what(inputs: &Inputs) -> String {
    check(inputs, Duration::ZERO).map_or_else(|changed| changed.what, |()| "nothing".into())
}

#[test]
fn each_change_is_told() {
    let etc = directory("each-change");
    fs::write(etc.join("a"), "one").unwrap();
    fs::write(etc.join("skipped"), "one").unwrap();
    fs::create_dir_all(etc.join("d")).unwrap();
    symlink("a", etc.join("link")).unwrap();
    let again = |by_content| take(&etc, by_content, &["skipped*"]);
    let inputs = again(true);
    assert_eq!(what(&inputs), "nothing");
    assert_eq!(inputs.files.len(), 4, "{:?}", inputs.files);

    fs::write(etc.join("skipped"), "two").unwrap();
    fs::write(etc.join("skipped.tmp"), "two").unwrap();
    assert_eq!(what(&inputs), "nothing");
    fs::write(etc.join("a"), "two").unwrap();
    assert_eq!(what(&inputs), "its content");
    let inputs = again(true);
    fs::set_permissions(etc.join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(what(&inputs), "its mode");
    let inputs = again(true);
    fs::write(etc.join("d/new"), "").unwrap();
    assert_eq!(what(&inputs), "a file in it came or went");
    let inputs = again(true);
    fs::remove_file(etc.join("link")).unwrap();
    symlink("d", etc.join("link")).unwrap();
    assert_eq!(what(&inputs), "where it points to");
    let inputs = again(true);
    fs::remove_file(etc.join("d/new")).unwrap();
    fs::create_dir(etc.join("d/new")).unwrap();
    assert_eq!(what(&inputs), "its type");
    fs::remove_dir_all(etc).unwrap();
}

#[test]
fn a_replaced_file_with_old_times_is_told() {
    let etc = directory("replaced");
    fs::write(etc.join("a"), "one").unwrap();
    let mut inputs = take(&etc, true, &[]);
    // As on a block device, whatever the tests run on.
    let file = inputs.files.iter_mut().find(|file| file.path.ends_with("/a")).unwrap();
    file.proof = super::identity(&super::lstat(etc.join("a")).unwrap(), false);
    assert_eq!(what(&inputs), "nothing");
    let status = Command::new("sh")
        .args([
            "-c",
            "cp -p a b && echo two > b && touch -r a b && truncate -s 3 b && touch -r a b && mv b a",
        ])
        .current_dir(&etc)
        .status();
    assert!(status.unwrap().success());
    assert_eq!(what(&inputs), "it was replaced");
    fs::remove_dir_all(etc).unwrap();
}

#[test]
fn what_a_link_leads_to_is_an_input_by_every_link() {
    let (etc, data) = (directory("linking"), directory("linked"));
    fs::create_dir_all(data.join("v1")).unwrap();
    fs::write(data.join("v1/conf"), "one").unwrap();
    symlink("v1", data.join("current")).unwrap();
    symlink(data.join("current"), etc.join("app")).unwrap();
    // A circle ends.
    symlink(&etc, data.join("v1/etc")).unwrap();
    let inputs = take(&etc, false, &[]);
    assert_eq!(what(&inputs), "nothing");
    fs::write(data.join("v1/conf"), "other").unwrap();
    assert_eq!(
        what(&inputs),
        if inputs.file_systems[0].uuid.is_empty() { "its content" } else { "its size" }
    );
    let inputs = take(&etc, false, &[]);
    fs::remove_file(data.join("current")).unwrap();
    symlink("v2", data.join("current")).unwrap();
    assert_eq!(what(&inputs), "where it points to");
    fs::remove_dir_all(etc).unwrap();
    fs::remove_dir_all(data).unwrap();
}

#[test]
fn what_changes_meanwhile_or_cannot_be_found_again_ends_the_capture() {
    let etc = directory("meanwhile");
    fs::write(etc.join("a"), "one").unwrap();
    let why = |taker: &mut Taker<'_>| taker.walk(&etc).unwrap_err().to_string();
    let mut late = Taker { since: (0, 0), ..taker(false) };
    assert!(why(&mut late).contains("has changed since"), "{}", why(&mut late));
    // As on a file system that the scripts have mounted, and whose device nobody knows.
    let mut new = Taker { before: Some(&[]), ..taker(false) };
    new.table.iter_mut().for_each(|mount| mount.dev = (0, 99));
    assert!(why(&mut new).contains("which has no UUID"), "{}", why(&mut new));
    fs::remove_dir_all(etc).unwrap();
}

#[test]
fn another_root_is_not_looked_past() {
    let etc = directory("another-root");
    fs::write(etc.join("a"), "one").unwrap();
    let mut inputs = take(&etc, false, &[]);
    for system in &mut inputs.file_systems {
        (system.point, system.uuid) = ("/".into(), "of another release".into());
    }
    assert_eq!(what(&inputs), "another file system is at /");
    fs::remove_dir_all(etc).unwrap();
}

#[test]
fn files_in_memory_are_no_inputs() {
    let mut taker = taker(false);
    for (path, is_input) in [("/proc/self/status", false), ("/dev/null", false), ("/etc/passwd", true)] {
        assert_eq!(taker.add(Path::new(path)).unwrap(), is_input, "{path}");
    }
    assert_eq!(what(&taker.found), "nothing");
}

#[test]
fn the_longest_mount_point_holds_and_the_last_of_two() {
    let text = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /data rw - ext4 /dev/b rw\n3 1 8:3 /x /data rw - ext4 /dev/c rw\n";
    let table = mountinfo::parse(text).unwrap();
    let of = |path| mount_of(&table, path).unwrap().id;
    assert_eq!((of("/data/x"), of("/data"), of("/database"), of("/")), (3, 3, 1, 1));
}

#[test]
#[ignore = "needs root, mkfs.ext4 and a loop device; the lab runs it"]
fn a_file_system_that_is_not_mounted_yet_is_looked_at_privately() {
    let run = |command: &str| {
        let out = Command::new("sh").args(["-c", command]).output().unwrap();
        assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    let base = directory("private");
    let (disk, mnt) = (base.join("disk"), base.join("mnt"));
    let (disk, mnt) = (disk.to_str().unwrap(), mnt.to_str().unwrap());
    run(&format!("truncate -s 16M {disk} && mkfs.ext4 -q {disk} && mkdir -p {mnt}"));
    let device = run(&format!("losetup -f --show {disk}"));
    run(&format!("mount {device} {mnt} && mkdir {mnt}/sub && echo one > {mnt}/sub/app"));
    let inputs = take(Path::new(&format!("{mnt}/sub")), false, &[]);
    let FileSystem { uuid, root, point, .. } = &inputs.file_systems[0];
    assert!(!uuid.is_empty() && root == "/" && point == mnt);
    assert!(inputs.files.iter().any(|file| matches!(file.proof, Proof::Stat { .. })));
    assert_eq!(what(&inputs), "nothing");
    run(&format!("umount {mnt}"));
    assert_eq!(what(&inputs), "nothing", "not mounted");
    run(&format!("mount {device} {mnt} && echo two > {mnt}/sub/app && umount {mnt}"));
    assert_eq!(what(&inputs), "its mtime");
    run(&format!("losetup -d {device}"));
    assert!(what(&inputs).contains("not there after 0 ms"));
    fs::remove_dir_all(base).unwrap();
}
