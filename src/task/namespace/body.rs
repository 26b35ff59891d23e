//! What is in a namespace: the kinds of the kernel's state, as far as each namespace has its own.

use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags};
use nix::sched::unshare;
use nix::unistd::pivot_root;

use super::table::{beside, copy, scratch, under, widen};
use super::{CARRIED, Doors, IPC, KIND, MOUNT, NETWORK, Spaces, State, refusal};
use crate::error::{Context, Obstacle, Result};
use crate::kernel::mount::plan::Step;
use crate::kernel::{Root, hostname, mount, network, sysctl, sysvipc, tmpfs};
use crate::proc::mountinfo::Mount;
use crate::sys::path;

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

/// Reads the namespace that we are in. `home` is the table of the first process and what stands before its paths,
/// `filled` are file systems in memory that other namespaces have.
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
            let (body, more) = capture_mounts(&root, home, filled)?;
            obstacles = more;
            body
        }
        _ => Body::Uts(hostname::capture(&root)?),
    };
    Ok((body, obstacles))
}

/// The mounts of a namespace, as what has to be done to a copy of those at home; with the files in memory that only it
/// has.
fn capture_mounts(
    root: &Root,
    home: (&[Mount], &str),
    filled: &mut Vec<(u32, u32)>,
) -> Result<(Body, Vec<Obstacle>)> {
    let mut after = root.mounts()?;
    widen(&mut after, home.0);
    let (before, propagation, same) = copy(home.0, &after);
    let pivot = if same { String::new() } else { scratch(home.0, home.1)? };
    let aside = (!same).then(|| beside(&before, &after, &pivot));
    let first = if same { 0 } else { before.len() };
    let (mut state, mut fills, mut obstacles) =
        mount::capture(&before, aside.as_ref().unwrap_or(&after), root);
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
    let (mut tmpfs, more) = tmpfs::capture(&Vec::new(), &after, &fills, root);
    obstacles.extend(more);
    for filesystem in &mut tmpfs.list {
        filesystem.point = under(&pivot, &filesystem.point);
    }
    Ok((Body::Mount(Box::new(state), Table { propagation, pivot, tmpfs }), obstacles))
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
        let done = make(sort).and_then(|()| fill(body)).and_then(|()| doors.keep(sort));
        // Home in any case: a boot that goes on cold must not find us elsewhere.
        doors.leave(sort)?;
        doors.go(&before, &Spaces::HOME)?;
        done?;
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
            doors.inside(&state.spaces, &mut || tmpfs::finish(&table.tmpfs, &table.pivot, &Root::own()?))?;
        }
    }
    Ok(())
}
