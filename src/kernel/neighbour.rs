//! Neighbours: fixed entries of the ARP and ND tables.
//!
//! # What
//! Permanent entries, and addresses answered for others (proxy), that the scripts added or took away.
//! # Reads
//! RTM_GETNEIGH before and after the scripts.
//! # Rebuilds
//! The same entries.
//! # Loses
//! What the kernel learned: it learns it again.
//! # Refuses
//! Nothing.

use nix::errno::Errno;

use super::bytes::{Bytes, chosen};
use super::link::{Seen, index_of, name_of};
use super::network::{only, unless};
use crate::error::{Context, Result};
use crate::section;
use crate::sys::netlink::{CREATE, REPLACE, Socket, attributes, put, u8_at, u16_at, u32_at};

const NEW: u16 = 28;
const DELETE: u16 = 29;
const GET: u16 = 30;
/// struct ndmsg.
const INFO: usize = 12;

// include/uapi/linux/neighbour.h
const DESTINATION: u16 = 1;
const ADDRESS: u16 = 2;
const PERMANENT: u16 = 0x80;
const PROXY: u8 = 0x08;

section! {
    /// The difference.
    pub struct State {
        /// Entries the scripts took away.
        pub removed: Vec<Neighbour>,
        /// Entries the scripts added.
        pub added: Vec<Neighbour>,
    }
}

section! {
    /// One entry.
    pub struct Neighbour {
        /// The name of its interface.
        pub link: String,
        /// AF_INET or AF_INET6.
        pub family: u8,
        /// Whether it is answered for another.
        pub proxy: bool,
        /// NTF_ROUTER.
        pub router: bool,
        /// Its address, and that of its hardware.
        pub parts: Vec<(u16, Bytes)>,
    }
}

/// All fixed entries.
///
/// # Errors
/// What the kernel answers.
pub fn baseline(socket: &mut Socket, links: &[Seen]) -> Result<Vec<Neighbour>> {
    let mut found = Vec::new();
    for flags in [0, PROXY] {
        let mut header = [0; INFO];
        header[10] = flags;
        let answer = socket.dump(GET, &header).context("neighbour", format_args!("listing neighbours"))?;
        let fixed = answer.iter().filter_map(|message| neighbour(&message.body, links));
        fixed.for_each(|one| found.push(one));
    }
    Ok(found)
}

fn neighbour(body: &[u8], links: &[Seen]) -> Option<Neighbour> {
    let (family, state, flags) = (u8_at(body, 0), u16_at(body, 8), u8_at(body, 10));
    let proxy = flags & PROXY != 0;
    if (family != 2 && family != 10) || (state & PERMANENT == 0 && !proxy) {
        return None;
    }
    let list = attributes(body, INFO);
    Some(Neighbour {
        link: name_of(links, u32_at(body, 4)),
        family,
        proxy,
        router: flags & 0x80 != 0,
        parts: chosen(&list, &[DESTINATION, ADDRESS]),
    })
}

/// The difference of two lists.
#[must_use]
pub fn capture(before: &[Neighbour], now: &[Neighbour]) -> State {
    State { removed: only(before, now), added: only(now, before) }
}

fn message(entry: &Neighbour, links: &[Seen]) -> Result<Vec<u8>> {
    // A proxy entry has no interface if it is for all.
    let index = if entry.link.is_empty() { 0 } else { index_of(links, "neighbour", &entry.link)? };
    let mut body = vec![entry.family, 0, 0, 0];
    body.extend_from_slice(&index.to_ne_bytes());
    body.extend_from_slice(&PERMANENT.to_ne_bytes());
    body.push(if entry.proxy { PROXY } else { 0 } | if entry.router { 0x80 } else { 0 });
    body.push(0);
    for (kind, value) in &entry.parts {
        put(&mut body, *kind, &value.0);
    }
    Ok(body)
}

/// Takes away and adds entries.
///
/// # Errors
/// What the kernel answers.
pub fn restore(state: &State, socket: &mut Socket, links: &[Seen]) -> Result<()> {
    for entry in &state.removed {
        unless(socket.change(DELETE, 0, &message(entry, links)?), Errno::ENOENT)
            .context("neighbour", format_args!("removing one on {}", entry.link))?;
    }
    for entry in &state.added {
        socket
            .change(NEW, CREATE | REPLACE, &message(entry, links)?)
            .context("neighbour", format_args!("adding one on {}", entry.link))?;
    }
    Ok(())
}
