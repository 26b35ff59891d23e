//! prlimit(2), sched_setattr(2), sched_setaffinity(2), ioprio_set(2): attributes of other tasks.
#![allow(unsafe_code, reason = "these calls take addresses")]

use nix::errno::Errno;

use crate::sys::ptrace::Sys;

/// Soft and hard limit of a process for RLIMIT_* number `resource`.
pub fn get(pid: u32, resource: u32) -> Sys<(u64, u64)> {
    let mut limit = [0u64; 2];
    // SAFETY: `limit` has the layout of struct rlimit64 and outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, std::ptr::null::<u64>(), limit.as_mut_ptr())
    };
    Errno::result(result)?;
    Ok((limit[0], limit[1]))
}

/// Sets a limit of a process.
pub fn set(pid: u32, resource: u32, soft: u64, hard: u64) -> Sys<()> {
    let limit = [soft, hard];
    // SAFETY: as in `get`; the kernel only reads.
    let result = unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, limit.as_ptr(), std::ptr::null_mut::<u64>())
    };
    Errno::result(result).map(drop)
}

crate::section! {
    /// struct sched_attr of sched_setattr(2), its first 48 bytes.
    #[derive(Default, Eq)]
    pub struct SchedAttr {
        /// SCHED_*.
        pub policy: u32,
        /// SCHED_FLAG_*.
        pub flags: u64,
        /// Nice value of SCHED_OTHER and SCHED_BATCH.
        pub nice: i32,
        /// Priority of SCHED_FIFO and SCHED_RR.
        pub priority: u32,
        /// SCHED_DEADLINE runtime in ns.
        pub runtime: u64,
        /// Deadline in ns.
        pub deadline: u64,
        /// Period in ns.
        pub period: u64,
    }
}

#[repr(C)]
#[derive(Default)]
struct RawAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Bytes of [`RawAttr`]: SCHED_ATTR_SIZE_VER0.
const ATTR_SIZE: u32 = 48;

/// Scheduling policy of a thread.
pub fn sched_attr(tid: u32) -> Sys<SchedAttr> {
    let mut raw = RawAttr { size: ATTR_SIZE, ..RawAttr::default() };
    // SAFETY: `raw` has the layout and the size that are passed.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, tid, &raw mut raw, ATTR_SIZE, 0) };
    Errno::result(result)?;
    Ok(SchedAttr {
        policy: raw.policy,
        flags: raw.flags,
        nice: raw.nice,
        priority: raw.priority,
        runtime: raw.runtime,
        deadline: raw.deadline,
        period: raw.period,
    })
}

/// Sets the scheduling policy of a thread.
pub fn set_sched_attr(tid: u32, attr: &SchedAttr) -> Sys<()> {
    let raw = RawAttr {
        size: ATTR_SIZE,
        policy: attr.policy,
        flags: attr.flags,
        nice: attr.nice,
        priority: attr.priority,
        runtime: attr.runtime,
        deadline: attr.deadline,
        period: attr.period,
    };
    // SAFETY: the kernel reads `raw`, whose size it is told.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, tid, &raw const raw, 0) }).map(drop)
}

/// The CPUs a thread may use, as the kernel's bit mask in bytes.
pub fn affinity(tid: u32) -> Sys<Vec<u8>> {
    let mut mask = vec![0u8; 1024];
    // SAFETY: the kernel writes at most the length that it is told.
    let result = unsafe { libc::syscall(libc::SYS_sched_getaffinity, tid, mask.len(), mask.as_mut_ptr()) };
    let used = usize::try_from(Errno::result(result)?).unwrap_or(0);
    mask.truncate(used);
    while mask.last() == Some(&0) {
        mask.pop();
    }
    Ok(mask)
}

/// Sets the CPUs a thread may use.
pub fn set_affinity(tid: u32, mask: &[u8]) -> Sys<()> {
    let mut mask = mask.to_vec();
    mask.resize(mask.len().next_multiple_of(8), 0);
    // SAFETY: the kernel reads the length that it is told.
    let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, tid, mask.len(), mask.as_ptr()) };
    Errno::result(result).map(drop)
}

const IOPRIO_WHO_PROCESS: i32 = 1;

/// I/O priority of a thread: class and level as ioprio_get(2) gives them.
pub fn io_priority(tid: u32) -> Sys<i32> {
    // SAFETY: plain numbers.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid) };
    Errno::result(result).map(|value| i32::try_from(value).unwrap_or(0))
}

/// Sets the I/O priority of a thread.
pub fn set_io_priority(tid: u32, value: i32) -> Sys<()> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, tid, value) }).map(drop)
}

/// The robust futex list of a thread: head and length (get_robust_list(2)).
pub fn robust_list(tid: u32) -> Sys<(u64, u64)> {
    let (mut head, mut len) = (0_usize, 0_usize);
    // SAFETY: a pointer and a size_t, both of which outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_get_robust_list, tid, &raw mut head, &raw mut len) };
    Errno::result(result)?;
    Ok((head as u64, len as u64))
}
