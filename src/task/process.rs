//! What belongs to a process as a whole, read from one that stands still: the order in which the kinds of
//! this folder look at it.

use crate::error::{Context, Refusal, Result};
use crate::file::{Entry, State, device, place, pty};
use crate::kernel::sysvipc::adjusts;
use crate::sorted::Listed;
use crate::sys::{fs, stat};
use crate::task::freeze::{self, Frozen, Process};
use crate::task::memory::{self, Shared};
use crate::task::remote::{Area, Batch};
use crate::task::tree::{Body, Stop};
use crate::task::{freeze::put_back, limit, sched, seccomp, sharing, signal, thread, timer, workdir};
use crate::text;

const KIND: &str = "task";

/// A live process, read.
#[derive(Debug)]
pub struct Captured {
    /// All but its descriptors.
    pub body: Body,
    /// PR_GET_CHILD_SUBREAPER.
    pub subreaper: bool,
    /// Its stopped children for which it has not waited (WUNTRACED of waitpid(2)).
    pub news: Vec<u32>,
}

/// Told of what cannot be carried: the kind, the object, and why.
pub type Refuse<'a> = dyn FnMut(&'static str, String, Refusal) + 'a;

/// The label that a security module gave to a thread; empty without such a module.
#[must_use]
pub fn label(pid: u32, tid: u32) -> String {
    let text = fs::text(format!("/proc/{pid}/task/{tid}/attr/current")).unwrap_or_default();
    text::without_end(text::without_end(&text, "\n"), "\0").to_owned()
}

/// Reads a live process. Its descriptors are added by the caller. When this returns the process stands as
/// it stood before: same registers, same memory.
///
/// # Errors
/// It died, or something that must work does not.
pub fn capture(
    process: &Process,
    frozen: &Frozen,
    shared: &mut Shared,
    groups: &sharing::Groups,
    refuse: &mut Refuse<'_>,
) -> Result<Option<Captured>> {
    let pid = process.pid;
    let status = freeze::read_status(pid);
    let mut complete = true;
    let mut told = |kind: &'static str, object: String, refusal: Refusal| {
        complete = false;
        refuse(kind, object, refusal);
    };
    if adjusts(pid, process.threads.len()) {
        let reason = "it may have adjustments (SEM_UNDO), which nobody can read";
        told("sysvipc", "semaphores".into(), Refusal::new(reason, "rerun the service"));
    }
    let sharing = groups.of(pid);
    let memory = if sharing.memory == pid {
        memory::capture(pid, &process.stat.layout, shared, &mut |object, refusal| {
            told("memory", object, refusal);
        })?
    } else {
        memory::State::default()
    };
    let queue = signal::queued(pid, true).context(KIND, format_args!("reading signals of {pid}"))?;
    if let Err(refusal) = signal::check_queue(&queue) {
        told("signal", "queue".into(), refusal);
    }
    let mut threads = Vec::new();
    for t in &process.threads {
        let seccomp = seccomp::capture(t.tid, &mut shared.filters);
        let seccomp = seccomp.map_err(|refusal| told("seccomp", format!("thread {}", t.tid), refusal));
        match thread::capture(pid, t, seccomp.unwrap_or_default()) {
            Ok(mut state) => {
                if groups.is_apart(pid, t.tid) {
                    let own = workdir::capture(pid, t.tid, &shared.root);
                    state.workdir =
                        own.map_err(|refusal| told("workdir", format!("thread {}", t.tid), refusal)).ok();
                }
                threads.push(state);
            }
            Err(refusal) => told("thread", format!("thread {}", t.tid), refusal),
        }
    }
    let posix = timer::parse(&fs::of_task(pid, "timers").unwrap_or_default());
    let tids: Vec<u32> = process.threads.iter().map(|t| t.tid).list();
    if let Err(refusal) = timer::check(&posix, pid, &tids) {
        told("timer", "POSIX timer".into(), refusal);
    }
    let workdir =
        workdir::capture(pid, pid, &shared.root).map_err(|refusal| told("workdir", "cwd".into(), refusal));
    let terminal = terminal(process, &shared.root)
        .map_err(|refusal| told("tty", "controlling terminal".into(), refusal));
    let (Ok(workdir), Ok(terminal), true) = (workdir, terminal, complete) else { return Ok(None) };
    let mut body = Body {
        threads,
        memory,
        actions: Vec::new(),
        queue,
        timers: timer::State::default(),
        limits: limit::State { limits: Vec::new() },
        sched: sched::capture_process(pid),
        workdir,
        dumpable: 1,
        no_thp: false,
        fds: Vec::new(),
        locks: Vec::new(),
        terminal,
        stop: process.stop.map(|signal| Stop { signal, seen: true }),
    };
    let stopped = frozen.processes.values().filter(|child| child.stat.ppid == pid && child.stop.is_some());
    let mut news: Vec<u32> = stopped.map(|child| child.pid).list();
    let asked = ask_inside(process, &mut body, posix, (status.caught, status.ignored), &mut news);
    let (subreaper, refusals) = asked?;
    if sharing.actions != pid {
        body.actions.clear();
    }
    complete &= refusals.is_empty();
    for (tid, refusal) in refusals {
        refuse("thread", format!("thread {tid}"), refusal);
    }
    Ok(complete.then_some(Captured { body, subreaper, news }))
}

/// The part that needs the process's own help: one batch for it and one for each further thread. Of the stopped
/// children those are kept for which it has not waited.
fn ask_inside(
    process: &Process,
    body: &mut Body,
    posix: Vec<timer::Posix>,
    dispositions: (u64, u64),
    children: &mut Vec<u32>,
) -> Result<(bool, Vec<(u32, Refusal)>)> {
    let pid = process.pid;
    let mut refusals = Vec::new();
    let Some(leader) = process.threads.first() else { return Ok((false, refusals)) };
    let mut area = Area::inject(pid, pid, &leader.regs, 0)?;
    let sets = body.threads.first().map(|state| state.sets.clone()).unwrap_or_default();
    area.go_on(&leader.rewound(), &sets, leader.mask)?;
    let mut batch = Batch::new(area.base());
    let brk = memory::ask(&mut batch);
    let actions = signal::ask_actions(&mut batch, dispositions.0, dispositions.1);
    let timers = timer::ask(&mut batch, &posix);
    let dumpable = batch.call(libc::SYS_prctl, &[libc::PR_GET_DUMPABLE as u64, 0, 0, 0, 0]);
    let no_thp = batch.try_call(libc::SYS_prctl, &[libc::PR_GET_THP_DISABLE as u64, 0, 0, 0, 0]);
    let limits = limit::ask(&mut batch);
    let reaper = batch.room(8);
    batch.call(libc::SYS_prctl, &[libc::PR_GET_CHILD_SUBREAPER as u64, reaper, 0, 0, 0]);
    let asked = thread::ask(&mut batch, pid);
    let news: Vec<u64> = children.iter().map(|child| freeze::ask_stop(&mut batch, *child)).list();
    area.run(pid, &mut batch)?;
    let mut news = news.into_iter().map(|info| batch.half(info) != 0);
    children.retain(|_| news.next().unwrap_or(false));
    let subreaper = batch.half(reaper) != 0;
    body.limits = limit::capture(&batch, limits);
    body.memory.brk = batch.result(brk).cast_unsigned();
    body.actions = signal::actions(&batch, &actions);
    body.timers = timer::capture(&batch, &timers, posix);
    body.dumpable = u32::try_from(batch.result(dumpable)).unwrap_or(1);
    body.no_thp = batch.result(no_thp) == 1;
    if let Some(state) = body.threads.first_mut() {
        refusals.extend(thread::complete(state, &batch, asked).err().map(|refusal| (pid, refusal)));
    }
    for (t, state) in process.threads.iter().zip(&mut body.threads).skip(1) {
        crate::sys::ptrace::set_sigmask(t.tid, !(1 << (libc::SIGTRAP - 1)))
            .context(KIND, format_args!("blocking signals of {}", t.tid))?;
        let mut batch = Batch::new(area.base());
        let asked = thread::ask(&mut batch, t.tid);
        area.run(t.tid, &mut batch)?;
        refusals.extend(thread::complete(state, &batch, asked).err().map(|refusal| (t.tid, refusal)));
        put_back(t, &state.sets)?;
    }
    area.eject(pid, &leader.regs)?;
    put_back(leader, &sets)?;
    Ok((subreaper, refusals))
}

/// The device number of the terminal of a process.
fn tty_number(process: &Process) -> u64 {
    // tty_nr is the kernel's new_encode_dev: minor bits 0-7 and 20-31, major bits 8-19.
    let encoded = u64::from(process.stat.tty_nr.cast_unsigned());
    nix::sys::stat::makedev(encoded >> 8 & 0xfff, encoded & 0xff | encoded >> 12 & 0xf_ff00)
}

/// The controlling terminal of a session leader: the path of one of its descriptors on it, or else its usual name.
fn terminal(process: &Process, root: &str) -> Result<Option<(String, u32)>, Refusal> {
    let stat = &process.stat;
    if stat.tty_nr == 0 || stat.session != stat.pid {
        return Ok(None);
    }
    let number = tty_number(process);
    let folder = format!("/proc/{}/fd", stat.pid);
    let is_it = |path: &str| {
        stat::stat(path).is_ok_and(|found| found.rdev == number && found.format() == libc::S_IFCHR)
    };
    let fds = fs::numbers(&folder).context("tty", format_args!("reading descriptors"))?;
    let link = fds.iter().map(|fd| format!("{folder}/{fd}")).find(|link| is_it(link));
    let path = match (link, device::numbers(number)) {
        (Some(link), _) => Some(fs::link_text(link).context("tty", format_args!("reading a descriptor"))?),
        // sysfs does not know it.
        (None, (pty::SLAVE, index)) => Some(format!("/dev/pts/{index}")),
        (None, _) => place::device_name(number, false, root),
    };
    match path.filter(|path| is_it(&format!("{root}{path}"))) {
        Some(path) => Ok(Some((path, stat.tpgid.cast_unsigned()))),
        None => Err(Refusal::new("its name does not lead to it", "start the service without a terminal")),
    }
}

/// Whether the terminal of a session leader will be there, and somebody in its foreground.
///
/// # Errors
/// A refusal if the pseudo-terminal is made by somebody else, or its foreground group has ended.
pub fn check_terminal(process: &Process, frozen: &Frozen, entries: &[Entry]) -> Result<(), Refusal> {
    let makes = |entry: &Entry, number: u64| match &entry.state {
        State::Pty(pty) => {
            pty.body.as_ref().is_some_and(|body| body.live.is_some() && number == body.index.into())
        }
        _ => false,
    };
    let reason = match device::numbers(tty_number(process)) {
        (pty::SLAVE, number) if !entries.iter().any(|entry| makes(entry, number)) => {
            "the master of the pseudo-terminal is outside the image"
        }
        _ if !frozen
            .processes
            .values()
            .any(|other| other.stat.pgrp == process.stat.tpgid.cast_unsigned()) =>
        {
            "its foreground group has ended"
        }
        _ => return Ok(()),
    };
    Err(Refusal::new(reason, "start the service without a terminal"))
}
