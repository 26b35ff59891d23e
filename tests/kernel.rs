//! The kinds of `src/kernel` on the machine's own kernel: state is made by real calls in namespaces of its own,
//! captured, made again in fresh namespaces, and captured again. Both captures must be equal.
//!
//! Root is needed, and nothing outside the namespaces is touched. Modules and global parameters have no
//! namespace: the boards in QEMU have them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

#[path = "kernel/files.rs"]
mod files;
#[path = "kernel/ipc.rs"]
mod ipc;
#[path = "kernel/network.rs"]
mod network;
#[path = "kernel/world.rs"]
mod world;
