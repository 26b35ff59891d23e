//! Putting a list into another order: one function for lists of all types.
#![allow(unsafe_code, reason = "elements are exchanged as bytes")]

use std::mem::MaybeUninit;
use std::ptr;

/// Moves what is at `places[i]` to `i`, for all.
pub fn settle<T>(list: &mut [T], places: Vec<usize>) {
    // In safe code too each element would be at one place only, or there would be a panic.
    assert!(places.len() == list.len());
    let first: *mut MaybeUninit<u8> = list.as_mut_ptr().cast();
    // SAFETY: the list has as many elements of this size as there are places.
    unsafe { settle_bytes(first, size_of::<T>(), places) }
}

/// By exchanges along each cycle, so every element is somewhere at any time.
///
/// # Safety
/// At `first` lies a list of elements of this size, as many as there are places.
#[inline(never)]
unsafe fn settle_bytes(first: *mut MaybeUninit<u8>, size: usize, mut places: Vec<usize>) {
    for start in 0..places.len() {
        let mut at = start;
        loop {
            let from = std::mem::replace(&mut places[at], at);
            if from == start || from == at {
                break;
            }
            // Indexed before, and so are all that are followed: a place outside the list is a panic.
            assert!(from < places.len());
            // SAFETY: both are places of the list, and not the same.
            unsafe { ptr::swap_nonoverlapping(first.add(at * size), first.add(from * size), size) };
            at = from;
        }
    }
}
