//! A handle of a namespace (namespaces(7)): an open file of /proc/PID/ns.
//!
//! What: the namespace that it stands for.
//! Reads: the link text, which has its sort and number: the first process is in it, or another one of the image.
//! Rebuilds: by opening /proc/self/ns in the conductor, or once more the handle by which it made the namespace.
//! Loses: nothing.
//! Refuses: a namespace that no process of the image lives in; time namespaces.

use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;

use super::{Description, Opener, World};
use crate::error::{Context, Refusal, Result};
use crate::sys::fs;

const KIND: &str = "nsfs";
/// NSFS_MAGIC of linux/magic.h.
pub const MAGIC: u32 = 0x6e73_6673;

crate::section! {
    /// A namespace.
    pub struct State {
        /// Its sort, a name in /proc/PID/ns.
        pub sort: String,
        /// Its place in the list of the image, counted from 1; 0 is that of the first process.
        pub number: u32,
    }
}

/// Finds out which one it is.
///
/// # Errors
/// A refusal if that is in no image.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    let sort = desc.link.split_once(':').map_or("", |(sort, _)| sort).to_owned();
    match world.seen.number(&desc.link) {
        Some(number) => Ok(Box::new(State { sort, number })),
        None => Err(Refusal::new("no process of the image lives in it", "rerun the service")),
    }
}

/// Opens it again.
///
/// # Errors
/// The errno of open(2).
pub fn restore(state: &State, opener: &mut Opener) -> Result<OwnedFd> {
    let path = match opener.actor.door(state.number)? {
        Some(door) => format!("/proc/self/fd/{door}"),
        None => format!("/proc/thread-self/ns/{}", state.sort),
    };
    fs::open(&path, OFlag::O_RDONLY).context(KIND, format_args!("opening {path}"))
}

#[cfg(test)]
mod tests {
    use crate::file::testing::{refused, table};
    use crate::sys::fs;

    #[test]
    fn what_is_nobodys_is_refused() {
        let open = |sort| fs::open(format!("/proc/self/ns/{sort}"), nix::fcntl::OFlag::O_RDONLY).unwrap();
        // The tests know of no namespaces, not even of their own.
        assert!(refused(&[&open("net")]).reason.contains("no process"));
        assert_eq!(table(&[]).len(), 0);
    }
}
