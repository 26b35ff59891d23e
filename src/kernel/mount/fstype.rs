//! What is known of each type of file system, and how options are read back.

use crate::sorted::Listed;
use crate::text;
use nix::mount::MsFlags;

/// How a type of file system is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Made by the kernel: mounted again, with nothing inside that is ours.
    Virtual,
    /// In memory: mounted again and filled.
    Volatile,
    /// On a device, or on top of other file systems: mounted again as it is then.
    Live,
    /// Not carried.
    Unknown,
}

/// The class of a type. What is not listed is an obstacle: network file systems need their server, fuse and
/// autofs a process, and of the rest we do not know whether their options can be read back.
#[must_use]
pub fn class(fstype: &str) -> Class {
    match fstype {
        "tmpfs" | "ramfs" | "rootfs" | "hugetlbfs" => Class::Volatile,
        "proc" | "sysfs" | "devtmpfs" | "devpts" | "cgroup" | "cgroup2" | "debugfs" | "tracefs"
        | "securityfs" | "configfs" | "pstore" | "bpf" | "mqueue" | "binfmt_misc" | "efivarfs"
        | "fusectl" | "selinuxfs" | "smackfs" => Class::Virtual,
        "ext2" | "ext3" | "ext4" | "vfat" | "msdos" | "exfat" | "ntfs3" | "squashfs" | "erofs" | "cramfs"
        | "romfs" | "f2fs" | "xfs" | "btrfs" | "jffs2" | "ubifs" | "iso9660" | "udf" | "minix"
        | "hfsplus" | "overlay" => Class::Live,
        _ => Class::Unknown,
    }
}

/// Words of the options of a mount, and their flags (fs/proc_namespace.c prints them).
const MOUNT: &[(&str, MsFlags)] = &[
    ("ro", MsFlags::MS_RDONLY),
    ("nosuid", MsFlags::MS_NOSUID),
    ("nodev", MsFlags::MS_NODEV),
    ("noexec", MsFlags::MS_NOEXEC),
    ("noatime", MsFlags::MS_NOATIME),
    ("nodiratime", MsFlags::MS_NODIRATIME),
    ("relatime", MsFlags::MS_RELATIME),
    // MS_NOSYMFOLLOW, 5.10.
    ("nosymfollow", MsFlags::from_bits_retain(256)),
];

/// Words among the options of a hierarchy of version 1 that are not its controllers.
const SHARED: [&str; 5] = ["noprefix", "clone_children", "xattr", "cpuset_v2_mode", "favordynmods"];

/// Words among the options of a file system that are flags and not data.
const SUPER: &[(&str, MsFlags)] = &[
    ("ro", MsFlags::MS_RDONLY),
    ("sync", MsFlags::MS_SYNCHRONOUS),
    ("dirsync", MsFlags::MS_DIRSYNC),
    ("mand", MsFlags::MS_MANDLOCK),
    ("lazytime", MsFlags::MS_LAZYTIME),
];

/// The flags of a mount's options. One of the three ways of access times is always named, because a remount
/// that names none keeps what it finds.
#[must_use]
pub fn mount_flags(options: &str) -> MsFlags {
    let mut flags = MsFlags::empty();
    for word in options.split(',') {
        if let Some((_, flag)) = MOUNT.iter().find(|(name, _)| *name == word) {
            flags |= *flag;
        }
    }
    if !flags.intersects(MsFlags::MS_NOATIME | MsFlags::MS_RELATIME) {
        flags |= MsFlags::MS_STRICTATIME;
    }
    flags
}

/// A word of a mount's options that cannot be set again (`idmapped`).
#[must_use]
pub fn unknown_option(options: &str) -> Option<&str> {
    options.split(',').find(|word| *word != "rw" && !MOUNT.iter().any(|(name, _)| name == word))
}

/// The flags and the data of a file system's options.
#[must_use]
pub fn super_options(fstype: &str, options: &str) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data: Vec<&str> = Vec::new();
    for word in words(options) {
        if let Some((_, flag)) = SUPER.iter().find(|(name, _)| *name == word) {
            flags |= *flag;
        } else if word != "rw" && !shown_only(fstype, word) {
            data.push(word);
        }
    }
    // A hierarchy that has no controller but a name is made only by who says so.
    let controls = |word: &&str| !word.contains('=') && !SHARED.contains(word);
    if fstype == "cgroup" && !data.iter().any(controls) {
        data.push("none");
    }
    (flags, text::joined(&mut data.into_iter(), ","))
}

/// Words that a file system prints and does not take.
fn shown_only(fstype: &str, word: &str) -> bool {
    match fstype {
        // Its size was set by the kernel at boot; a second mount is the same file system.
        "devtmpfs" | "rootfs" => true,
        // The volume is the source (fs/ubifs/super.c, ubifs_show_options).
        "ubifs" => word == "seclabel" || word.starts_with("ubi=") || word.starts_with("vol="),
        _ => word == "seclabel",
    }
}

/// Splits at commas that do not stand between quotation marks (`context="a,b"`).
fn words(options: &str) -> Vec<&str> {
    let mut quoted = false;
    options
        .split(|c| {
            quoted ^= c == '"';
            c == ',' && !quoted
        })
        .filter(|word| !word.is_empty())
        .list()
}

/// The data for a remount from `before` to `after`, or a word that a remount cannot take away.
///
/// A file system keeps what a remount does not mention, so only what is new is named.
///
/// # Errors
/// The word that was taken away.
pub fn change<'a>(fstype: &str, before: &'a str, after: &str) -> Result<(MsFlags, String), &'a str> {
    let (flags, data) = super_options(fstype, after);
    let (old, new) = (words(before), words(&data));
    let key = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    for word in &old {
        let is_flag = *word == "rw" || SUPER.iter().any(|(name, _)| name == word) || shown_only(fstype, word);
        if !is_flag && !new.iter().any(|n| key(n) == key(word)) {
            return Err(word);
        }
    }
    let added: Vec<&str> = new.into_iter().filter(|word| !old.contains(word)).list();
    Ok((flags, text::joined(&mut added.into_iter(), ",")))
}

#[cfg(test)]
mod tests {
    use super::{change, mount_flags, super_options, unknown_option};
    use nix::mount::MsFlags;

    #[test]
    fn options_become_flags() {
        let flags = mount_flags("ro,nosuid,noatime,nosymfollow");
        assert_eq!(
            flags.bits(),
            (MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NOATIME).bits() | 256
        );
        assert_eq!(mount_flags("rw"), MsFlags::MS_STRICTATIME);
        assert_eq!(unknown_option("rw,relatime,idmapped"), Some("idmapped"));
        assert_eq!(unknown_option("rw,relatime"), None);
    }

    #[test]
    fn data_keeps_its_quotes() {
        let (flags, data) = super_options("tmpfs", "ro,sync,seclabel,size=4k,context=\"u:r:c0,c1\"");
        assert_eq!(flags, MsFlags::MS_RDONLY | MsFlags::MS_SYNCHRONOUS);
        assert_eq!(data, "size=4k,context=\"u:r:c0,c1\"");
        assert_eq!(super_options("ubifs", "rw,assert=read-only,ubi=0,vol=1").1, "assert=read-only");
        assert_eq!(super_options("cgroup", "rw,xattr,name=x").1, "xattr,name=x,none");
        assert_eq!(super_options("cgroup", "rw,cpu,xattr,name=x").1, "cpu,xattr,name=x");
        assert_eq!(super_options("devtmpfs", "rw,size=10k,mode=755").1, "");
    }

    #[test]
    fn remount_names_only_what_is_new() {
        let root = change("ext4", "ro,errors=continue", "rw,errors=remount-ro,discard");
        assert_eq!(root, Ok((MsFlags::empty(), "errors=remount-ro,discard".to_owned())));
        assert_eq!(change("ext4", "rw,discard", "rw"), Err("discard"));
    }
}
