//! What is in a namespace: the kinds of the kernel's state, as far as each namespace has its own.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::MsFlags;
use nix::sched::unshare;

use super::{CARRIED, Doors, IPC, KIND, MOUNT, NETWORK, Spaces, State, refusal};
use crate::error::{Context, Obstacle, Result};
use crate::kernel::mount::plan::Step;
use crate::kernel::{Root, hostname, mount, network, sysctl, sysvipc, tmpfs};
use crate::proc::mountinfo::{Mount, below, lookup};
use crate::sys::{fsmount, path};
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

/// The system as it is seen from here. sysfs shows the interfaces of the namespace that it is mounted in.
fn root(sort: usize) -> Result<Root> {
    let mut root = Root::own()?;
    if sort == NETWORK {
        let sys = fsmount::mount(Path::new("sysfs"), "sysfs", false);
        root.sys = sys.context(KIND, format_args!("mounting sysfs"))?.into();
    }
    Ok(root)
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
        let root = root(sort)?;
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

/// Reads the namespace that we are in. `home` is the table of the first process, `filled` are file systems in memory
/// that other namespaces have.
pub(super) fn capture(
    sort: usize,
    fresh: &Fresh,
    home: &[Mount],
    filled: &mut Vec<(u32, u32)>,
) -> Result<(Body, Vec<Obstacle>)> {
    let root = root(sort)?;
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
            let after = root.mounts()?;
            let (before, propagation) = copy(home, &after);
            let (mut state, mut fills, more) = mount::capture(&before, &after, &root);
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
            fills.retain(|(_, kept)| !kept);
            for mount in fills.iter().filter_map(|(index, _)| after.get(*index)) {
                if filled.contains(&mount.dev) {
                    let refusal = refusal("several mount namespaces have its files in memory");
                    obstacles.push(Obstacle::kernel(KIND, format!("mount {}", mount.point), refusal));
                }
                filled.push(mount.dev);
            }
            let (tmpfs, more) = tmpfs::capture(&Vec::new(), &after, &fills, &root);
            obstacles.extend(more);
            Body::Mount(Box::new(state), Table { propagation, tmpfs })
        }
        _ => Body::Uts(hostname::capture(&root)?),
    };
    Ok((body, obstacles))
}

/// The first table as a copy of it in this namespace would have it: with the numbers that its mounts have here, and
/// after MS_SLAVE or MS_PRIVATE where that brings it nearer.
fn copy(home: &[Mount], here: &[Mount]) -> (Vec<Mount>, u32) {
    let mut copy: Vec<Mount> = Vec::new();
    let mut pairs: Vec<(&Mount, &Mount)> = Vec::new();
    for mount in home {
        let parent = pairs.iter().find(|(old, _)| old.id == mount.parent).map(|(_, new)| new.id);
        let mut same = here.iter().filter(|new| {
            (new.dev, &new.root, &new.point, &new.fstype)
                == (mount.dev, &mount.root, &mount.point, &mount.fstype)
                && parent.is_none_or(|parent| parent == new.parent)
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
    if all(&as_is) {
        return (copy, 0);
    }
    let slaves = all(&slave);
    for entry in &mut copy {
        (entry.shared, entry.master) = if slaves { slave(entry) } else { (None, None) };
    }
    let flag = if slaves { MsFlags::MS_SLAVE } else { MsFlags::MS_PRIVATE };
    (copy, mount::plan::bits(flag | MsFlags::MS_REC))
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
        fill(sort, body)?;
        doors.made(sort)?;
        doors.go(&before, &Spaces::HOME)?;
    }
    Ok(doors)
}

fn fill(sort: usize, body: &Body) -> Result<()> {
    let root = root(sort)?;
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
            mount::restore(state, &root, &mut |index| tmpfs::restore(&table.tmpfs, index, &root))
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
            doors.inside(&state.spaces, &mut || tmpfs::finish(&table.tmpfs, &Root::own()?))?;
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
