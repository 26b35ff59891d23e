//! Stage 1 of a puppet: it is made by whom the plan says, with its pid, its session and its group.

use std::os::fd::AsRawFd;

use super::job::forget_child;
use super::{ALL_BUT_TRAP, KIND, Puppets};
use crate::error::{Context, Error, Result};
use crate::sorted::{self, Listed};
use crate::sys::abi;
use crate::sys::clone::{self, CLONE_ARGS};
use crate::sys::fs;
use crate::sys::ptrace::{self, Status};
use crate::task::remote::{AREA, Area, Batch};
use crate::task::tree::{Process, Step};
use crate::task::{limit, namespace, thread};

/// Numbers of tty_ioctl(2), whose type differs between C libraries.
const TIOCSCTTY: u64 = 0x540e;
/// What threads of one process share (clone(2)).
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM) as u64;

impl Puppets<'_> {
    /// Stage 1: carries the plan out.
    ///
    /// # Errors
    /// A pid is in use, or a puppet died.
    pub fn create(&mut self, steps: &[Step]) -> Result<()> {
        for step in steps {
            match *step {
                Step::Create { by: None, pid } => self.create_here(pid)?,
                Step::Create { by: Some(by), pid } => self.create_by(by, pid)?,
                Step::Subreaper(pid) => {
                    self.one(
                        pid,
                        libc::SYS_prctl,
                        &[libc::PR_SET_CHILD_SUBREAPER as u64, 1, 0, 0, 0],
                        "becoming a subreaper",
                    )?;
                }
                Step::Session(pid) => self.start_session(pid)?,
                Step::Group { pid, group } => {
                    self.one(pid, libc::SYS_setpgid, &[0, u64::from(group)], "joining a process group")?;
                }
                Step::End { by, pid } => self.end(by, pid)?,
            }
        }
        let zombies = self.processes.iter().filter_map(|p| Some((p, p.ids.exit?)));
        for (process, status) in zombies.list() {
            self.die(process, status)?;
        }
        Ok(())
    }

    /// Stage 1 of a process that is in its control group: its further threads, which may be in others.
    ///
    /// # Errors
    /// As [`Puppets::create`].
    pub fn make_threads(&self, pid: u32) -> Result<()> {
        let (area, body) = (self.area(pid)?, self.body(pid)?);
        for thread in body.threads.iter().skip(1) {
            let mut batch = Batch::new(area.base());
            clone_call(&mut batch, thread.tid, THREAD, 0);
            area.run(pid, &mut batch)?;
            first_stop(thread.tid)?;
            self.groups.put(thread.tid, false)?;
        }
        Ok(())
    }

    /// setsid(2), and the controlling terminal, which children inherit only when they are made after it.
    fn start_session(&self, pid: u32) -> Result<()> {
        self.one(pid, libc::SYS_setsid, &[], "starting a session")?;
        let body = self.process(pid).and_then(|p| p.body.as_ref());
        match body.and_then(|b| b.terminal.as_ref()) {
            Some((path, _)) => self.terminal(pid, path, &[TIOCSCTTY, 0], "taking the terminal"),
            None => Ok(()),
        }
    }

    /// One ioctl(2) on a terminal; a third argument is a number to pass by address.
    pub(super) fn terminal(&self, pid: u32, path: &str, ioctl: &[u64], doing: &'static str) -> Result<()> {
        let area = self.area(pid)?;
        let mut batch = Batch::new(area.base());
        let name = batch.path(path);
        let flags = u64::from((libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK).cast_unsigned());
        // Closed and opened again under a number that is certain.
        batch.try_call(libc::SYS_close, &[0]);
        let here = i64::from(libc::AT_FDCWD).cast_unsigned();
        batch.call(libc::SYS_openat, &[here, name, flags]);
        batch.doing("opening the controlling terminal");
        let argument = ioctl.get(1).copied().unwrap_or(0);
        let argument = if argument == 0 { 0 } else { batch.bytes(&argument.to_ne_bytes()) };
        batch.call(libc::SYS_ioctl, &[0, ioctl[0], argument]);
        batch.doing(doing);
        batch.call(libc::SYS_close, &[0]);
        area.run(pid, &mut batch)
    }

    fn create_here(&mut self, pid: u32) -> Result<()> {
        let doing = format_args!("making process {pid}");
        let sibling = self.init.is_some() && self.process(pid).is_some();
        clone::puppet(pid, sibling).context(KIND, doing)?;
        ptrace::seize(pid, self.options | ptrace::EXITKILL).context(KIND, doing)?;
        ptrace::interrupt(pid).context(KIND, doing)?;
        first_stop(pid)?;
        ptrace::set_sigmask(pid, ALL_BUT_TRAP).context(KIND, doing)?;
        let area = Area::inherited(self.base, pid);
        let mut batch = Batch::new(self.base);
        thread::forget_rseq(pid, &mut batch)?;
        area.run(pid, &mut batch)?;
        self.areas.insert(pid, area);
        self.go(pid, &namespace::Spaces::HOME)
    }

    /// Takes a puppet, which was born where `from` is, to its own namespaces.
    fn go(&mut self, pid: u32, from: &namespace::Spaces) -> Result<()> {
        // A process that only lives for a moment may do so anywhere.
        let to = self.process(pid).map_or(from, |p| &p.spaces);
        let way = self.doors.way(from, to)?;
        if !way.is_empty() {
            let area = self.area(pid)?;
            let mut batch = Batch::new(area.base());
            batch.call(libc::SYS_close_range, &[0, u64::from(u32::MAX), 0]);
            batch.call(libc::SYS_pidfd_open, &[u64::from(std::process::id()), 0]);
            for door in way {
                let door = u64::from(door.as_raw_fd().cast_unsigned());
                batch.call(libc::SYS_pidfd_getfd, &[0, door, 0]);
                batch.call(libc::SYS_setns, &[1, 0]);
                batch.doing("entering a namespace");
                batch.call(libc::SYS_close, &[1]);
            }
            batch.call(libc::SYS_close, &[0]);
            area.run(pid, &mut batch)?;
        }
        if *to != namespace::Spaces::HOME {
            self.away.insert(pid, to.clone());
        }
        Ok(())
    }

    fn create_by(&mut self, by: u32, pid: u32) -> Result<()> {
        // A process that only lives for a moment tells its maker nothing when it goes.
        let signal = if self.process(pid).is_some() { libc::SIGCHLD } else { 0 };
        let area = self.area(by)?;
        let mut batch = Batch::new(area.base());
        let sharing = |pid| self.process(pid).map(|p| &p.ids.sharing);
        let flags = sharing(by).zip(sharing(pid)).map_or(0, |(by, child)| by.flags(child));
        clone_call(&mut batch, pid, u64::from(flags.cast_unsigned()), signal);
        area.run(by, &mut batch)?;
        first_stop(pid)?;
        self.areas.insert(pid, Area::inherited(self.base, pid));
        let from = self.away.get(&by).cloned().unwrap_or(namespace::Spaces::HOME);
        self.go(pid, &from)
    }

    /// Ends a process that was needed for a moment; its maker reaps it.
    fn end(&mut self, by: Option<u32>, pid: u32) -> Result<()> {
        clone::kill(pid).context(KIND, format_args!("ending {pid}"))?;
        wait_gone(pid)?;
        self.areas.remove(&pid);
        let Some(by) = by else { return Ok(()) };
        let wall = u64::from(libc::__WALL.cast_unsigned());
        self.one(by, libc::SYS_wait4, &[u64::from(pid), 0, wall, 0], "reaping a helper")
    }

    /// Makes a puppet the zombie that it was.
    fn die(&mut self, process: &Process, status: i32) -> Result<()> {
        let (pid, parent) = (process.ids.pid, process.ids.ppid);
        let doing = format_args!("ending {pid} as a zombie");
        let signal = status & 0x7f;
        let area = self.area(pid)?;
        let mut batch = Batch::new(area.base());
        let name = batch.path(&process.comm);
        batch.call(libc::SYS_prctl, &[libc::PR_SET_NAME as u64, name, 0, 0, 0]);
        let none = batch.room(16);
        batch.call(libc::SYS_prlimit64, &[0, limit::RLIMIT_CORE, none, 0]);
        area.run(pid, &mut batch)?;
        if signal == 0 {
            let mut batch = Batch::new(area.base());
            batch.call(libc::SYS_exit_group, &[u64::from((status >> 8 & 0xff).cast_unsigned())]);
            area.run_to_death(pid, &batch)?;
        } else {
            ptrace::set_sigmask(pid, 0).context(KIND, doing)?;
            ptrace::cont(pid, signal).context(KIND, doing)?;
            if signal == libc::SIGKILL {
                clone::kill(pid).context(KIND, doing)?;
            }
        }
        wait_gone(pid)?;
        self.areas.remove(&pid);
        if self.areas.contains_key(&parent) {
            let area = self.area(parent)?;
            let mut batch = Batch::new(area.base());
            forget_child(&mut batch);
            area.run(parent, &mut batch)?;
        }
        Ok(())
    }
}

/// An address where the batch area lies outside every mapping of the image and of ourselves.
pub(super) fn choose_base(processes: &[Process], top: u64) -> Result<u64> {
    let own = fs::text("/proc/self/smaps").context(KIND, format_args!("reading /proc/self/smaps"))?;
    let mut taken: Vec<(u64, u64)> = crate::proc::smaps::parse(&own).iter().map(|m| (m.start, m.end)).list();
    for body in processes.iter().filter_map(|p| p.body.as_ref()) {
        taken.extend(body.memory.vmas.iter().map(|v| (v.start, v.end)));
        taken.extend(body.memory.vdso.iter().map(|s| (s.start, s.end)));
    }
    // 256 pages: the gap that a growing stack keeps below itself.
    let gap = 0x10_0000;
    let mut at = 0x2000_0000u64;
    sorted::sort(&mut taken);
    for (start, end) in taken {
        if start >= at + AREA + gap {
            break;
        }
        at = at.max(end.next_multiple_of(0x1000) + gap);
    }
    if at + AREA < top {
        return Ok(at);
    }
    Err(Error::new(KIND, "choosing a place for the batch area", "the address spaces are full"))
}

/// Adds clone3(2) with a chosen id.
fn clone_call(batch: &mut Batch, tid: u32, flags: u64, signal: i32) {
    let wanted = batch.bytes(&tid.to_ne_bytes());
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    // set_tid_size.
    let args = [flags, 0, 0, 0, u64::from(signal.cast_unsigned()), 0, 0, 0, wanted, 1];
    let room = batch.bytes(&abi::bytes(&args));
    batch.call(libc::SYS_clone3, &[room, CLONE_ARGS]);
    batch.doing("making a task");
}

/// Waits for the first stop of a task that was just attached.
pub(super) fn first_stop(tid: u32) -> Result<()> {
    let doing = format_args!("waiting for {tid}");
    loop {
        let Some((_, status)) = ptrace::wait(tid.cast_signed(), 0).context(KIND, doing)? else { continue };
        match ptrace::decode(status) {
            Status::Interrupted => return Ok(()),
            Status::Signal(_) | Status::Syscall => ptrace::cont(tid, 0).context(KIND, doing)?,
            other => return Err(Error::new(KIND, doing.to_string(), format!("stopped by {other}"))),
        }
    }
}

/// Waits until a task is gone.
fn wait_gone(pid: u32) -> Result<()> {
    loop {
        match ptrace::wait(pid.cast_signed(), 0)
            .context(KIND, format_args!("waiting for the end of {pid}"))?
        {
            Some((_, status)) if matches!(ptrace::decode(status), Status::Gone(_)) => return Ok(()),
            _ => {}
        }
    }
}
