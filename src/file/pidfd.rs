//! A handle of a process or thread (pidfd_open(2)).
//!
//! What: the process or thread (PIDFD_THREAD) it stands for, or that this one is gone.
//! Reads: fdinfo `Pid` (-1 when it is gone).
//! Rebuilds: pidfd_open(2) on the puppet or its thread, which has the same number. For one that is gone, on a child
//!   of our own that ends at once.
//! Loses: the exit status that PIDFD_GET_INFO shows for a process that is gone; the inode number.
//! Refuses: a process or thread outside the image; a thread of init that does not lead it, which is made last;
//!   handles of kernel threads.

use std::os::fd::OwnedFd;

use super::{Description, Opener, World};
use crate::error::{Context, Error, Refusal, Result};
use crate::sys::descriptor;

const KIND: &str = "pidfd";

crate::section! {
    /// A pidfd in the image.
    pub struct State {
        /// The process or thread; nothing if it is gone.
        pub pid: Option<u32>,
        /// PIDFD_THREAD.
        pub thread: bool,
    }
}

/// Reads whom it stands for.
///
/// # Errors
/// A refusal if that is outside the image.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    let text = desc.info.value("Pid").unwrap_or("");
    let pid: i32 =
        text.parse().map_err(|_| Error::new(KIND, "reading the process", "fdinfo does not show it"))?;
    let pid = u32::try_from(pid).ok();
    match pid {
        Some(pid) if !world.has_task(pid) => Err(Refusal::new(
            format!("it stands for {pid}, a thread of init or outside the image"),
            "start its owner after `rcsnap ready`",
        )),
        _ => Ok(Box::new(State { pid, thread: desc.info.flags & libc::O_EXCL != 0 })),
    }
}

/// Opens it again.
///
/// # Errors
/// The errno of the calls.
pub fn restore(state: &State, _opener: &mut Opener) -> Result<OwnedFd> {
    let flags = if state.thread { libc::O_EXCL } else { 0 };
    match state.pid {
        Some(pid) => {
            descriptor::pidfd_open_flags(pid, flags).context(KIND, format_args!("opening process {pid}"))
        }
        None => gone(flags),
    }
}

/// A handle of a process or thread that is no more.
fn gone(flags: i32) -> Result<OwnedFd> {
    let doing = format_args!("opening a process that is gone");
    let child = crate::sys::brief::child().context(KIND, doing)?;
    let fd = descriptor::pidfd_open_flags(child, flags).context(KIND, doing);
    crate::sys::brief::reap(child).context(KIND, doing)?;
    fd
}

#[cfg(test)]
mod tests {
    use super::gone;
    use crate::file::testing::{beside, describe, refused, round_trip};
    use crate::sys::descriptor::{pidfd_open, pidfd_open_flags};

    #[test]
    fn handle_of_a_living_process_comes_back() {
        let fd = pidfd_open(std::process::id()).unwrap();
        let (state, _) = round_trip(&fd, super::capture, super::restore);
        assert_eq!(state.pid, Some(std::process::id()));
    }

    #[test]
    fn handle_of_a_process_that_is_gone_comes_back() {
        let fd = gone(0).unwrap();
        assert_eq!(describe(&fd).info.value("Pid"), Some("-1"));
        let (state, again) = round_trip(&fd, super::capture, super::restore);
        assert_eq!(state.pid, None);
        assert_eq!(describe(&again).info.value("Pid"), Some("-1"));
    }

    #[test]
    fn handle_of_a_thread_outside_the_image_is_refused() {
        beside(|tid| {
            // Linux 6.9.
            let Ok(fd) = pidfd_open_flags(tid, libc::O_EXCL) else { return };
            assert!(refused(&[&fd]).reason.contains(&format!("for {tid}, a thread of init")));
        });
    }
}
