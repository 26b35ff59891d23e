//! Who has what open: lists the descriptors of all tasks and finds out which share a description.
//!
//! Reads /proc/PID/fd and fdinfo, groups by what must be equal for equal descriptions (device, inode,
//! flags, offset), and settles the rest with kcmp(2). Only one copy of each description is taken.

use std::cmp::Ordering;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{Description, Fd, Stat, lock, unix_queue};
use crate::error::{Context, Error, Result};
use crate::proc::fdinfo::{self, FdInfo};
use crate::sorted::{self, Listed, Map};
use crate::sys::stat::stat;
use crate::sys::{descriptor, fs, limit};
use crate::task::namespace::Spaces;

const KIND: &str = "file";
/// RLIMIT_NOFILE on all processors but Alpha, MIPS and SPARC.
const NUMBER_OF_FILES: u32 = 7;

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
    pub fds: Map<u32, Vec<Fd>>,
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
    sorted::sort_by_key(&mut groups, |group| group.first().copied());
    make_room(groups.len());
    let mut found = Holdings { descriptions: Vec::new(), fds: Map::new(), posix: Vec::new() };
    for (pid, _) in tables {
        found.fds.insert(*pid, Vec::new());
    }
    let mut handle = None;
    for group in groups {
        let entry = u32::try_from(found.descriptions.len()).unwrap_or(u32::MAX);
        let mut holders = Vec::new();
        for held in group.iter().filter_map(|&i| held.get(i)) {
            holders.push((held.pid, held.fd));
            let cloexec = held.info.flags & libc::O_CLOEXEC != 0;
            found.fds.entry(held.pid, Vec::new).push(Fd { fd: held.fd, entry, cloexec });
            found.posix.extend(lock::posix(&held.info, held.pid, held.fd));
        }
        if let Some(first) = group.first().and_then(|&i| held.get(i)) {
            found.descriptions.push(describe(first, entry, holders, &mut handle, externals)?);
        }
    }
    for fds in found.fds.values_mut() {
        sorted::sort_by_key(fds, |fd| fd.fd);
    }
    on_their_way(&mut found.descriptions, externals)?;
    Ok(found)
}

/// Adds the descriptions that nobody holds, because they wait in the queue of a unix socket (SCM_RIGHTS); such a
/// socket may be among them.
fn on_their_way(descriptions: &mut Vec<Description>, externals: &[BorrowedFd<'_>]) -> Result<()> {
    let mut at = 0;
    while let Some(desc) = descriptions.get_mut(at) {
        at += 1;
        if desc.stat.format() != libc::S_IFSOCK {
            continue;
        }
        desc.queue = unix_queue::look(&desc.fd);
        let rights = desc.queue.iter().flatten().flat_map(|seen| &seen.rights);
        let copies = rights.map(|fd| descriptor::copy(fd.as_fd(), 0)).whole();
        let copies = copies.context(KIND, format_args!("copying a descriptor"))?;
        for fd in copies {
            if find(fd.as_fd(), descriptions).context(KIND, format_args!("comparing"))?.is_none() {
                let entry = u32::try_from(descriptions.len()).unwrap_or(u32::MAX);
                descriptions.push(own(fd, entry, externals)?);
            }
        }
    }
    Ok(())
}

/// A description of which we have the only descriptor.
fn own(fd: OwnedFd, entry: u32, externals: &[BorrowedFd<'_>]) -> Result<Description> {
    let doing = format_args!("looking at a descriptor in a queue");
    let number = fd.as_raw_fd();
    let link = fs::link_text(format!("/proc/self/fd/{number}")).context(KIND, doing)?;
    let mut info = fdinfo::parse(&fs::text(format!("/proc/self/fdinfo/{number}")).context(KIND, doing)?);
    info.flags &= !libc::O_CLOEXEC;
    let stat = nix::sys::stat::fstat(&fd).context(KIND, doing)?.into();
    let external = external(&fd, externals).context(KIND, doing)?;
    Ok(Description {
        entry,
        fd,
        link,
        info,
        stat,
        holders: Vec::new(),
        external,
        queue: Ok(Vec::new()),
        spaces: Spaces::HOME,
    })
}

/// Which of the descriptions one of our descriptors refers to.
///
/// # Errors
/// The errno of fstat(2) or kcmp(2).
pub fn find(fd: BorrowedFd<'_>, descriptions: &[Description]) -> nix::Result<Option<usize>> {
    let stat = Stat::from(nix::sys::stat::fstat(fd)?);
    let id = std::process::id();
    for (at, desc) in descriptions.iter().enumerate() {
        if (desc.stat.dev, desc.stat.ino) == (stat.dev, stat.ino)
            && descriptor::kcmp_file((id, fd.as_raw_fd()), (id, desc.fd.as_raw_fd()))? == Ordering::Equal
        {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn external(fd: &OwnedFd, externals: &[BorrowedFd<'_>]) -> nix::Result<Option<u32>> {
    let id = std::process::id();
    for (i, candidate) in (0_u32..).zip(externals) {
        let same = descriptor::kcmp_file((id, candidate.as_raw_fd()), (id, fd.as_raw_fd()))?;
        if same == Ordering::Equal {
            return Ok(Some(i));
        }
    }
    Ok(None)
}

/// Raises our own limit of descriptors, so that `count` more fit. Where that is not allowed, the call that
/// finds no number says so.
pub fn make_room(count: usize) {
    let Ok((soft, hard)) = limit::get(0, NUMBER_OF_FILES) else { return };
    // What is open already is little, and a kind opens a few for a moment.
    let wanted = soft.max(u64::try_from(count).unwrap_or(0).saturating_add(256));
    if wanted > soft && limit::set(0, NUMBER_OF_FILES, wanted, hard.max(wanted)).is_err() {
        let _ = limit::set(0, NUMBER_OF_FILES, hard, hard);
    }
}

fn list(pid: u32, held: &mut Vec<Held>) -> Result<()> {
    let doing = format_args!("listing the descriptors of {pid}");
    for fd in fs::numbers(format!("/proc/{pid}/fd")).context(KIND, doing)? {
        let path = format!("/proc/{pid}/fd/{fd}");
        let link = fs::link_text(&path).context(KIND, doing)?;
        let info = fs::text(format!("/proc/{pid}/fdinfo/{fd}")).context(KIND, doing)?;
        let stat = stat(&path).context(KIND, doing)?;
        held.push(Held { pid, fd: fd.cast_signed(), link, info: fdinfo::parse(&info), stat });
    }
    Ok(())
}

/// Sorts `held` by task and number, and returns the numbers of those that share a description, each group
/// in that order.
fn group(held: &mut [Held]) -> Result<Vec<Vec<usize>>> {
    sorted::sort_by_key(held, |held| (held.pid, held.fd));
    let key = |i: &usize| {
        let Held { stat, info, .. } = &held[*i];
        (stat.dev, stat.ino, info.flags & !libc::O_CLOEXEC, info.pos)
    };
    let mut all: Vec<usize> = (0..held.len()).list();
    sorted::sort_by_key(&mut all, key);
    let mut groups = Vec::new();
    for bucket in all.chunk_by(|a, b| key(a) == key(b)) {
        // The groups of one bucket are kept in the kernel's order, so that each is found by halving.
        let mut sorted: Vec<Vec<usize>> = Vec::new();
        for &i in bucket {
            match search(&sorted, i, held)? {
                Ok(found) => sorted[found].push(i),
                Err(at) => sorted.insert(at, vec![i]),
            }
        }
        groups.append(&mut sorted);
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

/// Takes a copy of a description. `handle` is that of the process it was last done for: they come in order.
fn describe(
    held: &Held,
    entry: u32,
    holders: Vec<(u32, i32)>,
    handle: &mut Option<(u32, OwnedFd)>,
    externals: &[BorrowedFd<'_>],
) -> Result<Description> {
    let doing = format_args!("copying descriptor {} of {}", held.fd, held.pid);
    let handle = match handle {
        Some((pid, handle)) if *pid == held.pid => handle,
        _ => &mut handle.insert((held.pid, descriptor::pidfd_open(held.pid).context(KIND, doing)?)).1,
    };
    let fd = descriptor::pidfd_getfd(handle.as_fd(), held.fd).context(KIND, doing)?;
    let external = external(&fd, externals).context(KIND, doing)?;
    let mut info = held.info.clone();
    info.flags &= !libc::O_CLOEXEC;
    Ok(Description {
        entry,
        fd,
        link: held.link.clone(),
        info,
        stat: held.stat,
        holders,
        external,
        queue: Ok(Vec::new()),
        spaces: Spaces::HOME,
    })
}

/// Finds tasks outside the image that hold an end of one of these pipes or sockets, or share one of these
/// descriptions. The result goes by entry number.
///
/// # Errors
/// The errno of reading /proc.
pub fn outsiders(descriptions: &[Description], inside: &[u32]) -> Result<Map<u32, Outsider>> {
    let mut shared: Vec<&Description> =
        descriptions.iter().filter(|desc| desc.external.is_none() && shares(desc)).list();
    sorted::sort_by_key(&mut shared, |desc| desc.link.as_str());
    let mut found = Map::new();
    let own = std::process::id();
    for pid in fs::numbers("/proc").context(KIND, format_args!("listing the tasks"))? {
        if pid == own || inside.binary_search(&pid).is_ok() {
            continue;
        }
        // A task that ends while we look holds nothing.
        for fd in fs::numbers(format!("/proc/{pid}/fd")).unwrap_or_default() {
            let Ok(link) = fs::link_text(format!("/proc/{pid}/fd/{fd}")) else { continue };
            let fd = fd.cast_signed();
            let first = shared.partition_point(|desc| desc.link < link);
            let same = shared[first..].iter().take_while(|desc| desc.link == link);
            for desc in same.filter(|desc| is_shared(desc, pid, fd)) {
                found.entry(desc.entry, || Outsider { pid, comm: comm(pid), fd });
            }
        }
    }
    Ok(found)
}

/// Whether it matters that somebody else has a description too: a terminal or device has one state for all.
fn shares(desc: &Description) -> bool {
    !matches!(desc.stat.format(), libc::S_IFCHR | libc::S_IFBLK) && desc.info.flags & libc::O_PATH == 0
}

fn is_shared(desc: &Description, pid: u32, fd: i32) -> bool {
    // Any end of a pipe or socket will do: the object is the same.
    if matches!(desc.stat.format(), libc::S_IFIFO | libc::S_IFSOCK) {
        return true;
    }
    let own = (std::process::id(), desc.fd.as_raw_fd());
    // A task that has ended in the meantime shares nothing.
    matches!(descriptor::kcmp_file(own, (pid, fd)), Ok(Ordering::Equal))
}

/// The name of a task; empty if it is gone.
pub(super) fn comm(pid: u32) -> String {
    fs::of_task(pid, "comm").unwrap_or_default().trim_ascii_end().to_owned()
}
