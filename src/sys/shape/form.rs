//! Writing values by their shape, and reading them.
#![allow(unsafe_code, reason = "values are read and written by their place")]

use std::mem::MaybeUninit;
use std::ptr;
use std::slice;

use super::{Element, Field, List, Maybe, Packed, Room, Shape, Shaped};
use crate::image::stored::{Input, put_number};

// Numbers are copied between memory and the low bytes of a word.
const _: () = assert!(cfg!(target_endian = "little"));

/// Appends the stored form of a value.
pub fn put<T: Shaped>(value: &T, out: &mut Vec<u8>) {
    // SAFETY: a value of the shape is there.
    unsafe { put_at(&T::SHAPE, ptr::from_ref(value).cast(), out) }
}

/// # Safety
/// A value of the shape is at `from`.
unsafe fn put_at(shape: &Shape, from: *const u8, out: &mut Vec<u8>) {
    // SAFETY: that a value of the shape is there holds for its parts, by what `Shaped` demands.
    unsafe {
        match *shape {
            Shape::Byte | Shape::Bool => out.push(*from),
            Shape::Unsigned(bytes) => put_number(word(from, bytes), out),
            Shape::Signed(bytes) => {
                let left = 64 - 8 * u32::from(bytes);
                let value = (word(from, bytes) << left).cast_signed() >> left;
                put_number((value << 1 ^ value >> 63).cast_unsigned(), out);
            }
            Shape::Text => {
                let text = &*from.cast::<String>();
                put_number(text.len() as u64, out);
                out.extend_from_slice(text.as_bytes());
            }
            Shape::Boxed(element) => put_all(element, *from.cast::<*const u8>(), 1, out),
            Shape::Array(element, Packed(count)) => put_all(element, from, count.into(), out),
            Shape::List(element, Packed(list)) => {
                let (first, count) = (list.view)(from);
                put_number(count as u64, out);
                put_all(element, first, count, out);
            }
            Shape::Maybe(element, Packed(maybe)) => {
                let value = (maybe.view)(from);
                let count = usize::from(!value.is_null());
                put_number(count as u64, out);
                put_all(element, value, count, out);
            }
            Shape::Fields(Packed(fields)) => put_fields(fields, 0, from, out),
            Shape::Variants(_, Packed(fields)) => {
                put_number(u64::from(*from), out);
                put_fields(fields, *from, from, out);
            }
        }
    }
}

/// # Safety
/// The values of the fields of this variant are at their places from `from` on.
unsafe fn put_fields(fields: &[Field], variant: u8, from: *const u8, out: &mut Vec<u8>) {
    for field in fields {
        if field.variant == variant {
            // SAFETY: the caller's.
            unsafe { put_at(field.shape, from.add(field.at.into()), out) }
        }
    }
}

/// # Safety
/// So many elements lie behind each other at `from`, which may be null for none.
unsafe fn put_all(element: Element, from: *const u8, count: usize, out: &mut Vec<u8>) {
    // SAFETY: the caller's.
    unsafe {
        match element.shape {
            Shape::Byte if count != 0 => out.extend_from_slice(slice::from_raw_parts(from, count)),
            shape => (0..count).for_each(|at| put_at(shape, from.add(element.at(at)), out)),
        }
    }
}

/// # Safety
/// A number of so many bytes, at most eight, is at `from`.
unsafe fn word(from: *const u8, bytes: u8) -> u64 {
    let mut word = 0_u64;
    // SAFETY: the caller's.
    unsafe { ptr::copy_nonoverlapping(from, ptr::from_mut(&mut word).cast(), bytes.into()) };
    word
}

/// Reads a value. If there is none, `input` knows it and the value means nothing.
pub fn take<T: Shaped>(input: &mut Input) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: there is place for a value of the shape, and there is one then.
    unsafe {
        take_at(&T::SHAPE, value.as_mut_ptr().cast(), input);
        value.assume_init()
    }
}

/// Reads a value to `to`, where one is afterwards in any case.
///
/// # Safety
/// There is place for a value of the shape at `to`.
unsafe fn take_at(shape: &Shape, to: *mut u8, input: &mut Input) {
    // SAFETY: that there is place for the shape holds for its parts, by what `Shaped` demands. Of a byte, a number and
    // an array of them every value is one; a bool is 0 or 1, and a variant's number one of those that there are.
    unsafe {
        match *shape {
            Shape::Byte => *to = input.byte(),
            Shape::Bool => *to.cast::<bool>() = input.bool(),
            Shape::Unsigned(bytes) | Shape::Signed(bytes) => {
                let mut value = input.number(8 * u32::from(bytes));
                if let Shape::Signed(_) = shape {
                    value = value >> 1 ^ (value & 1).wrapping_neg();
                }
                ptr::copy_nonoverlapping(ptr::from_ref(&value).cast(), to, bytes.into());
            }
            Shape::Text => to.cast::<String>().write(input.text()),
            Shape::Boxed(element) => {
                let room = element.room(1);
                assert!(!room.is_null());
                take_at(element.shape, room, input);
                *to.cast::<*mut u8>() = room;
            }
            Shape::Array(element, Packed(count)) => {
                for at in 0..usize::from(count) {
                    take_at(element.shape, to.add(element.at(at)), input);
                }
            }
            Shape::List(element, Packed(list)) => take_list(element, list, to, input),
            Shape::Maybe(element, Packed(maybe)) => take_maybe(element, maybe, to, input),
            Shape::Fields(Packed(fields)) => take_fields(fields, 0, to, input),
            Shape::Variants(count, Packed(fields)) => {
                let variant = input.below(count);
                *to = variant;
                take_fields(fields, variant, to, input);
            }
        }
    }
}

/// # Safety
/// There is place for the fields of this variant from `to` on.
unsafe fn take_fields(fields: &[Field], variant: u8, to: *mut u8, input: &mut Input) {
    for field in fields {
        if field.variant == variant {
            // SAFETY: the caller's.
            unsafe { take_at(field.shape, to.add(field.at.into()), input) }
        }
    }
}

/// # Safety
/// There is place for such a list at `to`.
unsafe fn take_list(element: Element, list: &List, to: *mut u8, input: &mut Input) {
    let mut capacity = input.length();
    let mut room = ptr::without_provenance_mut(element.align.into());
    if capacity != 0 {
        let found = element.room(capacity);
        if found.is_null() {
            input.spoil();
            capacity = 0;
        } else {
            room = found;
        }
    }
    let mut count = 0;
    // SAFETY: there is room for so many elements, and `count` of them are there.
    unsafe {
        if let Shape::Byte = element.shape {
            let bytes = input.bytes(capacity);
            count = bytes.len();
            room.copy_from_nonoverlapping(bytes.as_ptr(), count);
        }
        while count < capacity && !input.is_wrong() {
            take_at(element.shape, room.add(element.at(count)), input);
            count += 1;
        }
        (list.make)(to, room, count, capacity);
    }
}

/// # Safety
/// There is place for such an option at `to`.
unsafe fn take_maybe(element: Element, maybe: &Maybe, to: *mut u8, input: &mut Input) {
    let mut room = Room::uninit();
    let mut from = ptr::null_mut();
    // SAFETY: the room is large enough for what an option has inside, which is moved from it.
    unsafe {
        if input.bool() {
            from = room.as_mut_ptr().cast();
            take_at(element.shape, from, input);
        }
        (maybe.make)(to, from);
    }
}
