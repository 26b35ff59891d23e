//! Memory pages: runs of pages that point into blocks of compressed pages.
//!
//! A page is stored once however often it occurs; pages of zeroes are not stored at all. Stored pages are
//! numbered as they come, 32 to a block of at most 128 KiB: large enough for LZ4 (its window is 64 KiB),
//! small enough for one buffer on a board with 32 MiB. Blocks stand in the order in which the restore reads
//! them, each with the CRC of its stored bytes.
//!
//! Duplicates are found by a fast hash and believed only when the earlier page was compared byte for byte,
//! so a collision costs a comparison and never a page. The writer does not keep stored pages: the caller
//! reads the earlier one again from the process, which stands still.

use lz4_flex::block::CompressTable;

use super::header::Header;
use super::medium::{Sink, Source, crc};
use super::seen::Seen;
use crate::error::{Error, Result};
use crate::sorted;

/// Bytes of a page. Kernels with larger pages are refused by the header.
pub const PAGE: usize = 4096;
/// Pages of a full block.
pub const BLOCK_PAGES: usize = 32;

crate::section! {
    /// Pages that follow each other in an address space and among the stored pages of one block.
    pub struct Run {
        /// The address space, or the caller's own number for shared memory.
        pub mm: u32,
        /// Address of the first page.
        pub start: u64,
        /// How many pages.
        pub pages: u32,
        /// Number of the first stored page. In `PageIndex::zeros` it means nothing and is 0.
        pub first: u64,
    }
}

crate::section! {
    /// How the bytes of a block are stored.
    pub enum Method {
        /// As they are, because LZ4 made them no smaller.
        Raw,
        /// LZ4 block format.
        Lz4,
    }
}

crate::section! {
    /// One block.
    pub struct Block {
        /// Stored bytes.
        pub stored: u32,
        /// Pages in it.
        pub pages: u32,
        /// How they are stored.
        pub method: Method,
        /// CRC-32C of the stored bytes.
        pub crc: u32,
    }
}

crate::section! {
    /// The index of all pages.
    pub struct PageIndex {
        /// The blocks in their order.
        pub blocks: Vec<Block>,
        /// The runs, by `first`; none crosses the end of a block.
        pub runs: Vec<Run>,
        /// Pages that must be written as zeroes, because the file under them is not zero there.
        pub zeros: Vec<Run>,
    }
}

/// Compares the page at an address of an address space with this one: true if every byte is the same.
pub type Same<'c> = dyn FnMut(u32, u64, &[u8; PAGE]) -> bool + 'c;

/// Collects pages into blocks.
pub struct PageWriter<S: Sink> {
    sink: S,
    index: PageIndex,
    /// Pages of the open block, one after the other.
    open: Vec<u8>,
    packed: Vec<u8>,
    table: Option<CompressTable>,
    /// Where each stored page was first seen.
    origins: Vec<(u32, u64)>,
    /// Their hashes.
    seen: Seen,
}

impl<S: Sink> PageWriter<S> {
    /// Begins with page 0.
    pub fn new(sink: S) -> PageWriter<S> {
        let size = lz4_flex::block::get_maximum_output_size(BLOCK_PAGES * PAGE);
        PageWriter {
            sink,
            index: PageIndex { blocks: Vec::new(), runs: Vec::new(), zeros: Vec::new() },
            open: Vec::with_capacity(BLOCK_PAGES * PAGE),
            packed: vec![0; size],
            table: None,
            origins: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// Takes a page. A page of zeroes is dropped, as fresh anonymous memory is zero already, unless
    /// `keep_zero`: a private copy of a file's page that is all zero hides what the file holds.
    ///
    /// # Errors
    /// The sink's; or the block cannot be numbered any more.
    pub fn push(
        &mut self,
        mm: u32,
        address: u64,
        page: &[u8; PAGE],
        keep_zero: bool,
        same: &mut Same<'_>,
    ) -> Result<()> {
        let hash = hash(page);
        if hash == 0 && page.iter().all(|byte| *byte == 0) {
            if keep_zero {
                extend(&mut self.index.zeros, mm, address, None, false);
            }
            return Ok(());
        }
        let stored = match self.seen.number(hash) {
            Some(number) if self.is_same(number, page, same) => u64::from(number),
            _ => self.store(hash, mm, address, page)?,
        };
        // A run may go on into the next stored page, but not into the next block.
        let fresh_block = stored % BLOCK_PAGES as u64 == 0;
        extend(&mut self.index.runs, mm, address, Some(stored), fresh_block);
        if self.open.len() == BLOCK_PAGES * PAGE {
            self.flush()?;
        }
        Ok(())
    }

    /// Whether the stored page with this number is the same, byte for byte.
    fn is_same(&self, number: u32, page: &[u8; PAGE], same: &mut Same<'_>) -> bool {
        let number = number as usize;
        match number.checked_sub(self.index.blocks.len() * BLOCK_PAGES) {
            Some(open) => self.open.get(open * PAGE..(open + 1) * PAGE) == Some(page.as_slice()),
            None => self.origins.get(number).is_some_and(|(mm, address)| same(*mm, *address, page)),
        }
    }

    /// Gives the page the next number.
    fn store(&mut self, hash: u64, mm: u32, address: u64, page: &[u8; PAGE]) -> Result<u64> {
        let number = u32::try_from(self.origins.len())
            .map_err(|_| Error::new("image", "storing a page", "more than 16 TiB of memory"))?;
        self.origins.push((mm, address));
        self.seen.note(hash, number);
        self.open.extend_from_slice(page);
        Ok(u64::from(number))
    }

    /// Compresses the open block and hands it to the sink.
    fn flush(&mut self) -> Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        // Always the large one, which shows here: the code for small ones is not in the binary.
        let mut table = match self.table.take() {
            Some(CompressTable::Large(table)) => CompressTable::Large(table),
            _ => CompressTable::large(),
        };
        let packed = lz4_flex::block::compress_into_with_table(&self.open, &mut self.packed, &mut table);
        self.table = Some(table);
        let (method, bytes) = match packed {
            Ok(size) if size < self.open.len() => (Method::Lz4, &self.packed[..size]),
            _ => (Method::Raw, &self.open[..]),
        };
        let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        let pages = number(self.open.len() / PAGE);
        self.index.blocks.push(Block { stored: number(bytes.len()), pages, method, crc: crc(bytes) });
        self.sink.push(bytes)?;
        self.open.clear();
        Ok(())
    }

    /// How many pages are stored so far: what the image costs before compression.
    #[must_use]
    pub fn stored_pages(&self) -> usize {
        self.origins.len()
    }

    /// Ends the last block.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(mut self) -> Result<(PageIndex, S)> {
        self.flush()?;
        // A stable sort: the restore reads blocks in order, and within one the processes in order.
        sorted::sort_by_key(&mut self.index.runs, |run| run.first);
        Ok((self.index, self.sink))
    }
}

/// Appends a page to the last run, or begins one.
fn extend(runs: &mut Vec<Run>, mm: u32, address: u64, stored: Option<u64>, fresh_block: bool) {
    if let Some(run) = runs.last_mut()
        && run.mm == mm
        && run.start.checked_add(u64::from(run.pages) * PAGE as u64) == Some(address)
        && stored.is_none_or(|stored| !fresh_block && run.first + u64::from(run.pages) == stored)
        && run.pages < u32::MAX
    {
        run.pages += 1;
        return;
    }
    runs.push(Run { mm, start: address, pages: 1, first: stored.unwrap_or(0) });
}

/// A fast hash of a page: four lanes, so that the multiplications overlap. Zero for a page of zeroes.
fn hash(page: &[u8; PAGE]) -> u64 {
    const MUL: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut lanes = [0u64; 4];
    let (groups, _) = page.as_chunks::<32>();
    for group in groups {
        let (words, _) = group.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = (lane.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(MUL);
        }
    }
    lanes.iter().fold(0, |hash, lane| (hash.rotate_left(23) ^ lane).wrapping_mul(MUL))
}

/// One block of an image, read and checked.
#[derive(Debug)]
pub struct Pages<'a> {
    /// Number of the first page in it.
    pub first: u64,
    /// The pages, one after the other.
    pub bytes: &'a [u8],
    /// The runs that point into it.
    pub runs: &'a [Run],
}

impl<'a> Pages<'a> {
    /// The bytes of a run of this block.
    #[must_use]
    pub fn of(&self, run: &Run) -> Option<&'a [u8]> {
        let at = usize::try_from(run.first.checked_sub(self.first)?).ok()?.checked_mul(PAGE)?;
        self.bytes.get(at..)?.get(..(run.pages as usize).checked_mul(PAGE)?)
    }
}

/// Reads the blocks in their order.
pub struct PageReader<'a> {
    source: &'a mut dyn Source,
    index: &'a PageIndex,
    at: u64,
    block: usize,
    run: usize,
    first: u64,
    stored: Vec<u8>,
    pages: Vec<u8>,
}

/// Called through a pointer: inlined here it would be compiled for size, and take twice as long.
const UNPACK: fn(&[u8], &mut [u8]) -> std::result::Result<usize, lz4_flex::block::DecompressError> =
    lz4_flex::block::decompress_into;

impl<'a> PageReader<'a> {
    /// Checks the whole index before the first byte is read.
    ///
    /// # Errors
    /// The index contradicts itself or the header.
    pub fn new(source: &'a mut dyn Source, header: &Header, index: &'a PageIndex) -> Result<PageReader<'a>> {
        index.check(header.blocks_length)?;
        let at = header.blocks_offset;
        let (stored, pages) = (vec![0; BLOCK_PAGES * PAGE], vec![0; BLOCK_PAGES * PAGE]);
        Ok(PageReader { source, index, at, block: 0, run: 0, first: 0, stored, pages })
    }

    /// The next block, or none after the last.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn next_block(&mut self) -> Result<Option<Pages<'_>>> {
        let Some(block) = self.index.blocks.get(self.block) else { return Ok(None) };
        let wrong = |cause| Error::new("image", format!("reading page block {}", self.block), cause);
        let size = block.pages as usize * PAGE;
        // check() has bounded both lengths by the buffers.
        let (stored, pages) = (&mut self.stored[..block.stored as usize], &mut self.pages[..size]);
        self.source.read_at(self.at, stored)?;
        if crc(stored) != block.crc {
            return Err(wrong("its CRC is wrong"));
        }
        let bytes: &[u8] = match block.method {
            Method::Raw => stored,
            Method::Lz4 => match std::hint::black_box(UNPACK)(stored, pages) {
                Ok(length) if length == size => pages,
                _ => return Err(wrong("it does not decompress")),
            },
        };
        let first = self.first;
        self.at += u64::from(block.stored);
        self.first += u64::from(block.pages);
        self.block += 1;
        let begin = self.run;
        while self.index.runs.get(self.run).is_some_and(|run| run.first < self.first) {
            self.run += 1;
        }
        Ok(Some(Pages { first, bytes, runs: &self.index.runs[begin..self.run] }))
    }
}

impl PageIndex {
    /// Whether the index makes sense in itself and fills the blocks' room exactly.
    ///
    /// # Errors
    /// Says what contradicts what.
    pub fn check(&self, blocks_length: u64) -> Result<()> {
        let wrong = |cause: &'static str| Err(Error::new("image", "reading the page index", cause));
        let mut stored = 0;
        let mut run = 0;
        let mut end = 0;
        for block in &self.blocks {
            let size = u64::from(block.pages) * PAGE as u64;
            let fits = match block.method {
                Method::Raw => u64::from(block.stored) == size,
                Method::Lz4 => u64::from(block.stored) < size,
            };
            if !fits || block.pages == 0 || block.pages as usize > BLOCK_PAGES {
                return wrong("a block has an impossible length");
            }
            let first: u64 = end;
            stored += u64::from(block.stored);
            end += u64::from(block.pages);
            while let Some(next) = self.runs.get(run).filter(|next| next.first < end) {
                if next.first < first || !next.is_sound() || u64::from(next.pages) > end - next.first {
                    return wrong("a run lies outside its block");
                }
                run += 1;
            }
        }
        if stored != blocks_length {
            return wrong("its blocks are not those of the image");
        }
        if run != self.runs.len() || !self.zeros.iter().all(Run::is_sound) {
            return wrong("a run lies outside the image");
        }
        Ok(())
    }

    /// How many pages the index places.
    #[must_use]
    pub fn placed(&self) -> u64 {
        self.runs.iter().chain(&self.zeros).map(|run| u64::from(run.pages)).sum()
    }
}

impl Run {
    /// The same as runs of at most so many pages, for a run of zeroes.
    pub fn parts(&self, most: u32) -> impl Iterator<Item = Run> + use<> {
        let (mm, start, first, pages) = (self.mm, self.start, self.first, self.pages);
        (0..pages).step_by(most.max(1) as usize).map(move |at| Run {
            mm,
            start: start + u64::from(at) * PAGE as u64,
            pages: most.min(pages - at),
            first,
        })
    }

    /// Whole pages, at least one, and no address beyond the end of an address space.
    fn is_sound(&self) -> bool {
        let length = u64::from(self.pages) * PAGE as u64;
        self.pages > 0 && self.start.is_multiple_of(PAGE as u64) && self.start.checked_add(length).is_some()
    }
}
