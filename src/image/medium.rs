//! What an image is written to and read from, and the CRC over its bytes.

use std::sync::LazyLock;

use crate::error::{Error, Result};

/// Bytes that can be read by offset: a slot, a file, a slice.
pub trait Source {
    /// How many bytes there are.
    fn length(&self) -> u64;
    /// Fills the buffer from an offset.
    ///
    /// # Errors
    /// The medium's error, or the end came too early.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()>;
}

/// A medium that can be written by offset.
pub trait Target {
    /// Writes all bytes at an offset.
    ///
    /// # Errors
    /// The medium's error, or there is no room.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;
}

/// Takes bytes one after the other: the page blocks.
pub trait Sink {
    /// Takes all these bytes.
    ///
    /// # Errors
    /// The medium's error, or there is no room or memory.
    fn push(&mut self, bytes: &[u8]) -> Result<()>;
}

impl Source for &[u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let bytes = usize::try_from(offset).ok().and_then(|at| self.get(at..)?.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or_else(|| Error::new("image", "reading", "cut short"))?);
        Ok(())
    }
}

impl Target for Vec<u8> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = usize::try_from(offset).ok().and_then(|at| at.checked_add(bytes.len()));
        let end = end.ok_or_else(|| Error::new("image", "writing", "offset too large"))?;
        if end > self.len() {
            reserve(self, end - self.len())?;
            self.resize(end, 0);
        }
        self[end - bytes.len()..end].copy_from_slice(bytes);
        Ok(())
    }
}

impl Sink for Vec<u8> {
    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        reserve(self, bytes.len())?;
        self.extend_from_slice(bytes);
        Ok(())
    }
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        (**self).push(bytes)
    }
}

/// Makes room without ending the process when there is none.
pub(super) fn reserve(buffer: &mut Vec<u8>, more: usize) -> Result<()> {
    buffer.try_reserve(more).map_err(|_| Error::new("image", "making room", "out of memory"))
}

/// CRC-32C (Castagnoli): finds every error of up to three bits at these lengths, and both ARMv8 and
/// SSE 4.2 have an instruction for it. Its tables are made when they are first needed, which takes microseconds: in
/// the binary they would have 16 KiB.
static CRC: LazyLock<Box<crc::Crc<u32, crc::Table<16>>>> = LazyLock::new(|| {
    let algorithm = std::hint::black_box(&crc::CRC_32_ISCSI);
    Box::new(crc::Crc::<u32, crc::Table<16>>::new(algorithm))
});

/// CRC-32C of the bytes.
#[must_use]
pub fn crc(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes)
}

/// CRC-32C over bytes that come in parts.
pub struct Sum(crc::Digest<'static, u32, crc::Table<16>>);

impl Default for Sum {
    fn default() -> Sum {
        Sum(CRC.digest())
    }
}

impl Sum {
    /// Goes on with more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The CRC of all of them.
    #[must_use]
    pub fn finish(self) -> u32 {
        self.0.finalize()
    }
}
