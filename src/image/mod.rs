//! The image: bytes only, nothing of the system but memory (the host, the fuzzers and the lab use it too).
//!
//! ```text
//! | header | page blocks ...            | sections ...          |
//! 0        4096                         blocks end              total
//! ```
//!
//! [`header`] says where things are and which key must match; [`codec`] writes and reads sections;
//! [`pages`] holds memory. This file lists the sections that exist. An image is a cache: whatever does not
//! match exactly is a cold boot and a new capture, so nothing here reads an older definition.

pub mod codec;
pub mod header;
pub mod medium;
pub mod pages;
pub mod section;
mod seen;
pub mod stored;
pub mod verify;

pub use codec::{Reader, Tag, Title, Writer};
pub use medium::{Sink, Source, Target};
use section::Schema;

use crate::arch::{Cpu, Processor};

/// Raised when a meaning changes without its definition. It is part of the key.
pub const FORMAT: u32 = 2;

/// The page size that images are made of.
pub const PAGE_SIZE: u32 = 4096;

/// The processor, with ELF's numbers (e_machine, elf(5)).
pub const ARCH: u16 = <Cpu as Processor>::ARCH;

/// One kind of section: the line of `rcsnap abi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its tag.
    pub tag: Tag,
    /// Its name for people.
    pub name: &'static str,
    /// The hash of its definition.
    pub hash: u64,
}

impl Kind {
    /// The kind of a stored type.
    #[must_use]
    pub const fn of<T: Schema>(tag: Tag, name: &'static str) -> Kind {
        Kind { tag, name, hash: T::HASH }
    }
}

/// Tag of [`Meta`].
pub const META: Tag = *b"META";
/// Tag of [`pages::PageIndex`].
pub const PAGES: Tag = *b"PAGE";

/// Tag of [`crate::capture::Tree`].
pub const TREE: Tag = *b"TREE";
/// Tag of the file table, a list of [`crate::file::Entry`].
pub const FILES: Tag = *b"FILE";
/// Tag of [`crate::kernel::State`]; only with a whole system.
pub const KERNEL: Tag = *b"KERN";
/// Tag of [`crate::kernel::tmpfs::State`]; only with a whole system.
pub const TMPFS: Tag = *b"TMPF";
/// Tag of [`crate::inputs::Inputs`]; only with a whole system.
pub const INPUTS: Tag = *b"INPT";
/// Tag of [`crate::boot::attempt::Notes`]; only with a whole system.
pub const BOOT: Tag = *b"BOOT";

/// Every section there is, in the order of the image. A reader refuses an image with any other section.
pub const KINDS: &[Kind] = &[
    Kind::of::<Meta>(META, "meta"),
    Kind::of::<crate::capture::Tree>(TREE, "tree"),
    Kind::of::<Vec<crate::file::Entry>>(FILES, "files"),
    Kind::of::<crate::kernel::State>(KERNEL, "kernel"),
    Kind::of::<crate::kernel::tmpfs::State>(TMPFS, "tmpfs"),
    Kind::of::<pages::PageIndex>(PAGES, "pages"),
    Kind::of::<crate::inputs::Inputs>(INPUTS, "inputs"),
    Kind::of::<crate::boot::attempt::Notes>(BOOT, "boot"),
];

/// The sections and their hashes: what an image must agree with, bit for bit.
#[must_use]
pub fn abi() -> &'static [Kind] {
    KINDS
}

crate::section! {
    /// The three clocks at the moment when the tasks stood still, in nanoseconds.
    pub struct Clocks {
        /// CLOCK_MONOTONIC.
        pub monotonic: i64,
        /// CLOCK_BOOTTIME.
        pub boottime: i64,
        /// CLOCK_REALTIME: for people, never replayed.
        pub realtime: i64,
    }
}

crate::section! {
    /// What an image is, before any of its kinds.
    pub struct Meta {
        /// Version of the rcsnap that captured it.
        pub rcsnap: String,
        /// uname -r.
        pub kernel_release: String,
        /// uname -v.
        pub kernel_version: String,
        /// Whether it holds the whole system with kernel state, or one tree.
        pub whole_system: bool,
        /// When.
        pub clocks: Clocks,
        /// The highest pid, thread, session or group id in it: ns_last_pid goes above it first.
        pub highest_id: u32,
        /// Processes.
        pub processes: u32,
        /// Threads.
        pub threads: u32,
        /// How long the tasks stood still, in milliseconds.
        pub stopped_ms: u32,
    }
}

#[cfg(test)]
mod tests;
