//! The ready protocol: `rcsnap ready` works like fork(2). It asks once, and the answer comes twice: *cold* on
//! the boot that was captured, *restored* on every boot that starts from the image.
//!
//! A pipe or socket to the watcher would be a peer outside the image, so both sides use queued signals. `ready`
//! blocks [`READY`], queues it to the watcher and waits in sigtimedwait(2). On the cold boot the watcher queues
//! the answer; on a restored boot the conductor leaves the answer as a pending signal. A tracer's stop ends
//! sigtimedwait with EINTR, and then the first thing `ready` does is to wait again: whoever lives on is asked
//! only when a whole second has passed without an answer.
//!
//! The watcher is found in /proc, not by a file: /run may be mounted over at any moment of the scripts.

use std::time::Duration;

use nix::errno::Errno;

use crate::error::{Context, Error, Result};
use crate::sys::fs;
use crate::sys::signal::{self, READY};
use crate::sys::stat::stat;
use crate::text;

/// The watcher's name (comm).
pub const WATCHER: &str = "rcsnap-watcher";
/// What `ready` sends: the number of this protocol.
pub const HELLO: i32 = 1;
/// How often the life of the watcher is checked.
const LOOK: Duration = Duration::from_secs(1);

/// What a boot turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Answer {
    /// The scripts ran.
    Cold = 1,
    /// The image was restored.
    Restored = 2,
}

impl Answer {
    /// The word that `ready` prints.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Answer::Cold => "cold",
            Answer::Restored => "restored",
        }
    }

    fn from_value(value: i32) -> Option<Answer> {
        [Answer::Cold, Answer::Restored].into_iter().find(|answer| *answer as i32 == value)
    }
}

/// Finds the watcher: a child of PID 1 with its name that belongs to root. Nobody but root can make a process
/// of root, so no daemon can pretend.
#[must_use]
pub fn find_watcher() -> Option<u32> {
    fs::numbers("/proc").ok()?.into_iter().find(|pid| {
        let folder = stat(format!("/proc/{pid}"));
        folder.is_ok_and(|folder| folder.uid == 0) && is_watcher(*pid)
    })
}

fn is_watcher(pid: u32) -> bool {
    fs::of_task(pid, "stat").is_ok_and(|stat| parent_and_name(&stat) == Some((1, WATCHER)))
}

/// Parent and name of /proc/PID/stat; the name may hold blanks and brackets.
fn parent_and_name(stat: &str) -> Option<(u32, &str)> {
    let (head, tail) = text::split_last(stat, ')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split_ascii_whitespace();
    // A dead watcher that init has not waited for yet is gone.
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    Some((fields.next()?.parse().ok()?, name))
}

/// Asks, and waits for the answer.
///
/// # Errors
/// There is no watcher, or it ended without an answer: the boot is a cold one.
pub fn ask() -> Result<Answer> {
    signal::block(&[READY]);
    let watcher = find_watcher()
        .ok_or_else(|| Error::new("ready", "looking for the watcher", "nobody waits for it on this boot"))?;
    signal::queue(watcher, READY, HELLO).context("ready", format_args!("calling the watcher"))?;
    loop {
        match signal::wait(&[READY], LOOK) {
            Ok((_, info)) => {
                // Only root may answer; another user's signal cannot even be sent to us, its own could.
                if let Some(answer) = Answer::from_value(info.value).filter(|_| info.uid == 0) {
                    return Ok(answer);
                }
            }
            Err(Errno::EAGAIN) if !is_watcher(watcher) => break,
            Err(_) => {}
        }
    }
    // It may have answered and ended between the last wait and the look.
    match signal::wait(&[READY], Duration::ZERO) {
        Ok((_, info)) => Answer::from_value(info.value),
        Err(_) => None,
    }
    .ok_or_else(|| Error::new("ready", "waiting for the watcher", "it ended without an answer"))
}

/// The watcher's side: waits until somebody of root asks. `None` when the time is over.
#[must_use]
pub fn wait_for_question(limit: Duration) -> Option<u32> {
    let start = std::time::Instant::now();
    loop {
        let left = limit.checked_sub(start.elapsed())?;
        match signal::wait(&[READY], left) {
            Ok((_, info)) if info.uid == 0 && info.value == HELLO => return Some(info.pid),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// The watcher's side: gives the answer. A `ready` that is gone needs none.
pub fn answer(pid: u32, answer: Answer) {
    let _ = signal::queue(pid, READY, answer as i32);
}

#[cfg(test)]
mod tests {
    use super::{Answer, parent_and_name};

    #[test]
    fn only_a_living_child_of_init_is_the_watcher() {
        assert_eq!(parent_and_name("77 (rcsnap-watcher) S 1 77 77 0"), Some((1, "rcsnap-watcher")));
        assert_eq!(parent_and_name("77 (a) b) S 12 77 77 0"), Some((12, "a) b")));
        assert_eq!(parent_and_name("77 (rcsnap-watcher) Z 1 77 77 0"), None);
        assert_eq!(parent_and_name(""), None);
    }

    #[test]
    fn answers_are_told_by_their_value() {
        assert_eq!(Answer::from_value(Answer::Restored as i32), Some(Answer::Restored));
        assert_eq!(Answer::from_value(0), None);
    }
}
