//! State that belongs to a process or a thread, one file a kind.

pub mod freeze;
pub mod remote;
