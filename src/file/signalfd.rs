//! Signals as input (signalfd(2)).
//!
//! What: the set of signals it accepts. Pending signals belong to the tasks.
//! Reads: fdinfo `sigmask`.
//! Rebuilds: with signalfd4(2).
//! Loses: nothing.
//! Refuses: nothing.

use std::os::fd::OwnedFd;

use super::{Description, Opener, World};
use crate::error::{Context, Error, Refusal, Result};
use crate::sys::anonymous;

const KIND: &str = "signalfd";

crate::section! {
    /// A signalfd in the image.
    pub struct State {
        /// The accepted signals; bit 0 is signal 1.
        pub mask: u64,
    }
}

/// Reads the mask.
///
/// # Errors
/// If fdinfo does not show it.
pub fn capture(desc: &Description, _world: &World<'_>) -> Result<Box<State>, Refusal> {
    let mask = desc
        .info
        .value("sigmask")
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or_else(|| Error::new(KIND, "reading the mask", "fdinfo does not show it"))?;
    Ok(Box::new(State { mask }))
}

/// Makes it again.
///
/// # Errors
/// The errno of signalfd4(2).
pub fn restore(state: &State, _opener: &mut Opener) -> Result<OwnedFd> {
    anonymous::signalfd(state.mask).context(KIND, format_args!("making one"))
}

#[cfg(test)]
mod tests {
    use crate::file::testing::round_trip;
    use crate::sys::anonymous;

    #[test]
    fn mask_comes_back_with_real_time_signals() {
        let mask = 1 << 14 | 1 << 33 | 1 << 63;
        let fd = anonymous::signalfd(mask).unwrap();
        let (state, _) = round_trip(&fd, super::capture, super::restore);
        assert_eq!(state.mask, mask);
    }
}
