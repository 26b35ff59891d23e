//! Control groups: where their hierarchies are, a group to play in, and a portrait of it.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{Outcome, Zoo, sys};

/// A group of this program's own in one hierarchy.
#[derive(Clone)]
pub struct Ground {
    /// Its directory.
    pub path: PathBuf,
    /// The group that the program was in.
    home: PathBuf,
    /// Whether nobody else uses the hierarchy.
    pub mounted: bool,
}

/// Writable files that say other things from moment to moment, or nothing of their own.
const VOLATILE: [&str; 10] = [
    "procs",
    "threads",
    "tasks",
    "pressure",
    "peak",
    "usage",
    "usage_in_bytes",
    "failcnt",
    "max_usage_in_bytes",
    "oom_control",
];

impl Zoo {
    /// A group of this program's own inside the one that it is in, in the hierarchy with this option (`cgroup2`: that of
    /// version 2); none if there is no such hierarchy. It is mounted if this system has no place for hierarchies.
    #[must_use]
    pub fn ground(&self, option: &str) -> Option<Ground> {
        let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let field = if option == "cgroup2" { 0 } else { 2 };
        let mount = table.lines().find_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            let (kind, place) = (kind.split(' ').collect::<Vec<_>>(), place.split(' ').collect::<Vec<_>>());
            let version = if field == 0 { "cgroup2" } else { "cgroup" };
            let named = option == "name" && kind[2].contains("name=");
            let found = kind[0] == version && (kind[field].split(',').any(|word| word == option) || named);
            (found && place[3] == "/").then(|| place[4].to_owned())
        });
        let (top, mounted) = match mount {
            Some(top) => (PathBuf::from(top), false),
            None if table.contains(" /sys/fs/cgroup/") || table.contains(" /sys/fs/cgroup ") => return None,
            // Version 2 can do without the others.
            None if field == 0 || ["name", "devices", "freezer", "net_cls", "net_prio"].contains(&option) => {
                (self.mount_hierarchy(option)?, true)
            }
            None => return None,
        };
        let lines = fs::read_to_string("/proc/self/cgroup").ok()?;
        let home = lines.lines().find_map(|line| path_in(line, option))?;
        let home = top.join(home.trim_start_matches('/'));
        // The folder of this run, whose number nobody else has.
        let folder = self.path("x").parent()?.parent()?.metadata().ok()?.ino();
        let path = home.join(format!("zoo.{}.{folder}", crate::env_name()));
        remove(&path);
        fs::create_dir(&path).ok()?;
        Some(Ground { path, home, mounted })
    }

    fn mount_hierarchy(&self, option: &str) -> Option<PathBuf> {
        let place = self.path(option);
        fs::create_dir(&place).ok()?;
        let words = match option {
            "name" => "none,name=zoo".to_owned(),
            "cgroup2" => String::new(),
            _ => option.to_owned(),
        };
        let c = |text: &str| std::ffi::CString::new(text).ok();
        let (point, data) = (c(place.to_str()?)?, c(&words)?);
        let kind = if option == "cgroup2" { c"cgroup2" } else { c"cgroup" };
        sys!(mount(c"zoo".as_ptr(), point.as_ptr(), kind.as_ptr(), 0, data.as_ptr().cast())).ok()?;
        Some(place)
    }
}

impl Ground {
    /// A group in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// Goes back to where the program was, and takes the ground away.
    ///
    /// # Errors
    /// When somebody is still in there.
    pub fn leave(&self) -> Outcome {
        enter(&self.home)?;
        crate::eventually(2000, || {
            remove(&self.path);
            !self.path.exists()
        });
        if self.path.exists() { Err(format!("{} is not empty", self.path.display()).into()) } else { Ok(()) }
    }
}

/// The path in a line of /proc/PID/cgroup, if it is of the hierarchy with this option.
fn path_in(line: &str, option: &str) -> Option<String> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (name, path) = (fields.next()?, fields.next()?);
    let named = option == "name" && name.starts_with("name=");
    let version = option == "cgroup2" && name.is_empty();
    (version || named || name.split(',').any(|word| word == option)).then(|| path.to_owned())
}

/// The groups of a task in these hierarchies: of others, more may come. `who` is `self` or `thread-self`.
#[must_use]
pub fn of(who: &str, options: &[&str]) -> String {
    let lines = crate::proc::text(&format!("/proc/{who}/cgroup"));
    let path = |option: &&str| lines.lines().find_map(|line| path_in(line, option));
    options.iter().map(|option| format!("{option} {}\n", path(option).unwrap_or_default())).collect()
}

/// Puts the calling process into a group.
///
/// # Errors
/// When the group takes none.
pub fn enter(group: &Path) -> Outcome {
    set(group, "cgroup.procs", "0")
}

/// Writes a setting.
///
/// # Errors
/// With the name of the file, when it does not take it.
pub fn set(group: &Path, file: &str, text: &str) -> Outcome {
    fs::write(group.join(file), text).map_err(|error| format!("{text} to {file}: {error}").into())
}

/// Writes a setting if there is such a file.
///
/// # Errors
/// When it does not take it.
pub fn set_if(group: &Path, file: &str, text: &str) -> Outcome {
    if group.join(file).exists() { set(group, file, text) } else { Ok(()) }
}

/// Takes a group away with all below it, as far as they are empty.
pub fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

/// All that a user can see of a group and those below it: owners, modes, settings.
#[must_use]
pub fn portrait(group: &Path) -> String {
    let mut said = String::new();
    add(group, Path::new(""), &mut said);
    said
}

fn add(top: &Path, at: &Path, said: &mut String) {
    let owner = |path: &Path| {
        let meta = fs::symlink_metadata(path);
        meta.map_or_else(|e| e.to_string(), |m| format!("{:o} {} {}", m.mode(), m.uid(), m.gid()))
    };
    let group = top.join(at);
    let _ = writeln!(said, "{} {}", at.display(), owner(&group));
    let mut entries: Vec<PathBuf> =
        fs::read_dir(&group).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            add(top, &at.join(&name), said);
            continue;
        }
        let text = if VOLATILE.iter().any(|end| name.rsplit('.').next() == Some(end)) {
            String::new()
        } else if owner(&path).starts_with("1006") || name == "devices.list" {
            fs::read_to_string(&path).unwrap_or_default()
        } else {
            String::new()
        };
        let _ = writeln!(said, "{}/{name} {} {}", at.display(), owner(&path), text.trim_end());
    }
}
