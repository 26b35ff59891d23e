//! What: how a thread is scheduled: policy, nice value, affinity, I/O priority, timer slack; and of a
//!   process: OOM score adjustment, core-dump filter and personality(2).
//! Reads: sched_getattr(2), sched_getaffinity(2), ioprio_get(2), /proc/PID/{timerslack_ns, oom_score_adj,
//!   coredump_filter, personality}.
//! Rebuilds: the same, from outside, where it differs from what the puppet has; the personality by the process
//!   itself.
//! Loses: uclamp values.
//! Refuses: nothing.

use nix::errno::Errno;

use crate::error::{Context, Result};
use crate::sys::fs;
use crate::sys::limit::{self, SchedAttr};

const KIND: &str = "sched";

crate::section! {
    /// Of a thread.
    #[derive(Default, Eq)]
    pub struct State {
        /// Policy and its parameters.
        pub attr: SchedAttr,
        /// CPUs, bit mask in bytes without trailing zeros.
        pub affinity: Vec<u8>,
        /// ioprio_get(2).
        pub io_priority: i32,
        /// Timer slack in ns.
        pub timer_slack: u64,
    }
}

crate::section! {
    /// Of a process.
    #[derive(Default, Eq)]
    pub struct Process {
        /// /proc/PID/oom_score_adj.
        pub oom_score_adj: i32,
        /// /proc/PID/coredump_filter, hexadecimal without prefix; empty when the kernel has none.
        pub coredump_filter: String,
        /// personality(2), hexadecimal.
        pub personality: String,
    }
}

fn text(path: &str) -> String {
    fs::text(path).map(|t| t.trim_ascii().to_owned()).unwrap_or_default()
}

/// Reads a thread's state.
///
/// # Errors
/// The thread is gone.
pub fn capture(tid: u32) -> Result<State> {
    let doing = format_args!("reading how {tid} is scheduled");
    Ok(State {
        attr: limit::sched_attr(tid).context(KIND, doing)?,
        affinity: limit::affinity(tid).context(KIND, doing)?,
        // A kernel without block devices has no ioprio_get(2).
        io_priority: limit::io_priority(tid).unwrap_or(0),
        timer_slack: text(&format!("/proc/{tid}/timerslack_ns")).parse().unwrap_or(0),
    })
}

/// Reads a process's state.
#[must_use]
pub fn capture_process(pid: u32) -> Process {
    Process {
        oom_score_adj: text(&format!("/proc/{pid}/oom_score_adj")).parse().unwrap_or(0),
        coredump_filter: text(&format!("/proc/{pid}/coredump_filter")),
        personality: text(&format!("/proc/{pid}/personality")),
    }
}

/// Sets what differs from `own`, the conductor's state, which a puppet inherits.
///
/// # Errors
/// The errno of the call that failed, with the thread.
pub fn restore(tid: u32, state: &State, own: &State) -> Result<()> {
    // That of its group may be another than ours.
    if limit::affinity(tid).as_ref() != Ok(&state.affinity) {
        limit::set_affinity(tid, &state.affinity)
            .context(KIND, format_args!("setting the affinity of {tid}"))?;
    }
    if state.attr != own.attr {
        limit::set_sched_attr(tid, &state.attr).context(KIND, format_args!("setting the policy of {tid}"))?;
    }
    if state.io_priority != own.io_priority {
        match limit::set_io_priority(tid, state.io_priority) {
            Ok(()) | Err(Errno::ENOSYS) => {}
            Err(errno) => return Err(errno).context(KIND, format_args!("setting the I/O priority of {tid}")),
        }
    }
    if state.timer_slack != own.timer_slack && state.timer_slack != 0 {
        write(tid, "timerslack_ns", &state.timer_slack.to_string())?;
    }
    Ok(())
}

/// Sets a process's state where it differs from `own`.
///
/// # Errors
/// The errno of the call that failed, with the process.
pub fn restore_process(pid: u32, state: &Process, own: &Process) -> Result<()> {
    if state.oom_score_adj != own.oom_score_adj {
        write(pid, "oom_score_adj", &state.oom_score_adj.to_string())?;
    }
    if state.coredump_filter != own.coredump_filter && !state.coredump_filter.is_empty() {
        write(pid, "coredump_filter", &format!("0x{}", state.coredump_filter))?;
    }
    Ok(())
}

fn write(pid: u32, file: &str, value: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    fs::write(&path, value).context(KIND, format_args!("writing {value} to {path}"))
}
