//! The files of a control group that are settings: which there are, what they say, and how they are written.

use std::path::Path;

use nix::errno::Errno;

use crate::glob::matches;
use crate::sys::fs;
use crate::sys::ptrace::Sys;
use crate::text;

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
/// How many turns there are before tasks.
pub(super) const EARLY: usize = 6;
const LATE: usize = 17;
/// Which cannot be written itself.
pub(super) const DEVICES: &str = "devices.list";
const CONTROLLERS: &str = "cgroup.subtree_control";
const OOM: &str = "memory.oom_control";
const OOM_OFF: &str = "oom_kill_disable 1";

fn rank(name: &str) -> Option<usize> {
    TABLE.iter().position(|glob| matches(glob, name))
}

/// When a setting is written: all that come after tasks have the turn `EARLY`.
pub(super) fn turn(name: &str) -> usize {
    rank(name).unwrap_or(EARLY).min(EARLY)
}

/// What is to be written of a file; none if it says nothing. What has no place in the table must say nothing.
pub(super) fn of(name: &str, said: &str) -> Result<Option<String>, ()> {
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

/// Writes what a file does not say yet. EPROTO: the kernel has made something else of it.
pub(super) fn write(file: &Path, name: &str, said: &str) -> Sys<()> {
    let wanted = lines(name, said);
    let now = || fs::text(file).map(|said| lines(name, &said));
    let before = now()?;
    let place = file.to_string_lossy();
    let beside = |verb| format!("{}.{verb}", text::without_end(&place, ".list"));
    let missing = |now: &str, line: &str| now.lines().all(|other| other != line);
    if name == DEVICES && before != wanted {
        fs::write(beside("deny"), "a")?;
    }
    for line in wanted.lines() {
        if name == DEVICES && before != wanted {
            fs::write(beside("allow"), line)?;
        } else if missing(&before, line) {
            fs::write(file, if name == OOM { "1" } else { line })?;
        }
    }
    let after = now()?;
    if wanted.lines().any(|line| missing(&after, line)) { Err(Errno::EPROTO) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::{EARLY, LATE, TABLE, lines, of, rank};

    #[test]
    fn files_have_their_turn() {
        assert_eq!((TABLE[EARLY - 1], TABLE[EARLY]), ("cpuset.*", "cgroup.procs"));
        assert_eq!((TABLE[LATE - 1], TABLE[LATE]), ("*failcnt", "cgroup.pressure"));
        let order =
            ["cgroup.type", "cgroup.subtree_control", "cpuset.mems", "cpuset.cpus.partition", "pids.max"];
        assert!(order.map(rank).is_sorted());
        assert_eq!(of("cpu.max", "5000 100000\n"), Ok(Some("5000 100000\n".into())));
        assert_eq!(of("cgroup.type", "domain threaded\n"), Ok(None));
        assert_eq!(of("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n"), Ok(None));
        assert_eq!(
            of("memory.oom_control", "oom_kill_disable 1\nunder_oom 0\n"),
            Ok(Some("oom_kill_disable 1".into()))
        );
        assert_eq!(of("memory.max_usage_in_bytes", "8192\n"), Ok(None));
        assert_eq!(of("devices.list", ""), Ok(Some(String::new())));
        assert_eq!(lines("cgroup.subtree_control", "cpu io\n"), "+cpu\n+io");
    }

    #[test]
    fn settings_that_are_not_known_are_refused() {
        assert_eq!(of("cgroup.freeze", "0\n"), Ok(None));
        assert_eq!(of("cgroup.freeze", "1\n"), Err(()));
        assert_eq!(of("freezer.state", "THAWED\n"), Ok(None));
        assert_eq!(of("freezer.state", "FROZEN\n"), Err(()));
        assert_eq!(of("schedtune.boost", "10\n"), Err(()));
        assert_eq!(of("cpuset.cpus.partition", "root invalid (no CPUs)\n"), Err(()));
    }

    #[test]
    fn devices_go_by_their_path() {
        for number in std::fs::read_dir("/sys/dev/block").unwrap() {
            let line = format!("{} wiops=7\n", number.unwrap().file_name().to_string_lossy());
            let stored = of("io.max", &line).unwrap().unwrap();
            assert!(stored.starts_with("devices/"), "{line}");
            assert_eq!(lines("io.max", &stored), line);
        }
        assert_eq!(of("io.max", "254:999 wiops=7\n"), Ok(Some("254:999 wiops=7\n".into())));
    }
}
