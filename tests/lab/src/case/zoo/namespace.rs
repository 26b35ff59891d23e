//! The namespaces that a keeper lives in: making them, and what it sees and changes of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde::de::DeserializeOwned;

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

/// Makes a folder anew.
pub fn fresh(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))
}

/// Runs the lab with these words as PID 1 of fresh namespaces: a keeper. What it wrote into its folder, or at which
/// stage it failed, and why: then with what it said last.
pub fn keep<V: DeserializeOwned>(
    words: &[&OsStr],
    folder: &Path,
    limit: Duration,
) -> Result<Result<V, (&'static str, String)>> {
    let log = fs::File::options().create(true).append(true).open(folder.join("keeper"))?;
    let mut child = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--net", "--ipc", "--uts", "--kill-child=KILL", "--"])
        .arg(std::env::current_exe()?)
        .args(words)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("running unshare")?;
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(Err(("time", format!("not done after {} s", limit.as_secs()))));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let verdict = fs::read(folder.join("verdict")).ok().and_then(|text| serde_json::from_slice(&text).ok());
    Ok(verdict.ok_or_else(|| {
        let said = fs::read(folder.join("keeper")).unwrap_or_default();
        ("keeper", crate::run::tail(&said, 3))
    }))
}

/// Takes in every process that has ended, with its exit status.
pub fn reap(ended: &mut BTreeMap<i32, i32>) {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended.insert(pid.as_raw(), code),
            Ok(WaitStatus::Signaled(pid, signal, _)) => ended.insert(pid.as_raw(), 128 + signal as i32),
            _ => return,
        };
    }
}
