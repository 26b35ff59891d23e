//! Addresses of interfaces.
//!
//! # What
//! IPv4 and IPv6 addresses that the scripts set or took away.
//! # Reads
//! RTM_GETADDR before and after the scripts.
//! # Rebuilds
//! The same addresses on the interfaces of the same names. IPv6 ones are set before the interface comes up and
//! without duplicate address detection: a tentative address would fail the binds of the processes for a second.
//! # Loses
//! Which addresses were to be checked for duplicates. Limited lifetimes begin again with what was left.
//! # Refuses
//! Nothing. Addresses from router advertisements and temporary ones are left out: the kernel asks the router
//! again as soon as the interface is up.

use nix::errno::Errno;

use super::bytes::{Bytes, chosen};
use super::link::{Seen, index_of, name_of};
use super::network::{only, unless};
use crate::error::{Context, Result};
use crate::section;
use crate::sorted::Listed;
use crate::sys::netlink::{CREATE, REPLACE, Socket, attributes, find, put, put_text, text, u8_at, u32_at};

const NEW: u16 = 20;
const DELETE: u16 = 21;
const GET: u16 = 22;
/// struct ifaddrmsg.
const INFO: usize = 8;

// include/uapi/linux/if_addr.h
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const LABEL: u16 = 3;
const BROADCAST: u16 = 4;
const CACHEINFO: u16 = 6;
const FLAGS: u16 = 8;
const METRIC: u16 = 9;
const PROTOCOL: u16 = 11;

const TEMPORARY: u32 = 0x01;
const NODAD: u32 = 0x02;
const DADFAILED: u32 = 0x08;
const PERMANENT: u32 = 0x80;
const NOPREFIXROUTE: u32 = 0x200;
/// HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN: what is set and not found out.
const KEPT: u32 = 0x10 | 0x100 | NOPREFIXROUTE | 0x400;
const FROM_ROUTER: u8 = 2;
const INET6: u8 = 10;

section! {
    /// The difference.
    pub struct State {
        /// Addresses the scripts took away.
        pub removed: Vec<Address>,
        /// Addresses the scripts set, in the order of the kernel's list, which makes the first one primary.
        pub added: Vec<Address>,
    }
}

section! {
    /// One address.
    pub struct Address {
        /// The name of its interface.
        pub link: String,
        /// AF_INET or AF_INET6.
        pub family: u8,
        /// Length of the prefix.
        pub prefix: u8,
        /// Scope.
        pub scope: u8,
        /// IFA_F_* that are set and not found out.
        pub flags: u32,
        /// Whether it is the link-local one that the kernel makes of the hardware address: it is made of the one
        /// that is there at the restore, because hardware may have another.
        pub own: bool,
        /// IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST.
        pub parts: Vec<(u16, Bytes)>,
        /// IFA_LABEL.
        pub label: String,
        /// IFA_RT_PRIORITY.
        pub metric: u32,
        /// Seconds it is preferred and valid.
        pub lifetime: (u32, u32),
    }
}

/// All addresses.
///
/// # Errors
/// What the kernel answers.
pub fn baseline(socket: &mut Socket, links: &[Seen]) -> Result<Vec<Address>> {
    let answer = socket.dump(GET, &[0; INFO]).context("address", format_args!("listing addresses"))?;
    Ok(answer.iter().filter_map(|message| address(&message.body, links)).list())
}

fn address(body: &[u8], links: &[Seen]) -> Option<Address> {
    let list = attributes(body, INFO);
    let family = u8_at(body, 0);
    let flags = find(&list, FLAGS).map_or_else(|| u8_at(body, 2).into(), |value| u32_at(value, 0));
    let from_router = find(&list, PROTOCOL).is_some_and(|value| u8_at(value, 0) == FROM_ROUTER);
    let learned = flags & (PERMANENT | NOPREFIXROUTE) == 0 || flags & (TEMPORARY | DADFAILED) != 0;
    if family == INET6 && (from_router || learned) {
        return None;
    }
    let cache = find(&list, CACHEINFO);
    let lifetime = cache.map_or((u32::MAX, u32::MAX), |value| (u32_at(value, 0), u32_at(value, 4)));
    let own = family == INET6
        && find(&list, ADDRESS)
            .is_some_and(|value| link_local(links, u32_at(body, 4)).as_deref() == Some(value));
    let parts: &[u16] = if own { &[] } else { &[ADDRESS, LOCAL, BROADCAST] };
    Some(Address {
        link: name_of(links, u32_at(body, 4)),
        family,
        own,
        prefix: u8_at(body, 1),
        scope: u8_at(body, 3),
        flags: flags & KEPT,
        parts: chosen(&list, parts),
        label: find(&list, LABEL).map(text).unwrap_or_default(),
        metric: find(&list, METRIC).map_or(0, |value| u32_at(value, 0)),
        lifetime,
    })
}

/// The link-local address of a hardware address (RFC 4291, appendix A).
fn link_local(links: &[Seen], index: u32) -> Option<Vec<u8>> {
    let link = links.iter().find(|link| link.index == index)?;
    let [a, b, c, d, e, f] = *link.address() else { return None };
    Some(vec![0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// The difference of two lists.
#[must_use]
pub fn capture(before: &[Address], now: &[Address]) -> State {
    State { removed: only(before, now), added: only(now, before) }
}

fn message(address: &Address, links: &[Seen]) -> Result<Vec<u8>> {
    let index = index_of(links, "address", &address.link)?;
    let mut body = vec![address.family, address.prefix, 0, address.scope];
    body.extend_from_slice(&index.to_ne_bytes());
    for (kind, value) in &address.parts {
        put(&mut body, *kind, &value.0);
    }
    if address.own {
        put(&mut body, ADDRESS, &link_local(links, index).unwrap_or_default());
    }
    Ok(body)
}

/// When an address is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// IPv6, before interfaces come up.
    Down,
    /// The others, and those of the loopback, which has its own when it comes up.
    Up,
}

/// Takes away and sets the addresses of one phase.
///
/// # Errors
/// What the kernel answers.
pub fn restore(state: &State, socket: &mut Socket, links: &[Seen], phase: Phase) -> Result<()> {
    let now = |address: &&Address| {
        let down = address.family == INET6 && address.link != "lo";
        down == (phase == Phase::Down)
    };
    for address in state.removed.iter().filter(now) {
        unless(socket.change(DELETE, 0, &message(address, links)?), Errno::EADDRNOTAVAIL)
            .context("address", format_args!("removing one from {}", address.link))?;
    }
    for address in state.added.iter().filter(now) {
        let mut body = message(address, links)?;
        let nodad = if address.family == INET6 { NODAD } else { 0 };
        put(&mut body, FLAGS, &(address.flags | nodad).to_ne_bytes());
        if !address.label.is_empty() {
            put_text(&mut body, LABEL, &address.label);
        }
        if address.metric != 0 {
            put(&mut body, METRIC, &address.metric.to_ne_bytes());
        }
        let (preferred, valid) = address.lifetime;
        let mut cache = [preferred.to_ne_bytes(), valid.to_ne_bytes()].concat();
        cache.extend_from_slice(&[0; 8]);
        put(&mut body, CACHEINFO, &cache);
        socket
            .change(NEW, CREATE | REPLACE, &body)
            .context("address", format_args!("setting one with /{} on {}", address.prefix, address.link))?;
    }
    Ok(())
}
