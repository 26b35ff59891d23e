//! The memory allocator of the target binary: it hands out and never takes back.
//!
//! Every process of rcsnap ends in seconds (the watcher in minutes, most of them asleep), or becomes another program.
//! So memory that was given out is not managed: to free is to do nothing, and the compiler drops the clean-up of
//! every string and list, on every way out of every function; that is a tenth of the binary
//! (`docs/decisions/0013-memory-that-is-never-freed.md`). What is used again and again for much data, the blocks of an
//! image above all, is a buffer that its owner keeps.
//!
//! Small pieces are cut from chunks; what is large gets a mapping of its own, which mremap(2) lets grow without a copy.
//! Like any allocator it may be called by several threads, although rcsnap has one.
#![allow(unsafe_code, reason = "a memory allocator")]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::vm::fresh;
use crate::image::PAGE_SIZE;

/// What is asked of the kernel at a time: it costs only the pages that are used.
const CHUNK: usize = 256 * 1024;
/// From this size on a piece has a mapping of its own.
const LARGE: usize = 64 * 1024;

/// The allocator; see the head of the file.
pub struct Arena {
    /// The next free byte of the chunk.
    next: AtomicUsize,
    /// Its end.
    end: AtomicUsize,
    /// Held while a piece is cut: 1.
    busy: AtomicUsize,
}

impl Arena {
    /// Without memory yet.
    #[must_use]
    pub const fn new() -> Arena {
        Arena { next: AtomicUsize::new(0), end: AtomicUsize::new(0), busy: AtomicUsize::new(0) }
    }

    /// Runs `work` while no other thread is in it.
    fn alone<T>(&self, work: impl FnOnce() -> T) -> T {
        while self.busy.swap(1, Ordering::Acquire) != 0 {
            std::hint::spin_loop();
        }
        let done = work();
        self.busy.store(0, Ordering::Release);
        done
    }

    /// Cuts a piece from the chunk, or from a new one; 0 when there is no memory.
    fn cut(&self, size: usize, align: usize) -> usize {
        self.alone(|| {
            let mut begin = self.next.load(Ordering::Relaxed).next_multiple_of(align);
            if begin + size > self.end.load(Ordering::Relaxed) {
                let chunk = map(CHUNK);
                if chunk == 0 {
                    return 0;
                }
                self.end.store(chunk + CHUNK, Ordering::Relaxed);
                begin = chunk.next_multiple_of(align);
            }
            self.next.store(begin + size, Ordering::Relaxed);
            begin
        })
    }

    /// Makes the last piece that was cut longer or shorter where it is; it stays a small one.
    fn stretch(&self, begin: usize, old: usize, new: usize) -> bool {
        self.alone(|| {
            let last = begin + old == self.next.load(Ordering::Relaxed);
            let fits = last && new < LARGE && begin + new <= self.end.load(Ordering::Relaxed);
            if fits {
                self.next.store(begin + new, Ordering::Relaxed);
            }
            fits
        })
    }
}

impl Default for Arena {
    fn default() -> Arena {
        Arena::new()
    }
}

/// Fresh pages, all zero; 0 when there are none.
fn map(size: usize) -> usize {
    fresh(size).map_or(0, |start| start.as_ptr().expose_provenance())
}

/// Whether a piece has a mapping of its own.
fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= PAGE_SIZE as usize
}

// SAFETY: `cut` gives every byte away once: `next` grows, under `busy`, within a mapping that is never unmapped, and
// goes back only over the end of a piece whose owner has given that up; a mapping of its own is used for one piece.
// Nothing else that was given out is given out again, as `dealloc` does nothing. No method panics: a size that does
// not fit a chunk with its alignment, where that is larger than a page, ends in a null pointer.
unsafe impl GlobalAlloc for Arena {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size();
        let at = match is_large(layout) {
            true => map(size),
            false if size + layout.align() <= CHUNK => self.cut(size, layout.align()),
            false => 0,
        };
        std::ptr::with_exposed_provenance_mut(at)
    }

    #[inline(always)]
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those of `alloc`.
        let at = unsafe { self.alloc(layout) };
        // A mapping is zero already. Of a chunk, `stretch` may have taken back what was used.
        if !at.is_null() && !is_large(layout) {
            // SAFETY: the piece has as many bytes.
            unsafe { at.write_bytes(0, layout.size()) };
        }
        at
    }

    #[inline(never)]
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        let old = layout.size();
        if is_large(layout) {
            if new <= old {
                return at;
            }
            // SAFETY: `at` is a whole mapping of `old` bytes, which `alloc` or this made for this piece alone.
            let moved = unsafe { libc::mremap(at.cast(), old, new, libc::MREMAP_MAYMOVE) };
            return if moved == libc::MAP_FAILED { std::ptr::null_mut() } else { moved.cast() };
        }
        if self.stretch(at.addr(), old, new) || new <= old {
            return at;
        }
        // SAFETY: the size is not zero, as it is larger than the old one, and the alignment was one before; the
        // caller promises that it fits.
        let place = unsafe { self.alloc(Layout::from_size_align_unchecked(new, layout.align())) };
        if !place.is_null() {
            // SAFETY: the old piece has `old` bytes, the new one more, and it is no part of the old one.
            unsafe { std::ptr::copy_nonoverlapping(at, place, old) };
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::{Arena, CHUNK, LARGE};
    use std::alloc::{GlobalAlloc, Layout};

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// A piece filled with a byte.
    fn piece(arena: &Arena, size: usize, align: usize, byte: u8) -> *mut u8 {
        // SAFETY: the size is not zero, and the piece is as long.
        unsafe {
            let at = arena.alloc(layout(size, align));
            assert!(!at.is_null() && at.addr().is_multiple_of(align));
            at.write_bytes(byte, size);
            at
        }
    }

    /// Whether a piece has this byte only.
    fn is_all(at: *mut u8, size: usize, byte: u8) -> bool {
        // SAFETY: the piece is as long and was filled.
        unsafe { std::slice::from_raw_parts(at, size) }.iter().all(|b| *b == byte)
    }

    #[test]
    fn pieces_do_not_overlap_and_are_aligned() {
        let arena = Arena::new();
        let sizes = [1, 7, 8, 4096, 60_000, LARGE, 3, 200_000, 65_535, 65_535, 65_535, 65_535, 65_535, 1];
        let pieces: Vec<_> = (1..)
            .zip(sizes)
            .map(|(byte, size)| (piece(&arena, size, 1 << (byte % 7), byte), size, byte))
            .collect();
        for (at, size, byte) in pieces {
            assert!(is_all(at, size, byte), "{size}");
        }
        let arena = Arena::new();
        piece(&arena, 10, CHUNK / 2, 1);
        piece(&arena, CHUNK / 2, CHUNK / 4, 2);
    }

    #[test]
    fn a_piece_grows_with_its_content() {
        let arena = Arena::new();
        for size in [1, 100, LARGE / 2, LARGE - 1, LARGE, 5 * LARGE] {
            let at = piece(&arena, size, 8, 9);
            let _between = piece(&arena, 16, 8, 1);
            // SAFETY: the piece is of this arena and of this layout.
            let grown = unsafe { arena.realloc(at, layout(size, 8), 3 * size) };
            assert!(is_all(grown, size, 9));
        }
        let mut at = piece(&arena, 1, 1, 7);
        for size in 1..3 * LARGE {
            // SAFETY: as above.
            at = unsafe { arena.realloc(at, layout(size, 1), size + 1) };
            assert!(!at.is_null());
        }
        assert!(is_all(at, 1, 7));
        let last = piece(&arena, 100, 8, 3);
        // SAFETY: as above.
        let grown = unsafe { arena.realloc(last, layout(100, 8), 200) };
        assert_eq!(last, grown, "nothing behind it is in the way");
        // SAFETY: as above.
        let shrunk = unsafe { arena.realloc(grown, layout(200, 8), 40) };
        assert!(shrunk == last && is_all(shrunk, 40, 3));
        // SAFETY: the size is not zero.
        let next = unsafe { arena.alloc_zeroed(layout(160, 8)) };
        assert_eq!(next.addr(), last.addr() + 40, "the end of the last piece is free again");
        assert!(is_all(next, 160, 0) && is_all(shrunk, 40, 3));
    }

    #[test]
    fn zeroed_memory_is_zero() {
        let arena = Arena::new();
        piece(&arena, 1000, 1, 0xff);
        for size in [10, 4096, LARGE] {
            // SAFETY: the size is not zero.
            let at = unsafe { arena.alloc_zeroed(layout(size, 1)) };
            assert!(is_all(at, size, 0));
        }
    }
}
