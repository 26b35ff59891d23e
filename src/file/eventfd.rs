//! A counter (eventfd(2)).
//!
//! What: the count and whether it is a semaphore.
//! Reads: fdinfo `eventfd-count` (hexadecimal) and `eventfd-semaphore` (6.5). Where that line is missing,
//!   the flag is found by a read on our copy, which is put back: all tasks are frozen.
//! Rebuilds: with eventfd2(2) and one write.
//! Loses: nothing.
//! Refuses: a counter in overflow, which only the kernel itself can make.

use std::os::fd::{AsFd, OwnedFd};

use super::{Description, Opener, World};
use crate::error::{Context, Error, Refusal, Result};
use crate::sys::anonymous;

const KIND: &str = "eventfd";

crate::section! {
    /// An eventfd in the image.
    pub struct State {
        /// The counter.
        pub count: u64,
        /// EFD_SEMAPHORE.
        pub semaphore: bool,
    }
}

/// Reads the counter.
///
/// # Errors
/// A refusal if it is in overflow.
pub fn capture(desc: &Description, _world: &World<'_>) -> Result<Box<State>, Refusal> {
    let count = desc
        .info
        .value("eventfd-count")
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or_else(|| Error::new(KIND, "reading the count", "fdinfo does not show it"))?;
    if count == u64::MAX {
        return Err(Refusal::new("its counter is in overflow", "start its owner after `rcsnap ready`"));
    }
    let semaphore = match desc.info.value("eventfd-semaphore") {
        Some(text) => text == "1",
        None => probe(&desc.fd, count)?,
    };
    Ok(Box::new(State { count, semaphore }))
}

/// Finds the flag out: with at least two in the counter, a semaphore gives 1 and any other gives all.
fn probe(fd: &OwnedFd, count: u64) -> Result<bool> {
    let doing = format_args!("probing for a semaphore");
    if count < 2 {
        put(fd, 2 - count).context(KIND, doing)?;
    }
    let semaphore = take(fd).context(KIND, doing)? == 1;
    // Back to the same count: after the read there is one less than the larger of 2 and count, or nothing.
    let left = if semaphore { count.max(2) - 1 } else { 0 };
    if left < count {
        put(fd, count - left).context(KIND, doing)?;
    } else if left > count {
        take(fd).context(KIND, doing)?;
    }
    Ok(semaphore)
}

fn put(fd: &OwnedFd, count: u64) -> nix::Result<()> {
    nix::unistd::write(fd.as_fd(), &count.to_ne_bytes()).map(drop)
}

fn take(fd: &OwnedFd) -> nix::Result<u64> {
    let mut bytes = [0; 8];
    nix::unistd::read(fd, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Makes it again.
///
/// # Errors
/// The errno of the calls.
pub fn restore(state: &State, _opener: &mut Opener) -> Result<OwnedFd> {
    let fd = anonymous::eventfd(state.semaphore).context(KIND, format_args!("making one"))?;
    if state.count > 0 {
        put(&fd, state.count).context(KIND, format_args!("setting the count"))?;
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::{State, probe, put, take};
    use crate::file::testing::{describe, round_trip};
    use crate::sys::anonymous;

    #[test]
    fn count_and_semaphore_come_back() {
        for semaphore in [false, true] {
            for count in [0, 1, 2, 0x1_0000_0010] {
                let fd = anonymous::eventfd(semaphore).unwrap();
                if count > 0 {
                    put(&fd, count).unwrap();
                }
                let (state, again) = round_trip(&fd, super::capture, super::restore);
                assert_eq!(state, State { count, semaphore });
                if count > 1 {
                    assert_eq!(take(&again).unwrap(), if semaphore { 1 } else { count });
                }
            }
        }
    }

    #[test]
    fn probe_finds_the_flag_and_leaves_the_count() {
        for semaphore in [false, true] {
            for count in [0_u64, 1, 2, 3, 100] {
                let fd = anonymous::eventfd(semaphore).unwrap();
                if count > 0 {
                    put(&fd, count).unwrap();
                }
                assert_eq!(probe(&fd, count).unwrap(), semaphore);
                let shown = describe(&fd).info.value("eventfd-count").unwrap().to_owned();
                assert_eq!(u64::from_str_radix(&shown, 16).unwrap(), count);
            }
        }
    }
}
