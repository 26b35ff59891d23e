//! The `section!` macro: a type that is stored in an image, together with a hash of its own definition.
//!
//! The hash covers the name of the type, the names of its fields or variants in their order, and the
//! hashes of their types, down to the primitives. So any change of a stored definition changes the hash of
//! every section that contains it, and an image with another hash is a cold boot: no migration, the image
//! is a cache. The hash is computed at compile time.

/// A type with a hash of its stored form.
pub trait Schema {
    /// FNV-1a over the definition.
    const HASH: u64;
}

/// The offset basis of FNV-1a, 64 bit.
pub const BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// Goes on with an FNV-1a hash over a string and its end.
#[must_use]
pub const fn text(mut hash: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    (hash ^ 0xff).wrapping_mul(0x0100_0000_01b3)
}

/// Goes on with an FNV-1a hash over another hash.
#[must_use]
pub const fn mix(mut hash: u64, other: u64) -> u64 {
    let bytes = other.to_le_bytes();
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    hash
}

macro_rules! primitive {
    ($($t:ty),*) => { $( impl Schema for $t { const HASH: u64 = text(BASIS, stringify!($t)); } )* };
}
primitive!(bool, u8, u16, u32, u64, i8, i16, i32, i64, u128, String, ());

impl<T: Schema> Schema for Vec<T> {
    const HASH: u64 = mix(text(BASIS, "Vec"), T::HASH);
}
impl<T: Schema> Schema for Option<T> {
    const HASH: u64 = mix(text(BASIS, "Option"), T::HASH);
}
impl<T: Schema> Schema for Box<T> {
    const HASH: u64 = T::HASH;
}
impl<T: Schema, const N: usize> Schema for [T; N] {
    const HASH: u64 = mix(mix(text(BASIS, "array"), N as u64), T::HASH);
}
impl<A: Schema, B: Schema> Schema for (A, B) {
    const HASH: u64 = mix(mix(text(BASIS, "tuple2"), A::HASH), B::HASH);
}
impl<A: Schema, B: Schema, C: Schema> Schema for (A, B, C) {
    const HASH: u64 = mix(mix(mix(text(BASIS, "tuple3"), A::HASH), B::HASH), C::HASH);
}

/// Defines a stored type: derives `Debug`, `Clone`, `PartialEq`, and makes [`Schema`] and
/// [`Stored`](super::stored::Stored).
///
/// Takes one struct with named fields or one enum (unit and struct variants, tuple variants of one or two).
#[macro_export]
macro_rules! section {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( $(#[$fmeta:meta])* $fvis:vis $field:ident : $ty:ty ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        $vis struct $name { $( $(#[$fmeta])* $fvis $field: $ty ),* }

        impl $crate::image::section::Schema for $name {
            const HASH: u64 = {
                use $crate::image::section::{BASIS, Schema, mix, text};
                let hash = text(text(BASIS, "struct"), stringify!($name));
                $( let hash = mix(text(hash, stringify!($field)), <$ty as Schema>::HASH); )*
                hash
            };
        }

        $crate::shape!(struct $name { $($field: $ty),* });
    };
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $(
                $(#[$vmeta:meta])* $variant:ident
                $( ( $( $(#[$tmeta:meta])* $tty:ty ),* $(,)? ) )?
                $( { $( $(#[$fmeta:meta])* $field:ident : $fty:ty ),* $(,)? } )?
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[repr(u8)]
        #[derive(Debug, Clone, PartialEq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        $vis enum $name {
            $( $(#[$vmeta])* $variant $( ( $( $(#[$tmeta])* $tty ),* ) )? $( { $( $(#[$fmeta])* $field: $fty ),* } )? ),*
        }

        impl $crate::image::section::Schema for $name {
            const HASH: u64 = {
                #[allow(unused_imports, reason = "an enum of unit variants mixes nothing")]
                use $crate::image::section::{BASIS, Schema, mix, text};
                let hash = text(text(BASIS, "enum"), stringify!($name));
                $(
                    let hash = text(hash, stringify!($variant));
                    $( $( let hash = mix(hash, <$tty as Schema>::HASH); )* )?
                    $( $( let hash = mix(text(hash, stringify!($field)), <$fty as Schema>::HASH); )* )?
                )*
                hash
            };
        }

        $crate::shape!(enum $name {
            $( $variant $( ( $($tty),* ) )? $( { $($field: $fty),* } )? ),*
        });
    };
}

#[cfg(test)]
mod tests {
    use super::Schema;

    mod one {
        crate::section! { pub struct State { pub count: u64, pub on: bool } }
    }
    mod other_type {
        crate::section! { pub struct State { pub count: u32, pub on: bool } }
    }
    mod other_order {
        crate::section! { pub struct State { pub on: bool, pub count: u64 } }
    }
    #[allow(dead_code, reason = "only its definition is looked at")]
    mod nested {
        crate::section! { pub enum Kind { None, One(super::one::State), Two { a: Vec<u8>, b: (u8, u16) } } }
    }
    #[allow(dead_code, reason = "only its definition is looked at")]
    mod nested_other {
        crate::section! { pub enum Kind { None, One(super::other_type::State), Two { a: Vec<u8>, b: (u8, u16) } } }
    }

    #[test]
    fn any_change_of_a_definition_changes_the_hash() {
        let hashes = [
            one::State::HASH,
            other_type::State::HASH,
            other_order::State::HASH,
            nested::Kind::HASH,
            nested_other::Kind::HASH,
        ];
        for (i, a) in hashes.iter().enumerate() {
            assert!(hashes[i + 1..].iter().all(|b| a != b));
        }
    }
}
