//! The XSAVE area as NT_X86_XSTATE has it: the standard format, in which every component has its place, whether it is
//! in use or not.

/// Where the kernel's own bytes in an XSAVE area say which components this processor has (XCR0), and the header
/// which of them are in use (XSTATE_BV): <asm/sigcontext.h>.
const XCR0: usize = 464;
const IN_USE: usize = 512;

/// Cuts trailing zeroes off.
pub fn cut(bytes: &mut Vec<u8>) {
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    bytes.truncate(used);
}

/// What is written of stored vector state where the kernel shows `have`: the zeroes that were cut off come back.
/// Nothing, if this processor lacks a component that is in use.
#[must_use]
pub fn fit(stored: &[u8], have: &[u8]) -> Option<Vec<u8>> {
    let missing = u64_at(stored, IN_USE) & !u64_at(have, XCR0);
    (missing == 0 && stored.len() <= have.len()).then(|| {
        let mut bytes = stored.to_vec();
        bytes.resize(have.len(), 0);
        bytes
    })
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::{IN_USE, XCR0, cut, fit};

    /// Components by their bits, and where the standard format has them.
    const X87_SSE_AVX: u64 = 0b111;
    const AVX512: u64 = 0b111 << 5;
    const PKRU: u64 = 1 << 9;
    const OPMASK: std::ops::Range<usize> = 1088..1152;
    const ZMM_HI256: std::ops::Range<usize> = 1152..1664;
    const HI16_ZMM: std::ops::Range<usize> = 1664..2688;
    const END: usize = 2696;

    /// A fresh area of a processor that has these.
    fn area(has: u64) -> Vec<u8> {
        let mut bytes = vec![0; if has & (AVX512 | PKRU) != 0 { END } else { 832 }];
        bytes[XCR0..XCR0 + 8].copy_from_slice(&has.to_ne_bytes());
        // The initial control words of x87 and SSE.
        bytes[..2].copy_from_slice(&0x37f_u16.to_ne_bytes());
        bytes[24..28].copy_from_slice(&0x1f80_u32.to_ne_bytes());
        bytes
    }

    /// One in which these are in use, each of the registers of AVX-512 with another pattern.
    fn used(has: u64, in_use: u64) -> Vec<u8> {
        let mut bytes = area(has);
        bytes[IN_USE..IN_USE + 8].copy_from_slice(&in_use.to_ne_bytes());
        for (bit, range) in [(5, OPMASK), (6, ZMM_HI256), (7, HI16_ZMM)] {
            if in_use >> bit & 1 != 0 {
                for (n, byte) in bytes[range].iter_mut().enumerate() {
                    *byte = u8::try_from((n * 7 + bit * 31) % 255 + 1).unwrap();
                }
            }
        }
        bytes
    }

    #[test]
    fn avx512_comes_back_byte_for_byte() {
        let has = X87_SSE_AVX | AVX512 | PKRU;
        for in_use in [X87_SSE_AVX | AVX512, 1 << 5, 1 << 6, 1 << 7, X87_SSE_AVX, 0] {
            let before = used(has, in_use);
            let mut stored = before.clone();
            cut(&mut stored);
            assert!(stored.len() < before.len() && stored.last() != Some(&0), "{in_use:#x}");
            assert_eq!(fit(&stored, &area(has)), Some(before), "{in_use:#x}");
        }
        // The last register may end in zeroes: they are cut off in the middle of it.
        let mut before = used(has, AVX512);
        before[HI16_ZMM.end - 100..HI16_ZMM.end].fill(0);
        let mut stored = before.clone();
        cut(&mut stored);
        assert!(stored.len() < HI16_ZMM.end - 99);
        assert_eq!(fit(&stored, &area(has)), Some(before));
    }

    #[test]
    fn a_processor_without_a_component_in_use_is_refused() {
        let all = X87_SSE_AVX | AVX512 | PKRU;
        let cut = |mut bytes| {
            cut(&mut bytes);
            bytes
        };
        for bit in 5..8 {
            let stored = cut(used(all, X87_SSE_AVX | 1 << bit));
            // One whose area is as long, because of what lies behind, and one whose area is shorter.
            assert_eq!(fit(&stored, &area(X87_SSE_AVX | PKRU)), None, "{bit}");
            assert_eq!(fit(&stored, &area(X87_SSE_AVX)), None, "{bit}");
            assert_eq!(fit(&stored, &area(all & !(1 << bit))), None, "{bit}");
            assert!(fit(&stored, &area(all)).is_some(), "{bit}");
        }
        // What was never used is no reason.
        let stored = cut(used(all, X87_SSE_AVX));
        let fitted = fit(&stored, &area(X87_SSE_AVX)).unwrap();
        assert_eq!((fitted.len(), &fitted[..stored.len()]), (832, &stored[..]));
    }

    #[test]
    fn a_processor_without_xsave_has_its_own_area() {
        let mut stored = area(0)[..512].to_vec();
        cut(&mut stored);
        assert_eq!(fit(&stored, &[0; 512]).map(|bytes| bytes.len()), Some(512));
    }
}
