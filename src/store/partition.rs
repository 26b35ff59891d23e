//! PARTUUID: which partition a name stands for, from the partition table.
//!
//! Kernels before 6.14 do not tell the PARTUUID of a partition anywhere in sysfs, so it is read from where
//! they read it (block/partitions/efi.c, msdos.c): the GPT entry's unique GUID, or for an MBR the disk's
//! signature and the number of the partition.

use std::path::Path;

use nix::fcntl::OFlag;

use super::superblock::uuid;
use crate::sys::fs;

/// The PARTUUID of a partition of a disk.
#[must_use]
pub fn part_uuid(disk: &Path, number: u32, sector: u64) -> Option<String> {
    let disk = fs::open(disk, OFlag::O_RDONLY).ok()?;
    let mut table = [0; 512];
    fs::read_at(&disk, sector, &mut table).ok()?;
    if table.starts_with(b"EFI PART") {
        let (entries, size) = entry_place(&table, number, sector)?;
        let mut entry = [0; 32];
        fs::read_at(&disk, entries.checked_add(size)?, &mut entry).ok()?;
        return Some(guid(&entry[16..32]));
    }
    fs::read_at(&disk, 0, &mut table).ok()?;
    (table[510..] == [0x55, 0xaa]).then(|| {
        let signature = u32::from_le_bytes([table[440], table[441], table[442], table[443]]);
        format!("{signature:08x}-{number:02x}")
    })
}

/// Where a GPT keeps its entries, and how far into them the partition's is.
fn entry_place(table: &[u8; 512], number: u32, sector: u64) -> Option<(u64, u64)> {
    let four = |at: usize| u32::from_le_bytes([table[at], table[at + 1], table[at + 2], table[at + 3]]);
    let first = u64::from(four(72)) | u64::from(four(76)) << 32;
    let index = number.checked_sub(1).filter(|index| *index < four(80))?;
    Some((first.checked_mul(sector)?, u64::from(index) * u64::from(four(84))))
}

/// A GUID as text: its first three parts are little endian.
fn guid(bytes: &[u8]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    uuid(&ORDER.map(|i| bytes[i]))
}

#[cfg(test)]
mod tests {
    use super::part_uuid;

    fn disk(name: &str, parts: &[(usize, &[u8])]) -> std::path::PathBuf {
        let mut bytes = vec![0; 4096];
        for (at, part) in parts {
            bytes[*at..*at + part.len()].copy_from_slice(part);
        }
        let path = std::env::temp_dir().join(format!("rcsnap-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn gpt_and_mbr_are_spelled_as_the_kernel_does() {
        let entry: Vec<u8> = (0x10..0x20).collect();
        let gpt = disk(
            "gpt",
            &[
                (512, b"EFI PART"),
                (512 + 72, &[2]),
                (512 + 80, &[128]),
                (512 + 84, &[128]),
                (1024 + 128 + 16, &entry),
            ],
        );
        assert_eq!(part_uuid(&gpt, 2, 512).unwrap(), "13121110-1514-1716-1819-1a1b1c1d1e1f");
        assert_eq!(part_uuid(&gpt, 129, 512), None);
        let mbr = disk("mbr", &[(440, &[0x78, 0x56, 0x34, 0x12]), (510, &[0x55, 0xaa])]);
        assert_eq!(part_uuid(&mbr, 3, 512).unwrap(), "12345678-03");
        for path in [gpt, mbr] {
            std::fs::remove_file(path).unwrap();
        }
    }
}
