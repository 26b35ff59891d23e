//! What: signal handlers of a process; alternate stack and queued signals of a thread.
//! Reads: rt_sigaction(2) and sigaltstack(2) inside the process, PTRACE_PEEKSIGINFO for what is queued.
//! Rebuilds: the same calls with the kernel's own structures, so restorer and flags are exact;
//!   rt_tgsigqueueinfo(2) and rt_sigqueueinfo(2) by the thread itself, all signals blocked.
//! Loses: nothing.
//! Refuses: a queued SIGTRAP, which ends a batch.

use crate::error::{Refusal, Result};
use crate::sorted::Listed;
use crate::sys::ptrace;
use crate::sys::ptrace::{SIGINFO, Sys};
use crate::task::batch::{LONG, long_bytes};
use crate::task::remote::{Batch, Script};

/// Bytes of the kernel's signal set.
const SET: u64 = 8;
/// Where it stands in the kernel's struct sigaction: after handler, flags and restorer.
const MASK: u64 = 3 * LONG as u64;
/// Bytes of struct sigaction.
const ACTION: usize = 3 * LONG + 8;

crate::section! {
    /// A signal whose disposition is not the default.
    pub struct Action {
        /// Signal number.
        pub signal: u32,
        /// Handler, or 1 for SIG_IGN.
        pub handler: u64,
        /// SA_* flags.
        pub flags: u64,
        /// SA_RESTORER's address.
        pub restorer: u64,
        /// Blocked while the handler runs.
        pub mask: u64,
    }
}

crate::section! {
    /// A thread's alternate signal stack: stack_t of sigaltstack(2).
    pub struct AltStack {
        /// Lowest address.
        pub address: u64,
        /// SS_DISABLE, SS_AUTODISARM; never SS_ONSTACK.
        pub flags: u32,
        /// Bytes.
        pub size: u64,
    }
}

/// The signals that can have a disposition.
fn signals() -> impl Iterator<Item = i32> {
    (1..=64).filter(|s| *s != libc::SIGKILL && *s != libc::SIGSTOP)
}

/// Asks for the actions of the signals that are caught or ignored, and for SIGCHLD, whose default action
/// may carry SA_NOCLDWAIT.
pub fn ask_actions(batch: &mut Batch, caught: u64, ignored: u64) -> Vec<(i32, u64)> {
    let wanted = |s: &i32| (caught | ignored) >> (s - 1) & 1 == 1 || *s == libc::SIGCHLD;
    signals()
        .filter(wanted)
        .map(|signal| {
            let room = batch.room(ACTION);
            batch.call(libc::SYS_rt_sigaction, &[number(signal), 0, room, SET]);
            (signal, room)
        })
        .list()
}

/// The answers to [`ask_actions`].
#[must_use]
pub fn actions(batch: &Batch, asked: &[(i32, u64)]) -> Vec<Action> {
    let all = asked.iter().map(|(signal, room)| Action {
        signal: signal.cast_unsigned(),
        handler: batch.long(*room, 0),
        flags: batch.long(*room, 1),
        restorer: batch.long(*room, 2),
        mask: batch.word(room + MASK),
    });
    all.filter(|a| a.handler != 0 || a.flags != 0).list()
}

/// Sets the actions. With `all`, every other signal goes back to its default too.
pub fn restore_actions(batch: &mut Batch, actions: &[Action], all: bool) {
    for signal in signals() {
        let found = actions.iter().find(|a| a.signal.cast_signed() == signal);
        let (words, mask) = match found {
            Some(a) => ([a.handler, a.flags, a.restorer], a.mask),
            None if all => ([0; 3], 0),
            None => continue,
        };
        let mut bytes = long_bytes(&words);
        bytes.extend(mask.to_ne_bytes());
        let room = batch.bytes(&bytes);
        batch.call(libc::SYS_rt_sigaction, &[number(signal), room, 0, SET]);
        batch.doing("setting a signal action");
    }
}

/// Asks for the alternate stack.
pub fn ask_altstack(batch: &mut Batch) -> u64 {
    let room = batch.room(3 * LONG);
    batch.call(libc::SYS_sigaltstack, &[0, room]);
    room
}

/// The answer to [`ask_altstack`].
#[must_use]
pub fn altstack(batch: &Batch, room: u64) -> AltStack {
    const SS_ONSTACK: u32 = 1;
    AltStack {
        address: batch.long(room, 0),
        flags: batch.half(room + LONG as u64) & !SS_ONSTACK,
        size: batch.long(room, 2),
    }
}

/// Sets the alternate stack.
pub fn restore_altstack(batch: &mut Batch, stack: &AltStack) {
    let room = batch.longs(&[stack.address, stack.flags.into(), stack.size]);
    batch.call(libc::SYS_sigaltstack, &[room, 0]);
    batch.doing("setting the alternate signal stack");
}

/// Signals queued for a thread, or for its whole process, as raw siginfo_t.
pub fn queued(tid: u32, shared: bool) -> Sys<Vec<Vec<u8>>> {
    let found = ptrace::queued_signals(tid, shared)?;
    Ok(found.iter().map(|info| info.to_vec()).list())
}

fn signal_of(info: &[u8]) -> i32 {
    info.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes)
}

/// A queued SIGTRAP cannot be told from the one that ends a batch.
///
/// # Errors
/// The refusal.
pub fn check_queue(queue: &[Vec<u8>]) -> Result<(), Refusal> {
    if queue.iter().any(|info| signal_of(info) == libc::SIGTRAP) {
        return Err(Refusal::new("a SIGTRAP is queued for it", "let the program handle it first"));
    }
    Ok(())
}

/// Whether a signal of the queue is not blocked, so that its handler will run first.
#[must_use]
pub fn will_run(queue: &[Vec<u8>], mask: u64) -> bool {
    queue.iter().map(|i| signal_of(i)).any(|s| (1..=64).contains(&s) && mask >> (s - 1) & 1 == 0)
}

/// Queues signals again, by the thread itself: the kernel lets nobody else claim a kernel's si_code.
///
/// # Errors
/// As [`Script::ensure`].
pub fn restore_queue(script: &mut Script<'_>, tgid: u32, tid: Option<u32>, queue: &[Vec<u8>]) -> Result<()> {
    for info in queue.iter().filter(|i| i.len() == SIGINFO) {
        script.ensure(1, SIGINFO)?;
        let room = script.batch.bytes(info);
        let signal = number(signal_of(info));
        match tid {
            Some(tid) => {
                let args = [u64::from(tgid), u64::from(tid), signal, room];
                script.batch.call(libc::SYS_rt_tgsigqueueinfo, &args)
            }
            None => script.batch.call(libc::SYS_rt_sigqueueinfo, &[u64::from(tgid), signal, room]),
        };
        script.batch.doing("queueing a signal");
    }
    Ok(())
}

fn number(signal: i32) -> u64 {
    u64::from(signal.cast_unsigned())
}
