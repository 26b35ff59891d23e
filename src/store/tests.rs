//! The store on a medium that loses power: at every sector, with every sort of loss.

use std::cell::RefCell;
use std::rc::Rc;

use super::device::Medium;
use super::notes::State;
use super::{Store, Trusted};
use crate::boot::attempt;
use crate::boot::conduct::{End, Next};
use crate::error::{Error, Result};
use crate::image::medium::Sink;
use crate::image::{Title, Writer};

const LENGTH: usize = 8192 + 2 * 65536;
const SECTOR: usize = 512;

/// A medium with a write cache, that stops working after a number of sectors.
#[derive(Clone)]
struct Flash(Rc<RefCell<Inner>>);

struct Inner {
    /// What is there after a power cut.
    durable: Vec<u8>,
    /// What reads return: everything that was written.
    cached: Vec<u8>,
    /// Sectors that may still be written.
    left: usize,
    /// Sectors written so far.
    written: usize,
}

impl Flash {
    fn new() -> Flash {
        let blank = vec![0; LENGTH];
        Flash(Rc::new(RefCell::new(Inner {
            durable: blank.clone(),
            cached: blank,
            left: usize::MAX,
            written: 0,
        })))
    }

    fn with_budget(&self, left: usize) -> Flash {
        let inner = self.0.borrow();
        let (durable, cached) = (inner.durable.clone(), inner.cached.clone());
        Flash(Rc::new(RefCell::new(Inner { durable, cached, left, written: 0 })))
    }

    fn open(&self) -> Result<Store> {
        Store::new(Box::new(self.clone()), 2)
    }

    /// The power goes and comes again. Of the sectors in the cache some were written, by `seed`: 0 none,
    /// 1 all, else at random.
    fn cut(&self, seed: u64) -> Flash {
        let inner = self.0.borrow();
        let mut bytes = inner.durable.clone();
        let mut x = seed;
        for (durable, cached) in bytes.chunks_mut(SECTOR).zip(inner.cached.chunks(SECTOR)) {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if seed == 1 || (seed > 1 && x >> 63 == 1) {
                durable.copy_from_slice(cached);
            }
        }
        Flash(Rc::new(RefCell::new(Inner {
            durable: bytes.clone(),
            cached: bytes,
            left: usize::MAX,
            written: 0,
        })))
    }
}

impl Medium for Flash {
    fn length(&self) -> u64 {
        LENGTH as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let at = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.0.borrow().cached[at..at + buffer.len()]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut inner = self.0.borrow_mut();
        let (mut at, end) =
            (usize::try_from(offset).unwrap(), usize::try_from(offset).unwrap() + bytes.len());
        let mut rest = bytes;
        while at < end {
            if inner.left == 0 {
                return Err(Error::new("store", "writing", "no power"));
            }
            let part = (SECTOR - at % SECTOR).min(rest.len());
            inner.cached[at..at + part].copy_from_slice(&rest[..part]);
            (at, rest) = (at + part, &rest[part..]);
            inner.left -= 1;
            inner.written += 1;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let mut inner = self.0.borrow_mut();
        if inner.left == 0 {
            return Err(Error::new("store", "flushing", "no power"));
        }
        inner.durable = inner.cached.clone();
        Ok(())
    }

    fn forget(&mut self) -> Result<()> {
        Ok(())
    }
}

crate::section! { struct Small { bytes: Vec<u8> } }

/// Captures an image of some sectors: what a cold boot does.
fn capture(store: &mut Store, key: [u8; 32], generation: u8) -> Result<()> {
    store.count_boot();
    store.count_capture(&key)?;
    let slot = store.history().choose(&key);
    let mut target = store.slot_writer(slot)?;
    let mut writer = Writer::new(&mut target)?;
    writer.section(*b"SMAL", &Small { bytes: vec![generation; 3000] })?;
    writer.finish(&Title { flags: 0, generation: [generation; 16], key })?;
    target.seal()?.publish([0; 8])?;
    Ok(())
}

/// The image that a boot with this key would restore, read whole.
fn bootable(store: &Store, key: [u8; 32]) -> Option<u8> {
    let slot = store.find(&key)?;
    let trusted = store.trust(slot, &key).expect("a published image is always good");
    let header = crate::image::verify::verify(&mut store.source(slot).unwrap()).expect("every byte is good");
    assert_eq!(header, trusted.header);
    Some(header.generation[0])
}

fn trusted(store: &Store, key: [u8; 32]) -> Trusted {
    store.trust(store.find(&key).unwrap(), &key).unwrap()
}

/// Runs `act` on a copy of the flash that loses power after every possible number of sectors, and shows
/// `check` what is found after the power is back, and whether `act` had said that it was done.
fn cut_everywhere(flash: &Flash, act: &dyn Fn(&mut Store) -> Result<()>, check: &dyn Fn(&Store, bool)) {
    let whole = flash.with_budget(usize::MAX);
    act(&mut whole.open().unwrap()).unwrap();
    let sectors = whole.0.borrow().written;
    for left in 0..=sectors + 1 {
        for seed in 0..12 {
            let broken = flash.with_budget(left);
            let done = act(&mut broken.open().unwrap()).is_ok();
            check(&broken.cut(seed).open().unwrap(), done);
        }
    }
}

#[test]
fn power_cut_at_every_sector_of_the_first_capture() {
    cut_everywhere(&Flash::new(), &|store| capture(store, [1; 32], 5), &|store, done| {
        let found = bootable(store, [1; 32]);
        assert!(found.is_none() || found == Some(5));
        assert!(!done || found == Some(5));
    });
}

#[test]
fn power_cut_while_an_image_of_the_same_key_is_replaced() {
    let flash = Flash::new();
    capture(&mut flash.open().unwrap(), [1; 32], 5).unwrap();
    cut_everywhere(&flash, &|store| capture(store, [1; 32], 6), &|store, done| {
        let found = bootable(store, [1; 32]);
        assert!(found == Some(5) || found == Some(6), "the old one or the new one: {found:?}");
        assert!(!done || found == Some(6));
    });
}

#[test]
fn power_cut_while_the_store_is_full_keeps_the_other_key() {
    let flash = Flash::new();
    capture(&mut flash.open().unwrap(), [1; 32], 5).unwrap();
    capture(&mut flash.open().unwrap(), [2; 32], 6).unwrap();
    cut_everywhere(&flash, &|store| capture(store, [3; 32], 7), &|store, _| {
        assert_eq!(bootable(store, [2; 32]), Some(6));
        assert!(matches!(bootable(store, [1; 32]), None | Some(5)));
        assert!(matches!(bootable(store, [3; 32]), None | Some(7)));
    });
}

#[test]
fn power_cut_at_every_note() {
    let flash = Flash::new();
    capture(&mut flash.open().unwrap(), [1; 32], 5).unwrap();
    let arm = |store: &mut Store| store.arm(&trusted(store, [1; 32])).map(|_| ());
    cut_everywhere(&flash, &arm, &|store, done| {
        assert_eq!(bootable(store, [1; 32]), Some(5));
        assert!(!done || store.slots()[0].pending, "an attempt never begins without its note");
    });
    arm(&mut flash.open().unwrap()).unwrap();
    cut_everywhere(&flash, &|store| store.confirm(&[5; 16]), &|store, done| {
        let slot = &store.slots()[0];
        assert_eq!(slot.pending, !slot.confirmed);
        assert!(!done || slot.confirmed);
    });
    cut_everywhere(&flash, &|store| store.burn(0), &|store, done| {
        assert!(!done || bootable(store, [1; 32]).is_none());
    });
}

#[test]
fn a_second_unconfirmed_attempt_in_a_row_burns() {
    let flash = Flash::new();
    let mut store = flash.open().unwrap();
    capture(&mut store, [1; 32], 5).unwrap();
    let image = trusted(&store, [1; 32]);
    store.arm(&image).unwrap();
    assert!(!store.fail(image.slot).unwrap());
    store.arm(&image).unwrap();
    store.confirm(&[5; 16]).unwrap();
    store.arm(&image).unwrap();
    assert!(!store.fail(image.slot).unwrap(), "a confirmed attempt between them counts from the beginning");
    store.arm(&image).unwrap();
    assert!(store.fail(image.slot).unwrap());
    assert_eq!(store.slots()[image.slot].state, State::Burned);
    assert!(store.arm(&image).is_err());
    assert!(flash.open().unwrap().find(&[1; 32]).is_none());
}

#[test]
fn a_second_restore_in_a_row_that_ends_before_any_change_burns() {
    let flash = Flash::new();
    let mut store = flash.open().unwrap();
    capture(&mut store, [1; 32], 5).unwrap();
    let slot = store.find(&[1; 32]).unwrap();
    let end = End { next: Next::Cold, burn: false, reason: String::new() };
    attempt::count(&mut store, slot, &end).unwrap();
    assert_eq!(store.find(&[1; 32]), Some(slot), "the device may only have been slow");
    attempt::count(&mut store, slot, &end).unwrap();
    assert!(store.find(&[1; 32]).is_none());
    // A reboot leaves what it has armed.
    capture(&mut store, [1; 32], 6).unwrap();
    let image = trusted(&store, [1; 32]);
    store.arm(&image).unwrap();
    attempt::count(&mut store, image.slot, &End { next: Next::Reboot, ..end }).unwrap();
    assert!(store.slots()[image.slot].pending);
}

#[test]
fn what_is_not_a_store_is_left_alone() {
    let flash = Flash::new();
    flash.0.borrow_mut().cached[1080] = 0x53;
    assert!(flash.open().is_err(), "an ext4 superblock");
    let flash = Flash::new();
    flash.0.borrow_mut().cached.fill(0xff);
    flash.open().unwrap();
}

#[test]
fn both_directories_damaged_is_an_empty_store() {
    let flash = Flash::new();
    capture(&mut flash.open().unwrap(), [1; 32], 5).unwrap();
    {
        let mut inner = flash.0.borrow_mut();
        inner.cached[100] ^= 1;
        inner.cached[4096 + 100] ^= 1;
    }
    let mut store = flash.open().unwrap();
    assert!(store.find(&[1; 32]).is_none());
    capture(&mut store, [1; 32], 6).unwrap();
    assert_eq!(bootable(&flash.open().unwrap(), [1; 32]), Some(6));
}

#[test]
fn an_image_that_does_not_fit_says_so_and_the_others_stay() {
    let flash = Flash::new();
    let mut store = flash.open().unwrap();
    capture(&mut store, [1; 32], 5).unwrap();
    let slot = store.history().choose(&[2; 32]);
    let mut target = store.slot_writer(slot).unwrap();
    let mut writer = Writer::new(&mut target).unwrap();
    let err = (0..200).find_map(|_| writer.push(&[1; 4096]).err()).unwrap();
    assert!(err.to_string().contains("too small"), "{err}");
    assert_eq!(bootable(&flash.open().unwrap(), [1; 32]), Some(5));
    assert!(Store::new(Box::new(flash), 9).is_err(), "too small for nine slots");
}

#[test]
fn a_medium_that_changes_a_bit_is_never_published() {
    let flash = Flash::new();
    let mut store = flash.open().unwrap();
    let mut target = store.slot_writer(0).unwrap();
    let mut writer = Writer::new(&mut target).unwrap();
    writer.section(*b"SMAL", &Small { bytes: vec![1; 3000] }).unwrap();
    writer.finish(&Title { flags: 0, generation: [1; 16], key: [1; 32] }).unwrap();
    flash.0.borrow_mut().cached[8192 + 4096 + 1000] ^= 4;
    assert!(target.seal().is_err());
}

#[test]
fn discard_erases_every_byte() {
    let flash = Flash::new();
    let mut store = flash.open().unwrap();
    capture(&mut store, [1; 32], 5).unwrap();
    store.discard(true).unwrap();
    assert!(flash.0.borrow().durable[8192..].iter().all(|byte| *byte == 0));
    assert!(flash.open().unwrap().find(&[1; 32]).is_none());
}
