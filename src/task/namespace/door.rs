//! The way into namespaces and back.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{chroot, fchdir};

use super::{CARRIED, KIND, MOUNT, Spaces, open};
use crate::error::{Context, Error, Result};
use crate::sys::{descriptor, fs};

/// Descriptors of the namespaces that this process can be in.
#[derive(Debug, Default)]
pub struct Doors {
    home: Vec<OwnedFd>,
    /// Our root and working directory: going to a mount namespace leaves both.
    stand: Vec<OwnedFd>,
    away: Vec<OwnedFd>,
    base: i32,
}

impl Doors {
    /// Those of this process, where it is, at numbers from `base` on.
    ///
    /// # Errors
    /// The errno of open(2).
    pub fn new(base: i32) -> Result<Doors> {
        let mut doors = Doors { base, ..Doors::default() };
        for (name, _) in CARRIED {
            let door = open("thread-self", name)?;
            doors.home.push(doors.raise(door)?);
        }
        for path in ["/", "."] {
            let here = fs::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY);
            let here = here.context(KIND, format_args!("opening our own directory"))?;
            doors.stand.push(doors.raise(here)?);
        }
        Ok(doors)
    }

    /// Our root directory as a path that is the same everywhere with a /proc.
    pub(super) fn root(&self) -> String {
        self.stand.first().map_or(String::new(), |root| format!("/proc/self/fd/{}", root.as_raw_fd()))
    }

    fn raise(&self, fd: OwnedFd) -> Result<OwnedFd> {
        descriptor::raise(fd, self.base).context(KIND, format_args!("moving a descriptor"))
    }

    /// One more that is not home; its number is the next one.
    pub(super) fn add(&mut self, door: OwnedFd) {
        self.away.push(door);
    }

    /// The namespace of a sort that we are in just now becomes the next one.
    pub(super) fn keep(&mut self, sort: usize) -> Result<()> {
        let door = self.raise(open("thread-self", CARRIED[sort].0)?)?;
        self.away.push(door);
        Ok(())
    }

    /// Goes back from a namespace of a sort that was just made.
    pub(super) fn leave(&self, sort: usize) -> Result<()> {
        let mut spaces = Spaces::HOME;
        spaces.of[sort] = u32::MAX;
        self.go(&spaces, &Spaces::HOME)
    }

    /// The descriptor of one that is not home, by its number; none for 0, which is home.
    ///
    /// # Errors
    /// There is no such namespace.
    pub fn away(&self, number: u32) -> Result<Option<RawFd>> {
        let Some(at) = number.checked_sub(1) else { return Ok(None) };
        let door = self.away.get(at as usize);
        door.map(|door| Some(door.as_raw_fd()))
            .ok_or_else(|| Error::new(KIND, "entering one", "it was not made"))
    }

    /// The way to where `to` is, for somebody who is where `from` is: one descriptor for each that differs.
    ///
    /// # Errors
    /// There is no such namespace.
    pub fn way(&self, from: &Spaces, to: &Spaces) -> Result<Vec<&OwnedFd>> {
        let mut way = Vec::new();
        for (sort, (from, to)) in from.of.iter().zip(&to.of).enumerate() {
            if from != to {
                let (list, at) = if *to == 0 { (&self.home, sort) } else { (&self.away, *to as usize - 1) };
                way.push(list.get(at).ok_or_else(|| Error::new(KIND, "entering one", "it was not made"))?);
            }
        }
        Ok(way)
    }

    /// Takes this process from some to others.
    ///
    /// # Errors
    /// The errno of setns(2).
    pub fn go(&self, from: &Spaces, to: &Spaces) -> Result<()> {
        let doing = format_args!("entering a namespace");
        for door in self.way(from, to)? {
            setns(door, CloneFlags::empty()).context(KIND, doing)?;
        }
        if let [root, here] = self.stand.as_slice()
            && from.of[MOUNT] != 0
            && to.of[MOUNT] == 0
        {
            fchdir(root).and_then(|()| chroot(c".")).and_then(|()| fchdir(here)).context(KIND, doing)?;
        }
        Ok(())
    }

    /// Does something elsewhere, and comes back.
    ///
    /// # Errors
    /// The errno of setns(2), or of what was done.
    pub fn inside(&self, spaces: &Spaces, work: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.go(&Spaces::HOME, spaces)?;
        let done = work();
        self.go(spaces, &Spaces::HOME)?;
        done
    }
}
