//! What: a thread: registers, vector state, signal mask, alternate stack, queued signals, clear_child_tid,
//!   robust futex list, rseq, name, credentials, scheduling.
//! Reads: ptrace(2) from outside; PR_GET_TID_ADDRESS and sigaltstack(2) inside; get_robust_list(2).
//! Rebuilds: the same calls by the thread itself; registers, vector state and mask by ptrace(2), last.
//!   An interrupted system call is issued again; a thread inside a restartable sequence goes to its abort
//!   handler (Documentation/userspace-api/rseq).
//! Loses: CPU times and start time; on 32-bit ARM TPIDRURW, and how much of a relative time-out a live thread had slept.
//! Refuses: an rseq on kernels before 5.13, which do not show it.

use nix::errno::Errno;

use crate::arch::{Cpu, Processor, Registers, Regs, Set};
use crate::error::{Context, Error, Refusal, Result};
use crate::sys::{abi, fs, limit, ptrace, vm};
use crate::task::batch::LONG;
use crate::task::freeze::{self, Thread};
use crate::task::remote::Batch;
use crate::task::signal::{self, AltStack};
use crate::task::{creds, sched, seccomp, workdir};
use crate::text;

const KIND: &str = "thread";
/// PR_GET_TID_ADDRESS of prctl(2).
const PR_GET_TID_ADDRESS: u64 = 40;

crate::section! {
    /// Registration of restartable sequences.
    pub struct Rseq {
        /// Address of struct rseq.
        pub address: u64,
        /// Its registered size.
        pub size: u32,
        /// Signature before abort handlers.
        pub signature: u32,
    }
}

crate::section! {
    /// One thread.
    pub struct State {
        /// Its id.
        pub tid: u32,
        /// Its name.
        pub comm: String,
        /// General registers, ready to run.
        pub regs: Regs,
        /// Vector state and whatever else the processor has.
        pub sets: Vec<Set>,
        /// Blocked signals.
        pub mask: u64,
        /// Alternate signal stack.
        pub altstack: AltStack,
        /// Signals queued for this thread, raw siginfo_t.
        pub queue: Vec<Vec<u8>>,
        /// Cleared and woken when the thread ends (set_tid_address(2)); 0 none.
        pub clear_tid: u64,
        /// Robust list head and length.
        pub robust: (u64, u64),
        /// Restartable sequences, if registered.
        pub rseq: Option<Rseq>,
        /// Credentials.
        pub creds: creds::State,
        /// Scheduling.
        pub sched: sched::State,
        /// System calls that it may make.
        pub seccomp: seccomp::State,
        /// Directories of its own.
        pub workdir: Option<workdir::State>,
    }
}

/// What was asked of a thread by a batch.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    altstack: u64,
    clear_tid: (usize, u64),
    rseq: Option<usize>,
    creds: (usize, u64),
}

/// Asks for what only the thread itself can tell.
pub fn ask(batch: &mut Batch, tid: u32) -> Asked {
    let altstack = signal::ask_altstack(batch);
    let room = batch.room(8);
    let call = batch.try_call(libc::SYS_prctl, &[PR_GET_TID_ADDRESS, room, 0, 0, 0]);
    let rseq = hides_rseq(tid).then(|| ask_rseq(batch));
    Asked { altstack, clear_tid: (call, room), rseq, creds: creds::ask(batch) }
}

/// What the outside can see, before anything is injected.
///
/// # Errors
/// Something that cannot be carried.
pub fn capture(tgid: u32, thread: &Thread, seccomp: seccomp::State) -> Result<State, Refusal> {
    let tid = thread.tid;
    let doing = format_args!("reading thread {tid}");
    let queue = signal::queued(tid, false).context(KIND, doing)?;
    signal::check_queue(&queue)?;
    let sets = Cpu::sets(tid)?;
    let rseq = rseq(tid)?;
    let mut regs = thread.rewound();
    if let Some(rseq) = &rseq
        && let Some(abort) = abort_handler(tgid, rseq, regs.ip())
    {
        regs.set_ip(abort);
    }
    let robust = match limit::robust_list(tid) {
        Err(Errno::ENOSYS) => Ok((0, 0)),
        other => other.context(KIND, doing),
    }?;
    Ok(State {
        tid,
        comm: fs::text(format!("/proc/{tgid}/task/{tid}/comm"))
            .map(|name| text::without_end(&name, "\n").to_owned())
            .context(KIND, doing)?,
        regs,
        sets,
        mask: thread.mask,
        altstack: AltStack { address: 0, flags: 0, size: 0 },
        queue,
        clear_tid: 0,
        robust,
        rseq,
        creds: creds::State::default(),
        sched: sched::capture(tid)?,
        seccomp,
        workdir: None,
    })
}

/// Puts the answers of the thread into its state.
///
/// # Errors
/// Something that cannot be carried.
pub fn complete(state: &mut State, batch: &Batch, asked: Asked) -> Result<(), Refusal> {
    state.altstack = signal::altstack(batch, asked.altstack);
    batch
        .outcome(asked.clear_tid.0)
        .context(KIND, format_args!("asking for clear_child_tid (CONFIG_CHECKPOINT_RESTORE)"))?;
    state.clear_tid = batch.long(asked.clear_tid.1, 0);
    if let Some(asked) = asked.rseq {
        check_rseq(batch, asked)?;
    }
    state.creds = creds::capture(&freeze::read_status(state.tid), batch, asked.creds);
    Ok(())
}

fn rseq(tid: u32) -> Result<Option<Rseq>, Refusal> {
    match ptrace::rseq(tid) {
        Ok(conf) if conf.address == 0 => Ok(None),
        Ok(conf) => Ok(Some(Rseq { address: conf.address, size: conf.size, signature: conf.signature })),
        // The kernel has no rseq, or cannot tell: then the thread is asked.
        Err(Errno::EIO) => Ok(None),
        Err(errno) => Err(Error::os(KIND, format!("reading the rseq of {tid}"), errno).into()),
    }
}

/// Whether the thread may have an rseq that this kernel does not show: 4.18 to 5.12.
fn hides_rseq(tid: u32) -> bool {
    ptrace::rseq(tid) == Err(Errno::EIO) && ptrace::knows_rseq()
}

/// Asks for an rseq that the kernel does not show. A thread can register one only if it has none, and the one of
/// the batch is taken back at once.
fn ask_rseq(batch: &mut Batch) -> usize {
    const UNREGISTER: u64 = 1;
    /// Size and alignment of the first struct rseq.
    const SIZE: u64 = 32;
    const SIGNATURE: u64 = 0x5263_736e;
    let room = batch.room(64).next_multiple_of(SIZE);
    let registered = batch.try_call(abi::RSEQ, &[room, SIZE, 0, SIGNATURE]);
    // Of another registration this takes nothing: the address is not its.
    batch.try_call(abi::RSEQ, &[room, SIZE, UNREGISTER, SIGNATURE]);
    registered
}

/// The answer to [`ask_rseq`].
fn check_rseq(batch: &Batch, asked: usize) -> Result<(), Refusal> {
    if batch.outcome(asked).is_ok() {
        return Ok(());
    }
    let remedy = "start it with GLIBC_TUNABLES=glibc.pthread.rseq=0, or use a kernel from 5.13 on";
    Err(Refusal::new("it has registered an rseq, which this kernel does not show", remedy))
}

/// If the thread stands inside a critical section: where it must go on instead.
fn abort_handler(tgid: u32, rseq: &Rseq, ip: u64) -> Option<u64> {
    let word = |address: u64| {
        let mut bytes = [0; 8];
        vm::read(tgid, address, &mut bytes).ok()?;
        Some(u64::from_ne_bytes(bytes))
    };
    // struct rseq: cpu_id_start, cpu_id, then the address of struct rseq_cs: version and flags, start,
    // length, abort handler.
    let section = word(rseq.address + 8).filter(|address| *address != 0)?;
    let (start, length, abort) = (word(section + 8)?, word(section + 16)?, word(section + 24)?);
    (ip.wrapping_sub(start) < length).then_some(abort)
}

/// Everything that the thread must do itself. Its memory is complete. Credentials come last.
pub fn restore(batch: &mut Batch, state: &State, own: &creds::State) {
    // struct robust_list_head has three longs. A thread that never had one has a head of 0.
    batch.try_call(libc::SYS_set_robust_list, &[state.robust.0, 3 * LONG as u64]);
    batch.call(libc::SYS_set_tid_address, &[state.clear_tid]);
    signal::restore_altstack(batch, &state.altstack);
    if let Some(rseq) = &state.rseq {
        batch.call(abi::RSEQ, &[rseq.address, u64::from(rseq.size), 0, u64::from(rseq.signature)]);
        batch.doing("registering rseq");
    }
    let name = batch.path(&state.comm);
    batch.call(libc::SYS_prctl, &[libc::PR_SET_NAME as u64, name, 0, 0, 0]);
    Cpu::restore_inside(batch, &state.sets);
    creds::restore(batch, &state.creds, &own.caps);
}

/// Takes back the rseq registration of the program that the task was forked from: its memory is about to go,
/// and the kernel kills a task whose rseq area is not there.
///
/// # Errors
/// The task is gone.
pub fn forget_rseq(tid: u32, batch: &mut Batch) -> Result<()> {
    const UNREGISTER: u64 = 1;
    match ptrace::rseq(tid) {
        Ok(conf) if conf.address != 0 => {
            let (size, signature) = (u64::from(conf.size), u64::from(conf.signature));
            batch.call(abi::RSEQ, &[conf.address, size, UNREGISTER, signature]);
            batch.doing("unregistering rseq");
            Ok(())
        }
        Ok(_) | Err(Errno::EIO | Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno).context(KIND, format_args!("reading the rseq of {tid}")),
    }
}

/// Registers, vector state and signal mask: the last before the thread is let go.
///
/// # Errors
/// The thread is gone, or the CPU lacks a vector state that the image has.
pub fn finish(state: &State) -> Result<()> {
    let doing = format_args!("setting the registers of {}", state.tid);
    Cpu::write_sets(state.tid, &state.sets)?;
    ptrace::set_regs(state.tid, &state.regs).context(KIND, doing)?;
    ptrace::set_sigmask(state.tid, state.mask).context(KIND, doing)
}

#[cfg(test)]
mod tests {
    use super::{Batch, ask_rseq, check_rseq, forget_rseq};
    use crate::sys::{clone, ptrace};
    use crate::task::remote::Area;

    #[test]
    fn rseq_that_the_kernel_does_not_show_is_found() {
        let child = clone::puppet_anywhere().unwrap();
        ptrace::seize(child, ptrace::FOLLOW | ptrace::EXITKILL).unwrap();
        ptrace::interrupt(child).unwrap();
        ptrace::wait(child.cast_signed(), 0).unwrap();
        let regs = ptrace::regs(child).unwrap();
        let area = Area::inject(child, child, &regs, 0).unwrap();
        let ask = || {
            let mut batch = Batch::new(area.base());
            let asked = ask_rseq(&mut batch);
            area.run(child, &mut batch).unwrap();
            check_rseq(&batch, asked).is_ok()
        };
        // Asking leaves nothing behind: the second answer is the first.
        let has = ptrace::rseq(child).is_ok_and(|conf| conf.address != 0);
        assert_eq!((ask(), ask()), (!has, !has));
        if has {
            let mut batch = Batch::new(area.base());
            forget_rseq(child, &mut batch).unwrap();
            area.run(child, &mut batch).unwrap();
            assert!(ask());
        }
        area.eject(child, &regs).unwrap();
        clone::kill(child).unwrap();
        ptrace::wait(child.cast_signed(), 0).unwrap();
    }
}
