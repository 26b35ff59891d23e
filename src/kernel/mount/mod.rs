//! Mounts: new ones, binds, changed options, unmounted ones, their order and propagation.
//!
//! # What
//! The mount table of PID 1: what the scripts mounted, bound, moved, remounted or unmounted.
//! # Reads
//! /proc/1/mountinfo before and after the scripts; the path in sysfs of each device.
//! # Rebuilds
//! The same table by mount(2), in an order found by trying ([`plan`]); file systems on flash are mounted live
//! as they are then. The table is read again at the end and must be the one that was captured.
//! # Loses
//! Mount numbers. Whatever a script did beside mounting, such as fsck: a file system is mounted as it is.
//! # Refuses
//! Network file systems, fuse, autofs and unknown types; a changed root; idmapped mounts; what was mounted
//! out of reach of any path; what was made inside bpf, mqueue, binfmt_misc or configfs; options that a remount took away; peer groups whose other members are hidden.

pub mod contents;
pub mod fstype;
pub mod plan;
mod propagation;

use std::time::Instant;

use nix::mount::{MntFlags, MsFlags};
use nix::sys::stat::{major, minor};

use super::root::Root;
use crate::error::{Context, Error, Obstacle, Refusal, Result};
use crate::proc::mountinfo::{self, Mount};
use crate::section;
use crate::sorted::Listed;
use crate::sys::mount::join_group;
use crate::sys::path::{mount, umount2};
use crate::sys::stat::stat;
use crate::text;
use plan::{New, Paths, Step, Super, plan};

section! {
    /// The mount table.
    pub struct State {
        /// What was there before the scripts, and must be there before a restore.
        pub before: Vec<Entry>,
        /// What leads to the table after the scripts.
        pub steps: Vec<Step>,
        /// What must be there at the end.
        pub after: Vec<Entry>,
    }
}

section! {
    /// One line of the table, as far as it is the same on every boot.
    pub struct Entry {
        /// Where it is mounted.
        pub point: String,
        /// The directory of the file system that is its root.
        pub root: String,
        /// Type.
        pub fstype: String,
        /// Options of the mount.
        pub options: String,
        /// Options of the file system, if the scripts set them; the kernel's own sizes vary.
        pub super_options: Option<String>,
    }
}

/// The difference between two tables; which file systems are to be filled (index into `after`, and whether it
/// was there before), and what stands in the way.
#[must_use]
pub fn capture(before: &[Mount], after: &[Mount], root: &Root) -> (State, Vec<(usize, bool)>, Vec<Obstacle>) {
    let plan = plan(before, after, &|mount| device(mount, root));
    let entry = |mount: &Mount| {
        let kept = before.iter().find(|b| plan::same(b, mount));
        let theirs =
            mount.fstype == "devtmpfs" || kept.is_some_and(|b| b.super_options == mount.super_options);
        Entry {
            point: mount.point.clone(),
            root: mount.root.clone(),
            fstype: mount.fstype.clone(),
            options: mount.options.clone(),
            super_options: (!theirs).then(|| mount.super_options.clone()),
        }
    };
    let mut obstacles = plan.obstacles;
    if mountinfo::root(before).map(|m| m.id) != mountinfo::root(after).map(|m| m.id) {
        let refusal =
            Refusal::new("the scripts changed the root file system", "start rcsnap from the new root");
        obstacles.push(Obstacle::kernel("mount", "mount /", refusal));
    }
    let state = State {
        before: before.iter().map(|m| Entry { super_options: None, ..entry(m) }).list(),
        steps: plan.steps,
        after: after.iter().map(entry).list(),
    };
    (state, plan.fills, obstacles)
}

/// The path in sysfs of the device that a file system is on: names of nodes change with the order of probing.
fn device(mount: &Mount, root: &Root) -> Option<String> {
    if mount.fstype == "ubifs" {
        let volume = text::file_name(&mount.source).split(':').next()?;
        let path = format!("class/ubi/{volume}");
        return root.sys.exists(&path).then_some(path);
    }
    if mount.dev.0 != 0 {
        return block(mount.dev.0.into(), mount.dev.1.into(), root);
    }
    if !mount.source.starts_with("/dev/") {
        return None;
    }
    let rdev = stat(root.path(&mount.source)).ok()?.rdev;
    block(major(rdev), minor(rdev), root)
}

fn block(major: u64, minor: u64, root: &Root) -> Option<String> {
    let link = root.sys.link(&format!("dev/block/{major}:{minor}")).ok()?;
    Some(text::from_top(&link).to_owned())
}

/// Checks that the table is the one of before the scripts, and that the devices are there. With `wait`, devices
/// that are not there yet are waited for until the deadline; without it they are left to [`restore`], because
/// a module that is still to be loaded may bring them.
///
/// # Errors
/// What is missing.
pub fn check(state: &State, root: &Root, wait: Option<Instant>) -> Result<()> {
    own(&state.before, &root.mounts()?)?;
    if let Some(deadline) = wait {
        for step in &state.steps {
            if let Step::New(New { device: Some(device), point, .. }) = step {
                super::wait_for(deadline, &mut || root.sys.exists(device)).map_err(|()| {
                    Error::new("mount", format!("checking {point}"), format!("no device {device}"))
                })?;
            }
        }
    }
    Ok(())
}

/// The mounts of `now` that are not in `before`: on a restored boot they are rcsnap's own.
pub(super) fn own<'a>(before: &[Entry], now: &'a [Mount]) -> Result<Vec<&'a Mount>> {
    let mut rest: Vec<&Mount> = now.iter().list();
    for entry in before {
        let found = rest.iter().position(|m| {
            (&m.point, &m.root, &m.fstype) == (&entry.point, &entry.root, &entry.fstype)
                && m.options == entry.options
        });
        match found {
            Some(at) => drop(rest.remove(at)),
            None => {
                let text = format!("{} is not mounted as {} {}", entry.point, entry.fstype, entry.options);
                return Err(Error::new("mount", "comparing the table", text));
            }
        }
    }
    Ok(rest)
}

/// Makes the table. Our own mounts are taken away first: the system's come in their places. `fill` is called
/// with the number of each file system in memory as soon as it is mounted.
///
/// # Errors
/// The step that did not work, or a table that is not the captured one in the end.
pub fn restore(state: &State, root: &Root, fill: &mut dyn FnMut(u32) -> Result<()>) -> Result<()> {
    let now = root.mounts()?;
    for mount in own(&state.before, &now)?.iter().rev() {
        umount2(root.path(&mount.point), MntFlags::MNT_DETACH)
            .context("mount", format_args!("taking our own {} away", mount.point))?;
    }
    for step in &state.steps {
        take(step, root, fill)?;
    }
    verify(&state.after, &root.mounts()?)
}

fn take(step: &Step, root: &Root, fill: &mut dyn FnMut(u32) -> Result<()>) -> Result<()> {
    let none = None::<&str>;
    let bits = |flags: &u32| MsFlags::from_bits_retain(libc::c_ulong::from(*flags));
    match step {
        Step::Unmount(point) => {
            // Lazily: our own descriptors may be on it.
            umount2(root.path(point), MntFlags::MNT_DETACH)
                .context("mount", format_args!("unmounting {point}"))
        }
        Step::New(step) => new(step, root),
        Step::Bind(Paths { from, to }, options) => {
            mount(root.path(from).to_str(), root.path(to), none, MsFlags::MS_BIND, none)
                .context("mount", format_args!("binding {from} to {to}"))?;
            set_options(to, options, root)
        }
        Step::Fill(index) => fill(*index),
        Step::Options(point, options) => set_options(point, options, root),
        Step::Super(Super { point, options, flags, data }) => {
            // A remount sets the flags of the mount too; MS_RDONLY among them is the file system's, and the
            // step Options that follows says which the mount has.
            let flags =
                (fstype::mount_flags(options) - MsFlags::MS_RDONLY) | bits(flags) | MsFlags::MS_REMOUNT;
            mount(none, root.path(point), none, flags, Some(data.as_str()))
                .context("mount", format_args!("remounting {point} with {data}"))
        }
        Step::Propagation(point, flags) => mount(none, root.path(point), none, bits(flags), none)
            .context("mount", format_args!("setting the propagation of {point}")),
        Step::Join(Paths { from, to }) => join_group(&root.path(from), &root.path(to))
            .context("mount", format_args!("joining {to} to the peers of {from}")),
    }
}

fn set_options(point: &str, options: &str, root: &Root) -> Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | fstype::mount_flags(options);
    mount(None, root.path(point), None, flags, None)
        .context("mount", format_args!("setting {options} on {point}"))
}

fn new(step: &New, root: &Root) -> Result<()> {
    let New { point, fstype, source, options, super_options, device } = step;
    if let Some(device) = device
        && source.starts_with('/')
    {
        let rdev = stat(root.path(source)).context("mount", format_args!("looking at {source}"))?.rdev;
        if !fstype.starts_with("ubi") && block(major(rdev), minor(rdev), root).as_deref() != Some(device) {
            return Err(Error::new(
                "mount",
                format!("mounting {point}"),
                format!("{source} is not {device} on this boot"),
            ));
        }
    }
    let (flags, data) = fstype::super_options(fstype, super_options);
    let volatile = fstype::class(fstype) == fstype::Class::Volatile;
    let read_only = flags.contains(MsFlags::MS_RDONLY);
    // Files in memory have to be written first; see plan::read_only.
    let hold = if volatile { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    let all = (flags | (fstype::mount_flags(options) - MsFlags::MS_RDONLY)) - hold;
    mount(Some(source.as_str()), root.path(point), Some(fstype.as_str()), all, Some(data.as_str()))
        .context("mount", format_args!("mounting {source} on {point} as {fstype} with {data}"))?;
    // MS_RDONLY made both read-only, or neither.
    if !volatile && read_only != options.split(',').any(|word| word == "ro") {
        return set_options(point, options, root);
    }
    Ok(())
}

/// Compares the table with the captured one: options that cannot be read back are found here at the latest.
fn verify(after: &[Entry], now: &[Mount]) -> Result<()> {
    let mut rest: Vec<&Mount> = now.iter().list();
    for entry in after {
        let found = rest.iter().position(|m| {
            (&m.point, &m.root, &m.fstype) == (&entry.point, &entry.root, &entry.fstype)
                && m.options == entry.options
                && entry.super_options.as_ref().is_none_or(|options| *options == m.super_options)
        });
        match found {
            Some(at) => drop(rest.remove(at)),
            None => {
                let here = rest.iter().find(|m| m.point == entry.point);
                let here = here.map_or("nothing".to_owned(), |m| {
                    format!("{} {} {}", m.fstype, m.options, m.super_options)
                });
                let wanted = entry.super_options.as_deref().unwrap_or("");
                let text = format!("{here} instead of {} {} {wanted}", entry.fstype, entry.options);
                return Err(Error::new("mount", format!("verifying {}", entry.point), text));
            }
        }
    }
    match rest.first() {
        None => Ok(()),
        Some(mount) => {
            Err(Error::new("mount", format!("verifying {}", mount.point), "it is mounted, and was not"))
        }
    }
}
