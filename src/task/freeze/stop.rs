//! Waiting for tasks on their way to a stop, and for what keeps them from it.

use crate::sorted::Listed;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{Frozen, KIND, read_stat};
use crate::error::{Context, Error, Obstacle, Refusal, Result};
use crate::sys::fs;
use crate::sys::ptrace::{self, Status};

impl Frozen {
    /// Waits until every seized task is stopped.
    pub(super) fn collect(&mut self, deadline: Instant) -> Result<()> {
        let mut waiting: Vec<u32> = self.tids.keys().copied().filter(|t| !self.stopped.contains(t)).list();
        let mut nap = Duration::from_micros(50);
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut left = Vec::new();
            for tid in waiting {
                if self.try_stop(tid)? {
                    self.stopped.insert(tid);
                } else {
                    left.push(tid);
                }
            }
            waiting = left;
            if waiting.len() < before {
                nap = Duration::from_micros(50);
            } else {
                self.release_vforked(&waiting);
                if Instant::now() > deadline {
                    self.does_not_stop(&waiting);
                    return Ok(());
                }
                std::thread::sleep(nap);
                nap = (nap * 2).min(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// One look at a task: stopped or gone (true), or not yet (false).
    fn try_stop(&mut self, tid: u32) -> Result<bool> {
        let doing = format_args!("stopping {tid}");
        loop {
            let status = match ptrace::wait(tid.cast_signed(), libc::WNOHANG) {
                Ok(Some((_, status))) => status,
                Ok(None) => return Ok(false),
                Err(Errno::ECHILD) => {
                    self.tids.remove(&tid);
                    return Ok(true);
                }
                Err(errno) => return Err(Error::os(KIND, doing.to_string(), errno)),
            };
            match ptrace::decode(status) {
                Status::Interrupted => {
                    self.stops.remove(&tid);
                    return Ok(true);
                }
                Status::GroupStop(_) if self.stops.contains_key(&tid) => return Ok(true),
                // Whether our interrupt was part of this stop or is still to come cannot be told: now one is, and
                // ends in the same stop before anything runs.
                Status::GroupStop(signal) => {
                    self.stops.insert(tid, signal);
                    ptrace::interrupt(tid).context(KIND, doing)?;
                    ptrace::cont(tid, 0).context(KIND, doing)?;
                }
                Status::Gone(_) => {
                    self.tids.remove(&tid);
                    return Ok(true);
                }
                // A real signal came first: give it back, our stop follows.
                Status::Signal(signal) => ptrace::cont(tid, signal).context(KIND, doing)?,
                Status::NewChild => {
                    let child = ptrace::event_message(tid).context(KIND, doing)?;
                    let child = u32::try_from(child).unwrap_or(0);
                    let tgid = read_status_tgid(child).unwrap_or(child);
                    self.tids.insert(child, tgid);
                    ptrace::cont(tid, 0).context(KIND, doing)?;
                }
                Status::Syscall | Status::Event(_) => ptrace::cont(tid, 0).context(KIND, doing)?,
            }
        }
    }

    /// The child of a vfork(2) must run until it calls execve(2) or exits, or its parent never stops.
    fn release_vforked(&mut self, waiting: &[u32]) {
        for parent in waiting.iter().filter(|tid| read_stat(**tid).is_some_and(|s| s.state == 'D')) {
            let process = self.tids.get(parent);
            let children: Vec<u32> = self
                .tids
                .iter()
                .filter(|(tid, tgid)| {
                    tid == tgid && read_stat(*tid).is_some_and(|s| Some(&s.ppid) == process)
                })
                .map(|(tid, _)| *tid)
                .list();
            for child in children.into_iter().filter(|c| shares_memory(*parent, *c)) {
                if ptrace::detach(child, 0).is_ok() {
                    self.tids.remove(&child);
                    self.stopped.remove(&child);
                }
            }
        }
    }

    /// Names the tasks that are still on their way to a stop.
    fn does_not_stop(&mut self, waiting: &[u32]) {
        for stat in waiting.iter().filter_map(|tid| read_stat(*tid)) {
            let call = fs::of_task(stat.pid, "wchan").unwrap_or_default();
            let refusal = Refusal::new(
                format!("it does not stop: state {}, waiting in {}", stat.state, call.trim_ascii()),
                "let it finish what it waits for (a vfork(2) child must call execve(2)) before `rcsnap ready`",
            );
            self.obstacles.push(Obstacle::process(KIND, stat.pid, stat.comm, "task", refusal));
        }
    }
}

fn read_status_tgid(tid: u32) -> Option<u32> {
    let text = fs::of_task(tid, "status").ok()?;
    text.lines().find_map(|l| l.strip_prefix("Tgid:"))?.trim_ascii().parse().ok()
}

/// Whether two processes share one address space: kcmp(2) with KCMP_VM.
fn shares_memory(a: u32, b: u32) -> bool {
    const KCMP_VM: i32 = 1;
    crate::sys::descriptor::kcmp(a, b, KCMP_VM) == Ok(std::cmp::Ordering::Equal)
}

/// The signal that has stopped a process, from those of its threads.
pub(super) fn agreed(mut signals: impl Iterator<Item = Option<i32>>) -> Result<Option<i32>, Refusal> {
    let first = signals.next().flatten();
    if signals.all(|signal| signal == first) {
        return Ok(first);
    }
    Err(Refusal::new("only some of its threads are stopped", "continue it before `rcsnap ready`"))
}

#[cfg(test)]
mod tests {
    use super::agreed;

    #[test]
    fn a_process_is_stopped_with_all_its_threads_or_refused() {
        assert_eq!(agreed([Some(19), Some(19)].into_iter()).unwrap(), Some(19));
        assert_eq!(agreed([None, None].into_iter()).unwrap(), None);
        assert_eq!(agreed([].into_iter()).unwrap(), None);
        for mixed in [[Some(19), None], [None, Some(20)]] {
            assert!(agreed(mixed.into_iter()).unwrap_err().reason.contains("only some"));
        }
    }
}
