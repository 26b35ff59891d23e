//! What programs made inside the kernel's own file systems: registrations, pinned objects, gadgets. None of it
//! is carried; a mount that holds any is refused, because a new one would be empty.

use crate::sorted::Listed;
use std::path::Path;

use crate::error::Obstacle;
use crate::kernel::refuse_new;
use crate::kernel::root::Root;
use crate::proc::mountinfo::{Mount, lookup};
use crate::sys::fs;

/// Types, and how deep below the mount what programs make begins.
const TYPES: &[(&str, usize)] = &[("bpf", 1), ("mqueue", 1), ("binfmt_misc", 1), ("configfs", 2)];

/// Everything that is there, in words.
#[must_use]
pub fn baseline(mounts: &[Mount], root: &Root) -> Vec<String> {
    let all: Vec<&Mount> = mounts.iter().list();
    let mut found = Vec::new();
    for mount in mounts.iter().filter(|m| lookup(&all, &m.point).is_some_and(|on| on.id == m.id)) {
        if let Some((_, depth)) = TYPES.iter().find(|(fstype, _)| *fstype == mount.fstype) {
            let mut names = Vec::new();
            list(&root.path(&mount.point), *depth, &mut names);
            // The files of binfmt_misc itself.
            names.retain(|name| name != "register" && name != "status");
            found.extend(names.iter().map(|name| format!("{} in {} ({})", name, mount.point, mount.fstype)));
        }
    }
    found
}

/// Names at a depth. A file above it is the kernel's.
fn list(dir: &Path, depth: usize, names: &mut Vec<String>) {
    for name in fs::names(dir).unwrap_or_default() {
        if depth > 1 {
            list(&dir.join(name), depth - 1, names);
        } else {
            names.push(name.to_string_lossy().into_owned());
        }
    }
}

/// Refuses what is new.
#[must_use]
pub fn capture(before: &[String], mounts: &[Mount], root: &Root) -> Vec<Obstacle> {
    let reason = "objects in file systems of the kernel are not carried";
    refuse_new("mount", before, baseline(mounts, root), reason, "make it after the ready line")
}
