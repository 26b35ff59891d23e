//! Peer groups of mounts (mount_namespaces(7)): the last steps, because whatever is mounted under a shared
//! mount shows up at its peers. Pure.

use crate::sorted::Listed;
use nix::mount::MsFlags;

use crate::error::{Obstacle, Refusal};
use crate::proc::mountinfo::{Mount, below, lookup};

use super::plan::{Paths, Plan, Step, bits, same};

/// Adds the steps for every mount whose propagation is not what it was, or not the kernel's default.
pub fn plan(plan: &mut Plan, before: &[Mount], after: &[Mount]) {
    let all: Vec<&Mount> = after.iter().list();
    let unchanged = |m: &Mount| {
        let default = Mount::default();
        let old = before.iter().find(|b| same(b, m)).unwrap_or(&default);
        (m.shared, m.master, m.unbindable) == (old.shared, old.master, old.unbindable)
    };
    // Under a shared mount new ones are shared too, and appear at its peers: more than we can repeat.
    let spreads = before.iter().any(|b| b.shared.is_some());
    let (mut done, mut open): (Vec<&Mount>, Vec<&Mount>) =
        all.iter().copied().partition(|m| unchanged(m) && !spreads);
    if spreads {
        if before.len() == after.len() && after.iter().all(unchanged) {
            return;
        }
        let refusal = Refusal::new(
            "mounts were made while a mount of the kernel's or the initramfs was shared",
            "make it shared in the scripts, not before them",
        );
        plan.obstacles.push(Obstacle::kernel("mount", "the mount table", refusal));
        return;
    }
    while let Some(at) = open.iter().position(|m| steps(&done, &all, m).is_some()) {
        let mount = open.remove(at);
        if let Some(mut steps) = steps(&done, &all, mount) {
            plan.steps.append(&mut steps);
        }
        done.push(mount);
    }
    for mount in open {
        let refusal = Refusal::new(
            "its peer group cannot be made again",
            "change its propagation after the ready line",
        );
        plan.obstacles.push(Obstacle::kernel("mount", format!("mount {}", mount.point), refusal));
    }
}

/// The steps for one mount, if the groups it depends on are there.
fn steps(done: &[&Mount], all: &[&Mount], mount: &Mount) -> Option<Vec<Step>> {
    let visible = |m: &Mount| lookup(all, &m.point).is_some_and(|found| found.id == m.id);
    if !visible(mount) {
        return None;
    }
    let set = |flag: MsFlags| Step::Propagation(mount.point.clone(), bits(flag));
    // MOVE_MOUNT_SET_GROUP wants the same file system, and a member that shows at least as much of it.
    let fits = |m: &&&Mount| m.dev == mount.dev && below(&mount.root, &m.root) && visible(m);
    let join = |m: &&Mount| Step::Join(Paths { from: m.point.clone(), to: mount.point.clone() });
    if mount.unbindable {
        return Some(vec![set(MsFlags::MS_UNBINDABLE)]);
    }
    if let Some(group) = mount.shared
        && done.iter().any(|m| m.shared == Some(group))
    {
        return Some(vec![join(done.iter().find(|m| m.shared == Some(group) && fits(m))?)]);
    }
    let mut found = Vec::new();
    if let Some(group) = mount.master {
        found.push(join(done.iter().find(|m| m.shared == Some(group) && fits(m))?));
        found.push(set(MsFlags::MS_SLAVE));
    }
    if mount.shared.is_some() {
        found.push(set(MsFlags::MS_SHARED));
    }
    if found.is_empty() {
        found.push(set(MsFlags::MS_PRIVATE));
    }
    Some(found)
}
