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

use super::devnode::Known;
use super::tree::{self, Budget, Node};
use crate::error::{Context, Error, Obstacle, Refusal, Result};
use crate::glob::matches;
use crate::proc::mountinfo::{self, Mount, lookup};
use crate::section;
use crate::sorted::{self, Map};
use crate::sys::ptrace::Sys;
use crate::sys::{fs, path, stat};
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
    /// Groups and tasks of one hierarchy. Paths of groups are those below its root.
    pub struct Hierarchy {
        /// Its controllers, or `name=NAME`, as /proc/PID/cgroup has them; empty for version 2.
        pub name: String,
        /// The groups, parents first.
        pub groups: Vec<Node>,
        /// Files in them whose owner or mode is not the usual one.
        pub files: Vec<Known>,
        /// Path and text of the files that are settings, in the order of writing.
        pub settings: Vec<(String, String)>,
        /// Processes that are elsewhere than who makes them, and threads that are elsewhere than their process, with
        /// the path as /proc/PID/cgroup has it.
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

fn rank(name: &str) -> Option<usize> {
    TABLE.iter().position(|glob| matches(glob, name))
}

/// What is to be written of a file; none if it says nothing. Who has no place in the table must say nothing.
fn setting(name: &str, said: &str) -> Result<Option<(usize, String)>, ()> {
    let said = said.trim_ascii_end();
    let kept = match (name, rank(name)) {
        ("cgroup.type", _) if said != "threaded" => return Ok(None),
        (OOM, _) if !said.starts_with("oom_kill_disable 1") => return Ok(None),
        (OOM, Some(rank)) => (rank, "oom_kill_disable 1".to_owned()),
        (_, Some(EARLY..LATE)) => return Ok(None),
        (_, Some(rank)) if !text::has(said, "invalid") => {
            let lines = said.lines().map(device_path).collect::<Vec<_>>();
            (rank, text::joined(&mut lines.iter().map(|line| &**line), "\n"))
        }
        (_, None) if ["", "0", "max", "THAWED"].contains(&said) => return Ok(None),
        _ => return Err(()),
    };
    Ok((!kept.1.is_empty() || name == DEVICES).then_some(kept))
}

/// A line that begins with the number of a block device, with the path of the device instead.
fn device_path(line: &str) -> String {
    let device = line.split_once(' ').and_then(|(number, rest)| {
        let link = fs::link_text(format!("/sys/dev/block/{number}")).ok().filter(|_| number.contains(':'))?;
        Some(format!("{} {rest}", text::from_top(&link)))
    });
    device.unwrap_or_else(|| line.to_owned())
}

/// The other way round.
fn device_number(line: &str) -> String {
    let device =
        line.split_once(' ').filter(|(path, _)| path.starts_with("devices/")).and_then(|(path, rest)| {
            let number = fs::text(format!("/sys/{path}/dev")).ok()?;
            Some(format!("{} {rest}", number.trim_ascii_end()))
        });
    device.unwrap_or_else(|| line.to_owned())
}

/// The names of all hierarchies, with the group of a thread in each.
fn groups_of(pid: u32, tid: u32) -> Vec<(String, String)> {
    let lines = fs::of_task(pid, &format!("task/{tid}/cgroup")).unwrap_or_default();
    let fields = lines.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    fields.map(|(name, path)| (name.to_owned(), path.to_owned())).collect()
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

/// The names of the groups in one.
fn inside(group: &Path) -> Vec<String> {
    let names = fs::entries(group).unwrap_or_default().into_iter().filter(|name| name.dir);
    names.map(|name| name.name.to_string_lossy().into_owned()).collect()
}

/// Whether a group, with all below it, has no threads but these.
fn only(group: &Path, file: &str, ours: &[u32]) -> bool {
    let threads = fs::text(group.join(file)).unwrap_or_default();
    threads.lines().all(|id| id.parse().is_ok_and(|id| ours.contains(&id)))
        && inside(group).iter().all(|name| only(&group.join(name), file, ours))
}

fn below(path: &str) -> &str {
    text::without_start(path, "/")
}

/// The path of a hierarchy's group among others.
fn of<'a>(groups: &'a [(String, String)], name: &str) -> &'a str {
    groups.iter().find(|(hierarchy, _)| hierarchy == name).map_or("/", |(_, path)| path)
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
    let mut threads = Vec::new();
    for process in processes {
        for thread in process.body.iter().flat_map(|body| &body.threads) {
            threads.push((process, thread.tid, groups_of(process.ids.pid, thread.tid)));
        }
    }
    let ours: Vec<u32> = threads.iter().map(|(_, tid, _)| *tid).collect();
    let me = std::process::id();
    let home = if all { Vec::new() } else { groups_of(me, me) };
    for (name, _) in groups_of(root, root) {
        let mut found = Hierarchy::default();
        let top = top(&mounts, &name);
        let mut usual = "";
        for (process, tid, groups) in &threads {
            let (path, leads) = (of(groups, &name), *tid == process.ids.pid);
            if path != if leads { of(&home, &name) } else { usual } {
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
        let Some(top) = top.filter(|_| all || !found.members.is_empty()) else { continue };
        let top = Path::new(prefix).join(if prefix.is_empty() { &top.point } else { below(&top.point) });
        found.name = name;
        if all {
            found.read(&top, "", &mut obstacles)?;
        }
        for at in found.own(&top, &ours).into_iter().filter(|_| !all) {
            found.read(&top, &at, &mut obstacles)?;
        }
        state.hierarchies.push(found);
    }
    Ok((state, obstacles))
}

impl Hierarchy {
    /// The groups of members that are only theirs, with all below.
    fn own(&self, top: &Path, ours: &[u32]) -> Vec<String> {
        let mut own: Vec<String> = Vec::new();
        for (_, path) in &self.members {
            let path = below(path);
            let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
            let mut above = ends.filter_map(|end| path.get(..end)).filter(|at| !at.is_empty());
            let first = above.find(|at| only(&top.join(at), threads(&self.name), ours));
            own.extend(first.filter(|at| !own.iter().any(|known| known == at)).map(str::to_owned));
        }
        own
    }

    /// Reads a group, and all below it.
    fn read(&mut self, top: &Path, at: &str, obstacles: &mut Vec<Obstacle>) -> Result<()> {
        let doing = format_args!("reading /{at}");
        let group = top.join(at);
        let under = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") };
        if !at.is_empty() {
            let name = (at.to_owned(), stat::lstat(&group).context(KIND, doing)?);
            let node = tree::read(KIND, top, &name, &mut Map::new(), &mut Budget(0));
            self.groups
                .push(node.map_err(|refusal| Error::new(KIND, doing.to_string(), refusal.into_reason()))?);
        }
        let mut settings = Vec::new();
        let names = fs::entries(&group).context(KIND, doing)?;
        for name in names.iter().filter(|name| !name.dir) {
            let file = group.join(&name.name);
            let name = name.name.to_string_lossy();
            let meta = stat::lstat(&file).context(KIND, doing)?;
            let mode = meta.mode & 0o7777;
            if meta.uid != 0 || meta.gid != 0 || ![0o644, 0o444, 0o200, 0o222, 0].contains(&mode) {
                self.files.push(Known { path: under(&name), mode, uid: meta.uid, gid: meta.gid });
            }
            let said = fs::text(&file).ok().filter(|_| mode & 0o200 != 0 || name == DEVICES);
            let Some(said) = said else { continue };
            match setting(&name, &said) {
                Ok(setting) => settings.extend(setting.map(|(rank, said)| (rank, under(&name), said))),
                Err(()) => {
                    let refusal = Refusal::new("this setting is not carried", "set it after the ready line");
                    obstacles.push(Obstacle::kernel(KIND, format!("/{}", under(&name)), refusal));
                }
            }
        }
        sorted::sort_by_key(&mut settings, |(rank, ..)| *rank);
        self.settings.extend(settings.into_iter().map(|(_, path, said)| (path, said)));
        names
            .iter()
            .filter(|name| name.dir)
            .try_for_each(|name| self.read(top, &under(&name.name.to_string_lossy()), obstacles))
    }

    /// Writes the settings that come before tasks, or those that come after them.
    fn set(&self, top: &Path, early: bool) -> Result<()> {
        for (path, said) in &self.settings {
            let name = text::file_name(path);
            if (rank(name) < Some(EARLY)) == early {
                let doing = format_args!("setting {path}");
                if !write(&top.join(path), name, said).context(KIND, doing)? {
                    return Err(Error::new(KIND, doing.to_string(), "the kernel made something else of it"));
                }
            }
        }
        Ok(())
    }
}

/// The parts of a file that are written one by one.
fn parts(name: &str, said: &str) -> Vec<String> {
    if name == CONTROLLERS {
        return said.split_ascii_whitespace().map(|word| format!("+{word}")).collect();
    }
    said.lines().map(device_number).collect()
}

/// Writes what a file does not say yet; whether it says all of it then.
fn write(file: &Path, name: &str, said: &str) -> Sys<bool> {
    let wanted = parts(name, said);
    let now = parts(name, &fs::text(file)?);
    if name == DEVICES && now != wanted {
        fs::write(file.with_file_name("devices.deny"), "a")?;
        for line in &wanted {
            fs::write(file.with_file_name("devices.allow"), line)?;
        }
    } else {
        for part in wanted.iter().filter(|part| !now.contains(part)) {
            fs::write(file, if name == OOM { "1" } else { part })?;
        }
    }
    let now = parts(name, &fs::text(file)?);
    Ok(wanted.iter().all(|part| now.contains(part)))
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
        let doing = format_args!("looking for hierarchy {}", hierarchy.name);
        let top = top(&mounts, &hierarchy.name)
            .ok_or_else(|| Error::new(KIND, doing.to_string(), "it is not mounted"))?;
        let top = PathBuf::from(&top.point);
        tree::make(KIND, &top, &hierarchy.groups, &[])?;
        hierarchy.set(&top, true)?;
        for known in &hierarchy.files {
            let file = top.join(&known.path);
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
        self.0.iter().try_for_each(|(top, hierarchy)| hierarchy.set(top, false))
    }
}

#[cfg(test)]
mod tests {
    use super::{EARLY, LATE, TABLE, device_number, device_path, of, rank, setting, top};
    use crate::proc::mountinfo::parse;

    #[test]
    fn files_have_their_turn() {
        assert_eq!((TABLE[EARLY - 1], TABLE[EARLY]), ("cpuset.*", "cgroup.procs"));
        assert_eq!((TABLE[LATE - 1], TABLE[LATE]), ("*failcnt", "cgroup.pressure"));
        let order =
            ["cgroup.type", "cgroup.subtree_control", "cpuset.mems", "cpuset.cpus.partition", "pids.max"];
        assert!(order.map(rank).is_sorted());
        let set = |name, said| setting(name, said).map(|kept| kept.map(|(_, said)| said));
        assert_eq!(set("cpu.max", "5000 100000\n"), Ok(Some("5000 100000".into())));
        assert_eq!(set("cgroup.type", "domain threaded\n"), Ok(None));
        assert_eq!(set("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n"), Ok(None));
        assert_eq!(set("memory.oom_control", "oom_kill_disable 1\n"), Ok(Some("oom_kill_disable 1".into())));
        assert_eq!(set("memory.max_usage_in_bytes", "8192\n"), Ok(None));
        assert_eq!(set("devices.list", ""), Ok(Some(String::new())));
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
        assert_eq!(device_path("254:999 rbps=1"), "254:999 rbps=1");
        for number in std::fs::read_dir("/sys/dev/block").unwrap() {
            let line = format!("{} wiops=7", number.unwrap().file_name().to_string_lossy());
            assert!(device_path(&line).starts_with("devices/"), "{line}");
            assert_eq!(device_number(&device_path(&line)), line);
        }
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
        let groups = [("cpu,cpuacct".to_owned(), "/a".to_owned())];
        assert_eq!((of(&groups, "cpu,cpuacct"), of(&groups, "")), ("/a", "/"));
    }
}
