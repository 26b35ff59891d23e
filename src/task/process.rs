//! What belongs to a process as a whole, read from one that stands still: the order in which the kinds of
//! this folder look at it.

use crate::error::{Context, Refusal, Result};
use crate::kernel::sysvipc::adjusts;
use crate::sys::{fs, stat};
use crate::task::freeze::{self, Process};
use crate::task::memory::{self, Shared};
use crate::task::remote::{Area, Batch};
use crate::task::tree::Body;
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
}

/// Told of what cannot be carried: the kind, the object, and why.
pub type Refuse<'a> = dyn FnMut(&'static str, String, Refusal) + 'a;

/// The namespaces of a task (namespaces(7)), by name.
pub const NAMESPACES: [&str; 7] = ["mnt", "net", "ipc", "uts", "pid", "user", "cgroup"];
/// The time namespaces of a task: its own, and that of its next children.
pub const TIME_NAMESPACES: [&str; 2] = ["time", "time_for_children"];

/// The identity of a namespace of a thread: the link text of /proc/PID/task/TID/ns/NAME. Empty where the kernel
/// has no such namespaces.
#[must_use]
pub fn namespace(pid: u32, tid: u32, name: &str) -> String {
    fs::link(format!("/proc/{pid}/task/{tid}/ns/{name}"))
        .map(|link| link.to_string_lossy().into_owned())
        .unwrap_or_default()
}

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
    let memory = memory::capture(pid, &process.stat.layout, shared, &mut |object, refusal| {
        told("memory", object, refusal);
    })?;
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
    let tids: Vec<u32> = process.threads.iter().map(|t| t.tid).collect();
    if let Err(refusal) = timer::check(&posix, pid, &tids) {
        told("timer", "POSIX timer".into(), refusal);
    }
    let workdir =
        workdir::capture(pid, pid, &shared.root).map_err(|refusal| told("workdir", "cwd".into(), refusal));
    let terminal = terminal(process).map_err(|refusal| told("tty", "controlling terminal".into(), refusal));
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
    };
    let asked = ask_inside(process, &mut body, posix, (status.caught, status.ignored));
    let (subreaper, refusals) = asked?;
    complete &= refusals.is_empty();
    for (tid, refusal) in refusals {
        refuse("thread", format!("thread {tid}"), refusal);
    }
    Ok(complete.then_some(Captured { body, subreaper }))
}

/// The part that needs the process's own help: one batch for it and one for each further thread.
fn ask_inside(
    process: &Process,
    body: &mut Body,
    posix: Vec<timer::Posix>,
    dispositions: (u64, u64),
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
    area.run(pid, &mut batch)?;
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

/// The controlling terminal of a session leader: the path of one of its descriptors on it.
fn terminal(process: &Process) -> Result<Option<(String, u32)>, Refusal> {
    let stat = &process.stat;
    if stat.tty_nr == 0 || stat.session != stat.pid {
        return Ok(None);
    }
    let number = u64::from(stat.tty_nr.cast_unsigned());
    let folder = format!("/proc/{}/fd", stat.pid);
    for fd in fs::numbers(&folder).context("tty", format_args!("reading descriptors"))? {
        let link = format!("{folder}/{fd}");
        let Ok(found) = stat::stat(&link) else { continue };
        // tty_nr is the kernel's new_encode_dev: minor bits 0-7 and 20-31, major bits 8-19.
        let (major, minor) = (nix::sys::stat::major(found.rdev), nix::sys::stat::minor(found.rdev));
        let encoded = minor & 0xff | major << 8 | (minor & !0xff) << 12;
        if encoded == number && found.format() == libc::S_IFCHR {
            let path = fs::link_text(&link).context("tty", format_args!("reading a descriptor"))?;
            return Ok(Some((path, stat.tpgid.cast_unsigned())));
        }
    }
    Err(Refusal::new("no descriptor of its leader is open on it", "start the service without a terminal"))
}
