//! Shapes: how stored types lie in memory, as constants, and (`form`) one function each that writes and reads by them.
//!
//! Code that writes and reads every type field by field was 32 KB on x86_64, for more than 110 types. A shape has eleven
//! bytes for a field: where it is and what shape it has. What is the same for all types is done here once
//! (`docs/decisions/0015-shapes.md`). The stored form is that of [`crate::image::stored`].
#![allow(unsafe_code, reason = "values are read and written by their place")]

mod form;

use std::alloc::{Layout, alloc};
use std::mem::MaybeUninit;
use std::ptr;

pub use form::{put, take};

/// How a type lies in memory.
#[derive(Debug)]
pub enum Shape {
    /// A number of one byte.
    Byte,
    /// A `bool`.
    Bool,
    /// A number without a sign, of so many bytes.
    Unsigned(u8),
    /// A number with a sign, of so many bytes.
    Signed(u8),
    /// A [`String`].
    Text,
    /// A [`Box`].
    Boxed(Element),
    /// An array of so many.
    Array(Element, Packed<u16>),
    /// A [`Vec`].
    List(Element, Packed<&'static List>),
    /// An [`Option`].
    Maybe(Element, Packed<&'static Maybe>),
    /// A struct or a tuple.
    Fields(Packed<&'static [Field]>),
    /// An enum with `repr(u8)`, of so many variants.
    Variants(u8, Packed<&'static [Field]>),
}

/// Something without an alignment: hundreds of shapes have no gaps then, in themselves and between them.
#[derive(Debug, Clone, Copy)]
#[repr(C, packed)]
pub struct Packed<T: Copy>(T);

impl Shape {
    /// An enum of so many variants.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "it is compared before")]
    pub const fn variants(count: usize, fields: &'static [Field]) -> Shape {
        assert!(count <= 0xff);
        Shape::Variants(count as u8, Packed(fields))
    }

    /// A struct.
    #[must_use]
    pub const fn fields(fields: &'static [Field]) -> Shape {
        Shape::Fields(Packed(fields))
    }
}

/// A field of a struct or of a variant.
#[derive(Debug, Clone, Copy)]
#[repr(C, packed)]
pub struct Field {
    shape: &'static Shape,
    at: u16,
    variant: u8,
}

impl Field {
    /// A field at this place, in a struct or in the variant with this number.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "it is compared before")]
    pub const fn new(at: usize, variant: u8, shape: &'static Shape) -> Field {
        assert!(at <= 0xffff);
        Field { shape, at: at as u16, variant }
    }
}

/// The fields of the variants of an enum, laid out as repr(C) does it behind a number of one byte.
#[derive(Debug)]
pub struct Parts<const N: usize> {
    fields: [Field; N],
    count: usize,
    end: usize,
}

impl<const N: usize> Parts<N> {
    /// Begins.
    #[must_use]
    pub const fn none() -> Parts<N> {
        Parts { fields: [Field::new(0, 0, &Shape::Byte); N], count: 0, end: 0 }
    }

    /// With one more, of this variant.
    #[must_use]
    pub const fn and<T: Shaped>(mut self, variant: u8) -> Parts<N> {
        if self.count == 0 || self.fields[self.count - 1].variant != variant {
            self.end = 1;
        }
        let at = self.end.next_multiple_of(align_of::<T>());
        self.fields[self.count] = Field::new(at, variant, &T::SHAPE);
        self.count += 1;
        self.end = at + size_of::<T>();
        self
    }

    /// All of them.
    #[must_use]
    pub const fn fields(self) -> [Field; N] {
        assert!(self.count == N);
        self.fields
    }
}

/// What something is made of that has one type inside.
#[derive(Debug, Clone, Copy)]
#[repr(C, packed)]
pub struct Element {
    shape: &'static Shape,
    size: u16,
    align: u8,
}

impl Element {
    #[allow(clippy::cast_possible_truncation, reason = "it is compared before")]
    const fn of<T: Shaped>() -> Element {
        // Nothing stored is without bytes: so a list is bounded by the bytes that are left, and room is never empty.
        assert!(size_of::<T>() != 0 && size_of::<T>() <= 0xffff && align_of::<T>() <= 0xff);
        Element { shape: &T::SHAPE, size: size_of::<T>() as u16, align: align_of::<T>() as u8 }
    }

    /// Where the element with this number is.
    fn at(&self, number: usize) -> usize {
        number * usize::from(self.size)
    }

    /// Room for so many, and they are not none. Null where there is none.
    fn room(&self, count: usize) -> *mut u8 {
        let layout = count.checked_mul(self.size.into());
        let layout = layout.and_then(|size| Layout::from_size_align(size, self.align.into()).ok());
        // SAFETY: neither the elements nor their number are without bytes.
        layout.map_or(ptr::null_mut(), |layout| unsafe { alloc(layout) })
    }
}

/// What is done with a [`Vec`], whose own layout is std's secret.
#[derive(Debug)]
pub struct List {
    /// Where its elements are and how many.
    view: unsafe fn(*const u8) -> (*const u8, usize),
    /// Makes it at a place, of room with so many elements, and for so many.
    make: unsafe fn(*mut u8, *mut u8, usize, usize),
}

/// What is done with an [`Option`], whose layout is the compiler's.
#[derive(Debug)]
pub struct Maybe {
    /// Where what is in it is; null if there is nothing.
    view: unsafe fn(*const u8) -> *const u8,
    /// Makes it at a place, of what is moved from another; null for nothing.
    make: unsafe fn(*mut u8, *const u8),
}

/// Room on the stack for what is in an [`Option`].
type Room = MaybeUninit<[u128; 128]>;

/// A type with a shape.
///
/// # Safety
/// The shape is that of the type: each field or variant is there, at its place, with its type's shape.
pub unsafe trait Shaped: Sized {
    /// How it lies in memory.
    const SHAPE: Shape;
}

macro_rules! simple {
    ($($ty:ty: $shape:expr),* $(,)?) => { $(
        // SAFETY: it is a number, bool or string of this size.
        unsafe impl Shaped for $ty { const SHAPE: Shape = $shape; }
    )* };
}
simple!(
    u8: Shape::Byte, i8: Shape::Byte, bool: Shape::Bool, String: Shape::Text,
    u16: Shape::Unsigned(2), u32: Shape::Unsigned(4), u64: Shape::Unsigned(8),
    i16: Shape::Signed(2), i32: Shape::Signed(4), i64: Shape::Signed(8),
    // Stored as sixteen bytes, the lowest first.
    u128: Shape::Array(Element::of::<u8>(), Packed(16)),
);

// SAFETY: a box of a sized type is a pointer to it.
unsafe impl<T: Shaped> Shaped for Box<T> {
    const SHAPE: Shape = Shape::Boxed(Element::of::<T>());
}

// SAFETY: elements of an array lie behind each other.
unsafe impl<T: Shaped, const N: usize> Shaped for [T; N] {
    #[allow(clippy::cast_possible_truncation, reason = "it is compared before")]
    const SHAPE: Shape = {
        assert!(N != 0 && N <= 0xffff);
        Shape::Array(Element::of::<T>(), Packed(N as u16))
    };
}

// SAFETY: its own functions say where its elements are.
unsafe impl<T: Shaped> Shaped for Vec<T> {
    const SHAPE: Shape =
        Shape::List(Element::of::<T>(), Packed(&List { view: view_list::<T>, make: make_list::<T> }));
}

/// # Safety
/// A `Vec<T>` is at `list`.
unsafe fn view_list<T>(list: *const u8) -> (*const u8, usize) {
    // SAFETY: the caller's.
    let list = unsafe { &*list.cast::<Vec<T>>() };
    // Not by its length, of which the compiler knows something else for each type: so this is the same for all.
    let list = list.as_slice();
    (list.as_ptr().cast(), list.len())
}

/// # Safety
/// There is place for a `Vec<T>` at `to`; `room` was allocated for `capacity` of them, or is dangling for none, and
/// has `count` of them.
unsafe fn make_list<T>(to: *mut u8, room: *mut u8, count: usize, capacity: usize) {
    // SAFETY: the caller's.
    unsafe { to.cast::<Vec<T>>().write(Vec::from_raw_parts(room.cast(), count, capacity)) }
}

// SAFETY: its own functions say whether there is something in it.
unsafe impl<T: Shaped> Shaped for Option<T> {
    const SHAPE: Shape = {
        assert!(size_of::<T>() <= size_of::<Room>() && align_of::<T>() <= align_of::<Room>());
        Shape::Maybe(Element::of::<T>(), Packed(&Maybe { view: view_maybe::<T>, make: make_maybe::<T> }))
    };
}

/// # Safety
/// An `Option<T>` is at `maybe`.
unsafe fn view_maybe<T>(maybe: *const u8) -> *const u8 {
    // SAFETY: the caller's.
    let maybe = unsafe { &*maybe.cast::<Option<T>>() };
    maybe.as_ref().map_or(ptr::null(), |value| ptr::from_ref(value).cast())
}

/// # Safety
/// There is place for an `Option<T>` at `to`, and a `T` at `from` if that is not null, which is nobody else's.
unsafe fn make_maybe<T>(to: *mut u8, from: *const u8) {
    // SAFETY: the caller's.
    unsafe { to.cast::<Option<T>>().write((!from.is_null()).then(|| from.cast::<T>().read())) }
}

macro_rules! tuple {
    ($($name:ident $at:tt),*) => {
        // SAFETY: all its fields, each at its place.
        unsafe impl<$($name: Shaped),*> Shaped for ($($name),*) {
            const SHAPE: Shape =
                Shape::fields(&[$(Field::new(std::mem::offset_of!(Self, $at), 0, &$name::SHAPE)),*]);
        }
    };
}
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);

/// Gives a struct its shape, or an enum that has `repr(u8)`, which is for `section!` alone.
#[macro_export]
#[doc(hidden)]
macro_rules! shape {
    (struct $name:ident { $($field:tt: $ty:ty),* }) => {
        const _: fn($name) = |value| {
            let $name { $($field: _),* } = &value;
            $( let _: &$ty = &value.$field; )*
        };
        #[allow(unsafe_code, reason = "a shape is trusted")]
        // SAFETY: the function above has all its fields and their types; each is at its place.
        unsafe impl $crate::sys::shape::Shaped for $name {
            const SHAPE: $crate::sys::shape::Shape = $crate::sys::shape::Shape::fields(&[$(
                $crate::sys::shape::Field::new(
                    std::mem::offset_of!($name, $field),
                    0,
                    &<$ty as $crate::sys::shape::Shaped>::SHAPE,
                )
            ),*]);
        }
    };
    (enum $name:ident {
        $( $variant:ident $( ( $($tty:ty),* ) )? $( { $($field:ident: $fty:ty),* } )? ),*
    }) => {
        #[allow(unsafe_code, reason = "a shape is trusted")]
        // SAFETY: the caller's: the variants are these. With repr(u8) each is like a repr(C) struct with its number
        // in front.
        unsafe impl $crate::sys::shape::Shaped for $name {
            const SHAPE: $crate::sys::shape::Shape = {
                #[allow(dead_code, reason = "not every variant has something behind its number")]
                enum Number { $($variant),* }
                const VARIANTS: &[&str] = &[$(stringify!($variant)),*];
                const PARTS: &[&str] = &[$(
                    $( $(stringify!($tty),)* )?
                    $( $(stringify!($field),)* )?
                )*];
                const FIELDS: &[$crate::sys::shape::Field] =
                    &$crate::sys::shape::Parts::<{ PARTS.len() }>::none()$(
                        $( $(.and::<$tty>(Number::$variant as u8))* )?
                        $( $(.and::<$fty>(Number::$variant as u8))* )?
                    )*.fields();
                $crate::sys::shape::Shape::variants(VARIANTS.len(), FIELDS)
            };
        }
    };
}
