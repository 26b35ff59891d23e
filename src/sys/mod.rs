//! The unsafe fence: thin, safe signatures over system calls that no crate offers. Every file opens with why
//! it needs `unsafe`, and each block says what makes it sound.

pub mod abi;
pub mod anonymous;
pub mod arena;
pub mod brief;
pub mod clone;
pub mod crash;
pub mod descriptor;
pub mod fs;
pub mod fsmount;
pub mod ioctl;
pub mod ipc;
pub mod limit;
pub mod module;
pub mod mount;
pub mod netlink;
pub mod order;
pub mod path;
pub mod process;
pub mod ptrace;
pub mod shape;
pub mod signal;
pub mod sockdiag;
pub mod socket;
pub mod start;
pub mod stat;
pub mod time;
pub mod vm;
pub mod xattr;
