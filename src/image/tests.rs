//! Round trips, and what a reader makes of every possible damage of a small image.

use super::codec::tag_name;
use super::header::Header;
use super::pages::{BLOCK_PAGES, PAGE, PageIndex, PageReader, PageWriter, Run};
use super::{Kind, PAGES, Reader, Title, Writer};
use crate::error::Result;

crate::section! {
    struct Small { name: String, numbers: Vec<u64> }
}

const KINDS: &[Kind] = &[Kind::of::<PageIndex>(PAGES, "pages"), Kind::of::<Small>(*b"SMAL", "small")];
const TITLE: Title = Title { flags: 1, generation: [7; 16], key: [9; 32] };

fn page(seed: u64) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    // Half of it random, so that LZ4 has something to do.
    for byte in &mut page[..PAGE / 2] {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        *byte = x.to_le_bytes()[0];
    }
    page
}

/// Pushes pages of one address space, `None` for a page of zeroes, into an image with one more section.
fn image(pages: &[Option<u64>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes).unwrap();
    let mut collect = PageWriter::new(&mut writer);
    for (i, seed) in pages.iter().enumerate() {
        let bytes = seed.map_or([0; PAGE], page);
        let mut same = |_: u32, at: u64, new: &[u8; PAGE]| {
            pages[usize::try_from(at).unwrap() / PAGE].map(page).as_ref() == Some(new)
        };
        collect.push(3, (i * PAGE) as u64, &bytes, true, &mut same).unwrap();
    }
    let (index, _) = collect.finish().unwrap();
    writer.section(PAGES, &index).unwrap();
    writer.section(*b"SMAL", &Small { name: "x".into(), numbers: vec![1, 300, u64::MAX] }).unwrap();
    writer.finish(&TITLE).unwrap();
    bytes
}

/// What was placed where.
type Placed = Vec<(u64, Vec<u8>)>;

/// Reads everything there is, as a restore does.
fn read(bytes: &[u8]) -> Result<(Small, Placed, Vec<Run>)> {
    let mut source = bytes;
    let mut reader = Reader::open(&mut source, KINDS)?;
    let index: PageIndex = reader.section(PAGES)?;
    let small = reader.section(*b"SMAL")?;
    let header: Header = reader.header().clone();
    let mut placed = Vec::new();
    let mut pages = PageReader::new(reader.source(), &header, &index)?;
    while let Some(block) = pages.next_block()? {
        for run in block.runs {
            placed.push((run.start, block.of(run).unwrap().to_vec()));
        }
    }
    Ok((small, placed, index.zeros.clone()))
}

#[test]
fn pages_come_back_where_they_were_and_are_stored_once() {
    let mut seeds: Vec<Option<u64>> = (0..150).map(|i| Some(i % 97)).collect();
    seeds[10] = None;
    seeds[11] = None;
    let bytes = image(&seeds);
    let (small, placed, zeros) = read(&bytes).unwrap();
    assert_eq!(small.numbers, [1, 300, u64::MAX]);
    assert_eq!(zeros, [Run { mm: 3, start: 10 * PAGE as u64, pages: 2, first: 0 }]);
    let mut found = vec![false; seeds.len()];
    for (start, bytes) in placed {
        for (i, bytes) in bytes.chunks(PAGE).enumerate() {
            let number = usize::try_from(start).unwrap() / PAGE + i;
            assert_eq!(bytes, seeds[number].map_or([0; PAGE], page));
            assert!(!std::mem::replace(&mut found[number], true));
        }
    }
    assert_eq!(found.iter().filter(|found| !**found).count(), 2);
    // 97 pages, half of each random.
    assert!(bytes.len() < 97 * PAGE * 6 / 10, "{}", bytes.len());
}

#[test]
fn a_run_never_crosses_the_end_of_a_block() {
    let seeds: Vec<Option<u64>> = (0..BLOCK_PAGES as u64 * 2 + 3).map(Some).collect();
    let (_, placed, _) = read(&image(&seeds)).unwrap();
    let lengths: Vec<usize> = placed.iter().map(|(_, bytes)| bytes.len() / PAGE).collect();
    assert_eq!(lengths, [BLOCK_PAGES, BLOCK_PAGES, 3]);
}

#[test]
fn a_hash_collision_is_told_by_the_comparison() {
    let mut sink = Vec::new();
    let mut writer = PageWriter::new(&mut sink);
    for i in 0..BLOCK_PAGES as u64 + 1 {
        writer.push(0, i * PAGE as u64, &page(i), false, &mut |_, _, _| false).unwrap();
    }
    // Page 0 again: its hash is known, but the caller says that the bytes differ, so it is stored.
    writer.push(0, 1 << 30, &page(0), false, &mut |_, _, _| false).unwrap();
    assert_eq!(writer.stored_pages(), BLOCK_PAGES + 2);
    writer.push(0, 1 << 31, &page(5), false, &mut |_, at, _| at == 5 * PAGE as u64).unwrap();
    assert_eq!(writer.stored_pages(), BLOCK_PAGES + 2);
}

#[test]
fn pages_that_do_not_compress_are_stored_raw() {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes).unwrap();
    let mut collect = PageWriter::new(&mut writer);
    let mut noise = [0; PAGE];
    let (a, b) = (page(1), page(2));
    noise[..PAGE / 2].copy_from_slice(&a[..PAGE / 2]);
    noise[PAGE / 2..].copy_from_slice(&b[..PAGE / 2]);
    collect.push(0, 0, &noise, false, &mut |_, _, _| false).unwrap();
    let (index, _) = collect.finish().unwrap();
    assert_eq!(index.blocks[0].method, super::pages::Method::Raw);
    let header = writer.finish(&TITLE).unwrap();
    let mut source = bytes.as_slice();
    let mut reader = PageReader::new(&mut source, &header, &index).unwrap();
    assert_eq!(reader.next_block().unwrap().unwrap().bytes, noise);
    assert!(reader.next_block().unwrap().is_none());
}

#[test]
fn every_flipped_bit_is_an_error() {
    let bytes = image(&[Some(1), Some(2), None, Some(1)]);
    read(&bytes).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(read(&damaged).is_err(), "byte {at:#x} of {:#x}", bytes.len());
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = image(&[Some(1), None, Some(1)]);
    for length in 0..bytes.len() {
        assert!(read(&bytes[..length]).is_err(), "cut to {length} of {}", bytes.len());
    }
    // On a block device more bytes follow.
    let mut longer = bytes;
    longer.extend_from_slice(&[0xff; 100]);
    read(&longer).unwrap();
}

#[test]
fn random_bytes_with_right_crcs_never_panic() {
    // Damage that passes the CRCs: the payload of the index is changed and signed again.
    let bytes = image(&[Some(1), Some(2), Some(1)]);
    let mut source = bytes.as_slice();
    let mut reader = Reader::open(&mut source, KINDS).unwrap();
    let entry = reader.entries()[0].clone();
    assert_eq!(tag_name(entry.tag), "PAGE");
    let payload = reader.payload(&entry).unwrap();
    let header = reader.header().clone();
    for at in 0..payload.len() {
        for value in 0..=255 {
            let mut damaged = payload.to_vec();
            damaged[at] = value;
            let Some(index) = super::codec::decode::<PageIndex>(&damaged) else { continue };
            let mut source = bytes.as_slice();
            let Ok(mut pages) = PageReader::new(&mut source, &header, &index) else { continue };
            while let Ok(Some(block)) = pages.next_block() {
                assert!(block.runs.iter().all(|run| block.of(run).is_some()));
            }
        }
    }
}

#[test]
fn a_section_of_another_definition_is_refused() {
    let bytes = image(&[Some(1)]);
    let other = [KINDS[0], Kind { hash: 1, ..KINDS[1] }];
    let mut source = bytes.as_slice();
    assert!(Reader::open(&mut source, &other).is_err());
    assert!(Reader::open(&mut source, &KINDS[..1]).is_err(), "unknown and required");
    Reader::open_any(&mut source).unwrap();
}

#[test]
fn unknown_notes_are_skipped() {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes).unwrap();
    writer.note(*b"NOTE", &Small { name: "n".into(), numbers: vec![] }).unwrap();
    writer.section(*b"SMAL", &Small { name: "x".into(), numbers: vec![] }).unwrap();
    writer.finish(&TITLE).unwrap();
    let mut source = bytes.as_slice();
    let mut reader = Reader::open(&mut source, KINDS).unwrap();
    assert_eq!(reader.section::<Small>(*b"SMAL").unwrap().name, "x");
    assert!(reader.find::<PageIndex>(PAGES).unwrap().is_none());
}

#[test]
fn the_header_is_zero_until_the_end() {
    let mut bytes = vec![0xff; 8192];
    let mut writer = Writer::new(&mut bytes).unwrap();
    writer.section(*b"SMAL", &Small { name: "x".into(), numbers: vec![] }).unwrap();
    // Here the power fails.
    assert!(bytes[..4096].iter().all(|byte| *byte == 0));
}

#[test]
fn pages_are_found_again_by_their_hash() {
    let mut seen = super::seen::Seen::default();
    assert_eq!(seen.number(7), None);
    let hash = |number: u32| u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for number in 1..5000 {
        seen.note(hash(number), number);
    }
    seen.note(hash(3), 9999);
    assert_eq!(
        (seen.number(hash(3)), seen.number(hash(4999)), seen.number(hash(5000))),
        (Some(9999), Some(4999), None)
    );
}
