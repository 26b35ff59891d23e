//! What the keeper sees and changes of the namespaces it lives in.

use std::fs;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

/// Processes of this namespace but PID 1.
pub fn others() -> Vec<i32> {
    let Ok(dir) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = dir.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
    pids.filter(|pid| *pid != 1).collect()
}

/// Whether a process is there, and neither it nor any other is a tracee: a restore has let all go.
pub fn runs(pid: i32) -> bool {
    others().contains(&pid) && others().into_iter().all(is_free)
}

fn is_free(pid: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    status.lines().find_map(|line| line.strip_prefix("TracerPid:")).is_none_or(|pid| pid.trim() == "0")
}

/// What the lab's caller left open must not get into a program: its other end would be an obstacle.
#[allow(unsafe_code, reason = "std has no way to say it, and the programs must start clean")]
pub fn close_the_rest() {
    // SAFETY: only sets a flag (CLOSE_RANGE_CLOEXEC) on descriptors; nothing is closed before an exec.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 4_u32) };
}

/// Terminals of our own, so that numbers are free.
pub fn own_devpts() -> Result<()> {
    let options = Some("newinstance,ptmxmode=0666,mode=0620");
    mount(Some("devpts"), "/dev/pts", Some("devpts"), MsFlags::empty(), options)
        .context("mounting /dev/pts")?;
    let none: Option<&str> = None;
    mount(Some("/dev/pts/ptmx"), "/dev/ptmx", none, MsFlags::MS_BIND, none).context("binding /dev/ptmx")
}
