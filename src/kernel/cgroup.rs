//! Control groups.
//!
//! # What
//! Groups below the root of every hierarchy (version 2, and controllers or names of version 1), with their owners
//! and settings; settings of the root; which process and thread is in which group.
//! # Reads
//! /proc/PID/task/TID/cgroup; the directories of each hierarchy, at a place where it is mounted. Of a group every
//! file that can be written and that the list `TABLE` knows.
//! # Rebuilds
//! The same groups before any task, with what decides where tasks may be: types, controllers that are turned on,
//! CPUs and memory nodes. Tasks are put into them as soon as they are made, so that their memory is counted
//! there, and threads before they are scheduled as captured. All other settings are limits, and come last. Only what
//! a new group says differently is written, and read again. A tree carries the group of a process where it is not the
//! group of the caller, and makes a group if all of its processes, and all below it, are in the tree. Devices are known
//! by their path in sysfs.
//! # Loses
//! Statistics, and what was counted before; devices that a group of version 1 denies while it allows all others, which
//! it does not show; which group a socket was made in; kernel threads that were moved; empty groups of a
//! hierarchy that is mounted nowhere. An affinity that is all of the CPUs of its group is taken for none.
//! # Refuses
//! A process in a group that no mount shows; frozen groups, invalid partitions of CPUs, and any other setting that is
//! not known and neither empty, nor 0, nor `max`; a mount that shows only a group.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::devnode::Known;
use super::tree::{self, Budget, Node};
use crate::error::{Context, Error, Obstacle, Refusal, Result};
use crate::glob::matches;
use crate::proc::mountinfo::{self, Mount, lookup};
use crate::section;
use crate::sorted::Map;
use crate::sys::ptrace::Sys;
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

/// Files that can be written, in the order of writing: up to `EARLY`, before there are tasks; between `EARLY` and
/// `LATE`, no settings, or the same ones said in another way; then limits.
const TABLE: [&str; 34] = [
    "cgroup.type",
    CONTROLLERS,
    "cpuset.cpus",
    "cpuset.cpus.exclusive",
    "cpuset.mems",
    "cpuset.*",
    "cgroup.procs",
    "cgroup.threads",
    "tasks",
    "cpu.weight.nice",
    "cpu.pressure",
    "io.pressure",
    "irq.pressure",
    "memory.pressure",
    "*.peak",
    "*usage*",
    "*failcnt",
    "cgroup.pressure",
    "cgroup.max.*",
    "cgroup.clone_children",
    "notify_on_release",
    "release_agent",
    "cpu.*",
    "memory.*",
    "pids.max",
    "io.*",
    "blkio.*",
    "hugetlb.*",
    "rdma.max",
    "misc.max",
    "dmem.*",
    "net_cls.classid",
    "net_prio.ifpriomap",
    DEVICES,
];
const EARLY: usize = 6;
const LATE: usize = 17;
/// It cannot be written itself.
const DEVICES: &str = "devices.list";
const CONTROLLERS: &str = "cgroup.subtree_control";
const OOM: &str = "memory.oom_control";
const OOM_OFF: &str = "oom_kill_disable 1";

fn rank(name: &str) -> Option<usize> {
    TABLE.iter().position(|glob| matches(glob, name))
}

/// What is to be written of a file; none if it says nothing. What has no place in the table must say nothing.
fn setting(name: &str, said: &str) -> Result<Option<String>, ()> {
    let said = said.trim_ascii_end();
    match rank(name) {
        Some(EARLY..LATE) => return Ok(None),
        Some(_) if !text::has(said, "invalid") => {}
        None if ["", "0", "max", "THAWED"].contains(&said) => return Ok(None),
        _ => return Err(()),
    }
    Ok(match name {
        "cgroup.type" if said != "threaded" => None,
        OOM => said.starts_with(OOM_OFF).then(|| OOM_OFF.to_owned()),
        _ if said.is_empty() && name != DEVICES => None,
        // Numbers of block devices can change from boot to boot.
        _ => Some(renamed(said, &|word| {
            let link = text::has(word, ":").then(|| fs::link_text(format!("/sys/dev/block/{word}")))?.ok()?;
            Some(text::from_top(&link).to_owned())
        })),
    })
}

/// What to write, line by line, for a file to say this.
fn lines(name: &str, said: &str) -> String {
    if name == CONTROLLERS {
        return text::replaced(&format!("+{}", said.trim_ascii_end()), " ", "\n+");
    }
    renamed(said, &|word| {
        let number = word.starts_with("devices/").then(|| fs::text(format!("/sys/{word}/dev")))?.ok()?;
        Some(number.trim_ascii_end().to_owned())
    })
}

/// The text with other first words in its lines, where there are any.
fn renamed(said: &str, find: &dyn Fn(&str) -> Option<String>) -> String {
    let mut all = String::new();
    for line in said.lines() {
        let (first, rest) = line.split_at(text::find(line, " ").unwrap_or(0));
        all.push_str(&find(first).unwrap_or_else(|| first.to_owned()));
        all.push_str(rest);
        all.push('\n');
    }
    all
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

/// Where a hierarchy is mounted.
fn top<'a>(mounts: &'a [Mount], name: &str) -> Option<&'a Mount> {
    let all: Vec<&Mount> = mounts.iter().collect();
    let word = name.split(',').next().unwrap_or_default();
    mounts.iter().find(|mount| {
        let it_is = match &*mount.fstype {
            "cgroup2" => word.is_empty(),
            "cgroup" => mount.super_options.split(',').any(|option| option == word),
            _ => false,
        };
        it_is && mount.root == "/" && lookup(&all, &mount.point).is_some_and(|on| on.id == mount.id)
    })
}

/// The file that has the threads of a group.
fn threads(name: &str) -> &'static str {
    if name.is_empty() { "cgroup.threads" } else { "tasks" }
}

fn below(path: &str) -> &str {
    text::without_start(path, "/")
}

/// Reads groups and memberships of processes that stand still. `all` means the whole machine, where tasks begin in the
/// root of each hierarchy; else they begin where we are, and only what is theirs is read.
///
/// # Errors
/// An error of reading.
pub fn capture(all: bool, root: u32, prefix: &str, processes: &[Process]) -> Result<(State, Vec<Obstacle>)> {
    let (mut state, mut obstacles) = (State::default(), Vec::new());
    let table = fs::of_task(root, "mountinfo").context(KIND, format_args!("reading mountinfo"))?;
    let mounts = mountinfo::parse(&table)?;
    for mount in mounts.iter().filter(|mount| all && mount.fstype.starts_with(KIND) && mount.root != "/") {
        let refusal =
            Refusal::new("it shows only a group, which is made after it", "mount the whole hierarchy");
        obstacles.push(Obstacle::kernel(KIND, format!("mount {}", mount.point), refusal));
    }
    let (mut threads, mut ours) = (Vec::new(), Vec::new());
    for process in processes {
        for thread in process.body.iter().flat_map(|body| &body.threads) {
            threads.push((process, groups_of(process.ids.pid, thread.tid)));
            ours.push(thread.tid);
        }
    }
    let me = std::process::id();
    let home = if all { String::new() } else { groups_of(me, me) };
    for (name, _) in groups_of(root, root).lines().filter_map(fields) {
        let top = top(&mounts, name);
        let new = |at| Hierarchy { name: name.to_owned(), at, ..Hierarchy::default() };
        let mut found = new(String::new());
        let mut usual = "";
        for ((process, groups), tid) in threads.iter().zip(&ours) {
            let (path, leads) = (of(groups, name), *tid == process.ids.pid);
            if path != if leads { of(&home, name) } else { usual } {
                found.members.push((*tid, path.to_owned()));
                if top.is_none() || path.starts_with("/..") {
                    let refusal = Refusal::new("no mount shows it", "mount its hierarchy");
                    let object = format!("group {path} ({name})");
                    obstacles.push(Obstacle::process(KIND, *tid, &*process.comm, object, refusal));
                }
            }
            if leads {
                usual = path;
            }
        }
        let Some(top) = top else { continue };
        let top = PathBuf::from(format!("{prefix}{}", top.point));
        let own = if all { vec![String::new()] } else { found.own(&top, &ours) };
        for at in own {
            let mut group = new(at);
            group.read(&top.join(&group.at), &mut obstacles)?;
            state.hierarchies.push(group);
        }
        if !found.members.is_empty() {
            state.hierarchies.push(found);
        }
    }
    Ok((state, obstacles))
}

impl Hierarchy {
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
    fn read(&mut self, group: &Path, obstacles: &mut Vec<Obstacle>) -> Result<()> {
        for name in tree::list(KIND, group, &|_| false)? {
            let (path, meta) = &name;
            if meta.is_dir() {
                let node = tree::read(KIND, group, &name, &mut Map::new(), &mut Budget(0));
                let wrong = |refusal: Refusal| Error::new(KIND, "reading a group", refusal.into_reason());
                self.groups.push(node.map_err(wrong)?);
                continue;
            }
            let mode = meta.mode & 0o7777;
            if meta.uid != 0 || meta.gid != 0 || ![0o644, 0o444, 0o200, 0o222, 0].contains(&mode) {
                self.files.push(Known { path: path.clone(), mode, uid: meta.uid, gid: meta.gid });
            }
            let file = text::file_name(path);
            if mode & 0o200 == 0 && file != DEVICES {
                continue;
            }
            // What cannot be read is a command.
            let Ok(said) = fs::text(group.join(path)) else { continue };
            match setting(file, &said) {
                Ok(said) => self.settings.extend(said.map(|said| (path.clone(), said))),
                Err(()) => {
                    let refusal = Refusal::new("this setting is not carried", "set it after the ready line");
                    obstacles.push(Obstacle::kernel(KIND, format!("/{}/{path}", self.at), refusal));
                }
            }
        }
        Ok(())
    }

    /// Writes the settings whose turn it is; all late ones have the last.
    fn set(&self, top: &Path, turn: usize) -> Result<()> {
        for (path, said) in &self.settings {
            let name = text::file_name(path);
            if rank(name).unwrap_or(EARLY).min(EARLY) == turn {
                write(&top.join(&self.at).join(path), name, said)
                    .context(KIND, format_args!("setting {path} to {said}"))?;
            }
        }
        Ok(())
    }
}

/// Writes what a file does not say yet. EPROTO: the kernel has made something else of it.
fn write(file: &Path, name: &str, said: &str) -> Sys<()> {
    let wanted = lines(name, said);
    let now = || fs::text(file).map(|said| lines(name, &said));
    let before = now()?;
    let missing = |now: &str, line: &str| now.lines().all(|other| other != line);
    if name == DEVICES && before != wanted {
        fs::write(file.with_file_name("devices.deny"), "a")?;
    }
    for line in wanted.lines() {
        if name == DEVICES && before != wanted {
            fs::write(file.with_file_name("devices.allow"), line)?;
        } else if missing(&before, line) {
            fs::write(file, if name == OOM { "1" } else { line })?;
        }
    }
    let after = now()?;
    if wanted.lines().any(|line| missing(&after, line)) { Err(Errno::EPROTO) } else { Ok(()) }
}

/// The groups of an image in this system.
#[derive(Debug, Default)]
pub struct Groups<'a>(Vec<(PathBuf, &'a Hierarchy)>);

/// Makes the groups, for tasks to be put into.
///
/// # Errors
/// A hierarchy is mounted nowhere, or the kernel does not have what a group had.
pub fn restore(state: &State) -> Result<Groups<'_>> {
    let table = fs::text("/proc/self/mountinfo").context(KIND, format_args!("reading mountinfo"))?;
    let mounts = mountinfo::parse(&table)?;
    let mut groups = Groups::default();
    for hierarchy in &state.hierarchies {
        let top = top(&mounts, &hierarchy.name).ok_or_else(|| {
            Error::new(KIND, format!("looking for {}", hierarchy.name), "it is not mounted")
        })?;
        let top = PathBuf::from(&top.point);
        let group = top.join(&hierarchy.at);
        tree::make(KIND, &group, &hierarchy.groups, &[])?;
        (0..EARLY).try_for_each(|turn| hierarchy.set(&top, turn))?;
        for known in &hierarchy.files {
            let file = group.join(&known.path);
            path::chown(&file, known.uid, known.gid)
                .and_then(|()| path::chmod(&file, known.mode))
                .context(KIND, format_args!("setting the owner of {}", known.path))?;
        }
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
    use super::{EARLY, LATE, TABLE, lines, of, rank, setting, top};
    use crate::proc::mountinfo::parse;

    #[test]
    fn files_have_their_turn() {
        assert_eq!((TABLE[EARLY - 1], TABLE[EARLY]), ("cpuset.*", "cgroup.procs"));
        assert_eq!((TABLE[LATE - 1], TABLE[LATE]), ("*failcnt", "cgroup.pressure"));
        let order =
            ["cgroup.type", "cgroup.subtree_control", "cpuset.mems", "cpuset.cpus.partition", "pids.max"];
        assert!(order.map(rank).is_sorted());
        assert_eq!(setting("cpu.max", "5000 100000\n"), Ok(Some("5000 100000\n".into())));
        assert_eq!(setting("cgroup.type", "domain threaded\n"), Ok(None));
        assert_eq!(setting("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n"), Ok(None));
        assert_eq!(
            setting("memory.oom_control", "oom_kill_disable 1\nunder_oom 0\n"),
            Ok(Some("oom_kill_disable 1".into()))
        );
        assert_eq!(setting("memory.max_usage_in_bytes", "8192\n"), Ok(None));
        assert_eq!(setting("devices.list", ""), Ok(Some(String::new())));
        assert_eq!(lines("cgroup.subtree_control", "cpu io\n"), "+cpu\n+io");
    }

    #[test]
    fn settings_that_are_not_known_are_refused() {
        assert_eq!(setting("cgroup.freeze", "0\n"), Ok(None));
        assert_eq!(setting("cgroup.freeze", "1\n"), Err(()));
        assert_eq!(setting("freezer.state", "THAWED\n"), Ok(None));
        assert_eq!(setting("freezer.state", "FROZEN\n"), Err(()));
        assert_eq!(setting("schedtune.boost", "10\n"), Err(()));
        assert_eq!(setting("cpuset.cpus.partition", "root invalid (no CPUs)\n"), Err(()));
    }

    #[test]
    fn devices_go_by_their_path() {
        for number in std::fs::read_dir("/sys/dev/block").unwrap() {
            let line = format!("{} wiops=7\n", number.unwrap().file_name().to_string_lossy());
            let stored = setting("io.max", &line).unwrap().unwrap();
            assert!(stored.starts_with("devices/"), "{line}");
            assert_eq!(lines("io.max", &stored), line);
        }
        assert_eq!(setting("io.max", "254:999 wiops=7\n"), Ok(Some("254:999 wiops=7\n".into())));
    }

    #[test]
    fn hierarchies_are_found_where_they_are_mounted() {
        let mounts = parse(
            "20 1 0:1 / / rw - tmpfs none rw\n\
             21 20 0:2 / /two rw - cgroup2 none rw,nsdelegate\n\
             22 20 0:3 / /cpu rw - cgroup none rw,cpu,cpuacct\n\
             23 20 0:4 /part /name rw - cgroup none rw,name=x\n\
             24 20 0:5 / /hidden rw - cgroup none rw,pids\n\
             25 20 0:6 / /hidden rw - tmpfs none rw\n",
        )
        .unwrap();
        let point = |name| top(&mounts, name).map(|mount| &*mount.point);
        assert_eq!((point(""), point("cpu,cpuacct")), (Some("/two"), Some("/cpu")));
        assert_eq!((point("name=x"), point("pids"), point("memory")), (None, None, None));
        let groups = "4:cpu,cpuacct:/a\n0::/b:c\n";
        assert_eq!((of(groups, "cpu,cpuacct"), of(groups, ""), of(groups, "pids")), ("/a", "/b:c", "/"));
    }
}
