//! What file system lies on a device: its type, UUID and label, from its superblock.
//!
//! Enough for LABEL= and UUID=, for mounting without trying every driver, and for telling whether the file
//! system that a file was on is still the same one. squashfs has no UUID: the hash of its superblock, which
//! holds the time it was made and the place of every table, stands for one.

use std::path::Path;

use nix::fcntl::OFlag;
use sha2::{Digest, Sha256};

use crate::sys::fs;

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// The types that mount(2) may know it by, best first.
    pub types: &'static [&'static str],
    /// Its UUID in the usual spelling, lower case; for vfat `XXXX-XXXX`.
    pub uuid: String,
    /// Its label; empty if it has none.
    pub label: String,
}

/// How a UUID is written.
#[derive(Clone, Copy)]
enum Spelling {
    /// 16 bytes in order.
    Uuid,
    /// Four bytes, little endian, as vfat's volume id.
    Volume,
    /// A hash of the superblock of this length.
    Hash(usize),
}

/// Where a file system keeps what. All offsets are from the beginning of the device.
struct Layout {
    types: &'static [&'static str],
    magic: (usize, &'static [u8]),
    uuid: (usize, Spelling),
    label: (usize, usize),
}

/// Linux's headers of each file system: ext4.h, erofs_fs.h, f2fs_fs.h, xfs_format.h, squashfs_fs.h and
/// msdos_fs.h. FAT keeps its type as text, which mkfs writes and Linux ignores; it is good enough here.
const LAYOUTS: &[Layout] = &[
    Layout {
        types: &["ext4", "ext3", "ext2"],
        magic: (1024 + 0x38, &[0x53, 0xef]),
        uuid: (1024 + 0x68, Spelling::Uuid),
        label: (1024 + 0x78, 16),
    },
    Layout { types: &["squashfs"], magic: (0, b"hsqs"), uuid: (0, Spelling::Hash(96)), label: (0, 0) },
    Layout {
        types: &["erofs"],
        magic: (1024, &[0xe2, 0xe1, 0xf5, 0xe0]),
        uuid: (1024 + 0x30, Spelling::Uuid),
        label: (1024 + 0x40, 16),
    },
    Layout {
        types: &["f2fs"],
        magic: (1024, &[0x10, 0x20, 0xf5, 0xf2]),
        uuid: (1024 + 0x6c, Spelling::Uuid),
        label: (0, 0),
    },
    Layout { types: &["xfs"], magic: (0, b"XFSB"), uuid: (32, Spelling::Uuid), label: (108, 12) },
    Layout { types: &["vfat"], magic: (82, b"FAT32   "), uuid: (67, Spelling::Volume), label: (71, 11) },
    Layout { types: &["vfat"], magic: (54, b"FAT1"), uuid: (39, Spelling::Volume), label: (43, 11) },
];

/// How much of a device is looked at.
const HEAD: usize = 2048;

/// Reads the superblock of a device.
#[must_use]
pub fn read(device: &Path) -> Option<Superblock> {
    let mut head = [0; HEAD];
    fs::read_at(fs::open(device, OFlag::O_RDONLY).ok()?, 0, &mut head).ok()?;
    parse(&head)
}

/// Finds a superblock in the first bytes of a device.
fn parse(head: &[u8; HEAD]) -> Option<Superblock> {
    let found = LAYOUTS.iter().find(|layout| head[layout.magic.0..].starts_with(layout.magic.1))?;
    let at = found.uuid.0;
    let uuid = match found.uuid.1 {
        Spelling::Uuid => uuid(&head[at..at + 16]),
        Spelling::Volume => {
            format!("{:02x}{:02x}-{:02x}{:02x}", head[at + 3], head[at + 2], head[at + 1], head[at])
        }
        Spelling::Hash(length) => uuid(&Sha256::digest(&head[at..at + length])[..16]),
    };
    let label = &head[found.label.0..found.label.0 + found.label.1];
    let end = label.iter().position(|byte| *byte == 0).unwrap_or(label.len());
    let label = String::from_utf8_lossy(&label[..end]).trim_ascii_end().to_owned();
    // What mkfs.fat writes when nobody gave a name.
    let label = if label == "NO NAME" { String::new() } else { label };
    Some(Superblock { types: found.types, uuid, label })
}

/// Sixteen bytes in the usual spelling.
pub(super) fn uuid(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (i, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&i) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{HEAD, parse};

    fn head(parts: &[(usize, &[u8])]) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        for (at, bytes) in parts {
            head[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    #[test]
    fn ext4_has_uuid_and_label() {
        let uuid: Vec<u8> = (0..16).collect();
        let found =
            parse(&head(&[(1080, &[0x53, 0xef]), (1024 + 0x68, &uuid), (1024 + 0x78, b"rootfs")])).unwrap();
        assert_eq!(found.uuid, "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!((found.label.as_str(), found.types[0]), ("rootfs", "ext4"));
    }

    #[test]
    fn vfat_has_a_volume_id() {
        let found = parse(&head(&[(82, b"FAT32   "), (67, &[0x78, 0x56, 0x34, 0x12]), (71, b"BOOT       ")]))
            .unwrap();
        assert_eq!((found.uuid.as_str(), found.label.as_str()), ("1234-5678", "BOOT"));
        assert_eq!(parse(&head(&[(54, b"FAT16   "), (43, b"NO NAME    ")])).unwrap().label, "");
    }

    #[test]
    fn another_squashfs_has_another_identity() {
        let one = parse(&head(&[(0, b"hsqs"), (8, &[1])])).unwrap();
        let other = parse(&head(&[(0, b"hsqs"), (8, &[2])])).unwrap();
        assert!(one.uuid != other.uuid && one.uuid.len() == 36);
        assert!(parse(&head(&[])).is_none());
    }
}
