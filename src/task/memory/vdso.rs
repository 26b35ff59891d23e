//! The pages that the kernel maps into every program: [vvar], [vdso] and, on 32-bit ARM, [sigpage].
//!
//! Their bytes differ between boots (addresses, clocks, patched instructions), so they are never restored: a
//! puppet keeps its own. While its address space is emptied they wait in the batch area, and then they go where
//! the captured ones were, each in one piece and all at the same distance from each other, for the code of one
//! finds the data of the other by it. The kernel notes the move (mremap(2)).

use super::KIND;
use crate::error::{Context, Error, Result};
use crate::proc::smaps::{self, Mapping};
use crate::sorted::Listed;
use crate::sys::fs;
use crate::task::batch::{Batch, PARK, PARKED};

crate::section! {
    /// One of them.
    pub struct Special {
        /// Its name.
        pub name: String,
        /// First address.
        pub start: u64,
        /// Address after the last byte.
        pub end: u64,
    }
}

impl Special {
    /// A mapping, if it is one of them.
    #[must_use]
    pub fn of(map: &Mapping) -> Option<Special> {
        let name = map.name.as_str();
        let special = name.starts_with("[vvar") || name == "[vdso]" || name == "[sigpage]";
        special.then(|| Special { name: name.to_owned(), start: map.start, end: map.end })
    }

    /// Moves it, from one address to another.
    fn go(&self, batch: &mut Batch, from: u64, to: u64) {
        let (len, how) = (self.end - self.start, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED);
        batch.call(libc::SYS_mremap, &[from, len, len, u64::from(how.cast_unsigned()), to]);
        batch.doing("moving the vdso");
    }
}

/// Those of a stopped process.
///
/// # Errors
/// It is gone.
pub fn of(pid: u32) -> Result<Vec<Special>> {
    let path = format!("/proc/{pid}/maps");
    let text = fs::text(&path).context(KIND, format_args!("reading {path}"))?;
    Ok(smaps::parse(&text).iter().filter_map(Special::of).list())
}

/// The way of a puppet's own ones to where the captured ones were.
#[derive(Debug)]
pub struct Move<'a> {
    own: &'a [Special],
    captured: &'a [Special],
    /// From their own place to the place in the area.
    shift: u64,
}

impl<'a> Move<'a> {
    /// Plans it for a puppet with the batch area at `base`.
    ///
    /// # Errors
    /// They are not the same ones, or too large for the area.
    pub fn plan(own: &'a [Special], captured: &'a [Special], base: u64) -> Result<Move<'a>> {
        let wrong = |cause: &'static str| Err(Error::new(KIND, "moving the vdso", cause));
        let start = own.iter().map(|s| s.start).min().unwrap_or(0);
        let end = own.iter().map(|s| s.end).max().unwrap_or(0);
        if end - start > PARKED {
            return wrong("it does not fit the batch area");
        }
        let shift = (base + PARK).wrapping_sub(start);
        let plan = Move { own, captured, shift };
        let mut distance = None;
        for special in captured {
            let Some(mine) = plan.mine(special) else {
                return wrong("the image has another one");
            };
            let way = special.start.wrapping_sub(mine.start);
            // The code of [sigpage] stands alone.
            if special.name != "[sigpage]" && *distance.get_or_insert(way) != way {
                return wrong("its parts have other places in the image");
            }
        }
        Ok(plan)
    }

    /// The puppet's own part that is the same as a captured one.
    fn mine(&self, captured: &Special) -> Option<&'a Special> {
        let len = captured.end.wrapping_sub(captured.start);
        self.own.iter().find(|s| s.name == captured.name && s.end - s.start == len)
    }

    /// Into the area, before everything is unmapped.
    pub fn park(&self, batch: &mut Batch) {
        for special in self.own {
            special.go(batch, special.start, special.start.wrapping_add(self.shift));
        }
    }

    /// Out of the area, to where the captured ones were. A program may have unmapped its own.
    pub fn settle(&self, batch: &mut Batch) {
        for special in self.captured {
            let from = self.mine(special).map_or(0, |mine| mine.start.wrapping_add(self.shift));
            special.go(batch, from, special.start);
        }
        let place = batch.base() + PARK;
        batch.call(libc::SYS_munmap, &[place, PARKED]);
    }
}

#[cfg(test)]
mod tests {
    use super::{Move, Special};

    fn special(name: &str, start: u64, end: u64) -> Special {
        Special { name: name.into(), start, end }
    }

    #[test]
    fn parts_keep_their_distance() {
        let own = [special("[vvar]", 0x7000, 0x9000), special("[vdso]", 0x9000, 0xa000)];
        let moved = own.clone().map(|s| special(&s.name, s.start + 0x10_0000, s.end + 0x10_0000));
        assert!(Move::plan(&own, &moved, 0x2000_0000).is_ok());
        assert!(Move::plan(&own, &[], 0x2000_0000).is_ok());
        assert!(Move::plan(&[], &[], 0x2000_0000).is_ok());
        let mut torn = moved.clone();
        torn[1].start += 0x1000;
        torn[1].end += 0x1000;
        assert!(Move::plan(&own, &torn, 0x2000_0000).is_err());
        let mut larger = moved.clone();
        larger[0].start -= 0x1000;
        assert!(Move::plan(&own, &larger, 0x2000_0000).is_err());
        assert!(Move::plan(&[], &moved, 0x2000_0000).is_err());
        let far = [own[0].clone(), special("[vdso]", 0x9000_0000, 0x9000_1000)];
        assert!(Move::plan(&far, &[], 0x2000_0000).is_err());
    }
}
