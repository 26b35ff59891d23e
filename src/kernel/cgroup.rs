//! Control groups.
//!
//! # What
//! Groups below the root of every hierarchy (version 2, and those of version 1 by controller or name), with their
//! owners and settings; settings of the root; which process and thread is in which group.
//! # Reads
//! /proc/PID/task/TID/cgroup; the directories of each hierarchy, at a place where it is mounted: every file that can
//! be written, if the list in `cgroup_setting.rs` knows it. Devices are known by their path in sysfs.
//! # Rebuilds
//! The same groups before any task, with what decides where tasks may be: types, controllers that are turned on,
//! CPUs and memory nodes. Processes are put into them as soon as they are made, so that their memory is counted
//! there, and threads before they are scheduled as captured. All other settings are limits, and come last. Only what
//! a new group says differently is written, and then read again. A tree carries the group of a process that is not
//! in the group of the caller, and makes that group and all below it, if nobody outside the tree is in there.
//! # Loses
//! Statistics; devices that a group of version 1 denies while it allows all others, which it does not show; which
//! group a socket was made in; kernel threads that were moved; groups of a hierarchy that is mounted nowhere, in a
//! whole system only empty ones. An affinity to just the CPUs of its group is taken for none of a thread's own.
//! # Refuses
//! A task in a group that no mount shows; a mount that shows only a group; frozen groups, invalid partitions of
//! CPUs, and any other setting that is not in the list and neither empty, nor 0, nor `max`.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::cgroup_setting::{self, EARLY};
use super::devnode::Known;
use super::root::mounts_of;
use super::tree::{self, Budget, Node};
use crate::error::{Context, Obstacle, Refusal, Result};
use crate::proc::mountinfo::{Mount, lookup};
use crate::section;
use crate::sorted::{Listed, Map};
use crate::sys::{fs, path};
use crate::task::tree::Process;
use crate::text;

const KIND: &str = "cgroup";

section! {
    #[derive(Default)]
    /// The hierarchies in which there is anything.
    pub struct State {
        /// Each.
        pub hierarchies: Vec<Hierarchy>,
    }
}

section! {
    #[derive(Default)]
    /// A group of one hierarchy, with all below it: the root, or in a tree one that is only the tree's.
    pub struct Hierarchy {
        /// Its controllers, or `name=NAME`, as /proc/PID/cgroup has them; empty for version 2.
        pub name: String,
        /// Where the group is. All further paths are those below it.
        pub at: String,
        /// The groups, parents first.
        pub groups: Vec<Node>,
        /// Files in them whose owner or mode is not the usual one.
        pub files: Vec<Known>,
        /// Path and text of the files that are settings, those of parents first.
        pub settings: Vec<(String, String)>,
        /// Processes that are elsewhere in the hierarchy than who makes them, and threads that are elsewhere than their
        /// process, with the path as /proc/PID/cgroup has it.
        pub members: Vec<(u32, String)>,
    }
}

/// The groups of a thread: lines of number, hierarchy, path.
fn groups_of(pid: u32, tid: u32) -> String {
    fs::of_task(pid, &format!("task/{tid}/cgroup")).unwrap_or_default()
}

fn fields(line: &str) -> Option<(&str, &str)> {
    line.split_once(':')?.1.split_once(':')
}

/// The path of a hierarchy's group among others.
fn of<'a>(groups: &'a str, name: &str) -> &'a str {
    groups.lines().filter_map(fields).find(|(hierarchy, _)| *hierarchy == name).map_or("/", |(_, path)| path)
}

/// Where a hierarchy is mounted, as we see it.
fn top(mounts: &[Mount], name: &str, prefix: &str) -> Option<PathBuf> {
    let all: Vec<&Mount> = mounts.iter().list();
    let word = name.split(',').next().unwrap_or_default();
    let found = mounts.iter().find(|mount| {
        let it_is = match &*mount.fstype {
            "cgroup2" => word.is_empty(),
            "cgroup" => mount.super_options.split(',').any(|option| option == word),
            _ => false,
        };
        it_is && mount.root == "/" && lookup(&all, &mount.point).is_some_and(|on| on.id == mount.id)
    })?;
    Some(PathBuf::from(format!("{prefix}{}", found.point)))
}

/// The file that has the threads of a group.
fn threads(name: &str) -> &'static str {
    if name.is_empty() { "cgroup.threads" } else { "tasks" }
}

fn below(path: &str) -> &str {
    text::without_start(path, "/")
}

fn refuse(obstacles: &mut Vec<Obstacle>, object: String, reason: &'static str) {
    obstacles.push(Obstacle::kernel(KIND, object, Refusal::new(reason, "set it up after the ready line")));
}

impl State {
    fn of(&mut self, name: &str) -> &mut Hierarchy {
        let known = self.hierarchies.iter().position(|hierarchy| hierarchy.name == name);
        let at = known.unwrap_or_else(|| {
            self.hierarchies.push(Hierarchy::new(name, String::new()));
            self.hierarchies.len() - 1
        });
        &mut self.hierarchies[at]
    }
}

/// Reads groups and memberships of processes that stand still. `all` means the whole machine, where tasks begin in the
/// root of each hierarchy; else they begin where we are, and only what is theirs is read.
///
/// # Errors
/// An error of reading.
pub fn capture(all: bool, root: u32, prefix: &str, processes: &[Process]) -> Result<(State, Vec<Obstacle>)> {
    let (mut state, mut obstacles) = (State::default(), Vec::new());
    let mounts = mounts_of(root)?;
    let (me, mut home) = (std::process::id(), String::new());
    if all {
        for mount in mounts.iter().filter(|mount| mount.fstype.starts_with(KIND) && mount.root != "/") {
            refuse(
                &mut obstacles,
                format!("mount {}", mount.point),
                "it shows only a group, which is made after it",
            );
        }
        for (name, _) in groups_of(root, root).lines().filter_map(fields) {
            state.of(name);
        }
    } else {
        home = groups_of(me, me);
    }
    let mut ours = Vec::new();
    for process in processes {
        let mut usual = home.clone();
        for thread in process.body.iter().flat_map(|body| &body.threads) {
            let groups = groups_of(process.ids.pid, thread.tid);
            for (name, path) in groups.lines().filter_map(fields) {
                if path != of(&usual, name) {
                    state.of(name).members.push((thread.tid, path.to_owned()));
                }
            }
            ours.push(thread.tid);
            if thread.tid == process.ids.pid {
                usual = groups;
            }
        }
    }
    if !all {
        // What nobody there can see is the machine's business, and a restore begins where its caller is.
        state.hierarchies.retain(|found| top(&mounts, &found.name, prefix).is_some());
    }
    let mut groups = Vec::new();
    for found in &state.hierarchies {
        let top = top(&mounts, &found.name, prefix);
        for (id, path) in &found.members {
            if top.is_none() || path.starts_with("/..") {
                refuse(&mut obstacles, format!("{id} in {}:{path}", found.name), "no mount shows its group");
            }
        }
        let Some(top) = top else { continue };
        for at in if all { vec![String::new()] } else { found.own(&top, &ours) } {
            let mut group = Hierarchy::new(&found.name, at);
            group.read(&top.join(&group.at), &mut obstacles);
            groups.push(group);
        }
    }
    state.hierarchies.append(&mut groups);
    Ok((state, obstacles))
}

impl Hierarchy {
    #[inline(never)]
    fn new(name: &str, at: String) -> Hierarchy {
        Hierarchy { name: name.to_owned(), at, ..Hierarchy::default() }
    }

    /// The groups of members that, with all below, have no threads but ours.
    fn own(&self, top: &Path, ours: &[u32]) -> Vec<String> {
        let mut own: Vec<String> = Vec::new();
        for (_, path) in &self.members {
            let mut at = String::new();
            for part in below(path).split('/') {
                at.push_str(part);
                if own.contains(&at) || at.is_empty() {
                    break;
                }
                // Of others' groups one may go meanwhile: they are not ours then.
                let names = tree::list(KIND, &top.join(&at), &|_| false).unwrap_or_default();
                let only = names.iter().all(|(path, _)| {
                    let known = text::file_name(path) != threads(&self.name);
                    let said = || fs::text(top.join(&at).join(path)).unwrap_or_default();
                    known || said().lines().all(|id| id.parse().is_ok_and(|id| ours.contains(&id)))
                });
                if only && !names.is_empty() {
                    own.push(at);
                    break;
                }
                at.push('/');
            }
        }
        own
    }

    /// Reads a group, and all below it.
    #[inline(never)]
    fn read(&mut self, group: &Path, obstacles: &mut Vec<Obstacle>) {
        let names = tree::list(KIND, group, &|_| false).unwrap_or_else(|error| {
            obstacles.push(Obstacle::kernel(KIND, self.at.as_str(), error.into()));
            Vec::new()
        });
        for name in names {
            let (path, meta) = &name;
            if meta.is_dir() {
                match tree::read(KIND, group, &name, &mut Map::new(), &mut Budget(0)) {
                    Ok(node) => self.groups.push(node),
                    Err(refusal) => obstacles.push(Obstacle::kernel(KIND, path.as_str(), refusal)),
                }
                continue;
            }
            let mode = meta.mode & 0o7777;
            if meta.uid != 0 || meta.gid != 0 || ![0o644, 0o444, 0o200, 0o222, 0].contains(&mode) {
                self.files.push(Known { path: path.clone(), mode, uid: meta.uid, gid: meta.gid });
            }
            let file = text::file_name(path);
            if mode & 0o200 == 0 && file != cgroup_setting::DEVICES {
                continue;
            }
            // What cannot be read is a command.
            let Ok(said) = fs::text(group.join(path)) else { continue };
            match cgroup_setting::of(file, &said) {
                Ok(said) => self.settings.extend(said.map(|said| (path.clone(), said))),
                Err(()) => refuse(obstacles, format!("/{}/{path}", self.at), "this setting is not carried"),
            }
        }
    }

    /// Makes the groups, with what comes before tasks.
    #[inline(never)]
    fn make(&self, top: &Path) -> Result<()> {
        let group = top.join(&self.at);
        tree::make(KIND, &group, &self.groups, &[])?;
        (0..EARLY).try_for_each(|turn| self.set(top, turn))?;
        for known in &self.files {
            let file = group.join(&known.path);
            path::chown(&file, known.uid, known.gid)
                .and_then(|()| path::chmod(&file, known.mode))
                .context(KIND, format_args!("setting the owner of {}", known.path))?;
        }
        Ok(())
    }

    /// Writes the settings whose turn it is; all late ones have the last.
    fn set(&self, top: &Path, turn: usize) -> Result<()> {
        for (path, said) in &self.settings {
            let name = text::file_name(path);
            if cgroup_setting::turn(name) == turn {
                cgroup_setting::write(&top.join(&self.at).join(path), name, said)
                    .context(KIND, format_args!("setting {path} to {said}"))?;
            }
        }
        Ok(())
    }
}

/// The groups of an image in this system.
#[derive(Debug, Default)]
pub struct Groups<'a>(Vec<(PathBuf, &'a Hierarchy)>);

/// Makes the groups, for tasks to be put into.
///
/// # Errors
/// A hierarchy is mounted nowhere, or the kernel does not have what a group had.
pub fn restore(state: &State) -> Result<Groups<'_>> {
    let mounts = mounts_of(std::process::id())?;
    let mut groups = Groups::default();
    for hierarchy in &state.hierarchies {
        let top = top(&mounts, &hierarchy.name, "").ok_or(Errno::ENODEV);
        let top = top.context(KIND, format_args!("looking for a mount of {}", hierarchy.name))?;
        hierarchy.make(&top)?;
        groups.0.push((top, hierarchy));
    }
    Ok(groups)
}

impl Groups<'_> {
    /// Puts a process where it was, or a thread that is elsewhere than its process.
    ///
    /// # Errors
    /// The group is gone, or takes none.
    pub fn put(&self, id: u32, process: bool) -> Result<()> {
        for (top, hierarchy) in &self.0 {
            if let Some((_, path)) = hierarchy.members.iter().find(|(member, _)| *member == id) {
                let file = if process { "cgroup.procs" } else { threads(&hierarchy.name) };
                fs::write(top.join(below(path)).join(file), id.to_string())
                    .context(KIND, format_args!("putting {id} into {path}"))?;
            }
        }
        Ok(())
    }

    /// Sets the limits, when all tasks are where they belong.
    ///
    /// # Errors
    /// The kernel does not take one.
    pub fn finish(&self) -> Result<()> {
        self.0.iter().try_for_each(|(top, hierarchy)| hierarchy.set(top, EARLY))
    }
}

#[cfg(test)]
mod tests {
    use super::{of, top};
    use crate::proc::mountinfo::parse;

    #[test]
    fn hierarchies_are_found_where_they_are_mounted() {
        let mounts = parse(
            "20 1 0:1 / / rw - tmpfs none rw\n\
             21 20 0:2 / /two rw - cgroup2 none rw,nsdelegate\n\
             22 20 0:3 / /cpu rw - cgroup none rw,cpu,cpuacct\n\
             23 20 0:4 /part /name rw - cgroup none rw,name=x\n\
             24 20 0:5 / /hidden rw - cgroup none rw,pids\n\
             25 24 0:6 / /hidden rw - tmpfs none rw\n",
        )
        .unwrap();
        let point = |name| top(&mounts, name, "/root");
        assert_eq!(point(""), Some("/root/two".into()));
        assert_eq!(point("cpu,cpuacct"), Some("/root/cpu".into()));
        assert_eq!((point("name=x"), point("pids"), point("memory")), (None, None, None));
        let groups = "4:cpu,cpuacct:/a\n0::/b:c\n";
        assert_eq!((of(groups, "cpu,cpuacct"), of(groups, ""), of(groups, "pids")), ("/a", "/b:c", "/"));
    }
}
