//! One slot: writing an image into it, sealing, publishing, and reading it again.

use super::device::Medium;
use super::notes::State;
use super::{Slot, Store, error};
use crate::error::Result;
use crate::image::header::Header;
use crate::image::medium::{Source, Target};
use crate::image::verify::verify;

/// Writes an image into a slot.
pub struct SlotWriter<'s> {
    pub(super) store: &'s mut Store,
    pub(super) slot: usize,
    pub(super) offset: u64,
    pub(super) room: u64,
}

impl Target for SlotWriter<'_> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.room) {
            return Err(error(
                "writing the image",
                format!("the slot is too small, it has room for {} bytes; enlarge the store", self.room),
            ));
        }
        self.store.medium.write_at(self.offset + offset, bytes)
    }
}

impl<'s> SlotWriter<'s> {
    /// Makes the image durable and reads it back from the medium, every byte.
    ///
    /// # Errors
    /// The medium's, or what it reads is not what was written.
    pub fn seal(self) -> Result<Sealed<'s>> {
        self.store.medium.sync()?;
        self.store.medium.forget()?;
        let medium = &*self.store.medium;
        let header = verify(&mut SlotSource { medium, offset: self.offset, length: self.room })?;
        Ok(Sealed { store: self.store, slot: self.slot, header })
    }
}

/// An image that was written and read back, and is not yet bootable.
pub struct Sealed<'s> {
    store: &'s mut Store,
    slot: usize,
    header: Header,
}

impl Sealed<'_> {
    /// Makes the image bootable, with one write of one sector. Older images with the same key are given up
    /// by the same write. `hints` are those of the key ([`crate::key::Key`]).
    ///
    /// # Errors
    /// The medium's: then the image is not published.
    pub fn publish(self, hints: [u8; 8]) -> Result<Header> {
        let directory = &mut self.store.directory;
        let newest = directory.slots.iter().map(|slot| slot.published).max().unwrap_or(0);
        let boot = directory.boots;
        for slot in &mut directory.slots {
            if slot.key == self.header.key {
                *slot = Slot::default();
            }
        }
        directory.slots[self.slot] = Slot {
            state: State::Published,
            boot,
            length: self.header.total,
            published: newest + 1,
            generation: self.header.generation,
            key: self.header.key,
            hints,
            ..Slot::default()
        };
        self.store.note("publishing the image")?;
        Ok(self.header)
    }
}

/// Reads the image of a slot.
pub struct SlotSource<'s> {
    pub(super) medium: &'s dyn Medium,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Source for SlotSource<'_> {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.length) {
            return Err(error("reading the image", "cut short"));
        }
        self.medium.read_at(self.offset + offset, buffer)
    }
}
