//! The memory of the binary, in a tenth of the code that the C library has for it: for a program of one thread
//! that lives for some seconds.
//!
//! Small pieces have sizes that are powers of two. They are cut from chunks, and freed ones are kept in a list for
//! each size. Large pieces are mappings of their own, which the kernel moves when they grow, so that a long list is
//! not copied.
#![allow(unsafe_code, reason = "an allocator hands out raw memory")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::null_mut;

/// The smallest piece, which has room for the link of its list, and its alignment.
const LEAST: usize = 16;
/// The largest piece that is not a mapping of its own.
const LARGEST: usize = 128 * 1024;
/// What pieces are cut from. Pages that were not touched yet take no memory.
const CHUNK: usize = 4 * LARGEST;
/// How many sizes there are.
const SIZES: usize = LARGEST.ilog2() as usize - LEAST.ilog2() as usize + 1;

struct State {
    /// The first free piece of each size. It holds the address of the next one.
    free: [*mut u8; SIZES],
    /// What is left of the chunk: its address, and how many bytes.
    chunk: *mut u8,
    left: usize,
}

/// The allocator of a program that never starts a thread.
pub struct Heap(UnsafeCell<State>);

// SAFETY: it is not shared, because there is one thread: see `new`.
unsafe impl Sync for Heap {}

impl Heap {
    /// An empty heap.
    ///
    /// # Safety
    /// Only one thread may use it, and no handler of a signal.
    #[must_use]
    pub const unsafe fn new() -> Heap {
        Heap(UnsafeCell::new(State { free: [null_mut(); SIZES], chunk: null_mut(), left: 0 }))
    }
}

/// The number of a small piece's size; none for a mapping.
fn size(layout: Layout) -> Option<usize> {
    let small = layout.size() <= LARGEST && layout.align() <= LEAST;
    small.then(|| (layout.size().max(LEAST).next_power_of_two() / LEAST).ilog2() as usize)
}

/// Fresh pages, zeroed; null if there are none.
fn map(len: usize) -> *mut u8 {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh mapping at an address that the kernel chooses aliases nothing.
    let pages = unsafe { libc::mmap(null_mut(), len, access, flags, -1, 0) };
    if pages == libc::MAP_FAILED { null_mut() } else { pages.cast() }
}

impl State {
    /// A piece of this size.
    fn take(&mut self, size: usize) -> *mut u8 {
        let first = self.free[size];
        if !first.is_null() {
            // SAFETY: a piece in the list belongs to nobody and was given its link by `give`.
            self.free[size] = unsafe { first.cast::<*mut u8>().read() };
            return first;
        }
        let len = LEAST << size;
        if self.left < len {
            self.chunk = map(CHUNK);
            self.left = if self.chunk.is_null() { 0 } else { CHUNK };
        }
        if self.left < len {
            return null_mut();
        }
        self.left -= len;
        // SAFETY: it is inside of the chunk, whose end is `left` bytes after its beginning; pieces of 16 bytes and
        // their multiples keep it aligned.
        unsafe { self.chunk.add(self.left) }
    }

    /// Puts a piece into the list of its size.
    ///
    /// # Safety
    /// It came from `take` with this size, and is not used any more.
    unsafe fn give(&mut self, piece: *mut u8, size: usize) {
        // SAFETY: the piece has room for an address, and its alignment.
        unsafe { piece.cast::<*mut u8>().write(self.free[size]) };
        self.free[size] = piece;
    }
}

// SAFETY: every piece is as long as its layout and aligned to 16 bytes or a page; it is cut once, and handed out
// again only after it was given back. It does not unwind.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match size(layout) {
            // SAFETY: no other reference exists: there is one thread, and `take` calls nothing of ours.
            Some(size) => unsafe { &mut *self.0.get() }.take(size),
            None => map(layout.size()),
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match size(layout) {
            // SAFETY: as in `alloc`; the caller gives back what it got with this layout.
            Some(size) => unsafe { (*self.0.get()).give(piece, size) },
            // SAFETY: a mapping of this length, which the caller has given up.
            None => drop(unsafe { libc::munmap(piece.cast(), layout.size()) }),
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        let piece = unsafe { self.alloc(layout) };
        if size(layout).is_some() && !piece.is_null() {
            // SAFETY: it has this length. A mapping is zeroed already.
            unsafe { piece.write_bytes(0, layout.size()) };
        }
        piece
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        // SAFETY: the caller promises that the length is valid for this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(len, layout.align()) };
        match (size(layout), size(wanted)) {
            (Some(old), Some(new)) if old == new => piece,
            (None, None) => {
                // SAFETY: a mapping of this length that nobody else uses.
                let moved = unsafe { libc::mremap(piece.cast(), layout.size(), len, libc::MREMAP_MAYMOVE) };
                if moved == libc::MAP_FAILED { null_mut() } else { moved.cast() }
            }
            // SAFETY: two different pieces, and both have as many bytes as are copied; the old one is given up.
            _ => unsafe {
                let moved = self.alloc(wanted);
                if !moved.is_null() {
                    moved.copy_from_nonoverlapping(piece, layout.size().min(len));
                    self.dealloc(piece, layout);
                }
                moved
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, Heap, LARGEST};
    use std::alloc::{GlobalAlloc, Layout};

    /// A piece that holds one byte throughout.
    struct Piece {
        address: *mut u8,
        layout: Layout,
        byte: u8,
    }

    impl Piece {
        fn check(&self) {
            // SAFETY: it was handed out with this length and filled.
            let bytes = unsafe { std::slice::from_raw_parts(self.address, self.layout.size()) };
            assert!(bytes.iter().all(|byte| *byte == self.byte));
            assert!(self.address.addr().is_multiple_of(self.layout.align()));
        }

        fn fill(&mut self, byte: u8) {
            // SAFETY: it was handed out with this length.
            unsafe { self.address.write_bytes(byte, self.layout.size()) };
            self.byte = byte;
        }
    }

    #[test]
    fn pieces_keep_what_is_in_them() {
        // SAFETY: used by this thread only.
        let heap = unsafe { Heap::new() };
        let (mut pieces, mut state): (Vec<Piece>, u32) = (Vec::new(), 1);
        let mut next = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for step in 0..3_000 {
            let byte = u8::try_from(step % 251).unwrap();
            let which = next(5) * next(5) / 4;
            let size = 1 + next([40, 300, 5_000, 3 * LARGEST, CHUNK][which]);
            match next(3) {
                1 if !pieces.is_empty() => {
                    let piece = pieces.swap_remove(next(pieces.len()));
                    piece.check();
                    // SAFETY: it came from this heap with this layout.
                    unsafe { heap.dealloc(piece.address, piece.layout) };
                }
                2 if !pieces.is_empty() => {
                    let at = next(pieces.len());
                    let piece = &mut pieces[at];
                    let kept = piece.layout.size().min(size);
                    // SAFETY: as above; the result has the new length.
                    piece.address = unsafe { heap.realloc(piece.address, piece.layout, size) };
                    piece.layout = Layout::from_size_align(kept, piece.layout.align()).unwrap();
                    piece.check();
                    piece.layout = Layout::from_size_align(size, piece.layout.align()).unwrap();
                    piece.fill(byte);
                }
                _ => {
                    let align = [1, 8, 16, 64, 4096][next(5)];
                    let layout = Layout::from_size_align(size, align).unwrap();
                    // SAFETY: the size is not zero.
                    let mut piece = Piece { address: unsafe { heap.alloc_zeroed(layout) }, layout, byte: 0 };
                    piece.check();
                    piece.fill(byte);
                    pieces.push(piece);
                }
            }
        }
        for piece in pieces {
            piece.check();
            // SAFETY: as above.
            unsafe { heap.dealloc(piece.address, piece.layout) };
        }
    }

    #[test]
    fn a_piece_that_was_freed_is_used_again() {
        // SAFETY: used by this thread only.
        let heap = unsafe { Heap::new() };
        let layout = Layout::from_size_align(100, 8).unwrap();
        // SAFETY: the size is not zero, and each piece goes back with its layout.
        unsafe {
            let first = heap.alloc(layout);
            heap.dealloc(first, layout);
            assert_eq!(heap.alloc(layout), first);
        }
    }
}
