//! A list of system calls with the data they point to, laid out for an area in another process.
//!
//! `remote.rs` runs it; the layout of an area is here, since addresses in a batch depend on it.

use nix::errno::Errno;

use crate::arch::{self, Cpu, Processor};
use crate::sys::abi::Number;

/// Bytes of an area: one page of code, then calls, then data, then a place for the vdso while all else goes.
pub const AREA: u64 = 320 * 1024;
/// Offset of the calls.
pub(super) const CALLS: u64 = 4096;
/// The most calls of one batch.
const MAX_CALLS: usize = 1000;
/// Offset of the data; the call of last resort stands just before it.
pub(super) const DATA: u64 = CALLS + 64 * 1024;
/// Bytes of a call in an area: eight words.
pub(super) const CALL: usize = 8 * LONG;
/// Offset of the call of last resort.
pub(super) const LAST_RESORT: u64 = DATA - 64;
/// Offset of the place for [vvar] and [vdso].
pub(super) const PARK: u64 = 256 * 1024;
/// Bytes of that place.
pub(super) const PARKED: u64 = AREA - PARK;
/// Offset of the page for the stack of the call of last resort.
pub(super) const FRAME: u64 = PARK - 4096;
/// Bytes of the kernel's `long`, `size_t` and pointers: of a register, and of each of a call's eight words.
pub const LONG: usize = size_of::<usize>();
/// The top bit of a call's number: the batch goes on when it fails.
const MAY_FAIL: usize = 1 << (usize::BITS - 1);

/// One call: number, six arguments, result.
pub(super) type Call = [usize; 8];

/// Calls and their data, laid out for an area at a known address.
#[derive(Debug)]
pub struct Batch {
    pub(super) base: u64,
    pub(super) calls: Vec<Call>,
    pub(super) data: Vec<u8>,
    pub(super) what: Vec<&'static str>,
}

impl Batch {
    /// An empty batch for the area at `base`.
    #[must_use]
    pub fn new(base: u64) -> Batch {
        Batch { base, calls: Vec::new(), data: Vec::new(), what: Vec::new() }
    }

    /// Forgets what was done; the memory is used again.
    pub fn clear(&mut self) {
        self.calls.clear();
        self.data.clear();
        self.what.clear();
    }

    /// Address of its area.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Adds a call that must succeed. Returns its index.
    pub fn call(&mut self, number: Number, args: &[u64]) -> usize {
        self.add(call(number, args))
    }

    /// Adds a call that may fail.
    pub fn try_call(&mut self, number: Number, args: &[u64]) -> usize {
        let mut call = call(number, args);
        call[0] |= MAY_FAIL;
        self.add(call)
    }

    fn add(&mut self, call: Call) -> usize {
        self.calls.push(call);
        self.what.push("");
        self.calls.len() - 1
    }

    /// Adds mmap(2), whose offset is counted in bytes here. It must succeed.
    pub fn mmap(&mut self, args: [u64; 6]) -> usize {
        let (number, args) = mmap(args);
        self.call(number, &args)
    }

    /// Names the last call for error messages.
    #[inline(never)]
    pub fn doing(&mut self, what: &'static str) {
        if let Some(last) = self.what.last_mut() {
            *last = what;
        }
    }

    /// Puts bytes into the data, aligned to 16. Returns their address in the target.
    pub fn bytes(&mut self, bytes: &[u8]) -> u64 {
        let address = self.base + DATA + self.data.len() as u64;
        self.data.extend_from_slice(bytes);
        self.data.resize(self.data.len().next_multiple_of(16), 0);
        address
    }

    /// Puts a structure whose members are all of the kernel's `long`, or padded to it.
    pub fn longs(&mut self, values: &[u64]) -> u64 {
        self.bytes(&long_bytes(values))
    }

    /// A string with its end.
    pub fn path(&mut self, text: &str) -> u64 {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(&bytes)
    }

    /// Zeroed room for a result.
    pub fn room(&mut self, len: usize) -> u64 {
        self.bytes(&vec![0; len])
    }

    /// Whether another `calls` calls and `data` bytes still fit.
    #[must_use]
    pub fn fits(&self, calls: usize, data: usize) -> bool {
        self.calls.len() + calls <= MAX_CALLS && (self.data.len() + data + 16 * calls) as u64 <= FRAME - DATA
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The result of a call, after [`Area::run`].
    #[must_use]
    pub fn result(&self, call: usize) -> i64 {
        self.calls.get(call).map_or(-i64::from(libc::ENOSYS), |c| arch::result(c[7]))
    }

    /// The result of a call, with the kernel's error as an errno.
    pub fn outcome(&self, call: usize) -> std::result::Result<i64, Errno> {
        match self.result(call) {
            error @ -4095..=-1 => Err(Errno::from_raw(i32::try_from(-error).unwrap_or(libc::EIO))),
            value => Ok(value),
        }
    }

    /// The data at an address that `bytes` or `room` gave, as it was after [`Area::run`].
    #[must_use]
    pub fn read(&self, address: u64, len: usize) -> &[u8] {
        let start = usize::try_from(address.wrapping_sub(self.base + DATA)).unwrap_or(usize::MAX);
        start.checked_add(len).and_then(|end| self.data.get(start..end)).unwrap_or(&[])
    }

    /// A little word of the data.
    #[must_use]
    pub fn word(&self, address: u64) -> u64 {
        self.read(address, 8).try_into().map_or(0, u64::from_ne_bytes)
    }

    /// Member `index` of a structure of the kernel's `long`.
    #[must_use]
    pub fn long(&self, address: u64, index: usize) -> u64 {
        let mut word = [0; 8];
        let bytes = self.read(address + (index * LONG) as u64, LONG);
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_ne_bytes(word)
    }

    /// Half a word of the data.
    #[must_use]
    pub fn half(&self, address: u64) -> u32 {
        self.read(address, 4).try_into().map_or(0, u32::from_ne_bytes)
    }
}

/// A machine word. Addresses, and whatever else fits the register that it is for.
#[allow(clippy::cast_possible_truncation, reason = "the low half is what a 32-bit register takes")]
fn word(value: u64) -> usize {
    value as usize
}

pub(super) fn call(number: Number, args: &[u64]) -> Call {
    let mut call = [0; 8];
    call[0] = word(number as u64);
    for (into, arg) in call[1..7].iter_mut().zip(args) {
        *into = word(*arg);
    }
    call
}

/// mmap(2) as this architecture has it.
pub(super) fn mmap(mut args: [u64; 6]) -> (Number, [u64; 6]) {
    let (number, unit) = Cpu::MMAP;
    args[5] /= unit;
    (number, args)
}

/// Values as the kernel's `long`.
pub(super) fn long_bytes(values: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        bytes.extend_from_slice(&long(*value));
    }
    bytes
}

/// A value as the kernel's `long` (rcsnap runs on little-endian processors only).
pub(super) fn long(value: u64) -> [u8; LONG] {
    word(value).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::{Batch, LONG};

    #[test]
    fn longs_are_read_as_they_were_put() {
        let mut batch = Batch::new(0x1000);
        let first = batch.longs(&[1, 0x7fff_fff0, 3]);
        let second = batch.room(3 * LONG);
        assert_eq!([0, 1, 2].map(|index| batch.long(first, index)), [1, 0x7fff_fff0, 3]);
        assert_eq!((batch.read(first, 3 * LONG).len(), batch.long(second, 2)), (3 * LONG, 0));
    }
}
