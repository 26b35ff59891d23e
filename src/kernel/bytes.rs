//! A byte string that shows itself as text.

use std::fmt;

use crate::image::section::{BASIS, Schema, text};
use crate::sorted::Listed;
use crate::sys::netlink::find;

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

/// The attributes of a netlink message that are of these kinds, in the order of the kinds.
#[must_use]
#[inline(never)]
pub fn chosen(list: &[(u16, &[u8])], kinds: &[u16]) -> Vec<(u16, Bytes)> {
    kinds.iter().filter_map(|kind| Some((*kind, Bytes(find(list, *kind)?.to_vec())))).list()
}

/// All attributes but those of some kinds.
#[must_use]
#[inline(never)]
pub fn without(list: &[(u16, &[u8])], kinds: &[u16]) -> Vec<(u16, Bytes)> {
    let rest = list.iter().filter(|(kind, _)| !kinds.contains(kind));
    rest.map(|(kind, value)| (*kind, Bytes(value.to_vec()))).list()
}
