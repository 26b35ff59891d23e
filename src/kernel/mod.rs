//! State of the kernel that the rc scripts made, one file a kind. No process owns it.
//!
//! Captured as the difference between "before the scripts" and "after the scripts": an absolute picture
//! would freeze the kernel's own defaults and probe results into the image. This file has the list of the
//! kinds and their order, and nothing else.

use std::time::{Duration, Instant};

use crate::error::{Error, Obstacle, Refusal, Result};
use crate::proc::mountinfo::Mount;
use crate::section;

pub mod address;
pub mod audit;
pub mod bytes;
pub mod cgroup;
mod cgroup_setting;
pub mod clock;
pub mod console;
pub mod devnode;
pub mod hostname;
pub mod link;
pub mod loopdev;
pub mod module;
pub mod mount;
pub mod neighbour;
pub mod netfilter;
pub mod network;
pub mod random;
pub mod root;
pub mod route;
pub mod rule;
pub mod swap;
pub mod sysctl;
pub mod sysfs;
pub mod sysvipc;
pub mod tmpfs;
pub mod tree;
pub mod zram;

pub use root::Root;

section! {
    /// What the scripts made, in the order of the restore. The files in memory are large and are a section of
    /// their own: [`tmpfs::State`].
    pub struct State {
        /// Modules, whose devices and parameters what follows needs.
        pub module: module::State,
        /// Device nodes, for mounts to name.
        pub devnode: devnode::State,
        /// Mounts, with the files in memory as each is mounted.
        pub mount: mount::State,
        /// Parameters.
        pub sysctl: sysctl::State,
        /// Interfaces, addresses, routes, rules, neighbours.
        pub network: network::State,
        /// Attributes of devices, interfaces among them.
        pub sysfs: sysfs::State,
        /// Names of the system.
        pub hostname: hostname::State,
        /// System V IPC.
        pub sysvipc: sysvipc::State,
    }
}

/// The kernel before the scripts. Kept in memory by the watcher.
#[derive(Debug)]
pub struct Baseline {
    mounts: Vec<Mount>,
    tmpfs: tmpfs::Before,
    devnode: tmpfs::Names,
    module: Vec<String>,
    sysctl: sysctl::Values,
    swap: Vec<String>,
    loopdev: Vec<String>,
    zram: Vec<String>,
    audit: (u32, usize),
    sysvipc: sysvipc::Before,
    contents: Vec<String>,
    network: network::Seen,
    sysfs: sysfs::Seen,
}

impl Baseline {
    /// The mounts.
    #[must_use]
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }
}

#[cfg(feature = "fault")]
impl Baseline {
    /// Forgets mounts that rcsnap made itself on a boot that restores this state.
    ///
    /// # Errors
    /// The table is not the one that the state begins with.
    pub fn without_own(&mut self, state: &State) -> Result<()> {
        let own: Vec<u32> = mount::own(&state.mount.before, &self.mounts)?.iter().map(|m| m.id).collect();
        self.mounts.retain(|mount| !own.contains(&mount.id));
        Ok(())
    }
}

/// Takes down the kernel as it is before the scripts.
///
/// # Errors
/// An error of reading.
pub fn baseline(root: &Root) -> Result<Baseline> {
    let mounts = root.mounts()?;
    Ok(Baseline {
        tmpfs: tmpfs::baseline(&mounts, root)?,
        devnode: devnode::baseline(root)?,
        module: module::baseline(root),
        sysctl: sysctl::baseline(root)?,
        swap: swap::baseline(root),
        loopdev: loopdev::baseline(root),
        zram: zram::baseline(root),
        audit: audit::baseline(root),
        sysvipc: sysvipc::baseline(root),
        contents: mount::contents::baseline(&mounts, root),
        network: network::baseline(root)?,
        sysfs: sysfs::baseline(root),
        mounts,
    })
}

/// What the scripts made, and what of it cannot be carried. All tasks stand still.
///
/// # Errors
/// An error of reading.
pub fn capture(before: &Baseline, root: &Root) -> Result<(State, tmpfs::State, Vec<Obstacle>)> {
    let mounts = root.mounts()?;
    let (mount, fills, mut obstacles) = mount::capture(&before.mounts, &mounts, root);
    let (tmpfs, more) = tmpfs::capture(&before.tmpfs, &mounts, &fills, root);
    obstacles.extend(more);
    obstacles.extend(mount::contents::capture(&before.contents, &mounts, root));
    let (module, devnode) = devices(before, &mounts, root, &mut obstacles)?;
    let (sysvipc, more) = sysvipc::capture(&before.sysvipc, root);
    obstacles.extend(more);
    let (sysfs, more) =
        if root.cell { Default::default() } else { sysfs::capture(&before.sysfs, &module, root) };
    obstacles.extend(more);
    let (network, more) = network::capture(&before.network, root)?;
    obstacles.extend(more);
    let sysctl = sysctl::capture(&before.sysctl, root)?;
    let hostname = hostname::capture(root)?;
    let state = State { module, devnode, mount, sysctl, network, sysfs, hostname, sysvipc };
    Ok((state, tmpfs, obstacles))
}

/// What belongs to the machine: in a cell it is not ours, and may change without our doing.
fn devices(
    before: &Baseline,
    mounts: &[Mount],
    root: &Root,
    obstacles: &mut Vec<Obstacle>,
) -> Result<(module::State, devnode::State)> {
    if root.cell {
        return Ok(Default::default());
    }
    obstacles.extend(swap::capture(&before.swap, root));
    obstacles.extend(loopdev::capture(&before.loopdev, root));
    obstacles.extend(zram::capture(&before.zram, root));
    if let Some(obstacle) = audit::capture(before.audit, root) {
        obstacles.push(obstacle);
    }
    let (module, more) = module::capture(&before.module, root);
    obstacles.extend(more);
    // What is not mounted no script has changed.
    if !before.mounts.iter().chain(mounts).any(|mount| mount.fstype == "devtmpfs") {
        return Ok((module, devnode::State::default()));
    }
    let (devnode, more) = devnode::capture(&before.devnode, root)?;
    obstacles.extend(more);
    Ok((module, devnode))
}

/// Checks, before anything is changed, that what the image refers to is there, waiting for devices until the
/// deadline. What a module of the image may bring is waited for in [`restore`], after it is loaded.
///
/// # Errors
/// What is missing: the boot goes on cold.
pub fn check(state: &State, root: &Root, deadline: Instant) -> Result<()> {
    module::check(&state.module, root)?;
    let complete = state.module.list.is_empty();
    mount::check(&state.mount, root, complete.then_some(deadline))?;
    if complete {
        devnode::check(&state.devnode, root, deadline)?;
        link::check(&state.network.link, root, deadline)?;
        sysfs::check(&state.sysfs, root, deadline)?;
    }
    Ok(())
}

/// Makes the state of the kernel again, before any task is rebuilt. `phase` is told the name of each kind as
/// it begins.
///
/// # Errors
/// What could not be made; the kernel may have been changed by then.
pub fn restore(
    state: &State,
    tmpfs: &tmpfs::State,
    root: &Root,
    deadline: Instant,
    phase: &mut dyn FnMut(&'static str),
) -> Result<()> {
    phase("module");
    module::restore(&state.module, root)?;
    mount::check(&state.mount, root, Some(deadline))?;
    // Before mounts: their points and sources can be names that the scripts made in /dev.
    phase("devnode");
    devnode::restore(&state.devnode, root, deadline)?;
    // Before files, some of which may be on huge pages.
    phase("sysfs");
    sysfs::pools(&state.sysfs, root)?;
    // With the files in memory: they hold mount points of what is mounted next.
    phase("mount");
    mount::restore(&state.mount, root, &mut |index| tmpfs::restore(tmpfs, index, root))?;
    // After modules, which bring parameters, and before links, which take the defaults from them.
    phase("sysctl");
    sysctl::restore(&state.sysctl, root, sysctl::Phase::Early)?;
    network::restore(&state.network, &state.sysctl, root, deadline, phase)?;
    phase("sysfs");
    sysfs::restore(&state.sysfs, root, deadline)?;
    sysfs::stretch(&state.sysfs, root);
    phase("hostname");
    hostname::restore(&state.hostname, root)?;
    // After parameters, which have its limits.
    phase("sysvipc");
    sysvipc::restore(&state.sysvipc, root)
}

/// What has to wait until the tasks are rebuilt: modes of the sockets that they bound, and parameters that
/// would have hindered the restore.
///
/// # Errors
/// What could not be made.
pub fn restore_late(state: &State, tmpfs: &tmpfs::State, root: &Root) -> Result<()> {
    tmpfs::finish(tmpfs, "", root)?;
    devnode::finish(&state.devnode, root)?;
    sysfs::pools(&state.sysfs, root)?;
    sysctl::restore(&state.sysctl, root, sysctl::Phase::Late)
}

/// Refuses what was not there before the scripts.
fn refuse_new(
    kind: &'static str,
    before: &[String],
    now: Vec<String>,
    reason: &'static str,
    remedy: &'static str,
) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    for object in now {
        if !before.contains(&object) {
            obstacles.push(Obstacle::kernel(kind, object, Refusal::new(reason, remedy)));
        }
    }
    obstacles
}

/// Waits until the deadline for a path in sysfs.
fn come(kind: &'static str, path: &str, root: &Root, deadline: Instant) -> Result<()> {
    wait_for(deadline, &mut || root.sys.exists(path))
        .map_err(|()| Error::new(kind, format!("waiting for {path}"), "it did not come"))
}

/// Asks again each millisecond until the answer is yes or the deadline is over.
fn wait_for(deadline: Instant, there: &mut dyn FnMut() -> bool) -> Result<(), ()> {
    while !there() {
        if Instant::now() >= deadline {
            return Err(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
