//! Puppets: the tasks being rebuilt, and the conductor's hands on them.
//!
//! The stages of a puppet, each for all of them before the next begins:
//! 1. made, by whom the plan of `tree.rs` says, with its pid, session and group;
//! 2. cleared and laid out: its mappings as captured, empty;
//! 3. filled, by one pass over the image's blocks;
//! 4. assembled: descriptors, threads, everything that a task must do itself;
//! 5. finished: timers armed, the batch area gone, registers set. It waits for the release.
//!
//! PID 1 goes through 2 to 5 after all others: its stage 2 is the commit.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::error::{Context, Error, Result};
use crate::image::pages::Run;
use crate::sys::clone::{self, CLONE_ARGS};
use crate::sys::descriptor;
use crate::sys::ptrace::{self, Status};
use crate::sys::vm;
use crate::task::memory::{self, Backing, MappedFile, Object};
use crate::task::pages::{self, Memory, Place};
use crate::task::remote::{AREA, Area, Batch, Script};
use crate::task::tree::{Body, Process, Step};
use crate::task::{creds, freeze, limit, sched, signal, thread, timer, workdir};

const KIND: &str = "puppet";
/// Numbers of tty_ioctl(2), whose type differs between C libraries.
const TIOCSCTTY: u64 = 0x540e;
const TIOCSPGRP: u64 = 0x5410;
/// Whether two paths lead to one file.
fn same_file(one: &str, other: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
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
    own: Own,
    exact_timers: bool,
    areas: BTreeMap<u32, Area>,
}

/// Opens the files that processes map, at numbers from `base` on.
///
/// # Errors
/// One of them is gone.
pub fn open_files(files: &[MappedFile], base: i32) -> Result<Vec<OwnedFd>> {
    let open = |f: &MappedFile| {
        let doing = || format!("opening {}", f.path);
        let file = std::fs::File::options().read(true).write(f.writable).open(&f.path);
        descriptor::raise(file.context("memory", doing)?.into(), base).context("memory", doing)
    };
    files.iter().map(open).collect()
}

/// Makes the shared anonymous memory, empty.
///
/// # Errors
/// There is no room.
pub fn make_objects(objects: &[Object], base: i32) -> Result<Vec<OwnedFd>> {
    let doing = |o: &Object| format!("making shared memory {}", o.path);
    let make = |o: &Object| {
        let fd = match o.path.as_str() {
            "" => vm::shared_anonymous(o.size).context("memory", || doing(o))?,
            _ => deleted_file(o)?,
        };
        descriptor::raise(fd, base).context("memory", || doing(o))
    };
    objects.iter().map(make).collect()
}

/// A file without a name any more, at the place where the captured one had been.
fn deleted_file(object: &Object) -> Result<OwnedFd> {
    let doing = || format!("making the deleted file {}", object.path);
    let mut options = std::fs::File::options();
    options.read(true).write(true).create_new(true);
    let mut path = object.path.clone();
    let file = options.open(&path).or_else(|_| {
        // The name is taken by a newer file.
        path.push_str(".deleted");
        options.open(&path)
    });
    let file = file.context("memory", doing)?;
    std::fs::remove_file(&path).context("memory", doing)?;
    file.set_len(object.size).context("memory", doing)?;
    Ok(file.into())
}

/// An address where the batch area lies outside every mapping of the image and of ourselves.
fn choose_base(processes: &[Process]) -> Result<u64> {
    let own = std::fs::read_to_string("/proc/self/smaps").context(KIND, || "reading /proc/self/smaps")?;
    let mut taken: Vec<(u64, u64)> =
        crate::proc::smaps::parse(&own).iter().map(|m| (m.start, m.end)).collect();
    for body in processes.iter().filter_map(|p| p.body.as_ref()) {
        taken.extend(body.memory.vmas.iter().map(|v| (v.start, v.end)));
        taken.push(body.memory.vdso);
    }
    // 256 pages: the gap that a growing stack keeps below itself.
    let gap = 0x10_0000;
    let mut at = 0x2000_0000u64;
    taken.sort_unstable();
    for (start, end) in taken {
        if start >= at + AREA + gap {
            break;
        }
        at = at.max(end.next_multiple_of(0x1000) + gap);
    }
    if at + AREA < crate::arch::TASK_TOP {
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
        let base = choose_base(processes)?;
        Area::prepare(base)?;
        let status = freeze::read_status(me);
        let own = Own {
            limits: limit::own().context(KIND, || "reading our own limits")?,
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
            own,
            exact_timers: crate::sys::clone::has_timer_ids(),
            areas: BTreeMap::new(),
        })
    }

    pub(super) fn area(&self, pid: u32) -> Result<&Area> {
        self.areas.get(&pid).ok_or_else(|| Error::new(KIND, format!("using puppet {pid}"), "it was not made"))
    }

    fn process(&self, pid: u32) -> Option<&'a Process> {
        self.processes.iter().find(|p| p.ids.pid == pid)
    }

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
        for (process, status) in zombies.collect::<Vec<_>>() {
            self.die(process, status)?;
        }
        Ok(())
    }

    fn one(&self, pid: u32, number: i64, args: &[u64], doing: &'static str) -> Result<()> {
        let area = self.area(pid)?;
        let mut batch = Batch::new(area.base());
        batch.call(number, args);
        batch.doing(doing);
        area.run(pid, &mut batch)
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
    fn terminal(&self, pid: u32, path: &str, ioctl: &[u64], doing: &'static str) -> Result<()> {
        let area = self.area(pid)?;
        let mut batch = Batch::new(area.base());
        let name = batch.path(path);
        let flags = u64::from((libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK).cast_unsigned());
        // Closed and opened again under a number that is certain.
        batch.try_call(libc::SYS_close, &[0]);
        batch.call(libc::SYS_open, &[name, flags]);
        batch.doing("opening the controlling terminal");
        let argument = ioctl.get(1).copied().unwrap_or(0);
        let argument = if argument == 0 { 0 } else { batch.bytes(&argument.to_ne_bytes()) };
        batch.call(libc::SYS_ioctl, &[0, ioctl[0], argument]);
        batch.doing(doing);
        batch.call(libc::SYS_close, &[0]);
        area.run(pid, &mut batch)
    }

    fn create_here(&mut self, pid: u32) -> Result<()> {
        let doing = || format!("making process {pid}");
        let sibling = self.init.is_some() && self.process(pid).is_some();
        clone::puppet(pid, sibling).context(KIND, doing)?;
        ptrace::seize(pid, ptrace::FOLLOW | ptrace::EXITKILL).context(KIND, doing)?;
        ptrace::interrupt(pid).context(KIND, doing)?;
        first_stop(pid)?;
        ptrace::set_sigmask(pid, ALL_BUT_TRAP).context(KIND, doing)?;
        let area = Area::inherited(self.base, pid);
        let mut batch = Batch::new(self.base);
        thread::forget_rseq(pid, &mut batch)?;
        area.run(pid, &mut batch)?;
        self.areas.insert(pid, area);
        Ok(())
    }

    fn create_by(&mut self, by: u32, pid: u32) -> Result<()> {
        // A process that only lives for a moment tells its maker nothing when it goes.
        let signal = if self.process(pid).is_some() { libc::SIGCHLD } else { 0 };
        let area = self.area(by)?;
        let mut batch = Batch::new(area.base());
        clone_call(&mut batch, pid, 0, signal);
        area.run(by, &mut batch)?;
        first_stop(pid)?;
        self.areas.insert(pid, Area::inherited(self.base, pid));
        Ok(())
    }

    /// Ends a process that was needed for a moment; its maker reaps it.
    fn end(&mut self, by: Option<u32>, pid: u32) -> Result<()> {
        clone::kill(pid).context(KIND, || format!("ending {pid}"))?;
        wait_gone(pid)?;
        self.areas.remove(&pid);
        let Some(by) = by else { return Ok(()) };
        let wall = u64::from(libc::__WALL.cast_unsigned());
        self.one(by, libc::SYS_wait4, &[u64::from(pid), 0, wall, 0], "reaping a helper")
    }

    /// Makes a puppet the zombie that it was.
    fn die(&mut self, process: &Process, status: i32) -> Result<()> {
        let (pid, parent) = (process.ids.pid, process.ids.ppid);
        let doing = || format!("ending {pid} as a zombie");
        let signal = status & 0x7f;
        let area = self.area(pid)?;
        let mut batch = Batch::new(area.base());
        let name = batch.path(&process.comm);
        batch.call(libc::SYS_prctl, &[libc::PR_SET_NAME as u64, name, 0, 0, 0]);
        if signal == 0 {
            batch.call(libc::SYS_exit_group, &[u64::from((status >> 8 & 0xff).cast_unsigned())]);
            area.run_to_death(pid, &mut batch)?;
        } else {
            let none = batch.room(16);
            batch.call(libc::SYS_prlimit64, &[0, limit::RLIMIT_CORE, none, 0]);
            area.run(pid, &mut batch)?;
            ptrace::set_sigmask(pid, 0).context(KIND, doing)?;
            ptrace::cont(pid, signal).context(KIND, doing)?;
            if signal == libc::SIGKILL {
                clone::kill(pid).context(KIND, doing)?;
            }
        }
        wait_gone(pid)?;
        self.areas.remove(&pid);
        if self.areas.contains_key(&parent) {
            // The parent's queue comes from the image; this death must not add to it.
            let area = self.area(parent)?;
            let mut batch = Batch::new(area.base());
            let set = batch.bytes(&(1u64 << (libc::SIGCHLD - 1)).to_ne_bytes());
            let now = batch.room(16);
            batch.try_call(libc::SYS_rt_sigtimedwait, &[set, 0, now, 8]);
            area.run(parent, &mut batch)?;
        }
        Ok(())
    }

    /// Takes a process that exists already, PID 1, in hand. It does not notice before stage 2.
    ///
    /// # Errors
    /// It cannot be traced.
    pub fn seize(&mut self, pid: u32) -> Result<()> {
        let doing = || format!("seizing {pid}");
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
        memory::clear(&mut script.batch, &body.memory, self.base);
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

    fn backing_fd(&self, backing: &Backing) -> Result<u64> {
        let fd = match backing {
            Backing::Anonymous => None,
            Backing::Shared(index) => self.objects.get(*index as usize),
            Backing::File(index) => self.files.get(*index as usize),
            Backing::Entry(index) => self.entries.get(*index as usize),
        };
        let fd = fd.ok_or_else(|| Error::new(KIND, "mapping a file", "the image does not have it"))?;
        Ok(u64::from(fd.as_raw_fd().cast_unsigned()))
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
        timer::restore(&mut script.batch, &body.timers, self.exact_timers);
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

    /// Gives the process its descriptors. Numbers are known beforehand: pidfd_getfd(2) returns the lowest free one, and they are taken in ascending order.
    fn place_fds(&self, script: &mut Script<'_>, body: &Body) -> Result<()> {
        let mut fds: Vec<_> = body.fds.iter().collect();
        fds.sort_by_key(|fd| fd.fd);
        let number = |fd: i32| u64::from(fd.cast_unsigned());
        let above = fds.last().map_or(0, |fd| fd.fd) + 1;
        script.ensure(4, 0)?;
        script.batch.call(libc::SYS_dup3, &[0, number(above), number(libc::O_CLOEXEC)]);
        script.batch.call(libc::SYS_close, &[0]);
        for (lowest, fd) in (0i32..).zip(fds) {
            script.ensure(5, 0)?;
            let here = self.entries.get(fd.entry as usize);
            let here =
                here.ok_or_else(|| Error::new(KIND, "placing a descriptor", "the image does not have it"))?;
            script.batch.call(libc::SYS_pidfd_getfd, &[number(above), number(here.as_raw_fd()), 0]);
            script.batch.doing("taking a descriptor from the conductor");
            // All below are placed. If they leave no gap, the lowest free number is the wanted one.
            if lowest == fd.fd {
                let flag = if fd.cloexec { libc::FD_CLOEXEC } else { 0 };
                script.batch.call(libc::SYS_fcntl, &[number(fd.fd), number(libc::F_SETFD), number(flag)]);
            } else {
                let flag = if fd.cloexec { libc::O_CLOEXEC } else { 0 };
                let gap = first_gap(&body.fds, fd.fd);
                script.batch.call(libc::SYS_dup3, &[number(gap), number(fd.fd), number(flag)]);
                script.batch.call(libc::SYS_close, &[number(gap)]);
            }
        }
        script.ensure(4, 16)?;
        script.batch.call(libc::SYS_close, &[number(above)]);
        Ok(())
    }

    /// Stage 5: timers, queued signals, the area away, registers. The process is ready to be let go.
    ///
    /// # Errors
    /// The call that failed, with the process.
    pub fn finish(&self, pid: u32) -> Result<()> {
        let body = self.body(pid)?;
        let area = self.area(pid)?;
        for thread in body.threads.iter().skip(1).filter(|t| !t.queue.is_empty()) {
            let mut batch = Batch::new(area.base());
            signal::restore_queue(&mut batch, pid, Some(thread.tid), &thread.queue);
            area.run(thread.tid, &mut batch)?;
        }
        let mut script = Script::new(area, pid);
        let queue = body.threads.first().map_or(&[][..], |t| &t.queue);
        signal::restore_queue(&mut script.batch, pid, Some(pid), queue);
        signal::restore_queue(&mut script.batch, pid, None, &body.queue);
        script.ensure(600, 600 * 32)?;
        timer::arm(&mut script.batch, &body.timers);
        script.flush()?;
        area.vanish(pid)?;
        for thread in &body.threads {
            thread::finish(thread)?;
        }
        Ok(())
    }

    /// Lets a finished process go.
    ///
    /// # Errors
    /// It died.
    pub fn release(&self, pid: u32) -> Result<()> {
        for thread in self.body(pid)?.threads.iter().rev() {
            ptrace::detach(thread.tid, 0).context(KIND, || format!("letting {} go", thread.tid))?;
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

/// The lowest number below `fd` that no descriptor of the process has.
fn first_gap(fds: &[crate::file::Fd], fd: i32) -> i32 {
    (0..fd).find(|n| fds.iter().all(|f| f.fd != *n)).unwrap_or(fd)
}

/// fcntl(2) with F_SETLK and a struct flock: type, whence, start, length, pid.
fn take_lock(batch: &mut Batch, lock: &crate::file::lock::Posix) {
    let kind = if lock.write { libc::F_WRLCK } else { libc::F_RDLCK };
    let mut bytes = u64::from(kind.cast_unsigned()).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&lock.start.to_ne_bytes());
    bytes.extend_from_slice(&lock.len.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    let room = batch.bytes(&bytes);
    let fd = u64::from(lock.fd.cast_unsigned());
    batch.call(libc::SYS_fcntl, &[fd, u64::from(libc::F_SETLK.cast_unsigned()), room]);
    batch.doing("taking a lock");
}

/// Adds clone3(2) with a chosen id.
fn clone_call(batch: &mut Batch, tid: u32, flags: u64, signal: i32) {
    let wanted = batch.bytes(&tid.to_ne_bytes());
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    // set_tid_size.
    let args = [flags, 0, 0, 0, u64::from(signal.cast_unsigned()), 0, 0, 0, wanted, 1];
    let bytes: Vec<u8> = args.iter().flat_map(|w| w.to_ne_bytes()).collect();
    let room = batch.bytes(&bytes);
    batch.call(libc::SYS_clone3, &[room, CLONE_ARGS]);
    batch.doing("making a task");
}

/// Waits for the first stop of a task that was just attached.
fn first_stop(tid: u32) -> Result<()> {
    let doing = || format!("waiting for {tid}");
    loop {
        let Some((_, status)) = ptrace::wait(tid.cast_signed(), 0).context(KIND, doing)? else { continue };
        match ptrace::decode(status) {
            Status::Interrupted => return Ok(()),
            Status::Signal(_) | Status::Syscall => ptrace::cont(tid, 0).context(KIND, doing)?,
            other => return Err(Error::new(KIND, doing(), format!("stopped by {other:?}"))),
        }
    }
}

/// Waits until a task is gone.
fn wait_gone(pid: u32) -> Result<()> {
    loop {
        match ptrace::wait(pid.cast_signed(), 0).context(KIND, || format!("waiting for the end of {pid}"))? {
            Some((_, status)) if matches!(ptrace::decode(status), Status::Gone(_)) => return Ok(()),
            _ => {}
        }
    }
}

/// Puts the runs of one block where they belong.
///
/// # Errors
/// The image names an address space that it does not have, or a puppet died.
pub fn place(places: &mut [Place<'_>], run: &Run, bytes: &[u8]) -> Result<()> {
    let place = places.get_mut(run.mm as usize);
    let place = place
        .ok_or_else(|| Error::new(KIND, format!("filling memory {}", run.mm), "there is no such one"))?;
    place.put(run, bytes)
}
