//! Who has what open: lists the descriptors of all tasks and finds out which share a description.
//!
//! Reads /proc/PID/fd and fdinfo, groups by what must be equal for equal descriptions (device, inode,
//! flags, offset), and settles the rest with kcmp(2). Only one copy of each description is taken.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Description, Fd, Stat, lock};
use crate::error::{Context, Error, Result};
use crate::proc::fdinfo::{self, FdInfo};
use crate::sys::descriptor;

const KIND: &str = "file";

/// One descriptor of one task.
struct Held {
    pid: u32,
    fd: i32,
    link: String,
    info: FdInfo,
    stat: Stat,
}

/// What all tasks have open.
pub struct Holdings {
    /// Every description once; the order is that of the first holder.
    pub descriptions: Vec<Description>,
    /// Every task's descriptors.
    pub fds: BTreeMap<u32, Vec<Fd>>,
    /// Locks that belong to processes.
    pub posix: Vec<lock::Posix>,
}

/// A task outside the image that has the same thing open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outsider {
    /// The task.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Its descriptor.
    pub fd: i32,
}

/// Lists and groups the descriptors of these tasks.
///
/// # Errors
/// The errno of a read of /proc, of kcmp(2) or of pidfd_getfd(2).
pub fn gather(tables: &[(u32, String)], externals: &[BorrowedFd<'_>]) -> Result<Holdings> {
    let mut held = Vec::new();
    for (pid, _) in tables {
        list(*pid, &mut held)?;
    }
    let mut groups = group(&mut held)?;
    groups.sort_unstable_by_key(|group| group.first().copied());
    make_room(groups.len());
    let mut found = Holdings { descriptions: Vec::new(), fds: BTreeMap::new(), posix: Vec::new() };
    for (pid, _) in tables {
        found.fds.insert(*pid, Vec::new());
    }
    let mut handles: BTreeMap<u32, OwnedFd> = BTreeMap::new();
    for group in groups {
        let entry = u32::try_from(found.descriptions.len()).unwrap_or(u32::MAX);
        for held in group.iter().filter_map(|&i| held.get(i)) {
            let cloexec = held.info.flags & libc::O_CLOEXEC != 0;
            found.fds.entry(held.pid).or_default().push(Fd { fd: held.fd, entry, cloexec });
            found.posix.extend(lock::posix(&held.info, held.pid, held.fd));
        }
        if let Some(first) = group.first().and_then(|&i| held.get(i)) {
            let holders = group.iter().filter_map(|&i| held.get(i)).map(|held| (held.pid, held.fd)).collect();
            found.descriptions.push(describe(first, entry, holders, &mut handles, externals)?);
        }
    }
    for fds in found.fds.values_mut() {
        fds.sort_unstable_by_key(|fd| fd.fd);
    }
    Ok(found)
}

/// Raises our own limit of descriptors, so that `count` more fit. Where that is not allowed, the call that
/// finds no number says so.
pub fn make_room(count: usize) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    // What is open already is little, and a kind opens a few for a moment.
    let wanted = soft.max(u64::try_from(count).unwrap_or(0).saturating_add(256));
    if wanted > soft && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_err() {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn list(pid: u32, held: &mut Vec<Held>) -> Result<()> {
    let doing = format_args!("listing the descriptors of {pid}");
    for found in std::fs::read_dir(format!("/proc/{pid}/fd")).context(KIND, doing)? {
        let name = found.context(KIND, doing)?.file_name();
        let Some(fd) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let path = format!("/proc/{pid}/fd/{fd}");
        let link = std::fs::read_link(&path).context(KIND, doing)?;
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).context(KIND, doing)?;
        let stat = nix::sys::stat::stat(path.as_str()).context(KIND, doing)?;
        let link = link.to_string_lossy().into_owned();
        held.push(Held { pid, fd, link, info: fdinfo::parse(&info), stat: stat.into() });
    }
    Ok(())
}

/// Sorts `held` by task and number, and returns the numbers of those that share a description, each group
/// in that order.
fn group(held: &mut [Held]) -> Result<Vec<Vec<usize>>> {
    held.sort_unstable_by_key(|held| (held.pid, held.fd));
    let mut buckets: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (i, held) in held.iter().enumerate() {
        let key = (held.stat.dev, held.stat.ino, held.info.flags & !libc::O_CLOEXEC, held.info.pos);
        buckets.entry(key).or_default().push(i);
    }
    let mut groups = Vec::new();
    for bucket in buckets.into_values() {
        let start: usize = groups.len();
        // The groups of one bucket are kept in the kernel's order, so that each is found by halving.
        let mut sorted: Vec<Vec<usize>> = Vec::new();
        for i in bucket {
            match search(&sorted, i, held)? {
                Ok(found) => sorted[found].push(i),
                Err(at) => sorted.insert(at, vec![i]),
            }
        }
        debug_assert!(groups.len() == start);
        groups.extend(sorted);
    }
    Ok(groups)
}

fn search(sorted: &[Vec<usize>], i: usize, held: &[Held]) -> Result<Result<usize, usize>> {
    let mut trouble = None;
    let place = sorted.binary_search_by(|group| {
        let (Some(a), Some(b)) = (group.first().and_then(|&a| held.get(a)), held.get(i)) else {
            return Ordering::Equal;
        };
        descriptor::kcmp_file((a.pid, a.fd), (b.pid, b.fd)).unwrap_or_else(|errno| {
            trouble = Some(Error::os(KIND, format!("comparing descriptor {} of {}", b.fd, b.pid), errno));
            Ordering::Equal
        })
    });
    match trouble {
        Some(error) => Err(error),
        None => Ok(place),
    }
}

fn describe(
    held: &Held,
    entry: u32,
    holders: Vec<(u32, i32)>,
    handles: &mut BTreeMap<u32, OwnedFd>,
    externals: &[BorrowedFd<'_>],
) -> Result<Description> {
    let doing = format_args!("copying descriptor {} of {}", held.fd, held.pid);
    let handle = match handles.entry(held.pid) {
        std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
        std::collections::btree_map::Entry::Vacant(free) => {
            free.insert(descriptor::pidfd_open(held.pid).context(KIND, doing)?)
        }
    };
    let fd = descriptor::pidfd_getfd(handle.as_fd(), held.fd).context(KIND, doing)?;
    let own = std::process::id();
    let mut external = None;
    for (i, candidate) in (0_u32..).zip(externals) {
        let same = descriptor::kcmp_file((own, candidate.as_raw_fd()), (own, fd.as_raw_fd()));
        if same.context(KIND, doing)? == Ordering::Equal {
            external = Some(i);
            break;
        }
    }
    let mut info = held.info.clone();
    info.flags &= !libc::O_CLOEXEC;
    Ok(Description { entry, fd, link: held.link.clone(), info, stat: held.stat, holders, external })
}

/// Finds tasks outside the image that hold an end of one of these pipes or sockets, or share one of these
/// descriptions. The result goes by entry number.
///
/// # Errors
/// The errno of reading /proc.
pub fn outsiders(descriptions: &[Description], inside: &[u32]) -> Result<BTreeMap<u32, Outsider>> {
    let mut by_link: BTreeMap<&str, Vec<&Description>> = BTreeMap::new();
    for desc in descriptions.iter().filter(|desc| desc.external.is_none() && shares(desc)) {
        by_link.entry(desc.link.as_str()).or_default().push(desc);
    }
    let mut found = BTreeMap::new();
    let own = std::process::id();
    for task in std::fs::read_dir("/proc").context(KIND, format_args!("listing the tasks"))? {
        let Ok(task) = task else { continue };
        let Some(pid) = task.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == own || inside.binary_search(&pid).is_ok() {
            continue;
        }
        // A task that ends while we look holds nothing.
        let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for fd in fds.flatten() {
            let (Ok(link), name) = (std::fs::read_link(fd.path()), fd.file_name()) else { continue };
            let Some(number) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let Some(same) = link.to_str().and_then(|link| by_link.get(link)) else { continue };
            for desc in same.iter().filter(|desc| shared(desc, pid, number)) {
                found.entry(desc.entry).or_insert_with(|| Outsider { pid, comm: comm(pid), fd: number });
            }
        }
    }
    Ok(found)
}

/// Whether it matters that somebody else has a description too: a terminal or device has one state for all.
fn shares(desc: &Description) -> bool {
    !matches!(desc.stat.format(), libc::S_IFCHR | libc::S_IFBLK) && desc.info.flags & libc::O_PATH == 0
}

fn shared(desc: &Description, pid: u32, fd: i32) -> bool {
    // Any end of a pipe or socket will do: the object is the same.
    if matches!(desc.stat.format(), libc::S_IFIFO | libc::S_IFSOCK) {
        return true;
    }
    let own = (std::process::id(), desc.fd.as_raw_fd());
    // A task that has ended in the meantime shares nothing.
    matches!(descriptor::kcmp_file(own, (pid, fd)), Ok(Ordering::Equal))
}

fn comm(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}
