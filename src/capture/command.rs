//! The captures that a command asks for: a tree into a file, and a look without an image.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::{KIND, Outcome, Request, capture};
use crate::config::{Config, Key};
use crate::error::{Context, Error, Obstacle, Result};
use crate::file::Scope;
use crate::sys::{self, descriptor, fs};
use crate::task::freeze;

/// Captures the tree under `root` into a file. Returns the obstacles if there are any.
///
/// # Errors
/// The tree cannot be captured, or the file not written.
pub fn tree(
    config: &Config,
    root: u32,
    path: &std::path::Path,
    kill: bool,
    externals: &[BorrowedFd<'_>],
) -> Result<Vec<Obstacle>> {
    let request = Request {
        scope: Scope::Tree,
        root,
        except: std::process::id(),
        patience: Duration::from_secs(10),
        // Whoever captures a tree waits for it.
        limit: Duration::MAX,
        pages: true,
        prefix: "",
        externals,
        config,
        baseline: None,
        leave_out: &[],
    };
    if freeze::read_stat(root).is_none() {
        return Err(Error::new(KIND, format!("capturing the tree of {root}"), "there is no such process"));
    }
    let picture = match capture(&request, kill)? {
        Outcome::Obstacles(obstacles) => return Ok(obstacles),
        Outcome::Picture(picture) => picture,
    };
    let mut bytes = Vec::new();
    picture.write(&mut bytes, [0; 32], &mut |_| Ok(()))?;
    write_private(path, &bytes)?;
    Ok(Vec::new())
}

/// Looks at the running system, or at one tree, and names what could not be captured. Nothing is written.
///
/// # Errors
/// This system was not booted by rcsnap: its tasks are not ours to stop.
pub fn check(config: &Config, tree: Option<u32>) -> Result<Vec<Obstacle>> {
    let booted = sys::stat::exists(format!("{}/boot.json", crate::boot::status::FOLDER));
    if tree.is_none() && !booted {
        let cause = "rcsnap did not boot this system (there is no /run/rcsnap/boot.json)";
        return Err(Error::new(KIND, "checking the whole system", cause));
    }
    // A tree is captured whole: who restores it runs no scripts.
    let mut leave_out =
        if tree.is_some() { Vec::new() } else { crate::boot::rerun::processes(&config.reruns()) };
    let own = descriptor::standard();
    // Who called us is no service: its shell, its terminal and its connection.
    let mut parent = freeze::read_stat(std::process::id()).map(|s| s.ppid).filter(|pid| *pid > 1);
    while let Some(pid) = parent.filter(|_| tree.is_none()) {
        leave_out.push(pid);
        parent = freeze::read_stat(pid).map(|s| s.ppid).filter(|pid| *pid > 1);
    }
    let request = Request {
        scope: if tree.is_some() { Scope::Tree } else { Scope::System },
        root: tree.unwrap_or(1),
        except: std::process::id(),
        patience: Duration::from_secs(2),
        limit: Duration::from_millis(config.number(Key::LimitStop).into()),
        pages: false,
        prefix: "",
        externals: if tree.is_some() { &own } else { &[] },
        config,
        baseline: None,
        leave_out: &leave_out,
    };
    match capture(&request, false)? {
        Outcome::Obstacles(obstacles) => Ok(obstacles),
        Outcome::Picture(_) => Ok(Vec::new()),
    }
}

/// Writes a file that only its owner may read, whole or not at all: an image holds all secrets in memory.
fn write_private(path: &std::path::Path, bytes: &[u8]) -> Result<()> {
    let doing = format_args!("writing {}", path.to_string_lossy());
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
    let file = sys::path::open(part.as_ref(), flags, Mode::S_IRUSR | Mode::S_IWUSR).context(KIND, doing)?;
    fs::write_all(file.as_fd(), bytes).context(KIND, doing)?;
    nix::unistd::fsync(&file).context(KIND, doing)?;
    sys::path::rename(&part, path).context(KIND, doing)
}
