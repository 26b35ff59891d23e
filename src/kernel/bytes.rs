//! A byte string that shows itself as text.

use std::fmt;

use crate::image::section::{BASIS, Schema, text};

/// Bytes of a file or of a netlink message.
#[derive(Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.0.escape_ascii())
    }
}

impl Schema for Bytes {
    const HASH: u64 = text(BASIS, "Bytes");
}

crate::shape!(struct Bytes { 0: Vec<u8> });
