//! Control groups.
//!
//! # What
//! Groups below the root of any hierarchy, and the tasks in them.
//! # Reads
//! The directories of every mounted hierarchy; /proc/PID/cgroup of the captured processes.
//! # Rebuilds
//! Nothing yet: mounting a hierarchy is carried by `mount`, and all tasks are in its root.
//! # Loses
//! Settings of the root group, of which version 2 has none but `cgroup.subtree_control`.
//! # Refuses
//! Any group that was not there before the scripts; controllers turned on in the root group; a process in
//! another group than PID 1.

use super::refuse_new;
use super::root::Root;
use crate::error::{Obstacle, Refusal};
use crate::proc::mountinfo::{Mount, lookup};
use crate::sys::fs::{self, Name};

/// The groups that exist, with what is turned on in each root of version 2.
#[must_use]
pub fn baseline(mounts: &[Mount], root: &Root) -> Vec<String> {
    let all: Vec<&Mount> = mounts.iter().collect();
    let mut found = Vec::new();
    let hierarchies = mounts.iter().filter(|m| m.fstype == "cgroup" || m.fstype == "cgroup2");
    for mount in hierarchies.filter(|m| lookup(&all, &m.point).is_some_and(|on| on.id == m.id)) {
        let top = root.path(&mount.point);
        for Name { name, dir } in fs::entries(&top).unwrap_or_default() {
            if dir {
                found.push(format!("group {}/{}", mount.point, name.to_string_lossy()));
            }
        }
        let on = fs::text(top.join("cgroup.subtree_control")).unwrap_or_default();
        found.extend(on.split_ascii_whitespace().map(|name| format!("controller {name} in {}", mount.point)));
    }
    found
}

/// Refuses what is new, and processes outside PID 1's group. That is compared with PID 1 and not with `/`,
/// because a group namespace may show another path.
#[must_use]
pub fn capture(before: &[String], mounts: &[Mount], root: &Root, pids: &[u32]) -> Vec<Obstacle> {
    let (reason, remedy) = ("control groups are not carried yet", "make it after the ready line");
    let mut found = refuse_new("cgroup", before, baseline(mounts, root), reason, remedy);
    let first = root.of_task("cgroup").unwrap_or_default();
    for pid in pids {
        let own = root.proc.line(&format!("{pid}/cgroup"));
        if !own.is_empty() && own != first.trim_ascii_end() {
            let name = root.proc.line(&format!("{pid}/comm"));
            let refusal = Refusal::new(reason, remedy);
            found.push(Obstacle::process("cgroup", *pid, name, "its control group", refusal));
        }
    }
    found
}
