//! Puppets: the tasks being rebuilt, and the conductor's hands on them.
//!
//! The stages of a puppet, each for all of them before the next begins:
//! 1. made, by whom the plan of `tree.rs` says, with its pid, session, group and threads;
//! 2. cleared and laid out: its mappings as captured, empty;
//! 3. filled, by one pass over the image's blocks;
//! 4. assembled: descriptors, everything that a task must do itself;
//! 5. finished: signals queued, timers armed;
//! 6. released: all batch areas go, then registers are set and each runs.
//!
//! Of processes that share memory the last one goes through 2 and 3 for all. The area is theirs together too.
//!
//! PID 1 goes through 2 to 5 after all others: its stage 2 is the commit, and its threads come after that. It is
//! released last of all, so that its area, with the call that reboots when the conductor is gone, is there as long as
//! anything can fail.

mod create;
mod job;
mod supply;

pub use supply::{cut, make_objects, open_files, place};

use std::os::fd::{AsRawFd, OwnedFd};

use crate::error::{Context, Error, Result};
use crate::kernel::cgroup;
use crate::sorted::Map;
use crate::sys::abi::Number;
use crate::sys::ipc::Attached;
use crate::sys::ptrace;
use crate::task::clock::Offsets;
use crate::task::memory::{self, Backing};
use crate::task::pages::{self, Memory, Place};
use crate::task::remote::{Area, Batch, Script};
use crate::task::tree::{Body, Process};
use create::{choose_base, first_stop};
use supply::take_lock;

use crate::task::{creds, freeze, limit, namespace, sched, seccomp, signal, thread, timer, workdir};

const KIND: &str = "puppet";
/// Numbers of tty_ioctl(2), whose type differs between C libraries.
const TIOCSPGRP: u64 = 0x5410;
/// Every signal but SIGTRAP.
const ALL_BUT_TRAP: u64 = !(1 << (libc::SIGTRAP - 1));

/// What the conductor has itself, and puppets inherit.
#[derive(Debug)]
struct Own {
    creds: creds::State,
    sched: sched::State,
    process: sched::Process,
}

/// The conductor's view of a restore.
pub struct Puppets<'a> {
    /// The processes of the image.
    pub processes: &'a [Process],
    /// Its filters of seccomp(2).
    filters: &'a [seccomp::Filter],
    /// Opened program and library files, by index.
    pub files: Vec<OwnedFd>,
    /// Shared anonymous memory, by index.
    pub objects: Vec<OwnedFd>,
    /// Segments that we have attached until all others have: one may be marked for destruction.
    pub attached: Vec<Attached>,
    /// Open descriptions, by index.
    pub entries: Vec<OwnedFd>,
    /// The control groups of the image.
    pub groups: cgroup::Groups<'a>,
    /// The process that exists already: PID 1, whose children we make beside us.
    pub init: Option<u32>,
    /// The namespaces of the image.
    pub doors: namespace::Doors,
    /// The time namespace of our children, for PID 1 to enter (setns(2)).
    pub time: Option<OwnedFd>,
    /// How far the clocks of puppets are ahead of ours; nothing, if they begin anew.
    pub ahead: Option<Offsets>,
    /// How they are seized.
    options: i32,
    base: u64,
    /// The end of user addresses.
    top: u64,
    own: Own,
    exact_timers: bool,
    areas: Map<u32, Area>,
    /// Puppets that are in other namespaces than we.
    away: Map<u32, namespace::Spaces>,
}

impl<'a> Puppets<'a> {
    /// Prepares the conductor: the batch area that puppets inherit, and what they start with.
    ///
    /// # Errors
    /// /proc cannot be read, or there is no room.
    pub fn new(
        processes: &'a [Process],
        filters: &'a [seccomp::Filter],
        init: Option<u32>,
    ) -> Result<Puppets<'a>> {
        let me = std::process::id();
        let top = crate::sys::vm::top();
        let base = choose_base(processes, top)?;
        Area::prepare(base)?;
        let status = freeze::read_status(me);
        let own = Own {
            creds: creds::State { caps: status.caps, ..creds::State::default() },
            sched: sched::capture(me)?,
            process: sched::capture_process(me),
        };
        Ok(Puppets {
            processes,
            filters,
            options: ptrace::FOLLOW
                | if processes.iter().filter_map(|p| p.body.as_ref()).any(seccomp::is_used) {
                    ptrace::SUSPEND_SECCOMP
                } else {
                    0
                },
            files: Vec::new(),
            objects: Vec::new(),
            attached: Vec::new(),
            entries: Vec::new(),
            groups: cgroup::Groups::default(),
            init,
            doors: namespace::Doors::default(),
            time: None,
            ahead: None,
            base,
            top,
            own,
            exact_timers: crate::sys::clone::has_timer_ids(),
            areas: Map::new(),
            away: Map::new(),
        })
    }

    pub(super) fn area(&self, pid: u32) -> Result<&Area> {
        self.areas.get(&pid).ok_or_else(|| Error::new(KIND, format!("using puppet {pid}"), "it was not made"))
    }

    fn process(&self, pid: u32) -> Option<&'a Process> {
        self.processes.iter().find(|p| p.ids.pid == pid)
    }

    fn one(&self, pid: u32, number: Number, args: &[u64], doing: &'static str) -> Result<()> {
        let area = self.area(pid)?;
        let mut batch = Batch::new(area.base());
        batch.call(number, args);
        batch.doing(doing);
        area.run(pid, &mut batch)
    }

    /// Takes a process that exists already, PID 1, in hand. It does not notice before stage 2.
    ///
    /// # Errors
    /// It cannot be traced.
    pub fn seize(&mut self, pid: u32) -> Result<()> {
        let doing = format_args!("seizing {pid}");
        ptrace::seize(pid, self.options).context(KIND, doing)?;
        ptrace::interrupt(pid).context(KIND, doing)?;
        first_stop(pid)?;
        let regs = ptrace::regs(pid).context(KIND, doing)?;
        let area = Area::inject(pid, pid, &regs, self.base)?;
        let mut batch = Batch::new(self.base);
        thread::forget_rseq(pid, &mut batch)?;
        area.run(pid, &mut batch)?;
        // From here on, without a tracer, this process must not run what is half rebuilt.
        let restart = libc::LINUX_REBOOT_CMD_RESTART.cast_unsigned();
        let magic =
            [libc::LINUX_REBOOT_MAGIC1, libc::LINUX_REBOOT_MAGIC2].map(|m| u64::from(m.cast_unsigned()));
        area.last_resort(libc::SYS_reboot, &[magic[0], magic[1], u64::from(restart), 0])?;
        self.areas.insert(pid, area);
        Ok(())
    }

    fn body(&self, pid: u32) -> Result<&'a Body> {
        let body = self.process(pid).and_then(|p| p.body.as_ref());
        body.ok_or_else(|| Error::new(KIND, format!("rebuilding {pid}"), "it is not in the image"))
    }

    /// Stage 2: the empty layout.
    ///
    /// # Errors
    /// A mapping cannot be made.
    pub fn lay_out(&self, pid: u32) -> Result<()> {
        let body = self.body(pid)?;
        let mut script = Script::new(self.area(pid)?, pid);
        script.batch.call(libc::SYS_close_range, &[0, u64::from(u32::MAX), 0]);
        // Descriptor 0 is the conductor, from whom all others come.
        script.batch.call(libc::SYS_pidfd_open, &[u64::from(std::process::id()), 0]);
        script.batch.doing("opening the conductor");
        if let Some(time) = self.time.as_ref().filter(|_| self.init == Some(pid)) {
            // Its children were born in there. It has one thread, as setns(2) demands.
            const CLONE_NEWTIME: u64 = 0x80;
            let fd = u64::from(time.as_raw_fd().cast_unsigned());
            script.batch.call(libc::SYS_pidfd_getfd, &[0, fd, 0]);
            script.batch.call(libc::SYS_setns, &[1, CLONE_NEWTIME]);
            script.batch.doing("entering the time namespace");
            script.batch.call(libc::SYS_close, &[1]);
        }
        if let Some((path, group)) = &body.terminal {
            // After all groups exist, and before descriptor 0 means something.
            self.terminal(pid, path, &[TIOCSPGRP, u64::from(*group)], "setting the foreground group")?;
        }
        if self.stands(pid) {
            let vdso = memory::vdso::of(pid)?;
            memory::clear(&mut script.batch, &body.memory, &vdso, self.top)?;
            memory::attach(&mut script, &body.memory)?;
        }
        let mut open: Option<(&Backing, bool)> = None;
        for vma in &body.memory.vmas {
            if matches!(vma.backing, Backing::Segment { .. }) {
                continue;
            }
            script.ensure(4, 256)?;
            if vma.backing == Backing::Anonymous {
                memory::map(&mut script.batch, vma, None);
                continue;
            }
            if open.is_none_or(|(backing, _)| *backing != vma.backing) {
                if open.is_some() {
                    script.batch.call(libc::SYS_close, &[1]);
                }
                let fd = self.backing_fd(&vma.backing)?;
                script.batch.call(libc::SYS_pidfd_getfd, &[0, fd, 0]);
                script.batch.doing("taking a file from the conductor");
                open = Some((&vma.backing, true));
            }
            memory::map(&mut script.batch, vma, Some(1));
        }
        if open.is_some() {
            script.batch.call(libc::SYS_close, &[1]);
        }
        script.flush()
    }

    /// Stage 3: where the pages of each address space go. PID 1's are kept until the commit.
    ///
    /// # Errors
    /// A puppet is gone.
    pub fn places(&self) -> Result<Vec<Place<'_>>> {
        let mut places = Vec::new();
        for process in self.processes {
            let place = match &process.body {
                None => Place::Later(Vec::new()),
                Some(_) if self.init == Some(process.ids.pid) => Place::Later(Vec::new()),
                Some(body) => Place::Puppet(Memory::open(process.ids.pid)?, &body.memory),
            };
            places.push(place);
        }
        places.extend(self.objects.iter().map(Place::Object));
        Ok(places)
    }

    /// Stage 3 of PID 1: the pages that were kept for it.
    ///
    /// # Errors
    /// The image contradicts itself, or the process is gone.
    pub fn fill_kept(&self, pid: u32, kept: &[(u64, Vec<u8>)]) -> Result<()> {
        let body = self.body(pid)?;
        let memory = Memory::open(pid)?;
        kept.iter().try_for_each(|(start, bytes)| pages::put_into(&memory, &body.memory, *start, bytes))
    }

    /// Stage 4: everything that the process and its threads must do themselves.
    ///
    /// # Errors
    /// The call that failed, with the process.
    pub fn assemble(&self, pid: u32) -> Result<()> {
        let body = self.body(pid)?;
        let area = self.area(pid)?;
        let mut script = Script::new(area, pid);
        self.describe(&mut script, pid, body)?;
        // First, since no guard comes into locked memory.
        for guard in &body.memory.guards {
            script.ensure(1, 0)?;
            memory::guard(&mut script.batch, *guard);
        }
        for vma in &body.memory.vmas {
            script.ensure(FLAG_CALLS, 0)?;
            memory::advise(&mut script.batch, vma);
        }
        script.ensure(64, 64 * 32)?;
        signal::restore_actions(&mut script.batch, &body.actions, self.init == Some(pid));
        let common = seccomp::common(&body.threads);
        let leader = body.threads.first().map_or(&[][..], |leader| &leader.seccomp.filters);
        seccomp::restore(&mut script, leader.get(..common).unwrap_or(&[]), self.filters, seccomp::ALL)?;
        script.flush()?;
        let spaces = self.process(pid).map_or(&namespace::Spaces::HOME, |p| &p.spaces);
        // While descriptor 0 is the conductor, and a thread sees the root that the conductor has.
        for thread in &body.threads {
            if let Some(own) = &thread.workdir {
                let mut script = Script::new(area, thread.tid);
                script.batch.call(libc::SYS_unshare, &[libc::CLONE_FS as u64]);
                self.doors.inside(spaces, &mut || workdir::restore(&mut script, own))?;
            }
        }
        let mut script = Script::new(area, pid);
        let sharing = self.process(pid).map(|p| &p.ids.sharing);
        if sharing.is_some_and(|sharing| sharing.directories == pid) {
            self.doors.inside(spaces, &mut || workdir::restore(&mut script, &body.workdir))?;
        }
        if sharing.is_some_and(|sharing| sharing.files == pid) {
            self.place_fds(&mut script, body)?;
            for lock in &body.locks {
                script.ensure(1, 48)?;
                take_lock(&mut script.batch, lock);
            }
        }
        script.flush()?;
        // PID 1 is not made by us, and may have another score.
        let init = (self.init == Some(pid)).then(|| sched::capture_process(pid));
        sched::restore_process(pid, &body.sched, init.as_ref().unwrap_or(&self.own.process))?;
        for thread in &body.threads {
            sched::restore(thread.tid, &thread.sched, &self.own.sched)?;
        }
        let mut script = Script::new(area, pid);
        timer::restore(&mut script, &body.timers, self.exact_timers)?;
        script.ensure(16, 16 * 32)?;
        limit::restore(&mut script.batch, &body.limits, pid);
        script.flush()?;
        let personality = u64::from_str_radix(&body.sched.personality, 16).unwrap_or(0);
        // The leader gives up its rights last.
        for thread in body.threads.iter().rev() {
            let mut script = Script::new(area, thread.tid);
            let rest = thread.seccomp.filters.get(common..).unwrap_or(&[]);
            seccomp::restore(&mut script, rest, self.filters, 0)?;
            seccomp::restrict(&mut script, &thread.seccomp);
            script.flush()?;
            script.batch.call(libc::SYS_personality, &[personality]);
            thread::restore(&mut script.batch, thread, &self.own.creds);
            // Whoever of those that share memory gave up rights has made it 0.
            if thread.tid == pid && self.stands(pid) {
                script.batch.call(
                    libc::SYS_prctl,
                    &[libc::PR_SET_DUMPABLE as u64, u64::from(body.dumpable & 1), 0, 0, 0],
                );
            }
            script.flush()?;
        }
        Ok(())
    }

    /// Stage 5: queued signals and timers.
    ///
    /// # Errors
    /// The call that failed, with the process.
    pub fn finish(&self, pid: u32) -> Result<()> {
        let body = self.body(pid)?;
        let area = self.area(pid)?;
        self.hear(area, pid)?;
        for thread in body.threads.iter().filter(|t| !t.queue.is_empty()) {
            let mut script = Script::new(area, thread.tid);
            signal::restore_queue(&mut script, pid, Some(thread.tid), &thread.queue)?;
            script.flush()?;
        }
        let mut script = Script::new(area, pid);
        signal::restore_queue(&mut script, pid, None, &body.queue)?;
        timer::arm(&mut script, &body.timers, self.ahead)?;
        script.flush()
    }

    /// Stage 6, first for all: the area goes.
    ///
    /// # Errors
    /// It died.
    pub fn vanish(&self, pid: u32) -> Result<()> {
        if self.stands(pid) { self.area(pid)?.vanish(pid) } else { Ok(()) }
    }

    /// Stage 6: registers and masks are set, and the process runs. One that those who run already have ended is let
    /// be: that is their doing.
    ///
    /// # Errors
    /// It cannot be set.
    pub fn release(&self, pid: u32) -> Result<()> {
        let body = self.body(pid)?;
        let set = body.threads.iter().try_for_each(thread::finish);
        let set = set.and_then(|()| {
            body.threads.iter().rev().try_for_each(|thread| {
                ptrace::detach(thread.tid, 0).context(KIND, format_args!("letting {} go", thread.tid))
            })
        });
        match set {
            Err(error) if error.errno() == Some(nix::errno::Errno::ESRCH) => Ok(()),
            other => other,
        }
    }
}

/// The most calls that one mapping's advice can take.
const FLAG_CALLS: usize = 12;
