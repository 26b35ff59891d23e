//! The restore as PID 1 sees it: make a conductor, wait for it, and judge how it ended.
//!
//! PID 1 reads no byte of an image but its header, one sector with a CRC. Everything else is done by the
//! conductor. When that ends well, PID 1 has been replaced and this code is not there any more; so whatever
//! comes back to [`run`] is a failure, and what it means depends on how far the restore had come:
//!
//! | stage | the boot |
//! |---|---|
//! | before the first change of the kernel | goes on cold; counts as an attempt that nobody confirmed |
//! | before the commit | reboots; the armed attempt makes the next boot cold |
//! | after it | the slot is burned, reboot |
//!
//! An image that is damaged or out of date is burned whenever that is found, so that a capture replaces it.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};

use crate::error::{Context, Failure, Result};
use crate::log;
use crate::sorted::Listed;
use crate::stage::{Stage, Times};
use crate::sys::fs;
use crate::sys::process::{Fork, fork, leave};
use crate::sys::signal;
use crate::text;

/// Exit statuses of a conductor, one for each kind of [`Failure`]; an image of no more use adds [`USELESS`].
const CLEAN: i32 = 10;
const BEFORE: i32 = 11;
const AFTER: i32 = 12;
const USELESS: i32 = 10;

/// A restore that did not work.
#[derive(Debug)]
pub struct Broken {
    /// What went wrong, and how far the restore was.
    pub failure: Failure,
    /// The image itself is damaged or out of date: no other boot can restore it either.
    pub useless: bool,
}

/// What the boot does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Goes on cold in the same boot.
    Cold,
    /// Reboots; the next boot is cold.
    Reboot,
}

/// How a restore ended that did not work.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    /// What the boot does.
    pub next: Next,
    /// Whether the slot is burned: never try it again, and let a capture take its place.
    pub burn: bool,
    /// The line on the console.
    pub reason: String,
}

/// Makes the conductor and waits for its end. `work` is what the conductor does; a restore that works never
/// comes back here. `leader` says that the captured init leads a session.
///
/// # Errors
/// The conductor could not be made: nothing has happened yet.
pub fn run(
    leader: bool,
    limit: u32,
    times: &Times,
    work: impl FnOnce() -> Result<(), Broken>,
) -> Result<End> {
    if leader {
        // Fails only for a leader, which we then are already.
        let _ = setsid();
    }
    let others = tasks();
    let conductor = match fork().context("conduct", format_args!("making the conductor"))? {
        Fork::Parent(pid) => pid,
        Fork::Child => conductor(limit, times, work),
    };
    let status = wait_for(conductor).context("conduct", format_args!("waiting for the conductor"))?;
    sweep(&others);
    let (stage, errno) = times.report();
    Ok(judge(status, stage, errno))
}

/// The conductor's whole life. It dies of SIGALRM when the restore takes too long, and PID 1 sees that.
fn conductor(limit: u32, times: &Times, work: impl FnOnce() -> Result<(), Broken>) -> ! {
    // The handlers of the guard belong to PID 1.
    signal::clean_slate();
    signal::alarm(limit);
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    let Err(broken) = work() else { leave(0) };
    let (stage, _) = times.report();
    log!(Error, "restore: {}: {}", stage.name(), broken.failure.error());
    times.fail(broken.failure.error());
    let status = match broken.failure {
        Failure::Clean(_) => CLEAN,
        Failure::Before(_) => BEFORE,
        Failure::After(_) => AFTER,
    };
    leave(if broken.useless { status + USELESS } else { status })
}

/// Waits for the conductor alone: dead children of the image are for the PID 1 that comes back. Those made with
/// CLONE_PARENT send no signal and are seen only with __WALL.
fn wait_for(conductor: u32) -> nix::Result<WaitStatus> {
    let conductor = Pid::from_raw(conductor.cast_signed());
    loop {
        match waitpid(conductor, Some(WaitPidFlag::__WALL)) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// The numbers of all processes.
fn tasks() -> Vec<u32> {
    fs::numbers("/proc").unwrap_or_default()
}

/// Ends what the conductor left: puppets that were not yet seized live on when it dies. What was there before
/// it (a daemon of an outer initramfs) is spared, and so are kernel threads, which no signal reaches.
fn sweep(others: &[u32]) {
    for _ in 0..200 {
        for pid in tasks().into_iter().filter(|pid| *pid != 1 && !others.contains(pid)) {
            let _ =
                nix::sys::signal::kill(Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL);
        }
        // All dead children, then one look whether a living one is left that was not there before.
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        if !children().iter().any(|child| !others.contains(child)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    log!(Warning, "conduct: a puppet does not die");
}

/// Living children of PID 1.
fn children() -> Vec<u32> {
    let parent = |pid: u32| {
        let stat = fs::of_task(pid, "stat").ok()?;
        text::split_last(&stat, ')')?.1.split_ascii_whitespace().nth(1)?.parse::<u32>().ok()
    };
    tasks().into_iter().filter(|pid| parent(*pid) == Some(1)).list()
}

/// What the end of the conductor means. Its own word counts; a death without a word is judged by the stage
/// that it had published.
fn judge(status: WaitStatus, stage: Stage, errno: Option<Errno>) -> End {
    let spoken = match status {
        WaitStatus::Exited(_, code) if (CLEAN..=AFTER).contains(&code) => Some((code, false)),
        WaitStatus::Exited(_, code) if (CLEAN..=AFTER).contains(&(code - USELESS)) => {
            Some((code - USELESS, true))
        }
        _ => None,
    };
    let how = match (spoken, status, errno) {
        (Some(_), _, Some(errno)) => crate::error::name(errno).to_string(),
        (Some(_), _, None) => "it said why".into(),
        (None, WaitStatus::Exited(_, code), _) => format!("the conductor ended with {code}"),
        (None, WaitStatus::Signaled(_, signal, _), _) => format!("the conductor died of {signal}"),
        (None, ..) => "the conductor is gone".into(),
    };
    let (next, burn) = match spoken {
        Some((CLEAN, useless)) => (Next::Cold, useless),
        Some((BEFORE, useless)) => (Next::Reboot, useless),
        Some(_) => (Next::Reboot, true),
        None if stage.is_committed() => (Next::Reboot, true),
        None if stage.changes_kernel() => (Next::Reboot, false),
        None => (Next::Cold, false),
    };
    End { next, burn, reason: format!("the restore ended in stage {}: {how}", stage.name()) }
}

#[cfg(test)]
mod tests {
    use super::{AFTER, BEFORE, CLEAN, Next, USELESS, judge};
    use crate::stage::Stage;
    use nix::sys::signal::Signal;
    use nix::sys::wait::WaitStatus;
    use nix::unistd::Pid;

    #[test]
    fn the_conductors_word_counts() {
        let end = |code| {
            let end = judge(WaitStatus::Exited(Pid::from_raw(9), code), Stage::Memory, None);
            (end.next, end.burn)
        };
        assert_eq!(end(CLEAN), (Next::Cold, false));
        assert_eq!(end(CLEAN + USELESS), (Next::Cold, true));
        assert_eq!(end(BEFORE), (Next::Reboot, false));
        assert_eq!(end(BEFORE + USELESS), (Next::Reboot, true));
        assert_eq!(end(AFTER), (Next::Reboot, true));
        assert_eq!(end(99), (Next::Reboot, false));
    }

    #[test]
    fn a_death_without_a_word_is_judged_by_its_stage() {
        let dead = WaitStatus::Signaled(Pid::from_raw(9), Signal::SIGSEGV, false);
        for stage in Stage::ALL.iter().copied().filter(|stage| *stage <= Stage::Done) {
            let end = judge(dead, stage, None);
            assert_eq!(end.next == Next::Reboot, stage >= Stage::Kernel, "{stage:?}");
            assert_eq!(end.burn, stage >= Stage::Commit, "{stage:?}");
        }
    }
}
