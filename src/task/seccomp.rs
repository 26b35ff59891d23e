//! What: strict mode, or the filters of a thread (seccomp(2)), in their order.
//! Reads: the Seccomp line of /proc/PID/task/TID/status; PTRACE_SECCOMP_GET_FILTER and
//!   PTRACE_SECCOMP_GET_METADATA. From then on the thread is suspended from them (PTRACE_O_SUSPEND_SECCOMP), so that
//!   a batch may run in it.
//! Rebuilds: seccomp(2) by the thread itself, before it gives up its rights, suspended until it is let go. Those that
//!   all threads have come first, in one chain for all (SECCOMP_FILTER_FLAG_TSYNC), as another may be given to all again.
//! Loses: which filters single threads share beyond those; SECCOMP_FILTER_FLAG_SPEC_ALLOW.
//! Refuses: filters that notify a supervisor, and that are no classic BPF; any under a kernel without
//!   CONFIG_CHECKPOINT_RESTORE.

use nix::errno::Errno;

use crate::error::{Context, Error, Refusal, Result};
use crate::sys::{abi, ptrace};
use crate::task::freeze;
use crate::task::remote::Script;
use crate::task::thread;
use crate::task::tree::Body;

const KIND: &str = "seccomp";
/// SECCOMP_MODE_STRICT of the status.
const STRICT: u32 = 1;
const SET_STRICT: u64 = 0;
const SET_FILTER: u64 = 1;
/// SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH: for all threads of the process.
pub const ALL: u64 = 1 | 16;
/// SECCOMP_FILTER_FLAG_LOG, the one flag that stays with a filter.
const LOG: u64 = 2;

crate::section! {
    /// A filter, which several threads may have.
    pub struct Filter {
        /// Its instructions, struct sock_filter each.
        pub code: Vec<u64>,
        /// SECCOMP_FILTER_FLAG_LOG.
        pub log: bool,
    }
}

crate::section! {
    /// What a thread lives under.
    #[derive(Default)]
    pub struct State {
        /// Strict mode.
        pub strict: bool,
        /// Its filters, the oldest first, by their numbers in the image.
        pub filters: Vec<u32>,
    }
}

/// Reads it, and suspends the thread from it. `known`: the filters of the image so far.
///
/// # Errors
/// A filter that cannot be carried.
pub fn capture(tid: u32, known: &mut Vec<Filter>) -> Result<State, Refusal> {
    let mode = freeze::read_status(tid).seccomp;
    let mut state = State { strict: mode == STRICT, filters: Vec::new() };
    if mode == 0 {
        return Ok(state);
    }
    let refuse = |reason: &'static str| Refusal::new(reason, "rerun the service, or turn its seccomp off");
    if ptrace::set_options(tid, ptrace::FOLLOW | ptrace::SUSPEND_SECCOMP).is_err() {
        return Err(refuse("this kernel suspends nobody from seccomp (CONFIG_CHECKPOINT_RESTORE)"));
    }
    while !state.strict {
        let index = state.filters.len();
        let (code, log) = match ptrace::seccomp_filter(tid, index) {
            Err(Errno::ENOENT) => break,
            Err(Errno::EMEDIUMTYPE) => return Err(refuse("a filter is no classic BPF")),
            other => other.context(KIND, format_args!("reading filter {index} of {tid}"))?,
        };
        if notifies(&code) {
            return Err(refuse("a filter asks a supervisor (seccomp_unotify(2))"));
        }
        let filter = Filter { code, log: log & LOG != 0 };
        let place = known.iter().position(|other| *other == filter).unwrap_or_else(|| {
            known.push(filter);
            known.len() - 1
        });
        state.filters.push(u32::try_from(place).unwrap_or(u32::MAX));
    }
    Ok(state)
}

/// Whether a filter answers SECCOMP_RET_USER_NOTIF: its listener has a state that nobody can read.
fn notifies(code: &[u64]) -> bool {
    // struct sock_filter: 16 bits of code, two jumps of 8, 32 bits of value. BPF_RET | BPF_K, and the action.
    code.iter().any(|step| step & 0xffff == 6 && step >> 48 == 0x7fc0)
}

/// Whether a thread of the process lives under any.
#[must_use]
pub fn is_used(body: &Body) -> bool {
    body.threads.iter().any(|t| t.seccomp != State::default())
}

/// How many of the oldest filters all threads have.
#[must_use]
pub fn common(threads: &[thread::State]) -> usize {
    let Some((leader, others)) = threads.split_first() else { return 0 };
    let own = &leader.seccomp.filters;
    let same = |t: &thread::State| own.iter().zip(&t.seccomp.filters).take_while(|(a, b)| a == b).count();
    others.iter().map(same).min().unwrap_or(own.len())
}

/// Installs filters, with these flags. The thread is suspended from them, and has the right to.
///
/// # Errors
/// As [`Script::ensure`], or the image has no such filter.
pub fn restore(script: &mut Script<'_>, numbers: &[u32], all: &[Filter], flags: u64) -> Result<()> {
    for number in numbers {
        let filter = all.get(*number as usize);
        let filter =
            filter.ok_or_else(|| Error::new(KIND, "installing a filter", "the image does not have it"))?;
        let bytes = abi::bytes(&filter.code);
        script.ensure(1, bytes.len() + 64)?;
        let code = script.batch.bytes(&bytes);
        let program = script.batch.longs(&[filter.code.len() as u64, code]);
        let flags = flags | if filter.log { LOG } else { 0 };
        script.batch.call(libc::SYS_seccomp, &[SET_FILTER, flags, program]);
        script.batch.doing("installing a filter");
    }
    Ok(())
}

/// Strict mode, if the thread had it.
pub fn restrict(script: &mut Script<'_>, state: &State) {
    if state.strict {
        script.batch.call(libc::SYS_seccomp, &[SET_STRICT, 0, 0]);
        script.batch.doing("entering strict mode");
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL, Filter, State, capture, restore};
    use crate::sys::{clone, ptrace};
    use crate::task::remote::{Area, Script};

    fn step(code: u64, value: u64) -> u64 {
        value << 32 | code
    }

    #[test]
    fn filters_are_read_and_one_that_asks_a_supervisor_is_refused() {
        let child = clone::puppet_anywhere().unwrap();
        ptrace::seize(child, ptrace::FOLLOW | ptrace::EXITKILL).unwrap();
        ptrace::interrupt(child).unwrap();
        ptrace::wait(child.cast_signed(), 0).unwrap();
        let regs = ptrace::regs(child).unwrap();
        let mut known = Vec::new();
        assert_eq!(capture(child, &mut known).unwrap(), State::default());
        let (load, allow, notify) = (step(0x20, 0), step(6, 0x7fff_0000), step(6, 0x7fc0_0000));
        // No call has the number that the second one looks for.
        let none = step(0x15, 0x7fc0_0000) | 1 << 24;
        let all = [
            Filter { code: vec![allow], log: true },
            Filter { code: vec![load, none, allow, allow], log: false },
            Filter { code: vec![load, none, notify, allow], log: false },
        ];
        let area = Area::inject(child, child, &regs, 0).unwrap();
        let mut script = Script::new(&area, child);
        restore(&mut script, &[0, 1, 0], &all, ALL).unwrap();
        script.flush().unwrap();
        let found = capture(child, &mut known).unwrap();
        assert_eq!((found.strict, found.filters), (false, vec![0, 1, 0]));
        assert_eq!(known, all[..2]);
        restore(&mut script, &[2], &all, 0).unwrap();
        script.flush().unwrap();
        assert!(capture(child, &mut known).unwrap_err().reason.contains("supervisor"));
        assert!(restore(&mut script, &[3], &all, 0).is_err());
        clone::kill(child).unwrap();
        ptrace::wait(child.cast_signed(), 0).unwrap();
    }
}
