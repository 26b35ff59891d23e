//! What is in a namespace: the kinds of the kernel's state, as far as each namespace has its own.

use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags};
use nix::sched::unshare;
use nix::unistd::pivot_root;

use super::{CARRIED, Doors, IPC, KIND, MOUNT, NETWORK, Spaces, State, refusal};
use crate::error::{Context, Error, Obstacle, Result};
use crate::kernel::mount::plan::Step;
use crate::kernel::{Root, hostname, mount, network, sysctl, sysvipc, tmpfs};
use crate::proc::mountinfo::{self, Mount, below, lookup};
use crate::sys::path;
use crate::sys::stat::exists;
use crate::text;

/// Parameters that each IPC namespace has, and those that each network has; all that begin so.
const PARAMETERS: [&[&str]; 4] =
    [&[], &["kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/"], &["net/"], &[]];
/// Whatever is needed in a fresh network is there at once.
const PATIENCE: Duration = Duration::from_secs(2);

crate::section! {
    /// What is in a namespace.
    pub enum Body {
        /// Names of the system.
        Uts(hostname::State),
        /// System V IPC, with its parameters.
        Ipc(sysvipc::State, sysctl::State),
        /// Interfaces and what belongs to them, with the parameters.
        Network(Box<network::State>, sysctl::State),
        /// Mounts, with the files in memory.
        Mount(Box<mount::State>, Table),
    }
}

crate::section! {
    /// How a table differs from a copy of the first one, beside its mounts.
    pub struct Table {
        /// MS_SLAVE or MS_PRIVATE for all of the copy, or nothing.
        pub propagation: u32,
        /// Where another root is mounted before it becomes the root (pivot_root(2)); empty if it is none.
        pub pivot: String,
        /// Files in memory.
        pub tmpfs: tmpfs::State,
    }
}

/// What a fresh namespace of a sort has.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    parameters: sysctl::Values,
    network: Option<network::Seen>,
}

fn make(sort: usize) -> Result<()> {
    let (name, flag) = CARRIED[sort];
    unshare(flag).context(KIND, format_args!("making a namespace of the sort {name}"))
}

/// Makes a namespace to see what is in it.
pub(super) fn fresh(sort: usize, doors: &Doors) -> Result<Fresh> {
    let mut fresh = Fresh::default();
    if PARAMETERS[sort].is_empty() {
        return Ok(fresh);
    }
    make(sort)?;
    let mut look = || {
        let root = Root::own()?;
        fresh.parameters = sysctl::baseline(&root)?;
        if sort == NETWORK {
            fresh.network = Some(network::baseline(&root)?);
        }
        Ok(())
    };
    let done = look();
    doors.leave(sort)?;
    done.map(|()| fresh)
}

/// Reads the namespace that we are in. `home` is the table of the first process and what
/// stands before its paths, `filled` are file systems in memory
/// that other namespaces have.
pub(super) fn capture(
    sort: usize,
    fresh: &Fresh,
    home: (&[Mount], &str),
    filled: &mut Vec<(u32, u32)>,
) -> Result<(Body, Vec<Obstacle>)> {
    let root = Root::own()?;
    let mut obstacles = Vec::new();
    let parameters = || -> Result<sysctl::State> {
        let mut state = sysctl::capture(&fresh.parameters, &root)?;
        state.values.retain(|(path, _)| PARAMETERS[sort].iter().any(|own| path.starts_with(own)));
        Ok(state)
    };
    let body = match sort {
        IPC => {
            let (state, more) = sysvipc::capture(&Vec::new(), &root);
            obstacles = more;
            Body::Ipc(state, parameters()?)
        }
        NETWORK => {
            let empty = network::Seen::default();
            let (state, more) = network::capture(fresh.network.as_ref().unwrap_or(&empty), &root)?;
            obstacles = more;
            Body::Network(Box::new(state), parameters()?)
        }
        MOUNT => {
            let mut after = root.mounts()?;
            widen(&mut after, home.0);
            let (before, propagation, same) = copy(home.0, &after);
            let pivot = if same { String::new() } else { scratch(home.0, home.1)? };
            let aside = (!same).then(|| beside(&before, &after, &pivot));
            let first = if same { 0 } else { before.len() };
            let (mut state, mut fills, more) =
                mount::capture(&before, aside.as_ref().unwrap_or(&after), &root);
            obstacles = more;
            // What was there before is carried at home.
            let mut number = 0;
            state.steps.retain_mut(|step| match step {
                Step::Fill(index) => {
                    let kept = fills.get(*index as usize).is_none_or(|(_, kept)| *kept);
                    *index = number;
                    number += u32::from(!kept);
                    !kept
                }
                _ => true,
            });
            fills.retain_mut(|(index, kept)| {
                *index = index.wrapping_sub(first);
                !*kept
            });
            for mount in fills.iter().filter_map(|(index, _)| after.get(*index)) {
                if filled.contains(&mount.dev) {
                    let refusal = refusal("several mount namespaces have its files in memory");
                    obstacles.push(Obstacle::kernel(KIND, format!("mount {}", mount.point), refusal));
                }
                filled.push(mount.dev);
            }
            let (mut tmpfs, more) = tmpfs::capture(&Vec::new(), &after, &fills, &root);
            obstacles.extend(more);
            for filesystem in &mut tmpfs.list {
                filesystem.point = under(&pivot, &filesystem.point);
            }
            Body::Mount(Box::new(state), Table { propagation, pivot, tmpfs })
        }
        _ => Body::Uts(hostname::capture(&root)?),
    };
    Ok((body, obstacles))
}

/// The first table as a copy of it in this namespace would have it: with the numbers that its mounts have here, and
/// after MS_SLAVE or MS_PRIVATE where that brings it nearer. And whether it has the same root.
fn copy(home: &[Mount], here: &[Mount]) -> (Vec<Mount>, u32, bool) {
    let mut copy: Vec<Mount> = Vec::new();
    let mut pairs: Vec<(&Mount, &Mount)> = Vec::new();
    let first = root_of(home);
    for mount in in_order(home) {
        let parent = pairs.iter().find(|(old, _)| old.id == mount.parent).map(|(_, new)| new.id);
        let mut same = here.iter().filter(|new| {
            (new.dev, &new.root, &new.point, &new.fstype)
                == (mount.dev, &mount.root, &mount.point, &mount.fstype)
                && parent.map_or(pairs.is_empty() && mount.id == first, |parent| parent == new.parent)
                && !pairs.iter().any(|(_, taken)| taken.id == new.id)
        });
        let mut entry = mount.clone();
        entry.parent = parent.unwrap_or(mount.parent);
        if let Some(new) = same.next() {
            (entry.id, entry.parent) = (new.id, new.parent);
            pairs.push((mount, new));
        }
        copy.push(entry);
    }
    let as_is = |old: &Mount| (old.shared, old.master);
    let slave = |old: &Mount| (None, old.shared.or(old.master));
    let all = |made: &dyn Fn(&Mount) -> (Option<u32>, Option<u32>)| {
        pairs.iter().all(|(old, new)| made(old) == (new.shared, new.master))
    };
    // Most mounts of one with another root are new, and a root that spreads cannot be exchanged.
    let same = !pairs.is_empty();
    if same && all(&as_is) {
        return (copy, 0, same);
    }
    let slaves = same && all(&slave);
    for entry in &mut copy {
        (entry.shared, entry.master) = if slaves { slave(entry) } else { (None, None) };
    }
    let flag = if slaves { MsFlags::MS_SLAVE } else { MsFlags::MS_PRIVATE };
    (copy, mount::plan::bits(flag | MsFlags::MS_REC), same)
}

fn root_of(table: &[Mount]) -> u32 {
    mountinfo::root(table).map_or(0, |mount| mount.id)
}

/// The mounts of a table, each after the one that it is on: one that was moved may be listed before it.
fn in_order(table: &[Mount]) -> Vec<&Mount> {
    let mut rest: Vec<&Mount> = table.iter().collect();
    let mut found: Vec<&Mount> = Vec::new();
    let root = root_of(table);
    while let Some(at) =
        rest.iter().position(|m| m.id == root || found.iter().any(|parent| parent.id == m.parent))
    {
        found.push(rest.remove(at));
    }
    found
}

/// Directories where another root can be mounted for a moment.
const SCRATCH: [&str; 6] = ["/mnt", "/media", "/srv", "/opt", "/home", "/tmp"];

/// One that is there at home, so that a restore finds it, and that hides no other mount.
fn scratch(home: &[Mount], root: &str) -> Result<String> {
    let free = |path: &&&str| {
        !home.iter().any(|m| m.point != **path && below(&m.point, path)) && exists(format!("{root}{path}/."))
    };
    let found = SCRATCH.iter().find(free).map(|path| (*path).to_owned());
    found.ok_or_else(|| Error::new(KIND, "looking for a place for another root", "there is none"))
}

/// A file system in memory of which only a directory is in reach is taken for one that has nothing else: a sandbox
/// leaves behind what it was built with.
fn widen(here: &mut [Mount], home: &[Mount]) {
    for at in 0..here.len() {
        let Mount { dev, root, fstype, .. } = here[at].clone();
        let covers = |m: &Mount| m.dev == dev && m.root != root && below(&root, &m.root);
        let volatile = mount::fstype::class(&fstype) == mount::fstype::Class::Volatile;
        if root == "/" || !volatile || home.iter().any(covers) || here.iter().any(covers) {
            continue;
        }
        for mount in here.iter_mut().filter(|m| m.dev == dev) {
            if let Some(rest) = mount.root.strip_prefix(&root) {
                mount.root = format!("/{}", text::without_start(rest, "/"));
            }
        }
    }
}

fn under(pivot: &str, point: &str) -> String {
    if pivot.is_empty() {
        point.to_owned()
    } else {
        text::without_end(&format!("{pivot}{point}"), "/").to_owned()
    }
}

/// A table below a directory of another, as it is before it becomes the root.
fn beside(home: &[Mount], here: &[Mount], pivot: &str) -> Vec<Mount> {
    let mut all = home.to_vec();
    let parent = lookup(&home.iter().collect::<Vec<_>>(), pivot).map_or(0, |mount| mount.id);
    let first = root_of(here);
    all.extend(here.iter().map(|mount| Mount {
        point: under(pivot, &mount.point),
        parent: if mount.id == first { parent } else { mount.parent },
        ..mount.clone()
    }));
    all
}

/// Makes the namespaces of an image, at descriptors from `base` on.
///
/// # Errors
/// One cannot be made or filled.
pub fn restore(list: &[State], base: i32) -> Result<Doors> {
    let mut doors = Doors::new(base)?;
    for State { spaces, body } in list {
        let sort = match body {
            Body::Uts(..) => 0,
            Body::Ipc(..) => IPC,
            Body::Network(..) => NETWORK,
            Body::Mount(..) => MOUNT,
        };
        // Those that come later in the order are not there yet.
        let mut before = spaces.clone();
        before.of.iter_mut().skip(sort).for_each(|of| *of = 0);
        doors.go(&Spaces::HOME, &before)?;
        make(sort)?;
        fill(body)?;
        doors.made(sort)?;
        doors.go(&before, &Spaces::HOME)?;
    }
    Ok(doors)
}

fn fill(body: &Body) -> Result<()> {
    let root = Root::own()?;
    let early = |parameters| sysctl::restore(parameters, &root, sysctl::Phase::Early);
    match body {
        Body::Uts(state) => hostname::restore(state, &root),
        Body::Ipc(state, parameters) => {
            early(parameters)?;
            sysvipc::restore(state, &root)
        }
        Body::Network(state, parameters) => {
            early(parameters)?;
            network::restore(state, parameters, &root, Instant::now() + PATIENCE, &mut |_| {})
        }
        Body::Mount(state, table) => {
            let flags = MsFlags::from_bits_retain(libc::c_ulong::from(table.propagation));
            if !flags.is_empty() {
                path::mount(None, "/", None, flags, None)
                    .context(KIND, format_args!("setting the propagation of all mounts"))?;
            }
            mount::restore(state, &root, &mut |index| tmpfs::restore(&table.tmpfs, index, &root))?;
            if table.pivot.is_empty() {
                return Ok(());
            }
            // pivot_root(c".", c".") puts the old root on top of the new one, from where it is taken off.
            let doing = format_args!("changing the root");
            path::chdir(&table.pivot).context(KIND, doing)?;
            pivot_root(c".", c".").context(KIND, doing)?;
            path::umount2(".", MntFlags::MNT_DETACH).context(KIND, doing)
        }
    }
}

/// What has to wait until the sockets are bound: see [`tmpfs::finish`].
///
/// # Errors
/// What could not be made.
pub fn finish(list: &[State], doors: &Doors) -> Result<()> {
    for state in list {
        if let Body::Mount(_, table) = &state.body {
            let mut tmpfs = table.tmpfs.clone();
            for filesystem in &mut tmpfs.list {
                let point = filesystem.point.strip_prefix(&table.pivot).unwrap_or_default();
                filesystem.point = format!("/{}", text::without_start(point, "/"));
            }
            doors.inside(&state.spaces, &mut || tmpfs::finish(&tmpfs, &Root::own()?))?;
        }
    }
    Ok(())
}

/// The name in one table of a file that another table shows as `path`; an empty one, if it is in memory.
pub(super) fn other_name(path: &str, here: &[Mount], there: &[Mount]) -> Option<String> {
    let (here, there): (Vec<&Mount>, Vec<&Mount>) = (here.iter().collect(), there.iter().collect());
    let beyond = |path: &str, base: &str| Some(path.strip_prefix(text::without_end(base, "/"))?.to_owned());
    let mount = lookup(&here, path)?;
    if mount::fstype::class(&mount.fstype) == mount::fstype::Class::Volatile {
        return Some(String::new());
    }
    // From the root of the file system on.
    let inside = format!("{}{}", text::without_end(&mount.root, "/"), beyond(path, &mount.point)?);
    there.iter().find_map(|other| {
        if other.dev != mount.dev || !below(&inside, &other.root) {
            return None;
        }
        let name = format!("{}{}", text::without_end(&other.point, "/"), beyond(&inside, &other.root)?);
        (lookup(&there, &name)?.id == other.id).then_some(name)
    })
}
