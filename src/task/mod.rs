//! State that belongs to a process or a thread, one file a kind.

pub mod creds;
pub mod freeze;
pub mod limit;
pub mod remote;
pub mod sched;
pub mod signal;
pub mod timer;
pub mod workdir;
