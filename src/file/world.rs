//! What kinds may ask about everything else during a capture.

use std::cell::{OnceCell, RefCell};
use std::os::fd::{AsFd, OwnedFd};

use super::{Description, inet_pair, multicast, options, place};
use crate::config::{Config, KEYS, Key, Service};
use crate::error::{Context, Result};
use crate::sorted::Map;
use crate::sys::ioctl;
use crate::sys::sockdiag::Unix;
use crate::sys::stat::stat;
use crate::task::clock::Offsets;
use crate::task::namespace::{NETWORK, Seen, Spaces};
use crate::text;

/// What is captured: everything under PID 1, or one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole system, with the state of the kernel.
    System,
    /// One process tree; what is shared with the outside is an obstacle.
    Tree,
}

/// What kinds may ask about the rest of the frozen world during a capture.
pub struct World<'a> {
    /// Whole system or tree.
    pub scope: Scope,
    /// What stands before every path of the captured system: empty, or `/proc/1/root` for the watcher.
    pub root: &'a str,
    /// What is allowed beyond the defaults.
    pub config: &'a Config,
    /// How far the clocks of the tasks are ahead of ours.
    pub ahead: Offsets,
    /// Every process in the image, sorted.
    pub processes: &'a [u32],
    /// Every thread in the image, with its process.
    pub tasks: &'a Map<u32, u32>,
    /// Every description of every task in the image; the index is the entry number.
    pub descriptions: &'a [Description],
    /// What was found out already.
    pub known: Known,
    /// Where we are.
    pub spaces: Spaces,
    /// Which namespaces there are.
    pub seen: &'a Seen,
}

/// What kinds find out once for all descriptions.
#[derive(Default)]
pub struct Known {
    /// What the kernel knows of unix sockets.
    sockets: OnceCell<Map<u64, Unix>>,
    /// The multicast groups of all interfaces.
    groups: OnceCell<Vec<(u32, i32, Vec<u8>)>>,
    /// Our network namespace.
    network: OnceCell<u64>,
    /// The ends of TCP connections.
    connections: OnceCell<inet_pair::Connections>,
    /// The options of fresh sockets.
    pub(super) fresh: RefCell<options::Fresh>,
}

impl World<'_> {
    /// All unix sockets of the network namespace, by inode number. The kernel is asked once.
    ///
    /// # Errors
    /// The errno of sock_diag(7): `ENOENT` without the module `unix_diag`.
    pub fn unix(&self) -> Result<&Map<u64, Unix>> {
        once(&self.known.sockets, || {
            crate::sys::sockdiag::unix().context("unix", format_args!("asking the kernel for all sockets"))
        })
    }

    /// A path of the captured system as this process reaches it.
    #[must_use]
    pub fn inside(&self, path: &str) -> String {
        format!("{}{path}", self.root)
    }

    /// The ends of TCP connections in the image.
    ///
    /// # Errors
    /// The errno of reading an address.
    pub fn connections(&self) -> Result<&inet_pair::Connections> {
        let here = self.spaces.of[NETWORK];
        let mine = || self.descriptions.iter().filter(|desc| desc.spaces.of[NETWORK] == here);
        once(&self.known.connections, || inet_pair::connections(&mut mine()))
    }

    /// The multicast groups of all interfaces: number, family, address.
    pub fn groups(&self) -> &[(u32, i32, Vec<u8>)] {
        self.known.groups.get_or_init(multicast::groups)
    }

    /// Whether a socket is in the network namespace of this process. A kernel that cannot tell (before
    /// SIOCGSKNS, 4.10) is taken at its word.
    ///
    /// # Errors
    /// The errno of stat(2).
    pub fn same_network(&self, fd: &OwnedFd) -> Result<bool> {
        let Ok(namespace) = ioctl::open(fd.as_fd(), &ioctl::SOCKET_NAMESPACE) else { return Ok(true) };
        let its = place::stat(&namespace, "socket")?;
        let own = once(&self.known.network, || {
            let own = stat("/proc/self/ns/net");
            own.map(|own| own.ino).context("socket", format_args!("looking at our own namespace"))
        });
        Ok(*own? == its.ino)
    }

    /// The entry of the first description of the same object.
    #[must_use]
    pub fn first(&self, desc: &Description) -> u32 {
        let same = self.descriptions.iter().find(|other| desc.shares_object(other));
        same.map_or(desc.entry, |first| first.entry)
    }

    /// Whether what is outside the image will be gone after a restore, as when its processes had ended. In a
    /// whole system, only the processes of rerun services are outside: they are started anew.
    #[must_use]
    pub fn outside_ends(&self) -> bool {
        self.scope == Scope::System
    }

    /// The remedy with the line of the configuration that is missing for an object of a description, if one is. All
    /// who hold the description must be allowed to lose it: what does no harm to one service may break another.
    #[must_use]
    pub fn lacks(&self, key: Key, desc: &Description, object: &str) -> Option<String> {
        let mut services = Vec::new();
        for (pid, _) in &desc.holders {
            services.push(Service::of(*pid));
        }
        // It may be on its way in a queue; then only a line for all can be meant.
        if services.is_empty() {
            services.push(Service::default());
        }
        let name = KEYS[key as usize].name;
        if services.iter().all(|service| self.config.allows(key, service, object)) {
            crate::log!(Info, "{name}: {object}");
            return None;
        }
        let may = match key {
            Key::Reopen => "if it may be opened afresh",
            Key::Close => "if it may end on a restored boot",
            _ => "if its contents do not matter",
        };
        let one = services[0].name();
        let one = if services.iter().all(|service| service.name() == one) { one } else { "" };
        let colon = if one.is_empty() { "" } else { ": " };
        // Blanks and commas divide a line.
        let object = text::replaced(&text::replaced(object, " ", "?"), ",", "?");
        Some(format!("{may}: {name} = {one}{colon}{object}"))
    }

    /// Whether a process is in the image.
    #[must_use]
    pub fn has_process(&self, pid: u32) -> bool {
        self.processes.binary_search(&pid).is_ok()
    }

    /// Whether a process or thread is in the image, and is there when files are opened: init gets its further threads
    /// last.
    #[must_use]
    pub fn has_task(&self, tid: u32) -> bool {
        let late = |process: &u32| *process == 1 && self.scope == Scope::System;
        self.has_process(tid) || self.tasks.get(&tid).is_some_and(|process| !late(process))
    }
}

/// Finds something out the first time it is asked for.
fn once<T>(cell: &OnceCell<T>, find: impl FnOnce() -> Result<T>) -> Result<&T> {
    if let Some(found) = cell.get() {
        return Ok(found);
    }
    let found = find()?;
    Ok(cell.get_or_init(|| found))
}

#[cfg(test)]
mod tests {
    use super::{Known, Scope, World};
    use crate::file::testing;

    #[test]
    fn threads_are_there_when_files_are_opened_but_not_those_of_init() {
        testing::world(&[], |world| {
            let own = world.processes[0];
            let tasks = vec![(1, 1), (7, 1), (own, own), (u32::MAX, own)].into();
            let mut world = World {
                scope: Scope::System,
                root: "",
                config: world.config,
                ahead: world.ahead,
                processes: &[1, own],
                tasks: &tasks,
                descriptions: &[],
                known: Known::default(),
                spaces: world.spaces.clone(),
                seen: world.seen,
            };
            let has = |world: &World<'_>| [1, 7, own, u32::MAX, u32::MAX - 1].map(|tid| world.has_task(tid));
            assert_eq!(has(&world), [true, false, true, true, false]);
            // In a tree, number 1 is a process as any other.
            world.scope = Scope::Tree;
            assert_eq!(has(&world), [true, true, true, true, false]);
        });
    }
}
