//! Reads a whole image and checks every byte of it: before publishing, and for `rcsnap inspect`.

use super::codec::Reader;
use super::header::Header;
use super::medium::Source;
use super::pages::{PageIndex, PageReader};
use crate::error::Result;

/// Checks header, gap, every section's CRC, and every page block's CRC and that it decompresses. Together
/// they cover each byte of the image.
///
/// # Errors
/// What is damaged, or that the pages' index was made by another rcsnap.
pub fn verify(source: &mut dyn Source) -> Result<Header> {
    let mut reader = Reader::open_any(source)?;
    let header = reader.header().clone();
    for entry in reader.entries().to_vec() {
        reader.payload(&entry)?;
    }
    let index = match reader.find::<PageIndex>(super::PAGES)? {
        Some(index) => index,
        None => PageIndex { blocks: Vec::new(), runs: Vec::new(), zeros: Vec::new() },
    };
    let mut pages = PageReader::new(reader.source(), &header, &index)?;
    while pages.next_block()?.is_some() {}
    Ok(header)
}
