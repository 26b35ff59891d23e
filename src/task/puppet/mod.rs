//! Puppets: the tasks being rebuilt, and the conductor's hands on them.
//!
//! The stages of a puppet, each for all of them before the next begins:
//! 1. made, by whom the plan of `tree.rs` says, with its pid, session and group;
//! 2. cleared and laid out: its mappings as captured, empty;
//! 3. filled, by one pass over the image's blocks;
//! 4. assembled: descriptors, threads, everything that a task must do itself;
//! 5. finished: signals queued, timers armed;
//! 6. released: the batch area goes, registers are set, it runs.
//!
//! PID 1 goes through 2 to 5 after all others: its stage 2 is the commit. It is released last of all, so that
//! its area, with the call that reboots when the conductor is gone, is there as long as anything can fail.

mod create;
mod job;
mod supply;

pub use supply::{make_objects, open_files, place};

use std::os::fd::{AsRawFd, OwnedFd};

use crate::error::{Context, Error, Result};
use crate::sorted::{self, Map};
use crate::sys::abi::Number;
use crate::sys::{fs, path, ptrace};
use crate::task::memory::{self, Backing};
use crate::task::pages::{self, Memory, Place};
use crate::task::remote::{AREA, Area, Batch, Script};
use crate::task::tree::{Body, Process};
use create::{clone_call, first_stop};
use supply::take_lock;

use crate::task::{creds, freeze, limit, sched, signal, thread, timer, workdir};

const KIND: &str = "puppet";
/// Numbers of tty_ioctl(2), whose type differs between C libraries.
const TIOCSPGRP: u64 = 0x5410;
/// Whether two paths lead to one file.
fn same_file(one: &str, other: &str) -> bool {
    let id = |path| path::stat(path).map(|found| (found.st_dev, found.st_ino)).ok();
    id(one).is_some() && id(one) == id(other)
}

/// Every signal but SIGTRAP.
const ALL_BUT_TRAP: u64 = !(1 << (libc::SIGTRAP - 1));

/// What the conductor has itself, and puppets inherit.
#[derive(Debug)]
struct Own {
    limits: limit::State,
    creds: creds::State,
    sched: sched::State,
    process: sched::Process,
}

/// The conductor's view of a restore.
pub struct Puppets<'a> {
    /// The processes of the image.
    pub processes: &'a [Process],
    /// Opened program and library files, by index.
    pub files: Vec<OwnedFd>,
    /// Shared anonymous memory, by index.
    pub objects: Vec<OwnedFd>,
    /// Open descriptions, by index.
    pub entries: Vec<OwnedFd>,
    /// The process that exists already: PID 1, whose children we make beside us.
    pub init: Option<u32>,
    /// The time namespace of our children, for PID 1 to enter (setns(2)).
    pub time: Option<OwnedFd>,
    base: u64,
    /// The end of user addresses.
    top: u64,
    own: Own,
    exact_timers: bool,
    areas: Map<u32, Area>,
}

/// An address where the batch area lies outside every mapping of the image and of ourselves.
fn choose_base(processes: &[Process], top: u64) -> Result<u64> {
    let own = fs::text("/proc/self/smaps").context(KIND, format_args!("reading /proc/self/smaps"))?;
    let mut taken: Vec<(u64, u64)> =
        crate::proc::smaps::parse(&own).iter().map(|m| (m.start, m.end)).collect();
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

impl<'a> Puppets<'a> {
    /// Prepares the conductor: the batch area that puppets inherit, and what they start with.
    ///
    /// # Errors
    /// /proc cannot be read, or there is no room.
    pub fn new(processes: &'a [Process], init: Option<u32>) -> Result<Puppets<'a>> {
        let me = std::process::id();
        let top = crate::sys::vm::top();
        let base = choose_base(processes, top)?;
        Area::prepare(base)?;
        let status = freeze::read_status(me);
        let own = Own {
            limits: limit::own().context(KIND, format_args!("reading our own limits"))?,
            creds: creds::State { caps: status.caps, ..creds::State::default() },
            sched: sched::capture(me)?,
            process: sched::capture_process(me),
        };
        Ok(Puppets {
            processes,
            files: Vec::new(),
            objects: Vec::new(),
            entries: Vec::new(),
            init,
            time: None,
            base,
            top,
            own,
            exact_timers: crate::sys::clone::has_timer_ids(),
            areas: Map::new(),
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
        ptrace::seize(pid, ptrace::FOLLOW).context(KIND, doing)?;
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
        let vdso = memory::vdso::of(pid)?;
        memory::clear(&mut script.batch, &body.memory, &vdso, self.top)?;
        let mut open: Option<(&Backing, bool)> = None;
        for vma in &body.memory.vmas {
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
        self.describe(&mut script, body)?;
        for vma in &body.memory.vmas {
            script.ensure(FLAG_CALLS, 0)?;
            memory::advise(&mut script.batch, vma);
        }
        for guard in &body.memory.guards {
            script.ensure(1, 0)?;
            memory::guard(&mut script.batch, *guard);
        }
        self.place_fds(&mut script, body)?;
        for lock in &body.locks {
            script.ensure(1, 48)?;
            take_lock(&mut script.batch, lock);
        }
        script.ensure(8, 4096 + body.workdir.cwd.len() + body.workdir.root.len())?;
        workdir::restore(&mut script.batch, &body.workdir);
        script.ensure(64, 64 * 32)?;
        signal::restore_actions(&mut script.batch, &body.actions, self.init == Some(pid));
        script.flush()?;
        for thread in body.threads.iter().skip(1) {
            let mut batch = Batch::new(area.base());
            clone_call(&mut batch, thread.tid, THREAD, 0);
            area.run(pid, &mut batch)?;
            first_stop(thread.tid)?;
        }
        sched::restore_process(pid, &body.sched, &self.own.process)?;
        for thread in &body.threads {
            sched::restore(thread.tid, &thread.sched, &self.own.sched)?;
        }
        let mut script = Script::new(area, pid);
        timer::restore(&mut script, &body.timers, self.exact_timers)?;
        script.ensure(16, 16 * 32)?;
        limit::restore(&mut script.batch, &body.limits, &self.own.limits);
        script.flush()?;
        // The leader gives up its rights last.
        for thread in body.threads.iter().rev() {
            let mut batch = Batch::new(area.base());
            thread::restore(&mut batch, thread, &self.own.creds);
            if thread.tid == pid {
                batch.call(
                    libc::SYS_prctl,
                    &[libc::PR_SET_DUMPABLE as u64, u64::from(body.dumpable & 1), 0, 0, 0],
                );
            }
            area.run(thread.tid, &mut batch)?;
        }
        Ok(())
    }

    /// PR_SET_MM_MAP with the program's file, and PR_SET_THP_DISABLE.
    fn describe(&self, script: &mut Script<'_>, body: &Body) -> Result<()> {
        let exe = self.backing_fd(&Backing::File(body.memory.exe))?;
        script.batch.call(libc::SYS_pidfd_getfd, &[0, exe, 0]);
        // The program stays where it is the same: the kernel refuses one while files of the present one are
        // mapped (EBUSY), and the mappings of `rcsnap ready` are those of rcsnap.
        let same = same_file("/proc/self/exe", &format!("/proc/self/fd/{exe}"));
        memory::set_layout(&mut script.batch, &body.memory, if same { u64::from(u32::MAX) } else { 1 });
        script.batch.call(libc::SYS_close, &[1]);
        let personality = u64::from_str_radix(&body.sched.personality, 16).unwrap_or(0);
        script.batch.call(libc::SYS_personality, &[personality]);
        if body.no_thp {
            script.batch.call(libc::SYS_prctl, &[libc::PR_SET_THP_DISABLE as u64, 1, 0, 0, 0]);
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
        timer::arm(&mut script, &body.timers)?;
        script.flush()
    }

    /// Stage 6: the area goes, registers and masks are set, and the process runs.
    ///
    /// # Errors
    /// It died.
    pub fn release(&self, pid: u32) -> Result<()> {
        let body = self.body(pid)?;
        self.area(pid)?.vanish(pid)?;
        for thread in &body.threads {
            thread::finish(thread)?;
        }
        for thread in body.threads.iter().rev() {
            ptrace::detach(thread.tid, 0).context(KIND, format_args!("letting {} go", thread.tid))?;
        }
        Ok(())
    }
}

/// The most calls that one mapping's advice can take.
const FLAG_CALLS: usize = 12;
/// What threads of one process share (clone(2)).
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM) as u64;
