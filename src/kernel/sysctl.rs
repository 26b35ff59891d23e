//! Kernel parameters in /proc/sys.
//!
//! # What
//! Every parameter that can be read and written, if its value is not what it was before the scripts, or if another
//! one that changed sets it too: those of `all` and `default` set those of interfaces.
//! # Reads
//! All of /proc/sys but a list of entries that are random, triggers, counters, or carried by another kind.
//! # Rebuilds
//! Writes what was read, where the value differs from the one that is there. In three groups: general ones;
//! those of one network interface, after links exist and before they come up; and those that would hinder the
//! restore itself, after the processes are rebuilt.
//! # Loses
//! Parameters that cannot be read, and those that are as before because a script wrote the default.
//! # Refuses
//! Nothing; a parameter that cannot be set again ends the restore.

use crate::sorted::Listed;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::read;

use super::root::Root;
use crate::error::{Context, Result};
use crate::section;
use crate::sorted;
use crate::sys::fs::{Name, names_in};
use crate::sys::path::openat;
use crate::text;

section! {
    /// What differs from before the scripts.
    pub struct State {
        /// Path below /proc/sys and value, sorted.
        pub values: Vec<(String, String)>,
    }
}

/// All parameters, sorted by path.
pub type Values = Vec<(String, String)>;

/// Entries, or directories with a slash at the end, that are never carried.
const DENIED: &[&str] = &[
    // The generator and its seed are fresh on every boot: see `random`.
    "kernel/random/",
    // `hostname` carries these.
    "kernel/hostname",
    "kernel/domainname",
    // Numbers of processes and counters.
    "kernel/cad_pid",
    "kernel/ns_last_pid",
    "kernel/tainted",
    "kernel/pty/nr",
    "kernel/sem_next_id",
    "kernel/msg_next_id",
    "kernel/shm_next_id",
    "kernel/oops_count",
    "kernel/warn_count",
    "kernel/hung_task_detect_count",
    // Lowered by the kernel when interrupts take too long.
    "kernel/perf_event_max_sample_rate",
    // Triggers: reading or writing does something.
    "vm/stat_refresh",
    "vm/drop_caches",
    "vm/compact_memory",
    "net/ipv4/route/flush",
    "net/ipv6/route/flush",
    // A secret that is drawn at the first read.
    "net/ipv4/tcp_fastopen_key",
    // Second names: nr_hugepages, conf/all/forwarding.
    "vm/nr_hugepages_mempolicy",
    "net/ipv4/ip_forward",
    // Registrations, not parameters: `mount` refuses them.
    "fs/binfmt_misc/",
];

/// Parameters of which one is set back to 0 by the kernel when its partner is written.
const PAIRED: &[&str] = &[
    "vm/dirty_bytes",
    "vm/dirty_ratio",
    "vm/dirty_background_bytes",
    "vm/dirty_background_ratio",
    "vm/overcommit_kbytes",
    "vm/overcommit_ratio",
];

/// Sets accept_redirects of `all`, too.
const FORWARDING: &str = "forwarding";

/// Parameters that are set after the processes are rebuilt. `kernel/panic` is rcsnap's while a restore is on.
const LATE: &[&str] = &[
    "kernel/panic",
    "kernel/modules_disabled",
    "kernel/kexec_load_disabled",
    "kernel/yama/ptrace_scope",
    "kernel/unprivileged_bpf_disabled",
    "vm/overcommit_memory",
    "vm/mmap_min_addr",
    "fs/suid_dumpable",
];

/// When a parameter is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the network is made.
    Early,
    /// The parameters of one interface: after it exists.
    Interface,
    /// After the processes are rebuilt.
    Late,
}

/// The phase of a parameter.
#[must_use]
pub fn phase(path: &str) -> Phase {
    if LATE.contains(&path) {
        return Phase::Late;
    }
    match of_interface(path) {
        None | Some(("all" | "default", _)) => Phase::Early,
        _ => Phase::Interface,
    }
}

/// LINK and NAME in net/FAMILY/conf/LINK/NAME and net/FAMILY/neigh/LINK/NAME, where LINK may be `all` or `default`.
fn of_interface(path: &str) -> Option<(&str, &str)> {
    let (rest, name) = text::split_last(path, '/')?;
    let (dir, link) = text::split_last(rest, '/')?;
    (dir.ends_with("/conf") || dir.ends_with("/neigh")).then_some((link, name))
}

/// Whether a parameter is never carried.
#[must_use]
pub fn denied(path: &str) -> bool {
    DENIED.iter().any(|entry| match entry.strip_suffix('/') {
        Some(dir) => crate::proc::mountinfo::below(path, dir),
        None => path == *entry,
    })
}

/// Reads all parameters.
///
/// # Errors
/// The errno of listing /proc/sys.
pub fn baseline(root: &Root) -> Result<Values> {
    let top = open_dir(root.proc.as_fd(), "sys").context("sysctl", format_args!("listing /proc/sys"))?;
    let mut values = Vec::new();
    walk(&top, "", &mut values, &mut vec![0; 4096]);
    sorted::sort(&mut values);
    Ok(values)
}

fn open_dir(base: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    openat(base, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Reads a directory and those below it. Interfaces come and go, so what cannot be listed or read is passed
/// over. All tasks stand still meanwhile, and there are more than a thousand entries: hence names relative to
/// the open directory, and no more calls than needed.
fn walk(dir: &OwnedFd, path: &str, values: &mut Values, buffer: &mut Vec<u8>) {
    for Name { name, dir: is_dir } in names_in(dir.as_fd()).unwrap_or_default() {
        let name = name.to_string_lossy().into_owned();
        let inner = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        if denied(&inner) {
            continue;
        }
        if is_dir {
            if let Ok(below) = open_dir(dir.as_fd(), &name) {
                walk(&below, &inner, values, buffer);
            }
        } else if let Some(value) = value(dir.as_fd(), &name, buffer) {
            values.push((inner, value));
        }
    }
}

/// The value of a parameter that can be read and written.
fn value(base: BorrowedFd<'_>, path: &str, buffer: &mut Vec<u8>) -> Option<String> {
    let file = openat(base, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    if fstat(&file).ok()?.st_mode & 0o222 == 0 {
        return None;
    }
    // One read gives all of it, or as much as there is room for: a second one from another position would
    // give nothing.
    let mut len = read(&file, buffer).ok()?;
    while len == buffer.len() {
        buffer.resize(buffer.len() * 4, 0);
        let file = openat(base, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        len = read(&file, buffer).ok()?;
    }
    let text = String::from_utf8_lossy(buffer.get(..len)?);
    Some(text::without_end(&text, "\n").to_owned())
}

/// What differs from before. A parameter that was not there before belongs to a module or an interface that
/// the scripts brought; its value is written only if it is not the one that comes with it.
///
/// # Errors
/// The errno of listing /proc/sys.
pub fn capture(before: &Values, root: &Root) -> Result<State> {
    let mut state = difference(before, baseline(root)?);
    if root.cell {
        state.values.retain(|(path, _)| namespaced(path));
    }
    Ok(state)
}

/// Whether a parameter belongs to a namespace (network, IPC) and not to the machine.
fn namespaced(path: &str) -> bool {
    const IPC: &[&str] = &["kernel/shm", "kernel/msg", "kernel/sem", "kernel/auto_msgmni", "fs/mqueue/"];
    path.starts_with("net/") || IPC.iter().any(|start| path.starts_with(start))
}

fn difference(before: &Values, after: Values) -> State {
    let was =
        |path: &str| before.binary_search_by(|(p, _)| p.as_str().cmp(path)).ok().and_then(|i| before.get(i));
    let changed = |(path, value): &(String, String)| was(path).is_none_or(|(_, old)| old != value);
    let meant = |(path, value): &(String, String)| !(value == "0" && PAIRED.contains(&path.as_str()));
    // Names of which writing one sets others, which are kept even if they are as before.
    let mut wide = Vec::new();
    for value in &after {
        if let Some(("all" | "default", name)) = of_interface(&value.0)
            && changed(value)
        {
            wide.push(name.to_owned());
        }
    }
    let reached = |path: &str| {
        of_interface(path).is_some_and(|(_, name)| {
            let by = if name == "accept_redirects" { FORWARDING } else { name };
            wide.iter().any(|wide| wide == name || wide == by)
        })
    };
    let kept = |value: &(String, String)| reached(&value.0) || changed(value) && meant(value);
    State { values: after.into_iter().filter(kept).list() }
}

/// Sets the parameters of one phase where they differ from what is there.
///
/// # Errors
/// The errno of writing.
pub fn restore(state: &State, root: &Root, when: Phase) -> Result<()> {
    let mut buffer = vec![0; 4096];
    let mut wanted: Vec<&(String, String)> =
        state.values.iter().filter(|(path, _)| phase(path) == when).list();
    // Before `default`: writing `all` copies some of its values to it and to every interface.
    sorted::sort_by_key(&mut wanted, |(path, _)| {
        u8::from(!text::has(path, "/all/")) * 2 + u8::from(!path.ends_with(FORWARDING))
    });
    for (path, value) in wanted {
        if self::value(root.proc.as_fd(), &format!("sys/{path}"), &mut buffer).as_ref() != Some(value) {
            root.proc
                .write(&format!("sys/{path}"), &format!("{value}\n"))
                .context("sysctl", format_args!("setting {path} to {value}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Phase, denied, difference, phase};

    fn values(list: &[(&str, &str)]) -> super::Values {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn only_what_changed_is_kept() {
        let before =
            values(&[("kernel/printk", "7\t4\t1\t7"), ("vm/dirty_bytes", "0"), ("vm/dirty_ratio", "20")]);
        let after = values(&[
            ("kernel/printk", "4\t4\t1\t7"),
            ("net/new", "1"),
            ("vm/dirty_bytes", "8388608"),
            ("vm/dirty_ratio", "0"),
        ]);
        let kept = difference(&before, after).values;
        assert_eq!(
            kept,
            values(&[("kernel/printk", "4\t4\t1\t7"), ("net/new", "1"), ("vm/dirty_bytes", "8388608")])
        );
    }

    #[test]
    fn what_another_one_sets_is_kept_unchanged() {
        let kept = |changed: &str| {
            let mut values = values(&[]);
            for link in ["all", "default", "lo"] {
                for name in ["accept_redirects", "disable_ipv6", "forwarding"] {
                    values.push((format!("net/ipv6/conf/{link}/{name}"), "0".into()));
                }
            }
            let before = values.clone();
            values.iter_mut().find(|(path, _)| path == changed).unwrap().1 = "1".into();
            let kept = difference(&before, values).values;
            kept.into_iter().map(|(path, value)| format!("{path} {value}")).collect::<Vec<_>>()
        };
        let of = |name: &str, values: [i32; 3]| {
            let links = ["all", "default", "lo"].iter().zip(values);
            links.map(|(link, value)| format!("net/ipv6/conf/{link}/{name} {value}")).collect::<Vec<_>>()
        };
        assert_eq!(kept("net/ipv6/conf/all/disable_ipv6"), of("disable_ipv6", [1, 0, 0]));
        assert_eq!(kept("net/ipv6/conf/default/disable_ipv6"), of("disable_ipv6", [0, 1, 0]));
        assert_eq!(kept("net/ipv6/conf/lo/disable_ipv6"), ["net/ipv6/conf/lo/disable_ipv6 1"]);
        let mut routing = [of("accept_redirects", [0; 3]), of("forwarding", [1, 0, 0])].concat();
        routing.sort();
        assert_eq!(kept("net/ipv6/conf/all/forwarding"), routing);
    }

    #[test]
    fn randomness_and_triggers_are_never_carried() {
        for path in ["kernel/random/boot_id", "kernel/random", "vm/drop_caches", "kernel/ns_last_pid"] {
            assert!(denied(path), "{path}");
        }
        assert!(!denied("kernel/randomize_va_space"));
    }

    #[test]
    fn parameters_of_an_interface_wait_for_it() {
        assert_eq!(phase("net/ipv6/conf/eth0/accept_ra"), Phase::Interface);
        assert_eq!(phase("net/ipv6/conf/all/forwarding"), Phase::Early);
        assert_eq!(phase("net/ipv4/neigh/default/gc_thresh1"), Phase::Early);
        assert_eq!(phase("vm/overcommit_memory"), Phase::Late);
    }
}
