//! The stored form of a value: its fields one after the other, as postcard 1.0 writes them.
//!
//! A number is a varint (seven bits a byte, the lowest first), signed ones in zigzag; a byte is a byte, a `bool`
//! one that is 0 or 1; a string, a list and bytes have their length in front; an option a byte that says whether
//! it is there; a variant its number. Nothing names itself: the schema hash of the section says what follows.
//!
//! Written here, and not taken from a crate, for its size: code that may end at every field has a branch and a
//! clean-up at every field, several times the code of the read itself. Here an [`Input`] remembers that something
//! was wrong and reads zeroes from then on, so a value is always made in full and thrown away at the end
//! (`docs/decisions/0012-the-stored-form.md`).

use super::section::Schema;
use crate::sys::shape::{self, Shaped};

/// A type with a stored form.
pub trait Stored: Schema + Shaped {
    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>) {
        shape::put(self, out);
    }

    /// Reads a value. If there is none, `input` knows it and the value means nothing.
    fn take(input: &mut Input) -> Self {
        shape::take(input)
    }
}

impl<T: Schema + Shaped> Stored for T {}

/// Bytes that are being read.
pub struct Input<'b> {
    left: &'b [u8],
    wrong: bool,
}

impl<'b> Input<'b> {
    /// Begins at the first of the bytes.
    #[must_use]
    pub fn new(bytes: &'b [u8]) -> Input<'b> {
        Input { left: bytes, wrong: false }
    }

    /// Whether everything that was read was there and in order, and nothing is left.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.wrong && self.left.is_empty()
    }

    /// Whether something was wrong.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.wrong
    }

    /// From here on there are only zeroes.
    pub fn spoil(&mut self) {
        self.wrong = true;
        self.left = &[];
    }

    /// A byte.
    #[inline(never)]
    pub fn byte(&mut self) -> u8 {
        match self.left.split_first() {
            Some((byte, left)) => {
                self.left = left;
                *byte
            }
            None => {
                self.spoil();
                0
            }
        }
    }

    /// A number of at most `bits` bits.
    #[inline(never)]
    pub fn number(&mut self, bits: u32) -> u64 {
        let mut value = 0_u64;
        let mut shift = 0;
        loop {
            let byte = self.byte();
            let part = u64::from(byte & 0x7f);
            if shift >= bits || bits - shift < 7 && part >> (bits - shift) != 0 {
                self.spoil();
                return 0;
            }
            value |= part << shift;
            if byte < 0x80 {
                return value;
            }
            shift += 7;
        }
    }

    /// A length, of things with at least a byte each.
    #[inline(never)]
    pub fn length(&mut self) -> usize {
        match usize::try_from(self.number(64)) {
            Ok(length) if length <= self.left.len() => length,
            _ => {
                self.spoil();
                0
            }
        }
    }

    /// So many bytes, or none.
    pub fn bytes(&mut self, count: usize) -> &'b [u8] {
        match self.left.split_at_checked(count) {
            Some((bytes, left)) => {
                self.left = left;
                bytes
            }
            None => {
                self.spoil();
                &[]
            }
        }
    }
    /// A byte that is 0 or 1.
    pub fn bool(&mut self) -> bool {
        self.below(2) == 1
    }

    /// The number of a variant, of so many.
    pub fn below(&mut self, count: u8) -> u8 {
        match u8::try_from(self.number(32)) {
            Ok(number) if number < count => number,
            _ => {
                self.spoil();
                0
            }
        }
    }

    /// A string.
    pub fn text(&mut self) -> String {
        let length = self.length();
        String::from_utf8(self.bytes(length).to_vec()).unwrap_or_else(|_| {
            self.spoil();
            String::new()
        })
    }
}

/// Appends a number.
#[inline(never)]
pub fn put_number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::{Input, Stored};
    use std::fmt::Debug;

    crate::section! {
        /// Of every form.
        pub enum Form {
            /// One.
            Unit,
            /// Two.
            Tuple(u64, Vec<u8>),
            /// Three.
            Named {
                /// Text.
                text: String,
                /// More.
                more: Option<Vec<(i32, bool)>>,
            },
        }
    }

    fn bytes<T: Stored>(value: &T) -> Vec<u8> {
        let mut out = Vec::new();
        value.put(&mut out);
        out
    }

    fn back<T: Stored>(bytes: &[u8]) -> Option<T> {
        let mut input = Input::new(bytes);
        let value = T::take(&mut input);
        input.is_whole().then_some(value)
    }

    fn comes_back<T: Stored + PartialEq + Debug>(value: T) {
        let bytes = bytes(&value);
        assert_eq!(back::<T>(&bytes).as_ref(), Some(&value));
        for cut in 0..bytes.len() {
            assert_eq!(back::<T>(&bytes[..cut]), None, "{value:?} cut at {cut}");
        }
        assert_eq!(back::<T>(&[bytes, vec![0]].concat()), None, "{value:?} with a byte too many");
    }

    #[test]
    fn values_come_back_and_parts_of_them_do_not() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX - 1, u64::MAX] {
            comes_back(value);
            comes_back(value.cast_signed());
            comes_back(u128::from(value) << 60);
        }
        comes_back((u16::MAX, i16::MIN, 0x80_u8));
        comes_back((-1_i8, i32::MIN, i64::MIN));
        comes_back(Form::Unit);
        comes_back(Form::Tuple(300, vec![1, 2, 255]));
        comes_back(Form::Named { text: "é".into(), more: Some(vec![(-5, true), (7, false)]) });
        comes_back([Some(vec![Box::new(3_u32)]), None]);
    }

    #[test]
    fn numbers_have_the_bytes_of_the_format() {
        assert_eq!(bytes(&300_u32), [0xac, 2]);
        assert_eq!(bytes(&-1_i32), [1]);
        assert_eq!(bytes(&Form::Tuple(1, vec![9])), [1, 1, 1, 9]);
    }

    #[test]
    fn what_no_value_has_is_refused() {
        assert_eq!(back::<bool>(&[2]), None);
        assert_eq!(back::<u16>(&[0xff, 0xff, 4]), None, "17 bits");
        assert_eq!(back::<u64>(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), None, "65 bits");
        assert_eq!(back::<String>(&[1, 0xff]), None, "no UTF-8");
        assert_eq!(back::<Form>(&[3]), None, "no such variant");
        assert_eq!(back::<Vec<u64>>(&[0xff, 0xff, 0xff, 0xff, 15, 1]), None, "a longer list than there is");
        assert_eq!(back::<Vec<Form>>(&[1, 1]), None);
    }
}
