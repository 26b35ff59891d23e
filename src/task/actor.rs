//! Socket calls in the name of a puppet: the kernel records who did them (SO_PEERCRED, unix(7)).
//!
//! They are made after the puppets exist and before their memory is laid out, so nothing of theirs can be
//! disturbed. The effective ids are taken for the one call and given back.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::error::{Context, Result};
use crate::file::{Actor, Who};
use crate::sys::{abi, descriptor};
use crate::task::namespace::Spaces;
use crate::task::puppet::Puppets;
use crate::task::remote::Batch;

const KIND: &str = "puppet";
const KEEP: u64 = u64::MAX;

fn number(fd: i32) -> u64 {
    u64::from(fd.cast_unsigned())
}

/// The conductor is descriptor 0 of the puppet, and everything else is closed.
fn begin(batch: &mut Batch) {
    batch.call(libc::SYS_close_range, &[0, u64::from(u32::MAX), 0]);
    batch.call(libc::SYS_pidfd_open, &[u64::from(std::process::id()), 0]);
}

/// Effective group and user for the calls between this and [`as_root`].
fn as_who(batch: &mut Batch, who: &Who) {
    batch.call(abi::SETRESGID, &[KEEP, u64::from(who.gid), KEEP]);
    batch.call(abi::SETRESUID, &[KEEP, u64::from(who.uid), KEEP]);
}

fn as_root(batch: &mut Batch) {
    batch.call(abi::SETRESUID, &[KEEP, 0, KEEP]);
    batch.call(abi::SETRESGID, &[KEEP, 0, KEEP]);
}

impl Puppets<'_> {
    /// One call on a socket of ours, which is descriptor 1 of the puppet.
    fn on_socket(&self, who: &Who, socket: BorrowedFd<'_>, call: &dyn Fn(&mut Batch)) -> Result<()> {
        let area = self.area(who.pid)?;
        let mut batch = Batch::new(area.base());
        begin(&mut batch);
        batch.call(libc::SYS_pidfd_getfd, &[0, number(socket.as_raw_fd()), 0]);
        as_who(&mut batch, who);
        call(&mut batch);
        as_root(&mut batch);
        batch.call(libc::SYS_close, &[1]);
        area.run(who.pid, &mut batch)
    }
}

impl Actor for Puppets<'_> {
    fn door(&self, number: u32) -> Result<Option<RawFd>> {
        self.doors.away(number)
    }

    fn go(&self, from: &Spaces, to: &Spaces) -> Result<()> {
        self.doors.go(from, to)
    }

    fn ahead(&self, clock: i32) -> Option<i64> {
        self.ahead.map(|ahead| ahead.of(clock))
    }

    fn socketpair(&mut self, who: &Who, kind: i32) -> Result<(OwnedFd, OwnedFd)> {
        let doing = format_args!("making a socket pair as {}", who.pid);
        let area = self.area(who.pid)?;
        let mut batch = Batch::new(area.base());
        begin(&mut batch);
        as_who(&mut batch, who);
        let pair = batch.room(8);
        batch.call(libc::SYS_socketpair, &[number(libc::AF_UNIX), number(kind), 0, pair]);
        batch.doing("making a socket pair");
        as_root(&mut batch);
        area.run(who.pid, &mut batch)?;
        let pidfd = descriptor::pidfd_open(who.pid).context(KIND, doing)?;
        // The lowest free numbers after the conductor's.
        let one = descriptor::pidfd_getfd(pidfd.as_fd(), 1).context(KIND, doing)?;
        let other = descriptor::pidfd_getfd(pidfd.as_fd(), 2).context(KIND, doing)?;
        let mut batch = Batch::new(area.base());
        batch.call(libc::SYS_close_range, &[0, u64::from(u32::MAX), 0]);
        area.run(who.pid, &mut batch)?;
        Ok((one, other))
    }

    fn listen(&mut self, who: &Who, socket: BorrowedFd<'_>, backlog: i32) -> Result<()> {
        self.on_socket(who, socket, &|batch| {
            batch.call(libc::SYS_listen, &[1, number(backlog)]);
            batch.doing("listening");
        })
    }

    fn connect(&mut self, who: &Who, socket: BorrowedFd<'_>, address: &[u8]) -> Result<()> {
        self.on_socket(who, socket, &|batch| {
            let name = batch.bytes(address);
            batch.call(libc::SYS_connect, &[1, name, address.len() as u64]);
            batch.doing("connecting");
        })
    }
}
