//! What: working directory, root directory and umask of a process.
//! Reads: /proc/PID/cwd, /proc/PID/root, the Umask line of /proc/PID/status.
//! Rebuilds: chdir(2), chroot(2), umask(2).
//! Loses: nothing.
//! Refuses: a directory that was deleted, in this version.

use crate::error::{Context, Error, Refusal};
use crate::sys::fs;
use crate::task::remote::Batch;

crate::section! {
    /// Where a process stands.
    pub struct State {
        /// Working directory.
        pub cwd: String,
        /// Root directory, `/` for most.
        pub root: String,
        /// File mode creation mask.
        pub umask: u32,
    }
}

fn link(pid: u32, name: &str) -> Result<String, Refusal> {
    let path = format!("/proc/{pid}/{name}");
    let target = fs::link(&path).context("workdir", format_args!("reading {path}"))?;
    let text = target.into_os_string().into_string();
    let text = text.map_err(|_| Error::new("workdir", format!("reading {path}"), "the name is not UTF-8"))?;
    if text.ends_with(" (deleted)") {
        return Err(Refusal::new(
            format!("its {name} {text} was deleted"),
            "start it in a directory that stays",
        ));
    }
    Ok(text)
}

/// Reads the state of a process; `umask` is from its status.
///
/// # Errors
/// A deleted directory.
pub fn capture(pid: u32, umask: u32) -> Result<State, Refusal> {
    Ok(State { cwd: link(pid, "cwd")?, root: link(pid, "root")?, umask })
}

/// Goes there. After every descriptor is in place, and before the rights for chroot(2) are gone.
pub fn restore(batch: &mut Batch, state: &State) {
    let cwd = batch.path(&state.cwd);
    batch.call(libc::SYS_chdir, &[cwd]);
    batch.doing("changing to the working directory");
    if state.root != "/" {
        let root = batch.path(&state.root);
        batch.call(libc::SYS_chroot, &[root]);
        batch.doing("changing the root directory");
    }
    batch.call(libc::SYS_umask, &[u64::from(state.umask)]);
}
