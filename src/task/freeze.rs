//! Stopping every task of the world, once, and letting it go again.
//!
//! PTRACE_SEIZE and PTRACE_INTERRUPT only: a second interruption would destroy the number of an interrupted
//! system call on x86. New children of stopped-for tasks are attached by the kernel (PTRACE_O_TRACE*), and
//! the sweep repeats until a whole pass over /proc finds nothing new. PID 1 goes first: stopped, it starts
//! nothing. A task in vfork(2) does not stop before its child has called execve(2) or exited, so its child
//! is left running until then. The tracer's death detaches all, and they run on.

use crate::sorted::Listed;
mod stop;

use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::arch::{self, Cpu, Processor, Regs, Set};
use crate::error::{Context, Error, Obstacle, Refusal, Result};
use crate::file::Scope;
use crate::proc::stat::{self, PF_KTHREAD, Stat};
use crate::proc::status;
use crate::proc::syscall::{self, Call};
use crate::sorted::{self, Map};
use crate::sys::clone;
use crate::sys::fs;
use crate::sys::ptrace;
use crate::task::remote::Batch;
use crate::task::signal;

const KIND: &str = "freeze";

/// A stopped thread.
#[derive(Debug)]
pub struct Thread {
    /// Its id.
    pub tid: u32,
    /// General registers at the stop, as they are: not rewound.
    pub regs: Regs,
    /// Blocked signals at the stop.
    pub mask: u64,
    /// The system call that it slept in before the stop, where the registers do not tell all of it.
    pub asleep: Option<Call>,
    /// Whether a signal is pending whose handler will run as soon as the thread does.
    pub signal_waits: bool,
}

impl Thread {
    /// Registers with which the call that was interrupted starts again, in whatever process.
    #[must_use]
    pub fn rewound(&self) -> Regs {
        let mut regs = self.regs.clone();
        Cpu::rewind(&mut regs, self.asleep.as_ref(), self.signal_waits);
        regs
    }

    /// Registers with which the live thread goes on.
    fn resumed(&self) -> Regs {
        let mut regs = self.regs.clone();
        Cpu::resume(&mut regs, self.asleep.as_ref(), self.signal_waits);
        regs
    }
}

/// A stopped process, or a zombie.
#[derive(Debug)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// /proc/PID/stat after the stop.
    pub stat: Stat,
    /// The threads, the leader first; empty for a zombie.
    pub threads: Vec<Thread>,
    /// The signal that had stopped it before.
    pub stop: Option<i32>,
}

/// Every task of the world is stopped. Dropping it lets them run.
#[derive(Debug)]
pub struct Frozen {
    /// The processes by pid.
    pub processes: Map<u32, Process>,
    /// What could not be stopped faithfully.
    pub obstacles: Vec<Obstacle>,
    /// Every seized task: its process.
    pub tids: Map<u32, u32>,
    /// The calls that they slept in, where that must be known.
    asleep: Map<u32, Call>,
    /// Those whose stop we have seen.
    stopped: sorted::Set<u32>,
    /// Those that a signal had stopped before, and which.
    stops: Map<u32, i32>,
    gone: bool,
}

/// Whom to stop.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Whole system, or the tree under `root`.
    pub scope: Scope,
    /// PID 1, or the root of the tree.
    pub root: u32,
    /// A process that is left alone, with its threads: the one that captures.
    pub except: u32,
    /// Processes that are left alone with all their descendants.
    pub leave_out: &'a [u32],
    /// How long to wait for tasks in uninterruptible sleep.
    pub patience: Duration,
}

/// Reads /proc/PID/stat; `None` when the task is gone.
#[must_use]
pub fn read_stat(pid: u32) -> Option<Stat> {
    stat::parse(&fs::of_task(pid, "stat").ok()?)
}

/// Reads /proc/PID/status; a default when the task is gone.
#[must_use]
pub fn read_status(pid: u32) -> status::Status {
    status::parse(&fs::of_task(pid, "status").unwrap_or_default())
}

/// Every process of this /proc that is not a thread of the kernel.
fn all_processes() -> Result<Vec<Stat>> {
    let pids = fs::numbers("/proc").context(KIND, format_args!("reading /proc"))?;
    Ok(pids.into_iter().filter_map(read_stat).filter(|s| s.flags & PF_KTHREAD == 0).list())
}

/// The tasks of the scope, parents before children.
fn members(request: &Request<'_>) -> Result<Vec<Stat>> {
    let mut all = all_processes()?;
    let descent: Map<u32, u32> = all.iter().map(|s| (s.pid, s.ppid)).list().into();
    all.retain(|s| s.pid != request.except);
    let mut found: Vec<Stat> = Vec::new();
    match request.scope {
        Scope::System => {
            // Children of the capturing process are its own helpers.
            all.retain(|s| s.ppid != request.except);
            sorted::sort_by_key(&mut all, |s| (s.pid != request.root, s.pid));
            found = all;
        }
        Scope::Tree => {
            let mut wave: Vec<u32> = vec![request.root];
            found.extend(all.iter().filter(|s| s.pid == request.root).cloned());
            while !wave.is_empty() {
                let next: Vec<Stat> = all.iter().filter(|s| wave.contains(&s.ppid)).cloned().list();
                wave = next.iter().map(|s| s.pid).list();
                found.extend(next);
            }
        }
    }
    found.retain(|s| !is_left_out(s.pid, request.leave_out, &descent));
    Ok(found)
}

/// Whether a process or one of its ancestors is in the list.
fn is_left_out(pid: u32, list: &[u32], parents: &Map<u32, u32>) -> bool {
    let mut at = Some(pid);
    while let Some(pid) = at {
        if list.contains(&pid) {
            return true;
        }
        at = parents.get(&pid).copied().filter(|parent| *parent != pid);
    }
    false
}

fn led_by_none(stat: &Stat) -> Obstacle {
    let refusal = Refusal::new("its leader has exited while threads live", "none in this version");
    Obstacle::process(KIND, stat.pid, &*stat.comm, "thread", refusal)
}

fn is_dead(tid: u32) -> bool {
    read_stat(tid).is_none_or(|stat| matches!(stat.state, 'Z' | 'X'))
}

fn threads_of(pid: u32) -> Vec<u32> {
    let mut tids = fs::numbers(format!("/proc/{pid}/task")).unwrap_or_default();
    sorted::sort_by_key(&mut tids, |tid| *tid != pid);
    tids
}

/// Stops the world.
///
/// # Errors
/// The scope's root does not exist, a task does not stop in time, or somebody else traces one.
pub fn freeze(request: &Request<'_>) -> Result<Frozen> {
    let mut world = Frozen {
        processes: Map::new(),
        obstacles: Vec::new(),
        tids: Map::new(),
        asleep: Map::new(),
        stopped: sorted::Set::new(),
        stops: Map::new(),
        gone: false,
    };
    let deadline = Instant::now() + request.patience;
    loop {
        let mut new = false;
        for process in members(request)?.iter().filter(|s| s.state != 'Z' && s.state != 'X') {
            for tid in threads_of(process.pid) {
                new |= world.seize(tid, process.pid)?;
            }
        }
        if !new {
            break;
        }
        world.collect(deadline)?;
        if Instant::now() > deadline {
            break; // what did not stop is named
        }
    }
    for stat in members(request)? {
        world.take(stat)?;
    }
    if world.obstacles.is_empty() && !world.processes.contains_key(&request.root) {
        return Err(Error::new(
            KIND,
            format!("stopping process {}", request.root),
            "there is no such process",
        ));
    }
    Ok(world)
}

impl Frozen {
    /// Seizes a task that is new, and asks it to stop.
    fn seize(&mut self, tid: u32, tgid: u32) -> Result<bool> {
        if self.tids.contains_key(&tid) {
            return Ok(false);
        }
        match ptrace::seize(tid, ptrace::FOLLOW) {
            Ok(()) => {
                self.tids.insert(tid, tgid);
                if Cpu::FORGETS_ARGUMENT
                    && let Ok(text) = fs::of_task(tid, "syscall")
                    && let Some(call) = syscall::parse(&text)
                {
                    self.asleep.insert(tid, call);
                }
                // ESRCH: it died since; the wait will tell.
                let _ = ptrace::interrupt(tid);
                Ok(true)
            }
            Err(Errno::ESRCH) => Ok(false),
            Err(errno) => {
                let tracer = read_status(tid).tracer;
                let stat = read_stat(tid);
                // EPERM: it has died since it was listed; the list of the next round says so.
                if stat.as_ref().is_none_or(|stat| matches!(stat.state, 'Z' | 'X')) {
                    return Ok(false);
                }
                let name = stat.map(|s| s.comm).unwrap_or_default();
                if tracer == std::process::id() {
                    // A child that was attached to us when it was made.
                    self.tids.insert(tid, tgid);
                    return Ok(true);
                }
                let doing = format!("seizing {name}[{tid}]");
                match tracer {
                    0 => Err(Error::os(KIND, doing, errno)),
                    _ => Err(Error::new(KIND, doing, format!("process {tracer} traces it already"))),
                }
            }
        }
    }

    /// Puts a stopped process into the list.
    fn take(&mut self, stat: Stat) -> Result<()> {
        let pid = stat.pid;
        let mut threads = Vec::new();
        let refused = |o: &Obstacle| o.kind == KIND && o.pid == pid;
        if self.obstacles.iter().any(refused) {
            return Ok(()); // named already; it cannot be looked at
        }
        if stat.state == 'Z' {
            if !threads_of(pid).into_iter().all(is_dead) {
                self.obstacles.push(led_by_none(&stat));
            }
        } else {
            let shared = signal::queued(pid, true).unwrap_or_default();
            for tid in threads_of(pid) {
                let doing = format_args!("reading registers of {}[{tid}]", stat.comm);
                match ptrace::regs(tid) {
                    Ok(regs) => {
                        let mask = ptrace::sigmask(tid).context(KIND, doing)?;
                        let own = signal::queued(tid, false).context(KIND, doing)?;
                        let signal_waits = signal::will_run(&own, mask)
                            || signal::will_run(&shared, mask)
                            || tid == pid && self.stops.contains_key(&tid) && is_told_to_go_on(pid, mask);
                        let asleep = self.asleep.remove(&tid);
                        threads.push(Thread { tid, regs, mask, asleep, signal_waits });
                    }
                    Err(Errno::ESRCH) if is_dead(tid) => self.obstacles.push(led_by_none(&stat)),
                    Err(Errno::ESRCH) => {
                        let refusal = Refusal::new(
                            "it lives on the memory of its parent, which waits for it in vfork(2)",
                            "let it call execve(2) or exit before `rcsnap ready`",
                        );
                        self.obstacles.push(Obstacle::process("freeze", pid, &*stat.comm, "task", refusal));
                    }
                    Err(Errno::ENOSYS) => {
                        let refusal = Refusal::new("it is a 32-bit program on a 64-bit kernel", "use 64 bit");
                        self.obstacles.push(Obstacle::process("freeze", pid, &*stat.comm, "task", refusal));
                    }
                    Err(errno) => return Err(Error::os(KIND, doing.to_string(), errno)),
                }
            }
        }
        let stop = stop::agreed(threads.iter().map(|t| self.stops.get(&t.tid).copied()));
        let stop = stop.unwrap_or_else(|refusal| {
            self.obstacles.push(Obstacle::process(KIND, pid, &*stat.comm, "stopped job", refusal));
            None
        });
        self.processes.insert(pid, Process { pid, stat, threads, stop });
        Ok(())
    }

    /// Kills every process and waits until their numbers are free again.
    ///
    /// # Errors
    /// A process cannot be killed.
    pub fn kill(mut self) -> Result<()> {
        self.gone = true;
        for pid in self.processes.values().filter(|p| !p.threads.is_empty()).map(|p| p.pid) {
            match clone::kill(pid) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(Error::os(KIND, format!("killing {pid}"), errno)),
            }
        }
        // Each tracee reports its end to us first. A leader reports after its threads.
        while let Ok(Some(_)) = ptrace::wait(-1, 0) {}
        Ok(())
    }
}

impl Drop for Frozen {
    /// Lets every task go on where it was.
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        for thread in self.processes.values().flat_map(|p| &p.threads) {
            // Whoever was not put back stands where it was stopped: its call may have ended in EINTR.
            let regs = thread.resumed();
            if regs != thread.regs {
                let _ = ptrace::set_regs(thread.tid, &regs);
            }
        }
        for tid in self.tids.keys() {
            let _ = ptrace::detach(*tid, 0);
        }
    }
}

/// Whether a handler will run when a stopped process is continued.
fn is_told_to_go_on(pid: u32, mask: u64) -> bool {
    read_status(pid).caught & !mask & 1 << (libc::SIGCONT - 1) != 0
}

/// Adds the question whether the caller has yet to wait for the stop of its child (waitid(2)): the address of the
/// answer's first half, which is 0 if it has not.
pub fn ask_stop(batch: &mut Batch, child: u32) -> u64 {
    let options = libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT;
    let info = batch.room(ptrace::SIGINFO);
    batch.try_call(
        libc::SYS_waitid,
        &[u64::from(libc::P_PID), u64::from(child), info, u64::from(options.cast_unsigned()), 0],
    );
    info
}

/// Puts a live thread back to where it was stopped, ready to be detached. It is at a stop where the kernel
/// restarts a system call if it means to.
///
/// # Errors
/// The task died.
pub fn put_back(thread: &Thread, sets: &[Set]) -> Result<()> {
    let doing = format_args!("putting {} back", thread.tid);
    arch::write_spoiled(thread.tid, sets)?;
    ptrace::set_regs(thread.tid, &thread.resumed()).context(KIND, doing)?;
    ptrace::set_sigmask(thread.tid, thread.mask).context(KIND, doing)
}
