//! From the tables before and after the scripts to the steps that lead from one to the other. Pure.
//!
//! The order of the table is the order in which mounts were made, but a mount can be moved later, and one can
//! hide others. So the steps are found by trying: the next mount to make is the first one whose parent is
//! there and in sight, whose source is there and in sight, and which hides none that is still to be made.

use crate::sorted::Listed;
use nix::mount::MsFlags;

use crate::error::{Obstacle, Refusal};
use crate::proc::mountinfo::{Mount, below, lookup};
use crate::section;

use super::fstype::{Class, change, class, unknown_option};
use crate::text;

section! {
    /// One change of the mount table.
    pub enum Step {
        /// The scripts took a mount away that was there before them.
        Unmount(String),
        /// The first mount of a file system.
        New(New),
        /// Another mount of a file system, or of a part of it, with its options.
        Bind(Paths, String),
        /// Files in memory: an index into the list of `tmpfs`.
        Fill(u32),
        /// The options of a mount: its point, and they.
        Options(String, String),
        /// The options of a file system.
        Super(Super),
        /// The propagation of a mount: its point, and MS_PRIVATE, MS_SHARED, MS_SLAVE or MS_UNBINDABLE.
        Propagation(String, u32),
        /// Into the peer group of another mount.
        Join(Paths),
    }
}

section! {
    /// From one mount point to another.
    pub struct Paths {
        /// The one that is there.
        pub from: String,
        /// The one that is changed.
        pub to: String,
    }
}

section! {
    /// The first mount of a file system.
    pub struct New {
        /// Where.
        pub point: String,
        /// Type.
        pub fstype: String,
        /// Device, or any word.
        pub source: String,
        /// Options of the mount.
        pub options: String,
        /// Options of the file system.
        pub super_options: String,
        /// The path in sysfs of its device, if it is on one.
        pub device: Option<String>,
    }
}

section! {
    /// A remount.
    pub struct Super {
        /// Where.
        pub point: String,
        /// Options of the mount, which a remount sets as well.
        pub options: String,
        /// MS_* of the file system.
        pub flags: u32,
        /// Options that are not flags.
        pub data: String,
    }
}

/// Flags in a width that is the same on every machine; the kernel has no higher ones.
pub fn bits(flags: MsFlags) -> u32 {
    u32::try_from(flags.bits()).unwrap_or(0)
}

/// The steps, the file systems to fill (by index into the table after), and what stands in the way.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order of the restore.
    pub steps: Vec<Step>,
    /// What [`Step::Fill`] counts: an index into the table after, and whether it was there before.
    pub fills: Vec<(usize, bool)>,
    /// What cannot be carried.
    pub obstacles: Vec<Obstacle>,
}

impl Plan {
    fn refuse(&mut self, mount: &Mount, reason: impl Into<String>, remedy: &'static str) {
        let refusal = Refusal::new(reason.into(), remedy);
        self.obstacles.push(Obstacle::kernel("mount", format!("mount {}", mount.point), refusal));
    }
}

/// The same mount in both tables, at the same place. Numbers are used again once they are free, so a mount that
/// was moved cannot be told from one that was unmounted and one that was made: it is taken for these two, which
/// leads to the same table. Of a file system in memory the contents are compared, so no mistake is possible.
#[must_use]
pub fn same(a: &Mount, b: &Mount) -> bool {
    (a.id, a.dev, &a.fstype, &a.root) == (b.id, b.dev, &b.fstype, &b.root)
        && (a.parent, &a.point) == (b.parent, &b.point)
}

/// Finds the steps. `device` gives the path in sysfs of a file system's device.
#[must_use]
pub fn plan(before: &[Mount], after: &[Mount], device: &dyn Fn(&Mount) -> Option<String>) -> Plan {
    let mut plan = Plan::default();
    let mut now: Vec<&Mount> = before.iter().list();
    for gone in before.iter().rev().filter(|b| !after.iter().any(|a| same(a, b))) {
        if lookup(&now, &gone.point).is_some_and(|m| m.id == gone.id) {
            plan.steps.push(Step::Unmount(gone.point.clone()));
            now.retain(|m| m.id != gone.id);
        } else {
            plan.refuse(gone, "it was unmounted from under another mount", "mount it after the ready line");
        }
    }
    let mut pending: Vec<usize> = Vec::new();
    for (index, mount) in after.iter().enumerate() {
        match before.iter().find(|b| same(b, mount)) {
            None => pending.push(index),
            Some(old) => kept(&mut plan, &now, old, mount, index),
        }
    }
    while let Some(at) = pending.iter().position(|&i| ready(&now, after, &pending, i).is_some()) {
        let index = pending.remove(at);
        if let Some((mount, from)) =
            after.get(index).and_then(|m| Some((m, source(&now, after, &pending, m)?)))
        {
            make(&mut plan, index, mount, from, device);
            now.push(mount);
        }
    }
    for mount in pending.iter().filter_map(|&i| after.get(i)) {
        plan.refuse(mount, "it or its source cannot be reached by a path", "mount it after the ready line");
    }
    super::propagation::plan(&mut plan, before, after);
    plan
}

/// What changed of a mount that was there before. Before any new mount is made, which might hide it.
fn kept(plan: &mut Plan, now: &[&Mount], old: &Mount, mount: &Mount, index: usize) {
    let seen = lookup(now, &mount.point).is_some_and(|m| m.id == mount.id);
    // What was hidden before the scripts they could not change.
    if class(&mount.fstype) == Class::Volatile && mount.root == "/" && seen {
        plan.steps.push(Step::Fill(u32::try_from(plan.fills.len()).unwrap_or(u32::MAX)));
        plan.fills.push((index, true));
    }
    if old.options == mount.options && old.super_options == mount.super_options {
        return;
    }
    if !seen {
        return plan.refuse(
            mount,
            "its options changed while it was hidden by another mount",
            "remount it later",
        );
    }
    if old.super_options != mount.super_options {
        match change(&mount.fstype, &old.super_options, &mount.super_options) {
            Ok((flags, data)) => plan.steps.push(Step::Super(Super {
                point: mount.point.clone(),
                options: mount.options.clone(),
                flags: bits(flags),
                data,
            })),
            Err(word) => plan.refuse(mount, format!("the option {word} was taken away"), "remount it later"),
        }
    }
    plan.steps.push(Step::Options(mount.point.clone(), mount.options.clone()));
}

/// Where a mount comes from: a path to bind, or nothing if it is the first of its file system.
fn source(now: &[&Mount], after: &[Mount], pending: &[usize], mount: &Mount) -> Option<Option<String>> {
    let bind = now.iter().filter(|m| m.dev == mount.dev && below(&mount.root, &m.root)).find_map(|m| {
        let rest = mount.root.strip_prefix(text::without_end(&m.root, "/"))?;
        let path = format!("{}{rest}", text::without_end(&m.point, "/"));
        let path = if path.is_empty() { "/".to_owned() } else { path };
        (lookup(now, &path)?.id == m.id).then_some(path)
    });
    if bind.is_some() {
        return Some(bind);
    }
    // A subvolume of btrfs is chosen by its options; everywhere else a first mount shows the whole.
    let whole = mount.root == "/" || mount.fstype == "btrfs";
    let wider =
        |m: &Mount| m.dev == mount.dev && m.root.len() < mount.root.len() && below(&mount.root, &m.root);
    let wait = pending.iter().filter_map(|&i| after.get(i)).any(wider);
    (whole && !wait).then_some(None)
}

/// Whether the mount can be made now.
fn ready(now: &[&Mount], after: &[Mount], pending: &[usize], index: usize) -> Option<()> {
    let mount = after.get(index)?;
    if lookup(now, &mount.point)?.id != mount.parent {
        return None;
    }
    let hides = |other: &Mount| {
        let mut at = other;
        while at.parent != mount.parent {
            at = after.iter().find(|m| m.id == at.parent && m.id != at.id)?;
        }
        (at.id != mount.id && below(&at.point, &mount.point)).then_some(())
    };
    if pending.iter().filter(|&&i| i != index).filter_map(|&i| after.get(i)).any(|m| hides(m).is_some()) {
        return None;
    }
    source(now, after, pending, mount).map(drop)
}

/// The steps that make one mount.
fn make(
    plan: &mut Plan,
    index: usize,
    mount: &Mount,
    from: Option<String>,
    device: &dyn Fn(&Mount) -> Option<String>,
) {
    if let Some(word) = unknown_option(&mount.options) {
        return plan.refuse(
            mount,
            format!("the option {word} cannot be set again"),
            "mount it after the ready line",
        );
    }
    if let Some(from) = from {
        plan.steps.push(Step::Bind(Paths { from, to: mount.point.clone() }, mount.options.clone()));
        return;
    }
    let class = class(&mount.fstype);
    if class == Class::Unknown {
        return plan.refuse(
            mount,
            format!("file systems of the type {} are not carried", mount.fstype),
            "mount it after the ready line, or in a rerun script",
        );
    }
    let device = device(mount);
    if class == Class::Live && device.is_none() && mount.fstype != "overlay" {
        return plan.refuse(
            mount,
            format!("its device {} is not in sysfs", mount.source),
            "mount it after the ready line",
        );
    }
    plan.steps.push(Step::New(New {
        point: mount.point.clone(),
        fstype: mount.fstype.clone(),
        source: mount.source.clone(),
        options: mount.options.clone(),
        super_options: mount.super_options.clone(),
        device,
    }));
    if class == Class::Volatile {
        plan.steps.push(Step::Fill(u32::try_from(plan.fills.len()).unwrap_or(u32::MAX)));
        plan.fills.push((index, false));
        read_only(plan, mount);
    }
}

/// After it is filled a read-only file system becomes that, not before.
fn read_only(plan: &mut Plan, mount: &Mount) {
    let (flags, _) = super::fstype::super_options(&mount.fstype, &mount.super_options);
    if flags.contains(MsFlags::MS_RDONLY) {
        plan.steps.push(Step::Super(Super {
            point: mount.point.clone(),
            options: mount.options.clone(),
            flags: bits(flags),
            data: String::new(),
        }));
    }
    if flags.contains(MsFlags::MS_RDONLY) || mount.options.split(',').any(|word| word == "ro") {
        plan.steps.push(Step::Options(mount.point.clone(), mount.options.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, Step, plan};
    use crate::proc::mountinfo::{Mount, parse};

    const BEFORE: &str = "24 1 254:2 / / ro,relatime - ext4 /dev/vda2 ro,errors=continue\n\
                          25 24 0:5 / /dev rw,nosuid - devtmpfs devtmpfs rw,size=100k,mode=755\n";

    fn with(lines: &str) -> Vec<Mount> {
        parse(&format!("{BEFORE}{lines}")).unwrap()
    }

    fn of(after: &[Mount]) -> Plan {
        plan(&with(""), after, &|mount| (mount.dev.0 != 0).then(|| format!("devices/{}", mount.source)))
    }

    /// The points in the order in which they are mounted.
    fn points(plan: &Plan) -> Vec<String> {
        let point = |step: &Step| match step {
            Step::New(new) => Some(new.point.clone()),
            Step::Bind(paths, _) => Some(paths.to.clone()),
            _ => None,
        };
        plan.steps.iter().filter_map(point).collect()
    }

    #[test]
    fn nothing_changed_takes_no_step() {
        assert!(of(&with("")).steps.is_empty());
    }

    #[test]
    fn remounted_root_is_one_step() {
        let mut after = with("");
        after[0].options = "rw,relatime".into();
        after[0].super_options = "rw,errors=remount-ro".into();
        let plan = of(&after);
        assert!(
            matches!(plan.steps.as_slice(), [Step::Super(one), Step::Options(..)] if one.data == "errors=remount-ro")
        );
    }

    #[test]
    fn parent_and_source_come_first() {
        // The second was moved onto the third, and the first was bound before its source's line.
        let after = with(
            "40 24 0:41 /sub /bound rw - tmpfs t rw\n\
             41 43 0:40 / /run/x rw - tmpfs t rw\n\
             42 24 0:41 / /tmp rw - tmpfs t rw\n\
             43 24 0:42 / /run rw - tmpfs t rw\n",
        );
        let plan = of(&after);
        assert!(plan.obstacles.is_empty());
        assert_eq!(points(&plan), ["/tmp", "/bound", "/run", "/run/x"]);
    }

    #[test]
    fn what_is_hidden_comes_before_what_hides() {
        let after = with(
            "40 24 0:40 / /a rw - proc p rw\n41 24 0:41 / /a/b rw - sysfs s rw\n42 41 0:42 / /a/b/c rw - proc p rw\n",
        );
        assert_eq!(points(&of(&after)), ["/a/b", "/a/b/c", "/a"]);
    }

    #[test]
    fn source_out_of_reach_is_refused() {
        let plan = of(&with("40 24 0:40 /sub /bound rw - tmpfs t rw\n"));
        assert_eq!(plan.obstacles[0].object, "mount /bound");
    }

    #[test]
    fn file_systems_that_need_others_are_refused() {
        for line in [
            "40 24 0:40 / /n rw - nfs4 server:/x rw",
            "40 24 0:40 / /n rw - fuse.sshfs x rw",
            "40 24 0:40 / /n rw,idmapped - ext4 /dev/vdb rw",
        ] {
            assert_eq!(of(&with(&format!("{line}\n"))).obstacles.len(), 1, "{line}");
        }
    }

    #[test]
    fn device_is_named_by_its_path() {
        let plan = of(&with("40 24 254:3 / /data rw,noatime - ext4 /dev/vda3 rw\n"));
        assert!(
            matches!(&plan.steps[0], Step::New(new) if new.device.as_deref() == Some("devices//dev/vda3"))
        );
    }

    #[test]
    fn new_mounts_under_a_shared_one_are_refused() {
        let mut before = with("");
        before[0].shared = Some(1);
        let mut after = with("40 24 0:40 / /p rw shared:1 - proc p rw\n");
        after[0].shared = Some(1);
        assert_eq!(plan(&before, &after, &|_| None).obstacles.len(), 1);
        assert!(plan(&before, &before, &|_| None).obstacles.is_empty());
    }
}
