//! What of a program is loaded: the kernel reads the headers of segments and the segments, elf(5). Section headers, their
//! names and the compiler's comment are for linkers and debuggers, a thousand bytes behind the last segment.

use std::mem::offset_of;

use anyhow::{Context, Result, ensure};

/// The fields of a header, for 32 and for 64 bits: where they are and how many bytes they have.
struct Layout {
    segments: (usize, usize),
    segment_size: usize,
    segment_count: usize,
    sections: (usize, usize),
    section_count: usize,
    /// Of a segment: its place in the file, and its length there.
    place: (usize, usize),
    length: (usize, usize),
}

/// The layout of a class, from its headers of a file and of a segment.
macro_rules! layout {
    ($file:ty, $segment:ty, $word:ty) => {
        Layout {
            segments: (offset_of!($file, e_phoff), size_of::<$word>()),
            segment_size: offset_of!($file, e_phentsize),
            segment_count: offset_of!($file, e_phnum),
            sections: (offset_of!($file, e_shoff), size_of::<$word>()),
            section_count: offset_of!($file, e_shnum),
            place: (offset_of!($segment, p_offset), size_of::<$word>()),
            length: (offset_of!($segment, p_filesz), size_of::<$word>()),
        }
    };
}

/// The same program without sections.
pub fn loaded(mut program: Vec<u8>) -> Result<Vec<u8>> {
    ensure!(program.starts_with(b"\x7fELF"), "it is no ELF file");
    let layout = if program.get(4) == Some(&1) {
        layout!(libc::Elf32_Ehdr, libc::Elf32_Phdr, u32)
    } else {
        layout!(libc::Elf64_Ehdr, libc::Elf64_Phdr, u64)
    };
    let word = |(at, size): (usize, usize)| -> Result<usize> {
        let bytes = program.get(at..at + size).context("its headers end early")?;
        let value = bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        Ok(usize::try_from(value)?)
    };
    let (first, size) = (word(layout.segments)?, word((layout.segment_size, 2))?);
    let mut end = 0;
    for number in 0..word((layout.segment_count, 2))? {
        let at = first + number * size;
        let field = |(offset, size)| word((at + offset, size));
        end = end.max(field(layout.place)? + field(layout.length)?);
    }
    ensure!(end > 0 && end <= program.len(), "its segments end beyond the file");
    program.truncate(end);
    let (at, size) = layout.sections;
    program[at..at + size].fill(0);
    // Their number, and which of them has the names.
    program[layout.section_count..layout.section_count + 4].fill(0);
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::loaded;
    use std::process::Command;

    #[test]
    fn a_program_runs_without_sections() {
        let own = std::fs::read("/bin/true").unwrap();
        let short = loaded(own.clone()).unwrap();
        assert!(short.len() < own.len() && short[..16] == own[..16]);
        let folder = tempfile::tempdir().unwrap();
        let (made, path) = (folder.path().join("made"), folder.path().join("true"));
        std::fs::write(&made, short).unwrap();
        // Another process writes what is run: a fork of another test would have it open here.
        let status = Command::new("install").arg("-m755").args([&made, &path]).status();
        assert!(status.unwrap().success());
        assert!(Command::new(&path).status().unwrap().success());
        assert!(loaded(b"#!/bin/sh\n".to_vec()).is_err());
        assert!(loaded(own[..40].to_vec()).is_err());
    }
}
