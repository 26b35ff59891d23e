//! The directory of a store: one sector with the state of all slots and what earlier boots noted.
//!
//! It exists twice, in the first and in the second 4 KiB of the store. A change goes over the older copy
//! with the next sequence number; the valid copy with the higher number holds. So a change is one sector
//! write, which block devices do whole or not at all, and a copy that the power cut spoils leaves the one
//! before it. Little endian:
//!
//! ```text
//! 0000  magic "RCSTORE\n"       8     layout            u32     slots             u32
//! 0010  sequence              u64     store length      u64
//! 0020  boots                 u32     zero                u32
//! 0028  4 slots of 80 bytes:
//!       +00 state u8, pending u8, failures u8, confirmed u8     +04 boot of publishing u32
//!       +08 image length u64     +10 publish number u64     +18 generation 16     +28 key 32     +48 hints 8
//! 0168  16 captures of 8 bytes, oldest first: first 4 bytes of the key, boot u32
//! 01e8  zero
//! 01fc  CRC-32C of bytes 0 to 507
//! ```

use crate::error::{Error, Result};
use crate::image::medium::crc;
use crate::sorted::Listed;

/// Length of the directory: one sector.
pub const SECTOR: usize = 512;
/// Distance of the two copies, so that they do not share a sector on any device.
pub const COPY: u64 = 4096;
/// Where the slots begin.
pub const SLOTS_AT: u64 = 2 * COPY;
/// The most slots a directory can describe.
pub const MAX_SLOTS: usize = 4;
/// How many captures are remembered.
pub const MAX_CAPTURES: usize = 16;
/// The first bytes of a directory.
pub const MAGIC: [u8; 8] = *b"RCSTORE\n";
/// Raised when the layout of the store changes.
const LAYOUT: u32 = 1;
/// Where the slots' entries stand, and their length.
const ENTRIES_AT: usize = 0x28;
const ENTRY: usize = 80;
/// Where the captures stand.
const CAPTURES_AT: usize = 0x168;

/// What a slot is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Nothing, or an image that is being written.
    #[default]
    Empty,
    /// It may be restored.
    Published,
    /// Never try it again. The slot may be written anew.
    Burned,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slot {
    /// What it is good for.
    pub state: State,
    /// An attempt was armed and nobody has confirmed it yet.
    pub pending: bool,
    /// Attempts in a row that were never confirmed.
    pub failures: u8,
    /// Whether any attempt was confirmed.
    pub confirmed: bool,
    /// The boot that published it.
    pub boot: u32,
    /// Length of the image.
    pub length: u64,
    /// Publishing order over all slots: the highest is the newest.
    pub published: u64,
    /// The generation of the image's header.
    pub generation: [u8; 16],
    /// The key of the image's header.
    pub key: [u8; 32],
    /// One byte for each group of the key's parts, to say what makes another key differ.
    pub hints: [u8; 8],
}

/// A capture that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capture {
    /// The first bytes of its key.
    pub key: [u8; 4],
    /// The boot.
    pub boot: u32,
}

/// What a store remembers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    /// Number of this copy: the higher one holds.
    pub sequence: u64,
    /// The length of the store when it was laid out; it fixes where the slots are.
    pub length: u64,
    /// How many boots have used the store.
    pub boots: u32,
    /// The slots.
    pub slots: Vec<Slot>,
    /// The last captures, oldest first.
    pub captures: Vec<Capture>,
}

fn bad(cause: &'static str) -> Error {
    Error::new("store", "reading the directory", cause)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

impl Slot {
    fn encode(&self) -> [u8; ENTRY] {
        let mut entry = [0; ENTRY];
        entry[0] = match self.state {
            State::Empty => 0,
            State::Published => 1,
            State::Burned => 2,
        };
        entry[1] = self.pending.into();
        entry[2] = self.failures;
        entry[3] = self.confirmed.into();
        entry[0x04..0x08].copy_from_slice(&self.boot.to_le_bytes());
        entry[0x08..0x10].copy_from_slice(&self.length.to_le_bytes());
        entry[0x10..0x18].copy_from_slice(&self.published.to_le_bytes());
        entry[0x18..0x28].copy_from_slice(&self.generation);
        entry[0x28..0x48].copy_from_slice(&self.key);
        entry[0x48..0x50].copy_from_slice(&self.hints);
        entry
    }

    fn decode(entry: &[u8]) -> Result<Slot> {
        let mut slot = Slot {
            state: match entry[0] {
                0 => State::Empty,
                1 => State::Published,
                2 => State::Burned,
                _ => return Err(bad("a slot has an unknown state")),
            },
            pending: entry[1] != 0,
            failures: entry[2],
            confirmed: entry[3] != 0,
            boot: word(entry, 0x04),
            length: long(entry, 0x08),
            published: long(entry, 0x10),
            ..Slot::default()
        };
        slot.generation.copy_from_slice(&entry[0x18..0x28]);
        slot.key.copy_from_slice(&entry[0x28..0x48]);
        slot.hints.copy_from_slice(&entry[0x48..0x50]);
        Ok(slot)
    }
}

impl Directory {
    /// An empty directory for a store of this length.
    #[must_use]
    pub fn new(length: u64, slots: usize) -> Directory {
        let slots = slots.clamp(1, MAX_SLOTS);
        Directory { length, slots: vec![Slot::default(); slots], ..Directory::default() }
    }

    /// The sector. Slots and captures beyond the room there is are left out.
    #[must_use]
    pub fn encode(&self) -> [u8; SECTOR] {
        let mut sector = [0; SECTOR];
        let slots = self.slots.len().min(MAX_SLOTS);
        let count = u32::try_from(slots).unwrap_or(0);
        sector[0x00..0x08].copy_from_slice(&MAGIC);
        sector[0x08..0x0c].copy_from_slice(&LAYOUT.to_le_bytes());
        sector[0x0c..0x10].copy_from_slice(&count.to_le_bytes());
        sector[0x10..0x18].copy_from_slice(&self.sequence.to_le_bytes());
        sector[0x18..0x20].copy_from_slice(&self.length.to_le_bytes());
        sector[0x20..0x24].copy_from_slice(&self.boots.to_le_bytes());
        for (entry, slot) in sector[ENTRIES_AT..CAPTURES_AT].chunks_exact_mut(ENTRY).zip(&self.slots) {
            entry.copy_from_slice(&slot.encode());
        }
        let oldest = self.captures.len().saturating_sub(MAX_CAPTURES);
        for (i, capture) in self.captures[oldest..].iter().enumerate() {
            let at = CAPTURES_AT + i * 8;
            sector[at..at + 4].copy_from_slice(&capture.key);
            // One more than the boot, so that zero means no capture.
            sector[at + 4..at + 8].copy_from_slice(&capture.boot.saturating_add(1).to_le_bytes());
        }
        let sum = crc(&sector[..SECTOR - 4]);
        sector[SECTOR - 4..].copy_from_slice(&sum.to_le_bytes());
        sector
    }

    /// Reads a sector.
    ///
    /// # Errors
    /// It is no directory, is damaged, or was laid out by another rcsnap.
    pub fn decode(sector: &[u8; SECTOR]) -> Result<Directory> {
        if sector[..8] != MAGIC {
            return Err(bad("there is none"));
        }
        if word(sector, SECTOR - 4) != crc(&sector[..SECTOR - 4]) {
            return Err(bad("its CRC is wrong"));
        }
        if word(sector, 0x08) != LAYOUT {
            return Err(bad("laid out by another rcsnap"));
        }
        let slots = word(sector, 0x0c) as usize;
        if slots == 0 || slots > MAX_SLOTS {
            return Err(bad("it has an impossible number of slots"));
        }
        let entries = sector[ENTRIES_AT..CAPTURES_AT].chunks_exact(ENTRY).take(slots);
        let captures = (0..MAX_CAPTURES).map(|i| CAPTURES_AT + i * 8).filter_map(|at| {
            let boot = word(sector, at + 4).checked_sub(1)?;
            Some(Capture { key: word(sector, at).to_le_bytes(), boot })
        });
        Ok(Directory {
            sequence: long(sector, 0x10),
            length: long(sector, 0x18),
            boots: word(sector, 0x20),
            slots: entries.map(Slot::decode).whole()?,
            captures: captures.list(),
        })
    }

    /// Where a slot is: offset and length. All slots have the same length, in whole pages.
    #[must_use]
    pub fn extent(&self, slot: usize) -> (u64, u64) {
        let each = self.length.saturating_sub(SLOTS_AT) / self.slots.len().max(1) as u64 / 4096 * 4096;
        (SLOTS_AT + each * slot as u64, each)
    }

    /// Notes a capture; the oldest is forgotten when there is no room.
    pub fn count_capture(&mut self, key: &[u8; 32]) {
        if self.captures.len() >= MAX_CAPTURES {
            self.captures.remove(0);
        }
        self.captures.push(Capture { key: [key[0], key[1], key[2], key[3]], boot: self.boots });
    }

    /// How many captures were begun for a key, and how many in the last `boots` boots, this one included.
    #[must_use]
    pub fn captures(&self, key: &[u8; 32], boots: u32) -> (usize, usize) {
        let same = self.captures.iter().filter(|capture| capture.key == key[..4]).count();
        let late = self.captures.iter().filter(|capture| self.boots.saturating_sub(capture.boot) < boots);
        (same, late.count())
    }

    /// The newest published slot with this key.
    #[must_use]
    pub fn find(&self, key: &[u8; 32]) -> Option<usize> {
        let slots = self.slots.iter().enumerate();
        let good = slots.filter(|(_, slot)| slot.state == State::Published && slot.key == *key);
        good.max_by_key(|(_, slot)| slot.published).map(|(i, _)| i)
    }

    /// The slot to write next: one that holds nothing of use, else one with the same key (a capture is only
    /// made when it is of no use any more), else the oldest.
    #[must_use]
    pub fn choose(&self, key: &[u8; 32]) -> usize {
        let rank = |slot: &Slot| match slot.state {
            State::Empty => (0, 0),
            State::Burned => (1, slot.published),
            State::Published if slot.key == *key => (2, slot.published),
            State::Published => (3, slot.published),
        };
        (0..self.slots.len()).min_by_key(|i| rank(&self.slots[*i])).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Capture, Directory, MAX_CAPTURES, SECTOR, Slot, State};

    fn full() -> Directory {
        let slot = Slot {
            state: State::Published,
            pending: true,
            failures: 1,
            confirmed: true,
            boot: 7,
            length: 1 << 33,
            published: 9,
            generation: [1; 16],
            key: [2; 32],
            hints: [4; 8],
        };
        let slots = vec![slot.clone(), Slot { state: State::Burned, ..slot.clone() }, Slot::default(), slot];
        let captures = (0..MAX_CAPTURES).map(|i| Capture { key: [3; 4], boot: u32::try_from(i).unwrap() });
        Directory { sequence: 5, length: 1 << 34, boots: 300, slots, captures: captures.collect() }
    }

    #[test]
    fn directory_comes_back_and_every_flipped_bit_shows() {
        let sector = full().encode();
        assert_eq!(Directory::decode(&sector).unwrap(), full());
        for at in 0..SECTOR {
            let mut damaged = sector;
            damaged[at] ^= 0x10;
            assert!(Directory::decode(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn captures_are_counted_by_key_and_by_boot() {
        let mut directory = Directory::new(1 << 20, 2);
        for boot in 1..=20 {
            directory.boots = boot;
            directory.count_capture(if boot % 2 == 0 { &[1; 32] } else { &[2; 32] });
        }
        assert_eq!(directory.captures.len(), MAX_CAPTURES);
        assert_eq!(directory.captures(&[1; 32], 5), (8, 5));
        assert_eq!(Directory::decode(&directory.encode()).unwrap(), directory);
    }

    #[test]
    fn the_image_of_another_configuration_is_written_over_last() {
        let mut directory = Directory::new(1 << 20, 2);
        let published = |key, published| Slot { state: State::Published, key, published, ..Slot::default() };
        directory.slots = vec![published([1; 32], 1), Slot::default()];
        assert_eq!(directory.choose(&[1; 32]), 1, "an empty slot before all");
        directory.slots[1] = published([2; 32], 2);
        assert_eq!(directory.choose(&[2; 32]), 1, "its own old image before another's");
        assert_eq!(directory.choose(&[3; 32]), 0, "the oldest");
        directory.slots[1].state = State::Burned;
        assert_eq!(directory.choose(&[1; 32]), 1, "burned before good");
    }

    #[test]
    fn slots_fill_the_store_in_whole_pages() {
        let directory = Directory::new(8192 + 10 * 4096 + 5, 3);
        assert_eq!(directory.extent(2), (8192 + 2 * 3 * 4096, 3 * 4096));
        assert_eq!(Directory::new(100, 2).extent(1), (8192, 0));
    }
}
