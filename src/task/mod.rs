//! State that belongs to a process or a thread, one file a kind.

pub mod actor;
pub mod batch;
pub mod clock;
pub mod creds;
pub mod freeze;
pub mod limit;
pub mod memory;
pub mod namespace;
pub mod pages;
pub mod process;
pub mod puppet;
pub mod remote;
pub mod sched;
pub mod seccomp;
pub mod sharing;
pub mod signal;
pub mod thread;
pub mod timer;
pub mod tree;
pub mod workdir;
