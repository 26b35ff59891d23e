//! What: resource limits of a process.
//! Reads: prlimit(2) inside.
//! Rebuilds: prlimit(2) by the process itself, when everything that a low limit could break is done, and
//!   before it loses CAP_SYS_RESOURCE.
//! Loses: CPU time already counted against RLIMIT_CPU.
//! Refuses: nothing.

use crate::sorted::Listed;
use crate::sys::limit;
use crate::task::remote::Batch;

/// RLIM_NLIMITS: RLIMIT_CPU 0 to RLIMIT_RTTIME 15.
const COUNT: u32 = 16;

/// RLIMIT_* numbers (getrlimit(2)), whose type differs between C libraries.
pub const RLIMIT_CORE: u64 = 4;
/// The number of descriptors.
pub const RLIMIT_NOFILE: u32 = 7;

crate::section! {
    /// Soft and hard limit by RLIMIT_* number.
    pub struct State {
        /// 16 pairs.
        pub limits: Vec<(u64, u64)>,
    }
}

/// Asks a process for its limits: from outside, those of another user need CAP_SYS_RESOURCE.
pub fn ask(batch: &mut Batch) -> u64 {
    let room = batch.room(16 * COUNT as usize);
    for resource in 0..u64::from(COUNT) {
        batch.call(libc::SYS_prlimit64, &[0, resource, 0, room + 16 * resource]);
    }
    room
}

/// The answer to [`ask`].
#[must_use]
pub fn capture(batch: &Batch, room: u64) -> State {
    let pair = |resource: u64| (batch.word(room + 16 * resource), batch.word(room + 16 * resource + 8));
    State { limits: (0..u64::from(COUNT)).map(pair).list() }
}

/// Sets those limits that differ from what the process has now: PID 1 has others than what we made.
pub fn restore(batch: &mut Batch, state: &State, pid: u32) {
    for (resource, wanted) in (0..).zip(&state.limits) {
        if limit::get(pid, resource) == Ok(*wanted) {
            continue;
        }
        let mut bytes = wanted.0.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&wanted.1.to_ne_bytes());
        let room = batch.bytes(&bytes);
        batch.call(libc::SYS_prlimit64, &[0, resource.into(), room, 0]);
        batch.doing("setting a resource limit");
    }
}
