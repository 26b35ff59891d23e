//! Sections: writing them one after the other, and reading them as an allegation.
//!
//! An image is header, page blocks, sections, in this order, so that pages can be streamed while nobody
//! knows yet how many there will be. A section is a head of 32 bytes and a payload in the [`stored`](super::stored) form:
//!
//! ```text
//!        0   1   2   3   4   5   6   7   8   9   a   b   c   d   e   f
//! 0000 | tag           | flags         | payload length                |
//! 0010 | schema hash                   | payload CRC   | head CRC      |
//! ```
//!
//! Nothing is allocated before its length was compared with the header and the length of the source, and
//! the allocation itself may fail. CRC first, then schema hash, then decoding: only bytes that a capture of
//! this very definition has written reach the decoder.

use super::header::{self, Header};
use super::medium::{Sink, Source, Target, crc};
use super::stored::{Input, Stored};
use super::{ARCH, Kind, PAGE_SIZE};
use crate::error::{Error, Result};
use crate::sys::vm::Room;

/// Four bytes that name a section.
pub type Tag = [u8; 4];
/// Flag of a section that holds information only and is skipped when its tag is unknown.
const OPTIONAL: u32 = 1;
/// Length of a section's head.
const HEAD: usize = 32;
/// Where page blocks begin, unless somebody maps them with larger pages.
pub const ALIGN: u32 = 4096;

/// What the header says beside lengths, given when the image is finished.
#[derive(Debug, Clone, Copy)]
pub struct Title {
    /// `header::FLAG_*`.
    pub flags: u16,
    /// Tells one capture from another.
    pub generation: [u8; 16],
    /// The key that must match before a restore.
    pub key: [u8; 32],
}

/// Writes an image: page blocks through [`Sink`], then sections, then the header.
pub struct Writer<'t> {
    target: &'t mut dyn Target,
    at: u64,
    sections_offset: Option<u64>,
    sections: u32,
}

impl<'t> Writer<'t> {
    /// Begins: the header is overwritten with zeroes first, so that a torn write leaves no image.
    ///
    /// # Errors
    /// The target's.
    pub fn new(target: &'t mut dyn Target) -> Result<Writer<'t>> {
        // Made here: as a constant it would be a page of zeroes in the binary.
        target.write_at(0, &vec![0; ALIGN as usize])?;
        Ok(Writer { target, at: u64::from(ALIGN), sections_offset: None, sections: 0 })
    }

    /// Writes a section that a restore needs.
    ///
    /// # Errors
    /// The target's.
    pub fn section<T: Stored>(&mut self, tag: Tag, value: &T) -> Result<()> {
        let payload = encode(value);
        self.put(tag, 0, T::HASH, &payload)
    }

    /// Writes a section with information only: a reader that does not know it skips it.
    ///
    /// # Errors
    /// The target's.
    pub fn note<T: Stored>(&mut self, tag: Tag, value: &T) -> Result<()> {
        let payload = encode(value);
        self.put(tag, OPTIONAL, T::HASH, &payload)
    }

    fn put(&mut self, tag: Tag, flags: u32, hash: u64, payload: &[u8]) -> Result<()> {
        let head = Head { tag, flags, length: payload.len() as u64, hash, crc: crc(payload) };
        self.sections_offset.get_or_insert(self.at);
        self.sections += 1;
        self.append(&head.encode())?;
        self.append(payload)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.target.write_at(self.at, bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Ends the image with its header. It is complete, and the caller makes it durable.
    ///
    /// # Errors
    /// The target's.
    pub fn finish(self, title: &Title) -> Result<Header> {
        let sections_offset = self.sections_offset.unwrap_or(self.at);
        let header = Header {
            arch: ARCH,
            flags: title.flags,
            align: ALIGN,
            total: self.at,
            blocks_offset: u64::from(ALIGN),
            blocks_length: sections_offset - u64::from(ALIGN),
            sections_offset,
            sections_length: self.at - sections_offset,
            sections: self.sections,
            page_size: PAGE_SIZE,
            generation: title.generation,
            key: title.key,
        };
        self.target.write_at(0, &header.encode())?;
        Ok(header)
    }
}

impl Sink for Writer<'_> {
    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if self.sections_offset.is_some() {
            return Err(Error::new("image", "writing a page block", "sections have begun"));
        }
        self.append(bytes)
    }
}

/// A section's head.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    tag: Tag,
    flags: u32,
    length: u64,
    hash: u64,
    crc: u32,
}

impl Head {
    fn encode(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[0..4].copy_from_slice(&self.tag);
        head[4..8].copy_from_slice(&self.flags.to_le_bytes());
        head[8..16].copy_from_slice(&self.length.to_le_bytes());
        head[16..24].copy_from_slice(&self.hash.to_le_bytes());
        head[24..28].copy_from_slice(&self.crc.to_le_bytes());
        let sum = crc(&head[..28]);
        head[28..32].copy_from_slice(&sum.to_le_bytes());
        head
    }

    fn decode(bytes: &[u8; HEAD]) -> Result<Head> {
        let four = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let eight = |at: usize| {
            u64::from(u32::from_le_bytes(four(at))) | u64::from(u32::from_le_bytes(four(at + 4))) << 32
        };
        if u32::from_le_bytes(four(28)) != crc(&bytes[..28]) {
            return Err(Error::new("image", "reading a section's head", "its CRC is wrong"));
        }
        let flags = u32::from_le_bytes(four(4));
        if flags & !OPTIONAL != 0 {
            return Err(Error::new("image", "reading a section's head", "it has an unknown flag"));
        }
        Ok(Head { tag: four(0), flags, length: eight(8), hash: eight(16), crc: u32::from_le_bytes(four(24)) })
    }
}

/// A section as a reader finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its tag.
    pub tag: Tag,
    /// Whether a reader that does not know it may skip it.
    pub optional: bool,
    /// Length of the payload.
    pub length: u64,
    /// Schema hash.
    pub hash: u64,
    crc: u32,
    offset: u64,
}

/// Reads an image.
pub struct Reader<'s> {
    source: &'s mut dyn Source,
    header: Header,
    entries: Vec<Entry>,
}

impl<'s> Reader<'s> {
    /// Reads header and section heads and checks them against the kinds that this rcsnap knows.
    ///
    /// # Errors
    /// Not an image, cut short, damaged, made by another rcsnap, or with a section that is unknown,
    /// defined otherwise or there twice.
    pub fn open(source: &'s mut dyn Source, kinds: &[Kind]) -> Result<Reader<'s>> {
        let reader = Reader::open_any(source)?;
        for entry in &reader.entries {
            let name = tag_name(entry.tag);
            match kinds.iter().find(|kind| kind.tag == entry.tag) {
                Some(kind) if kind.hash == entry.hash => {}
                Some(_) => return Err(bad(entry.tag, "made by an rcsnap that defines it otherwise")),
                None if entry.optional => crate::log!(Debug, "image: skipping section {name}: unknown"),
                None => return Err(bad(entry.tag, "made by an rcsnap that knows more kinds")),
            }
        }
        Ok(reader)
    }

    /// Reads header and section heads of an image of any rcsnap with this format: for `inspect` and `abi`.
    ///
    /// # Errors
    /// Not an image, cut short, or damaged.
    pub fn open_any(source: &'s mut dyn Source) -> Result<Reader<'s>> {
        let header = Header::read(source)?;
        if header.page_size != PAGE_SIZE {
            return Err(Error::new("image", "reading the header", format!("page size {}", header.page_size)));
        }
        gap(source, &header)?;
        let entries = heads(source, &header)?;
        Ok(Reader { source, header, entries })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The sections that are there, in the order of the image.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Where the bytes come from, for reading the page blocks.
    pub fn source(&mut self) -> &mut dyn Source {
        &mut *self.source
    }

    /// Reads a section that must be there.
    ///
    /// # Errors
    /// It is missing, damaged, or its definition differs.
    pub fn section<T: Stored>(&mut self, tag: Tag) -> Result<T> {
        self.find(tag)?.ok_or_else(|| bad(tag, "missing"))
    }

    /// Reads a section if it is there.
    ///
    /// # Errors
    /// It is damaged, or its definition differs.
    pub fn find<T: Stored>(&mut self, tag: Tag) -> Result<Option<T>> {
        let Some(entry) = self.entries.iter().find(|entry| entry.tag == tag).cloned() else {
            return Ok(None);
        };
        let payload = self.payload(&entry)?;
        if entry.hash != T::HASH {
            return Err(bad(tag, "made by an rcsnap that defines it otherwise"));
        }
        decode(&payload).map(Some).ok_or_else(|| bad(tag, "it does not decode"))
    }

    /// The checked bytes of a section.
    ///
    /// # Errors
    /// It cannot be read, or its CRC is wrong.
    pub fn payload(&mut self, entry: &Entry) -> Result<Room> {
        let length = usize::try_from(entry.length).map_err(|_| bad(entry.tag, "too large"))?;
        let mut payload = Room::new(length).map_err(|_| bad(entry.tag, "out of memory"))?;
        self.source.read_at(entry.offset, &mut payload)?;
        if crc(&payload) != entry.crc {
            return Err(bad(entry.tag, "its CRC is wrong"));
        }
        Ok(payload)
    }
}

/// The bytes between header and blocks must be zero, so that damage there is seen too.
fn gap(source: &mut dyn Source, header: &Header) -> Result<()> {
    let mut sector = [0; header::LENGTH];
    let mut at = 512;
    while at < header.blocks_offset {
        source.read_at(at, &mut sector)?;
        if sector.iter().any(|byte| *byte != 0) {
            return Err(Error::new("image", "reading the header", "the gap after it is not zero"));
        }
        at += 512;
    }
    Ok(())
}

/// Walks over the section heads. They must fill their room exactly.
fn heads(source: &mut dyn Source, header: &Header) -> Result<Vec<Entry>> {
    let wrong = |cause: &'static str| Error::new("image", "reading the sections", cause);
    let mut entries: Vec<Entry> = Vec::new();
    let mut at = header.sections_offset;
    for _ in 0..header.sections {
        let payload = at.checked_add(HEAD as u64).filter(|end| *end <= header.total);
        let offset = payload.ok_or_else(|| wrong("more sections than room"))?;
        let mut bytes = [0; HEAD];
        source.read_at(at, &mut bytes)?;
        let head = Head::decode(&bytes)?;
        let end = offset.checked_add(head.length).filter(|end| *end <= header.total);
        at = end.ok_or_else(|| wrong("a section is longer than the image"))?;
        if entries.iter().any(|entry| entry.tag == head.tag) {
            return Err(bad(head.tag, "there twice"));
        }
        let Head { tag, flags, length, hash, crc } = head;
        entries.push(Entry { tag, optional: flags & OPTIONAL != 0, length, hash, crc, offset });
    }
    if at != header.total {
        return Err(wrong("bytes after the last section"));
    }
    Ok(entries)
}

/// A tag as text.
#[must_use]
pub fn tag_name(tag: Tag) -> String {
    tag.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' }).collect()
}

fn bad(tag: Tag, cause: &'static str) -> Error {
    Error::new("image", format!("reading section {}", tag_name(tag)), cause)
}

/// The stored form of a value.
#[must_use]
pub fn encode<T: Stored>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.put(&mut bytes);
    bytes
}

/// A value from all of its stored form; none if these bytes are no such value.
#[must_use]
pub fn decode<T: Stored>(payload: &[u8]) -> Option<T> {
    let mut input = Input::new(payload);
    let value = T::take(&mut input);
    input.is_whole().then_some(value)
}
