//! What: working directory, root directory and umask of a process, or of a thread that has its own.
//! Reads: /proc/PID/task/TID/{cwd, root}, the Umask line of its status.
//! Rebuilds: fchdir(2) and chroot(2) to directories that the conductor opens, umask(2), by the task itself. One that
//!   was deleted is made under its old name and deleted again.
//! Loses: that a deleted directory is also open, or somebody else's: each comes back as one of its own.
//! Refuses: a directory on persistent storage that was deleted.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::OFlag;

use crate::error::{Context, Refusal, Result};
use crate::file::{deleted, place};
use crate::sys::fs;
use crate::task::freeze;
use crate::task::remote::Script;

const KIND: &str = "workdir";

crate::section! {
    /// A directory that a task stands in.
    pub struct Folder {
        /// Its path.
        pub path: String,
        /// How to make it, if it was deleted.
        pub deleted: Option<deleted::Body>,
    }
}

crate::section! {
    /// Where a task stands.
    pub struct State {
        /// Working directory.
        pub cwd: Folder,
        /// Root directory, `/` for most.
        pub root: Folder,
        /// File mode creation mask.
        pub umask: u32,
    }
}

/// Reads where a task stands. `root` stands before every path.
///
/// # Errors
/// A directory that cannot be made again.
pub fn capture(pid: u32, tid: u32, root: &str) -> Result<State, Refusal> {
    let folder = |name: &str| -> Result<Folder, Refusal> {
        let link = format!("/proc/{pid}/task/{tid}/{name}");
        let doing = format_args!("reading {link}");
        let path = fs::link_text(&link).context(KIND, doing)?;
        let mut deleted = None;
        if path.ends_with(" (deleted)") {
            let fd = fs::open(&link, OFlag::O_PATH | OFlag::O_DIRECTORY).context(KIND, doing)?;
            // A name may really end so.
            if place::stat(&fd, KIND)?.nlink == 0 {
                deleted = Some(deleted::folder(&path, &fd, root)?);
            }
        }
        Ok(Folder { path, deleted })
    };
    Ok(State { cwd: folder("cwd")?, root: folder("root")?, umask: freeze::read_status(tid).umask })
}

/// Adds the calls that enter a directory. It must stay open until they are made.
fn enter(script: &mut Script<'_>, folder: &Folder) -> Result<OwnedFd> {
    let fd = match &folder.deleted {
        Some(body) => deleted::make(body),
        None => place::open(&folder.path, libc::O_PATH | libc::O_DIRECTORY, KIND),
    }?;
    script.batch.call(libc::SYS_pidfd_getfd, &[0, u64::from(fd.as_raw_fd().cast_unsigned()), 0]);
    script.batch.call(libc::SYS_fchdir, &[1]);
    script.batch.doing("changing the directory");
    script.batch.call(libc::SYS_close, &[1]);
    Ok(fd)
}

/// Goes there. Descriptor 0 of the task is the conductor, 1 is free, and its root is the conductor's.
///
/// # Errors
/// A directory cannot be opened or entered.
pub fn restore(script: &mut Script<'_>, state: &State) -> Result<()> {
    script.ensure(8, 64)?;
    let root = if state.root.path == "/" { None } else { Some(enter(script, &state.root)?) };
    if root.is_some() {
        let here = script.batch.path(".");
        script.batch.call(libc::SYS_chroot, &[here]);
        script.batch.doing("changing the root directory");
    }
    // Its descriptor leads out of the new root, if that is where it is.
    let cwd = enter(script, &state.cwd)?;
    script.batch.call(libc::SYS_umask, &[u64::from(state.umask)]);
    script.flush()?;
    drop((root, cwd));
    Ok(())
}
