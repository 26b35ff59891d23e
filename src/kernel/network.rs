//! The kinds of the network together: they share a socket, and the names of interfaces.

use std::time::Instant;

use nix::errno::Errno;

use super::root::Root;
use super::{address, link, neighbour, netfilter, route, rule, sysctl};
use crate::error::{Context, Obstacle, Refusal, Result};
use crate::image::stored::{Input, Stored, put_number};
use crate::section;
use crate::sys::netlink::Socket;
use crate::sys::ptrace::Sys;

section! {
    /// What the scripts made of the network, in the order of the restore.
    pub struct State {
        /// Interfaces, which all the others name.
        pub link: link::State,
        /// Their addresses.
        pub address: address::State,
        /// Routes, whose gateways must be in reach.
        pub route: route::State,
        /// Rules, which name tables of routes.
        pub rule: rule::State,
        /// Fixed neighbours.
        pub neighbour: neighbour::State,
    }
}

/// The network at one moment.
#[derive(Debug, Default)]
pub struct Seen {
    links: Vec<link::Seen>,
    addresses: Vec<address::Address>,
    routes: (Vec<route::Route>, usize),
    rules: Vec<rule::Rule>,
    neighbours: Vec<neighbour::Neighbour>,
    filters: Vec<String>,
    entries: usize,
}

/// What is only in the first list. Entries are compared and copied in their stored form, whose code is there
/// anyway.
pub(super) fn only<T: Stored>(list: &[T], other: &[T]) -> Vec<T> {
    let bytes = absent(&stored(list), &stored(other));
    Vec::take(&mut Input::new(&bytes))
}

fn stored<T: Stored>(list: &[T]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for one in list {
        let mut bytes = Vec::new();
        one.put(&mut bytes);
        found.push(bytes);
    }
    found
}

/// The stored form of the list of those that are only in the first.
fn absent(list: &[Vec<u8>], other: &[Vec<u8>]) -> Vec<u8> {
    let (mut count, mut bytes) = (0, Vec::new());
    for one in list {
        if !other.contains(one) {
            count += 1;
            bytes.extend_from_slice(one);
        }
    }
    let mut all = Vec::new();
    put_number(count, &mut all);
    all.append(&mut bytes);
    all
}

/// The answer to a change, where one errno says that nothing had to be done.
pub(super) fn unless(done: Sys<()>, needless: Errno) -> Sys<()> {
    if done == Err(needless) { Ok(()) } else { done }
}

fn socket() -> Result<Socket> {
    Socket::route().context("link", format_args!("opening a netlink socket"))
}

/// Takes down the network.
///
/// # Errors
/// What the kernel answers.
pub fn baseline(root: &Root) -> Result<Seen> {
    let mut socket = socket()?;
    let links = link::baseline(&mut socket, root)?;
    Ok(Seen {
        addresses: address::baseline(&mut socket, &links)?,
        routes: route::baseline(&mut socket, &links)?,
        rules: rule::baseline(&mut socket)?,
        neighbours: neighbour::baseline(&mut socket, &links)?,
        filters: netfilter::baseline(root, &links, &mut socket)?,
        entries: link::bridge_entries(&mut socket)?,
        links,
    })
}

/// What differs from before.
///
/// # Errors
/// What the kernel answers.
pub fn capture(before: &Seen, root: &Root) -> Result<(State, Vec<Obstacle>)> {
    let now = baseline(root)?;
    let (link, mut obstacles) = link::capture(&before.links, &now.links);
    let (route, more) = route::capture(&before.routes, &now.routes);
    obstacles.extend(more);
    obstacles.extend(netfilter::capture(&before.filters, now.filters));
    if before.entries != now.entries {
        let refusal =
            Refusal::new("fixed entries of bridges are not carried yet", "add them after the ready line");
        obstacles.push(Obstacle::kernel("link", "bridge entries", refusal));
    }
    let state = State {
        link,
        address: address::capture(&before.addresses, &now.addresses),
        route,
        rule: rule::capture(&before.rules, &now.rules),
        neighbour: neighbour::capture(&before.neighbours, &now.neighbours),
    };
    Ok((state, obstacles))
}

/// Makes the network, with the parameters of interfaces.
///
/// # Errors
/// What the kernel answers, or an interface of hardware that did not come.
pub fn restore(
    state: &State,
    parameters: &sysctl::State,
    root: &Root,
    deadline: Instant,
    phase: &mut dyn FnMut(&'static str),
) -> Result<()> {
    phase("link");
    link::check(&state.link, root, deadline)?;
    let mut socket = socket()?;
    link::restore(&state.link, &mut socket, root)?;
    // After interfaces exist, before they come up: some parameters count at that moment.
    sysctl::restore(parameters, root, sysctl::Phase::Interface)?;
    let links = link::baseline(&mut socket, root)?;
    phase("address");
    address::restore(&state.address, &mut socket, &links, address::Phase::Down)?;
    link::restore_flags(&state.link, &mut socket, root)?;
    address::restore(&state.address, &mut socket, &links, address::Phase::Up)?;
    phase("route");
    route::restore(&state.route, &mut socket, &links)?;
    rule::restore(&state.rule, &mut socket)?;
    neighbour::restore(&state.neighbour, &mut socket, &links)
}
