//! The header of an image: one sector, written last.
//!
//! All numbers are little endian. The sector is drawn here byte by byte:
//!
//! ```text
//!        0   1   2   3   4   5   6   7   8   9   a   b   c   d   e   f
//! 0000 | 'R' 'C' 'S' 'N' 'A' 'P' 0d  0a | FORMAT        | arch  | flags |
//! 0010 | header length | align          | total length                  |
//! 0020 | blocks offset                  | blocks length                 |
//! 0030 | sections offset                | sections length               |
//! 0040 | sections      | page size      | generation                    |
//! 0050 |   (16 random bytes)            | zero                          |
//! 0060 | key                                                            |
//! 0070 |   (32 bytes)                                                   |
//! 0080 | zero ...                                                       |
//! 01f0 | zero                                           | CRC-32C       |
//! ```
//!
//! One sector of 512 bytes is the unit that block devices write whole or not at all, so the header is one
//! sector: while an image is being written its first sector is zero, and the image does not exist. The CRC
//! covers bytes 0 to 507. Bytes that mean nothing yet must be zero, so that no flipped bit is overlooked.

use super::medium::{Source, crc};
use super::{ARCH, FORMAT};
use crate::error::{Error, Result};

/// Length of the header: one sector.
pub const LENGTH: usize = 512;
/// The first bytes of an image. The line end shows a transfer in text mode, as in PNG.
pub const MAGIC: [u8; 8] = *b"RCSNAP\r\n";
/// Flag: the captured init is a session leader (BusyBox init calls setsid(2), sysvinit does not).
pub const FLAG_SESSION_LEADER: u16 = 1;
/// Every flag that has a meaning.
const FLAGS: u16 = FLAG_SESSION_LEADER;
/// Where the CRC stands.
const CRC_AT: usize = LENGTH - 4;

/// The header's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Processor, see [`ARCH`].
    pub arch: u16,
    /// `FLAG_*`.
    pub flags: u16,
    /// The page blocks begin at a multiple of it.
    pub align: u32,
    /// Length of the image from the header on.
    pub total: u64,
    /// Where the page blocks begin.
    pub blocks_offset: u64,
    /// Their length.
    pub blocks_length: u64,
    /// Where the sections begin: right after the page blocks.
    pub sections_offset: u64,
    /// Their length.
    pub sections_length: u64,
    /// How many sections there are.
    pub sections: u32,
    /// The page size of the kernel.
    pub page_size: u32,
    /// Tells one capture from another.
    pub generation: [u8; 16],
    /// The key that must match before a restore.
    pub key: [u8; 32],
}

/// An error in the header.
fn bad(cause: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new("image", "reading the header", cause)
}

/// Takes N bytes at an offset. The offsets are constants of this file, all within a sector.
fn take<const N: usize>(sector: &[u8; LENGTH], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&sector[at..at + N]);
    bytes
}

impl Header {
    /// The sector.
    #[must_use]
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut sector = [0; LENGTH];
        let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &MAGIC);
        put(0x08, &FORMAT.to_le_bytes());
        put(0x0c, &self.arch.to_le_bytes());
        put(0x0e, &self.flags.to_le_bytes());
        put(0x10, &512u32.to_le_bytes());
        put(0x14, &self.align.to_le_bytes());
        put(0x18, &self.total.to_le_bytes());
        put(0x20, &self.blocks_offset.to_le_bytes());
        put(0x28, &self.blocks_length.to_le_bytes());
        put(0x30, &self.sections_offset.to_le_bytes());
        put(0x38, &self.sections_length.to_le_bytes());
        put(0x40, &self.sections.to_le_bytes());
        put(0x44, &self.page_size.to_le_bytes());
        put(0x48, &self.generation);
        put(0x60, &self.key);
        let sum = crc(&sector[..CRC_AT]);
        sector[CRC_AT..].copy_from_slice(&sum.to_le_bytes());
        sector
    }

    /// Reads a sector and checks that it makes sense in itself.
    ///
    /// # Errors
    /// Says what is wrong: no image, damaged, another format, numbers that contradict each other.
    pub fn decode(sector: &[u8; LENGTH]) -> Result<Header> {
        if sector[..8] != MAGIC {
            return Err(bad("no image here"));
        }
        if u32::from_le_bytes(take(sector, CRC_AT)) != crc(&sector[..CRC_AT]) {
            return Err(bad("its CRC is wrong"));
        }
        let format = u32::from_le_bytes(take(sector, 0x08));
        if format != FORMAT {
            return Err(bad(format!("format {format}, this rcsnap reads {FORMAT}")));
        }
        let header = Header {
            arch: u16::from_le_bytes(take(sector, 0x0c)),
            flags: u16::from_le_bytes(take(sector, 0x0e)),
            align: u32::from_le_bytes(take(sector, 0x14)),
            total: u64::from_le_bytes(take(sector, 0x18)),
            blocks_offset: u64::from_le_bytes(take(sector, 0x20)),
            blocks_length: u64::from_le_bytes(take(sector, 0x28)),
            sections_offset: u64::from_le_bytes(take(sector, 0x30)),
            sections_length: u64::from_le_bytes(take(sector, 0x38)),
            sections: u32::from_le_bytes(take(sector, 0x40)),
            page_size: u32::from_le_bytes(take(sector, 0x44)),
            generation: take(sector, 0x48),
            key: take(sector, 0x60),
        };
        // Encoding again shows every byte that has no meaning in this format.
        if u32::from_le_bytes(take(sector, 0x10)) != 512 || header.encode() != *sector {
            return Err(bad("bytes that must be zero are not"));
        }
        header.check()?;
        Ok(header)
    }

    /// Whether the numbers fit together.
    fn check(&self) -> Result<()> {
        if self.flags & !FLAGS != 0 {
            return Err(bad("it has an unknown flag"));
        }
        if !self.align.is_power_of_two() || !(512..=65536).contains(&self.align) {
            return Err(bad(format!("alignment {} is not possible", self.align)));
        }
        let blocks_end = self.blocks_offset.checked_add(self.blocks_length);
        let end = self.sections_offset.checked_add(self.sections_length);
        if self.blocks_offset != u64::from(self.align).max(512)
            || blocks_end != Some(self.sections_offset)
            || end != Some(self.total)
        {
            return Err(bad("its lengths contradict each other"));
        }
        Ok(())
    }

    /// Reads the header of an image that was made for this processor and is wholly there.
    ///
    /// # Errors
    /// As [`Header::decode`]; the image is for another processor, or is cut short.
    pub fn read(source: &mut dyn Source) -> Result<Header> {
        let mut sector = [0; LENGTH];
        if source.length() < 512 {
            return Err(bad("cut short"));
        }
        source.read_at(0, &mut sector)?;
        let header = Header::decode(&sector)?;
        if header.arch != ARCH {
            return Err(bad(format!("made for processor {}, this is {ARCH}", header.arch)));
        }
        if source.length() < header.total {
            return Err(bad(format!("cut short: {} of {} bytes", source.length(), header.total)));
        }
        Ok(header)
    }
}
