//! Processes that job control had stopped: they are stopped again while they are puppets, so that their parents,
//! puppets too, can have waited for it.

use super::{ALL_BUT_TRAP, KIND, Puppets};
use crate::error::{Context, Error, Result};
use crate::sys::abi;
use crate::sys::clone;
use crate::sys::ptrace::{self, Status};
use crate::task::remote::{Area, Batch, Script};

impl Puppets<'_> {
    /// Between stages 4 and 5: stops a process that was stopped. Batches run in it nevertheless, and when it is let
    /// go the kernel stops it again.
    ///
    /// # Errors
    /// It died, or the signal does not stop it.
    pub fn stop(&self, pid: u32) -> Result<()> {
        let body = self.body(pid)?;
        let Some(stop) = &body.stop else { return Ok(()) };
        let doing = format_args!("stopping {pid} by signal {}", stop.signal);
        ptrace::set_sigmask(pid, ALL_BUT_TRAP & !(1 << (stop.signal - 1))).context(KIND, doing)?;
        clone::stop(pid).context(KIND, doing)?;
        ptrace::cont(pid, 0).context(KIND, doing)?;
        if next_stop(pid)? != Status::Signal(libc::SIGSTOP) {
            return Err(Error::new(KIND, doing.to_string(), "another signal came first"));
        }
        let mut signal = stop.signal;
        for thread in &body.threads {
            // With this it stops in any case.
            ptrace::interrupt(thread.tid).context(KIND, doing)?;
            ptrace::cont(thread.tid, std::mem::take(&mut signal)).context(KIND, doing)?;
            if next_stop(thread.tid)? != Status::GroupStop(stop.signal) {
                return Err(Error::new(KIND, doing.to_string(), "it does not stop"));
            }
        }
        ptrace::set_sigmask(pid, ALL_BUT_TRAP).context(KIND, doing)
    }

    /// Stage 5 of a parent: it knows of stopped children what it knew, and no more.
    pub(super) fn hear(&self, area: &Area, pid: u32) -> Result<()> {
        let mut script = Script::new(area, pid);
        let children = self.processes.iter().filter(|child| child.ids.ppid == pid);
        for (child, stop) in children.filter_map(|child| Some((child, child.body.as_ref()?.stop.as_ref()?))) {
            script.ensure(2, 64)?;
            forget_child(&mut script.batch);
            if stop.seen {
                let options = libc::WUNTRACED | libc::WNOHANG | libc::__WALL;
                let options = u64::from(options.cast_unsigned());
                script.batch.call(libc::SYS_wait4, &[u64::from(child.ids.pid), 0, options, 0]);
            }
        }
        script.flush()
    }
}

/// Takes away the signal that a puppet got when its child stopped or ended: its queue comes from the image.
pub(super) fn forget_child(batch: &mut Batch) {
    let set = batch.bytes(&(1u64 << (libc::SIGCHLD - 1)).to_ne_bytes());
    let now = batch.room(16);
    batch.try_call(abi::RT_SIGTIMEDWAIT, &[set, 0, now, 8]);
}

fn next_stop(tid: u32) -> Result<Status> {
    let stop = ptrace::wait(tid.cast_signed(), 0).context(KIND, format_args!("waiting for {tid}"))?;
    Ok(stop.map_or(Status::Syscall, |(_, status)| ptrace::decode(status)))
}
