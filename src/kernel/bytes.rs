//! A byte string that serialises as one, because serde takes a `Vec<u8>` apart into numbers.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::image::section::{BASIS, Schema, text};

/// Bytes of a file or of a netlink message.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.0.escape_ascii())
    }
}

impl Schema for Bytes {
    const HASH: u64 = text(BASIS, "Bytes");
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct Visit;
        impl Visitor<'_> for Visit {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Visit)
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn bytes_come_back() {
        let bytes = postcard::to_allocvec(&Bytes(vec![0, 255, 7])).unwrap();
        assert_eq!(postcard::from_bytes::<Bytes>(&bytes).unwrap(), Bytes(vec![0, 255, 7]));
        assert!(postcard::from_bytes::<Bytes>(&bytes[..2]).is_err());
    }
}
