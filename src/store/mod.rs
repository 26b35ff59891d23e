//! The store: where images live in flash.
//!
//! ```text
//! | directory, copy 0 | directory, copy 1 | slot 0 ...      | slot 1 ...      |
//! 0                   4096                8192
//! ```
//!
//! An image becomes bootable in three steps, each a value that proves the one before: a [`SlotWriter`]
//! writes into a slot that the directory already calls empty, [`Sealed`] was made durable and read back
//! whole from the medium, and publishing it is one write of one sector of the directory ([`notes`]). A power
//! cut anywhere leaves the directory of before or after, so the old images or the new one, and never an
//! image of which a byte was not read back.
//!
//! An attempt to restore needs [`Trusted`], an image that is whole in its outline and has the right key, and
//! [`Armed`], the note of the attempt on flash: a crash cannot loop.

use crate::sorted::Listed;
pub mod device;
pub mod file;
pub mod notes;
pub mod partition;
pub mod slot;
pub mod spec;
pub mod superblock;

use crate::error::{Error, Result};
use crate::image::header::Header;
use device::Medium;
pub use notes::Slot;
use notes::{COPY, Directory, MAGIC, SECTOR, SLOTS_AT, State};
pub use slot::{Sealed, SlotSource, SlotWriter};
pub use spec::open;

/// The smallest slot that makes sense.
const MIN_SLOT: u64 = 64 * 1024;
/// After so many attempts in a row that nobody confirmed, the slot is burned.
pub const MAX_FAILURES: u8 = 2;

/// An open store.
pub struct Store {
    medium: Box<dyn Medium>,
    directory: Directory,
    /// Which copy of the directory holds.
    copy: u64,
    /// The directory in memory differs from the one on the medium.
    dirty: bool,
}

/// An image with the right key, whole in its outline. Its sections and pages are still an allegation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// The slot.
    pub slot: usize,
    /// The image's header.
    pub header: Header,
}

/// This attempt is on flash.
#[derive(Debug)]
pub struct Armed {
    /// The slot.
    pub slot: usize,
}

fn error(doing: &'static str, cause: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new("store", doing, cause)
}

impl Store {
    /// Reads the directory of a store. A medium that is blank is a store with empty slots; it is laid out by
    /// the first write.
    ///
    /// # Errors
    /// It cannot be read, is too small, or holds something that is not a store: rcsnap does not write over
    /// what it does not know.
    pub fn new(medium: Box<dyn Medium>, slots: usize) -> Result<Store> {
        let length = medium.length();
        if length < SLOTS_AT + MIN_SLOT * slots.max(1) as u64 {
            return Err(error("opening the store", format!("{length} bytes are too few for {slots} slots")));
        }
        let mut found: Option<(u64, Directory)> = None;
        let mut blank = true;
        let mut ours = false;
        for copy in 0..2 {
            let mut block = vec![0; 4096];
            medium.read_at(copy * COPY, &mut block)?;
            let mut sector = [0; SECTOR];
            sector.copy_from_slice(&block[..SECTOR]);
            blank &= block.iter().all(|byte| *byte == 0) || block.iter().all(|byte| *byte == 0xff);
            ours |= sector[..8] == MAGIC;
            let Ok(directory) = Directory::decode(&sector) else { continue };
            if found.as_ref().is_none_or(|(_, best)| directory.sequence > best.sequence) {
                found = Some((copy, directory));
            }
        }
        match found {
            Some((_, directory)) if directory.length > length => {
                Err(error("opening the store", format!("it was {} bytes and is {length}", directory.length)))
            }
            Some((copy, directory)) => Ok(Store { medium, directory, copy, dirty: false }),
            // A damaged directory holds nothing that could be trusted, so it is laid out anew.
            None if blank || ours => {
                Ok(Store { medium, directory: Directory::new(length, slots), copy: 1, dirty: false })
            }
            None => Err(error(
                "opening the store",
                "it holds something else; if nobody needs that, clear its first 8 KiB",
            )),
        }
    }

    /// The slots.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.directory.slots
    }

    /// What earlier boots noted.
    #[must_use]
    pub fn history(&self) -> &Directory {
        &self.directory
    }

    /// How long an image may be.
    #[must_use]
    pub fn slot_length(&self) -> u64 {
        self.directory.extent(0).1
    }

    /// Counts this boot. It is written with the next note, or by [`Store::settle`].
    pub fn count_boot(&mut self) {
        self.directory.boots = self.directory.boots.saturating_add(1);
        self.dirty = true;
    }

    /// Writes what is counted but not yet written.
    ///
    /// # Errors
    /// The medium's.
    pub fn settle(&mut self) -> Result<()> {
        if self.dirty { self.note("counting this boot") } else { Ok(()) }
    }

    /// Writes the directory: over the older copy, with the next number.
    fn note(&mut self, doing: &'static str) -> Result<()> {
        let copy = 1 - self.copy;
        self.directory.sequence += 1;
        // The rest of the 4 KiB is zero, so a device with large sectors writes it at once as well.
        let mut block = vec![0; 4096];
        block[..SECTOR].copy_from_slice(&self.directory.encode());
        let done = self.medium.write_at(copy * COPY, &block).and_then(|()| self.medium.sync());
        done.map_err(|err| err.while_doing(doing))?;
        self.copy = copy;
        self.dirty = false;
        Ok(())
    }

    fn slot(&mut self, slot: usize) -> Result<&mut Slot> {
        self.directory.slots.get_mut(slot).ok_or_else(|| error("looking up a slot", "there is no such slot"))
    }

    /// The newest published slot with this key.
    #[must_use]
    pub fn find(&self, key: &[u8; 32]) -> Option<usize> {
        self.directory.find(key)
    }

    /// The bytes of a slot's image.
    ///
    /// # Errors
    /// There is no such slot, or it holds no published image.
    pub fn source(&self, slot: usize) -> Result<SlotSource<'_>> {
        let (offset, room) = self.directory.extent(slot);
        match self.directory.slots.get(slot) {
            Some(found) if found.state != State::Empty && found.length <= room => {
                Ok(SlotSource { medium: &*self.medium, offset, length: found.length })
            }
            _ => Err(error("reading a slot", "it holds no image")),
        }
    }

    /// Checks that a slot holds the image that was published there, and that it has this key.
    ///
    /// # Errors
    /// Says what does not match.
    pub fn trust(&self, slot: usize, key: &[u8; 32]) -> Result<Trusted> {
        let header = Header::read(&mut self.source(slot)?)?;
        let noted = &self.directory.slots[slot];
        let is_noted = header.key == noted.key && header.generation == noted.generation;
        if noted.state != State::Published || !is_noted || header.total != noted.length {
            return Err(error("checking the image", "it is not the one that was published"));
        }
        if header.key != *key {
            return Err(error("checking the image", "it was captured under another key"));
        }
        Ok(Trusted { slot, header })
    }

    /// Notes an attempt, and returns when the note is on the medium.
    ///
    /// # Errors
    /// The medium's: then there must be no attempt.
    pub fn arm(&mut self, image: &Trusted) -> Result<Armed> {
        let slot = self.slot(image.slot)?;
        if slot.state != State::Published {
            return Err(error("arming", "the slot is not published"));
        }
        slot.pending = true;
        self.note("arming")?;
        Ok(Armed { slot: image.slot })
    }

    /// Notes that the attempt on this image went well.
    ///
    /// # Errors
    /// No slot holds it, or the medium's error.
    pub fn confirm(&mut self, generation: &[u8; 16]) -> Result<()> {
        let found =
            self.directory.slots.iter_mut().find(|slot| slot.generation == *generation && slot.pending);
        let slot = found.ok_or_else(|| error("confirming", "no attempt on this image is pending"))?;
        (slot.pending, slot.confirmed, slot.failures) = (false, true, 0);
        let key = slot.key;
        // They were worth it: for this key they are counted anew, as captures of late they stay.
        let captures = self.directory.captures.iter_mut();
        captures.filter(|capture| capture.key == key[..4]).for_each(|capture| capture.key = [0; 4]);
        self.note("confirming")
    }

    /// Notes that an attempt was never confirmed. The slot is kept for one more; the second time in a row it
    /// is burned. Says whether it was.
    ///
    /// # Errors
    /// The medium's.
    pub fn fail(&mut self, slot: usize) -> Result<bool> {
        let slot = self.slot(slot)?;
        slot.pending = false;
        slot.failures = slot.failures.saturating_add(1);
        let burned = slot.failures >= MAX_FAILURES;
        if burned {
            slot.state = State::Burned;
        }
        self.note("noting a failed attempt")?;
        Ok(burned)
    }

    /// Never try this image again.
    ///
    /// # Errors
    /// The medium's.
    pub fn burn(&mut self, slot: usize) -> Result<()> {
        let slot = self.slot(slot)?;
        (slot.state, slot.pending) = (State::Burned, false);
        self.note("burning a slot")
    }

    /// Notes that a capture begins: even one that crashes the board counts against the limits.
    ///
    /// # Errors
    /// The medium's.
    pub fn count_capture(&mut self, key: &[u8; 32]) -> Result<()> {
        self.directory.count_capture(key);
        self.note("counting a capture")
    }

    /// Forgets all images; with `erase` their bytes are overwritten too.
    ///
    /// # Errors
    /// The medium's.
    pub fn discard(&mut self, erase: bool) -> Result<()> {
        let ends: Vec<(u64, u64)> = (0..self.slots().len()).map(|slot| self.directory.extent(slot)).list();
        for slot in &mut self.directory.slots {
            *slot = Slot::default();
        }
        self.directory.captures.clear();
        self.note("discarding the images")?;
        if erase {
            let zeroes = vec![0; 256 * 1024];
            for (offset, length) in ends {
                let mut at = 0;
                while at < length {
                    let part = usize::try_from(length - at).unwrap_or(usize::MAX).min(zeroes.len());
                    self.medium.write_at(offset + at, &zeroes[..part])?;
                    at += part as u64;
                }
            }
            self.medium.sync()?;
        }
        Ok(())
    }

    /// Begins to write a slot. The directory calls it empty from now on.
    ///
    /// # Errors
    /// There is no such slot, or the medium's error.
    pub fn slot_writer(&mut self, slot: usize) -> Result<SlotWriter<'_>> {
        let (offset, room) = self.directory.extent(slot);
        if *self.slot(slot)? != Slot::default() {
            self.directory.slots[slot] = Slot::default();
            self.note("clearing a slot")?;
        }
        Ok(SlotWriter { store: self, slot, offset, room })
    }
}

#[cfg(test)]
mod tests;
