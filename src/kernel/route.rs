//! Routes.
//!
//! # What
//! IPv4 and IPv6 routes of all tables that the scripts added or took away.
//! # Reads
//! RTM_GETROUTE before and after the scripts.
//! # Rebuilds
//! The same routes with their attributes as they are, interfaces by name; those without a gateway first, because
//! a gateway must be in reach when its route is made.
//! # Loses
//! Ages and counters.
//! # Refuses
//! Routes that use nexthop objects. What the kernel makes itself, and what a router advertised, is left out.

use crate::sorted::Listed;
use nix::errno::Errno;

use super::bytes::{Bytes, without};
use super::link::{Seen, index_of, name_of};
use super::network::{only, unless};
use crate::error::{Context, Obstacle, Refusal, Result};
use crate::section;
use crate::sorted;
use crate::sys::netlink::{APPEND, CREATE, EXCLUSIVE, Socket, attributes, find, put, u8_at, u16_at, u32_at};
use crate::text;

const NEW: u16 = 24;
const DELETE: u16 = 25;
const GET: u16 = 26;
const GET_NEXTHOP: u16 = 106;
/// struct rtmsg.
const INFO: usize = 12;
/// struct rtnexthop.
const HOP: usize = 8;

// include/uapi/linux/rtnetlink.h
const INTERFACE: u16 = 4;
const GATEWAY: u16 = 5;
const MULTIPATH: u16 = 9;
const CACHEINFO: u16 = 12;
const VIA: u16 = 18;
const NEXTHOP: u16 = 30;
const CLONED: u32 = 0x200;
/// RTNH_F_ONLINK: the only flag that is set and not found out.
const ONLINK: u32 = 4;
/// RTPROT_REDIRECT, RTPROT_KERNEL, RTPROT_RA.
const LEARNED: [u8; 3] = [1, 2, 9];
const INET6: u8 = 10;

section! {
    /// The difference.
    pub struct State {
        /// Routes the scripts took away.
        pub removed: Vec<Route>,
        /// Routes the scripts added.
        pub added: Vec<Route>,
    }
}

section! {
    /// One route.
    pub struct Route {
        /// struct rtmsg without its flags: family, lengths, type of service, table, protocol, scope, type.
        pub head: [u8; 8],
        /// RTNH_F_ONLINK.
        pub flags: u32,
        /// The name of its interface, if it has one.
        pub link: String,
        /// Attributes, as they are.
        pub rest: Vec<(u16, Bytes)>,
        /// Its ways, if it has several.
        pub hops: Vec<Hop>,
    }
}

section! {
    /// One of several ways of a route.
    pub struct Hop {
        /// RTNH_F_ONLINK.
        pub flags: u8,
        /// Weight, less one.
        pub weight: u8,
        /// The name of its interface.
        pub link: String,
        /// Attributes, as they are.
        pub rest: Vec<(u16, Bytes)>,
    }
}

/// All routes that were made by somebody, and how many nexthop objects there are.
///
/// # Errors
/// What the kernel answers.
pub fn baseline(socket: &mut Socket, links: &[Seen]) -> Result<(Vec<Route>, usize)> {
    let answer = socket.dump(GET, &[0; INFO]).context("route", format_args!("listing routes"))?;
    let routes = answer.iter().filter_map(|message| route(&message.body, links)).list();
    let objects = match socket.dump(GET_NEXTHOP, &[0; 8]) {
        Ok(objects) => objects.len(),
        Err(_) => 0,
    };
    Ok((routes, objects))
}

fn route(body: &[u8], links: &[Seen]) -> Option<Route> {
    let head: [u8; 8] = body.get(..8)?.try_into().ok()?;
    let list = attributes(body, INFO);
    // rta_expires of struct rta_cacheinfo: limited routes are those that a router advertised.
    let limited = head[0] == INET6 && find(&list, CACHEINFO).is_some_and(|cache| u32_at(cache, 8) != 0);
    let ours = head[0] == 2 || head[0] == INET6;
    if !ours || LEARNED.contains(&head[5]) || u32_at(body, 8) & CLONED != 0 || limited {
        return None;
    }
    Some(Route {
        head,
        flags: u32_at(body, 8) & ONLINK,
        link: find(&list, INTERFACE).map(|value| name_of(links, u32_at(value, 0))).unwrap_or_default(),
        rest: without(&list, &[INTERFACE, CACHEINFO, MULTIPATH]),
        hops: hops(find(&list, MULTIPATH).unwrap_or(&[]), links),
    })
}

fn hops(mut bytes: &[u8], links: &[Seen]) -> Vec<Hop> {
    let mut found = Vec::new();
    while bytes.len() >= HOP {
        let len = usize::from(u16_at(bytes, 0));
        let Some(one) = bytes.get(..len).filter(|one| one.len() >= HOP) else { break };
        found.push(Hop {
            flags: u8_at(one, 2) & 4,
            weight: u8_at(one, 3),
            link: name_of(links, u32_at(one, 4)),
            rest: without(&attributes(one, HOP), &[]),
        });
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    found
}

/// The difference of two lists.
#[must_use]
pub fn capture(before: &(Vec<Route>, usize), now: &(Vec<Route>, usize)) -> (State, Vec<Obstacle>) {
    let state = State { removed: only(&before.0, &now.0), added: only(&now.0, &before.0) };
    let used = state.added.iter().any(|route| route.rest.iter().any(|(kind, _)| *kind == NEXTHOP));
    let mut obstacles = Vec::new();
    if used || before.1 != now.1 {
        let refusal =
            Refusal::new("nexthop objects are not carried yet", "write the gateways into the routes");
        obstacles.push(Obstacle::kernel("route", "nexthop objects", refusal));
    }
    (state, obstacles)
}

fn message(route: &Route, links: &[Seen]) -> Result<Vec<u8>> {
    let mut body = route.head.to_vec();
    body.extend_from_slice(&route.flags.to_ne_bytes());
    for (kind, value) in &route.rest {
        put(&mut body, *kind, &value.0);
    }
    if !route.link.is_empty() {
        put(&mut body, INTERFACE, &index_of(links, "route", &route.link)?.to_ne_bytes());
    }
    let mut ways = Vec::new();
    for hop in &route.hops {
        let mut one = vec![0, 0, hop.flags, hop.weight];
        one.extend_from_slice(&index_of(links, "route", &hop.link)?.to_ne_bytes());
        for (kind, value) in &hop.rest {
            put(&mut one, *kind, &value.0);
        }
        let len = u16::try_from(one.len()).unwrap_or(u16::MAX);
        if let Some(place) = one.get_mut(..2) {
            place.copy_from_slice(&len.to_ne_bytes());
        }
        ways.append(&mut one);
    }
    if !ways.is_empty() {
        put(&mut body, MULTIPATH, &ways);
    }
    Ok(body)
}

/// For errors: `10.0.0.0/8` is not worth the code, the bytes of the destination are.
fn name(route: &Route) -> String {
    let to = route.rest.iter().find(|(kind, _)| *kind == 1).map_or(&[][..], |(_, value)| &value.0);
    let to: Vec<String> = to.iter().map(u8::to_string).list();
    format!("{}/{} via {}", text::joined(&mut to.iter().map(String::as_str), "."), route.head[1], route.link)
}

/// Takes away and adds routes. Interfaces are up and have their addresses.
///
/// # Errors
/// What the kernel answers.
pub fn restore(state: &State, socket: &mut Socket, links: &[Seen]) -> Result<()> {
    for route in &state.removed {
        unless(socket.change(DELETE, 0, &message(route, links)?), Errno::ESRCH)
            .context("route", format_args!("removing {}", name(route)))?;
    }
    let far = |rest: &[(u16, Bytes)]| rest.iter().any(|(kind, _)| *kind == GATEWAY || *kind == VIA);
    let mut order: Vec<&Route> = state.added.iter().list();
    sorted::sort_by_key(&mut order, |route| far(&route.rest) || route.hops.iter().any(|hop| far(&hop.rest)));
    for route in order {
        // IPv4 may have several alike; appending to an IPv6 route would make one with several ways.
        let how = if route.head[0] == INET6 { EXCLUSIVE } else { APPEND };
        unless(socket.change(NEW, CREATE | how, &message(route, links)?), Errno::EEXIST)
            .context("route", format_args!("adding {}", name(route)))?;
    }
    Ok(())
}
