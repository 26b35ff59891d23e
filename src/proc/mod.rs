//! Pure text parsers, named after the file of /proc they read. No system call here.

pub mod fdinfo;
pub mod modules;
pub mod mountinfo;
pub mod smaps;
pub mod stat;
pub mod status;
pub mod syscall;
pub mod sysvipc;
