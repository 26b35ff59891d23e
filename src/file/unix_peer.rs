//! Who was at the other end of a unix socket when it was connected (SO_PEERCRED).
//!
//! The kernel keeps the process and its ids from the moment of listen(2), connect(2) or socketpair(2), also
//! when that process is long gone: a daemon that listens and then forks shows its dead parent. So the call
//! is made by the puppet, or, for a process that is no more, by a child that has its number for the moment.

use std::os::fd::{AsFd, OwnedFd};

use super::unix::State;
use super::{Opener, Scope, Who, World};
use crate::error::{Context, Error, Refusal, Result};
use crate::proc::stat;
use crate::sys::netlink::u32_at;
use crate::sys::stat::exists;
use crate::sys::{brief, fs, socket};

const KIND: &str = "unix";
const SO_PEERCRED: i32 = 17;

/// SO_PEERCRED; nothing where nobody was ever connected.
///
/// # Errors
/// The errno of getsockopt(2).
pub fn read(fd: &OwnedFd) -> Result<Option<(u32, u32, u32)>> {
    let bytes = socket::option(fd.as_fd(), libc::SOL_SOCKET, SO_PEERCRED, 12)
        .context(KIND, format_args!("asking for its peer"))?;
    let pid = u32_at(&bytes, 0);
    Ok((pid != 0).then(|| (pid, u32_at(&bytes, 4), u32_at(&bytes, 8))))
}

/// Makes sure that a restore can act as this process.
///
/// # Errors
/// A refusal if it is outside the image, or if its number will be taken without it being there: init is
/// not a puppet yet, a zombie can do nothing, and the number of a session or group outlives its leader.
pub fn check(pid: u32, world: &World<'_>) -> Result<(), Refusal> {
    let inside = world.has_process(pid);
    let why = match status(pid) {
        Some(_) if pid == 1 && world.scope == Scope::System => "which is init",
        Some(found) if inside && found.state == 'Z' => "which is a zombie",
        Some(_) if inside => return Ok(()),
        Some(found) if found.state != 'Z' && !world.outside_ends() => "which is outside the image",
        _ if leads(pid, world) => "which is gone, while the session or group that it led is not",
        _ => return Ok(()),
    };
    let reason = format!("its peer was connected by process {pid}, {why}");
    Err(Refusal::new(reason, "start both owners after `rcsnap ready`, or add them to rerun"))
}

fn status(pid: u32) -> Option<stat::Stat> {
    stat::parse(&fs::of_task(pid, "stat").ok()?)
}

/// Whether a process in the image is in the session or group of this number.
fn leads(pid: u32, world: &World<'_>) -> bool {
    world
        .processes
        .iter()
        .filter_map(|member| status(*member))
        .any(|found| found.session == pid || found.pgrp == pid)
}

/// listen(2) as the process that did it, whether it lives or not.
pub fn listen(opener: &mut Opener, who: &Who, socket: &OwnedFd, backlog: i32) -> Result<()> {
    if lives(who.pid) {
        return opener.actor.listen(who, socket.as_fd(), backlog);
    }
    let done = brief::listen_as([who.pid, who.uid, who.gid], socket.as_fd(), backlog);
    done.context(KIND, format_args!("listening as {}, which is gone", who.pid))
}

/// connect(2) in the same way.
///
/// # Errors
/// As [`listen`].
pub fn connect(opener: &mut Opener, who: &Who, socket: &OwnedFd, address: &[u8]) -> Result<()> {
    if lives(who.pid) {
        return opener.actor.connect(who, socket.as_fd(), address);
    }
    let done = brief::connect_as([who.pid, who.uid, who.gid], socket.as_fd(), address);
    done.context(KIND, format_args!("connecting as {}, which is gone", who.pid))
}

/// socketpair(2) in the same way.
///
/// # Errors
/// As [`listen`].
pub fn socketpair(opener: &mut Opener, who: &Who, kind: i32) -> Result<(OwnedFd, OwnedFd)> {
    if lives(who.pid) {
        return opener.actor.socketpair(who, kind);
    }
    let made = brief::pair_as([who.pid, who.uid, who.gid], kind);
    made.context(KIND, format_args!("making a pair as {}, which is gone", who.pid))
}

/// Whether there is such a process, be it a zombie.
#[must_use]
pub fn lives(pid: u32) -> bool {
    exists(format!("/proc/{pid}"))
}

/// Who did what the peer of a socket shows.
///
/// # Errors
/// If that is not known.
pub fn who(state: &State) -> Result<Who> {
    let (pid, uid, gid) =
        state.peer.ok_or_else(|| Error::new(KIND, "connecting", "its peer is not known"))?;
    Ok(Who { pid, uid, gid })
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::file::testing::world;

    #[test]
    fn living_process_of_the_image_can_be_acted_for_and_others_not() {
        let own = std::process::id();
        world(&[], |world| {
            check(own, world).unwrap();
            assert!(check(1, world).unwrap_err().reason.contains("outside the image"));
            let child = crate::sys::brief::child().unwrap();
            crate::sys::brief::reap(child).unwrap();
            check(child, world).unwrap();
        });
    }
}
