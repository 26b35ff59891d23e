//! The watcher: the child of PID 1 that waits on a cold boot for `rcsnap ready`, and captures.
//!
//! It is made before the real init, so its number lies below the band of the captured tasks, and it is not in
//! the image. It leaves nothing in the system: its own session, a mount namespace that holds nothing busy
//! ([`namespace`]), no file of the system open.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, pipe2, setsid};

use super::ready::{Answer, WATCHER};
use super::{namespace, pids, quiet, ready};
use crate::error::{Context, Error, Result};
use crate::log;
use crate::sys::fs;
use crate::sys::process::{Fork, fork, leave};
use crate::sys::signal;

/// How long PID 1 waits for the watcher's look at the kernel before it goes on without one.
const PATIENCE: u16 = 20_000;

/// What the watcher does at its two moments.
pub trait Work {
    /// Looks at the kernel before the scripts. PID 1 waits for it.
    ///
    /// # Errors
    /// There is no capture on this boot.
    fn baseline(&mut self) -> Result<()>;
    /// Captures in a private copy of PID 1's mount namespace. `ready` is the process that asked; it gets its
    /// answer from here, as soon as the system may go on.
    fn capture(&mut self, ready: u32);
    /// Nobody asked in time, or the watcher itself cannot go on.
    fn give_up(&mut self, why: &Error);
}

/// Makes the watcher and waits until it has looked at the kernel. PID 1 goes on either way: the error says why
/// there will be no capture.
///
/// # Errors
/// It could not be made, or it ended early or stayed silent.
pub fn start(cell: bool, limit: Duration, work: impl Work) -> Result<()> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).context("watcher", format_args!("making a pipe"))?;
    match fork().context("watcher", format_args!("making the watcher"))? {
        Fork::Child => {
            drop(read);
            live(cell, limit, work, write);
            leave(0)
        }
        Fork::Parent(child) => {
            drop(write);
            let said = wait_for_word(read);
            if said.is_err() {
                let child = Pid::from_raw(child.cast_signed());
                let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
                let _ = nix::sys::wait::waitpid(child, None);
            }
            said
        }
    }
}

/// Reads the one byte that the watcher writes when PID 1 may go on.
fn wait_for_word(from: OwnedFd) -> Result<()> {
    let doing = "waiting for its look at the kernel";
    let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut fds, PollTimeout::from(PATIENCE)).context("watcher", format_args!("{doing}"))?;
    if ready == 0 {
        return Err(Error::new("watcher", doing, "it takes too long"));
    }
    match nix::unistd::read(&from, &mut [0; 1]) {
        Ok(1) => Ok(()),
        _ => Err(Error::new("watcher", doing, "it ended")),
    }
}

/// The watcher's whole life.
fn live(cell: bool, limit: Duration, mut work: impl Work, go: OwnedFd) {
    // Before anybody can look for it: `ready` knows the watcher by this name.
    signal::clean_slate();
    signal::block(&[signal::READY]);
    let _ = fs::write("/proc/self/comm", WATCHER);
    if let Err(error) = wait_and_capture(cell, limit, &mut work, go) {
        log!(Warning, "{error}");
        work.give_up(&error);
    }
}

fn wait_and_capture(cell: bool, limit: Duration, work: &mut impl Work, go: OwnedFd) -> Result<()> {
    settle(cell)?;
    work.baseline()?;
    pids::raise()?;
    fs::write_all(go.as_fd(), b"g").context("watcher", format_args!("telling PID 1 to go on"))?;
    drop(go);
    let Some(asker) = ready::wait_for_question(limit) else {
        return Err(Error::new(
            "watcher",
            "waiting for rcsnap ready",
            format!("nobody called it within {} s", limit.as_secs()),
        ));
    };
    if !quiet::wait(Duration::from_secs(2)) {
        log!(Info, "watcher: the system is not quiet, capturing all the same");
    }
    if let Err(error) = namespace::enter_system() {
        ready::answer(asker, Answer::Cold);
        return Err(error);
    }
    work.capture(asker);
    Ok(())
}

/// Takes this process out of the system's way.
fn settle(cell: bool) -> Result<()> {
    setsid().context("watcher", format_args!("making a session"))?;
    namespace::rest()?;
    let _ = fs::write("/proc/self/comm", WATCHER);
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    // In a cell the log is stderr, which a capture does not see: the watcher is not in the image.
    let null = fs::open("/dev/null", OFlag::O_RDWR).context("watcher", format_args!("opening /dev/null"))?;
    nix::unistd::dup2_stdin(&null).context("watcher", format_args!("closing stdin"))?;
    nix::unistd::dup2_stdout(&null).context("watcher", format_args!("closing stdout"))?;
    if !cell {
        nix::unistd::dup2_stderr(&null).context("watcher", format_args!("closing stderr"))?;
    }
    Ok(())
}
