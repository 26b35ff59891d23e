//! Which multicast groups a socket has joined (ip(7), RFC 3678).
//!
//! The kernel lists groups by interface only. But asked for a socket's source filter of one group on one
//! interface (MCAST_MSFILTER), it answers EADDRNOTAVAIL unless that socket is a member. So every group that
//! /proc/net/igmp and igmp6 list is asked for.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::{World, inet_address};
use crate::error::{Context, Result};
use crate::sorted::Listed;
use crate::sys::fs;
use crate::sys::socket;

const KIND: &str = "multicast";
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_MSFILTER: i32 = 48;
/// Where a sockaddr_storage begins behind a 32-bit number: it is aligned as a word.
const GROUP: usize = size_of::<usize>();
const STORAGE: usize = 128;
/// More sources than a filter ever has (net.ipv4.igmp_max_msf is 10).
const SOURCES: usize = 64;
/// Everything but the listed sources: what a plain join gives.
const EXCLUDE: u32 = 0;

crate::section! {
    /// A group that a socket has joined.
    pub struct Member {
        /// AF_INET or AF_INET6.
        pub family: i32,
        /// The group's address.
        pub group: Vec<u8>,
        /// The interface's name: its number may be another one on the next boot.
        pub interface: String,
        /// The filter as MCAST_MSFILTER gives it, if it is not the one of a plain join.
        pub filter: Vec<u8>,
    }
}

/// Every group of this network namespace: interface, family, address.
#[must_use]
pub fn groups() -> Vec<(u32, i32, Vec<u8>)> {
    let mut found = v4(&fs::text("/proc/self/net/igmp").unwrap_or_default());
    found.extend(v6(&fs::text("/proc/self/net/igmp6").unwrap_or_default()));
    found
}

/// A line `1<tab>lo : 1 V3`, then lines `<tab>010000E0 1 0:00000000 0`: an address in memory order.
fn v4(text: &str) -> Vec<(u32, i32, Vec<u8>)> {
    let mut found = Vec::new();
    let mut interface = 0;
    for line in text.lines().skip(1) {
        let first = line.split_ascii_whitespace().next().unwrap_or("");
        if line.bytes().next().is_none_or(|byte| !byte.is_ascii_whitespace()) {
            interface = first.parse().unwrap_or(0);
        } else if let Ok(address) = u32::from_str_radix(first, 16) {
            found.push((interface, libc::AF_INET, address.to_ne_bytes().to_vec()));
        }
    }
    found
}

/// Lines `1 lo ff020000000000000000000000000001 1 0000000C 0`.
fn v6(text: &str) -> Vec<(u32, i32, Vec<u8>)> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let interface = words.next()?.parse().ok()?;
        let (high, low) = words.nth(1)?.split_at_checked(16)?;
        let half = |digits| u64::from_str_radix(digits, 16).map(u64::to_be_bytes).ok();
        Some((interface, libc::AF_INET6, [half(high)?, half(low)?].concat()))
    };
    text.lines().filter_map(line).list()
}

/// A number for the interface, and the group as a sockaddr_storage: struct group_req.
fn request(interface: u32, family: i32, group: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; GROUP + STORAGE];
    bytes[..4].copy_from_slice(&interface.to_ne_bytes());
    bytes[GROUP..GROUP + 2].copy_from_slice(&u16::try_from(family).unwrap_or(0).to_ne_bytes());
    // sockaddr_in has its address after the port, sockaddr_in6 after port and flow label.
    let at = GROUP + if family == libc::AF_INET { 4 } else { 8 };
    for (to, from) in bytes[at..].iter_mut().zip(group) {
        *to = *from;
    }
    bytes
}

fn level(family: i32) -> i32 {
    if family == libc::AF_INET { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 }
}

/// Finds the groups that a socket has joined.
///
/// # Errors
/// The errno of getsockopt(2), or an interface that is gone.
pub fn capture(fd: &OwnedFd, world: &World<'_>) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    for (interface, family, group) in world.groups() {
        let mut filter = request(*interface, *family, group);
        filter.resize(GROUP + STORAGE + 8 + SOURCES * STORAGE, 0);
        filter[GROUP + STORAGE + 4..][..4]
            .copy_from_slice(&u32::try_from(SOURCES).unwrap_or(0).to_ne_bytes());
        let len = match socket::ask_option(fd.as_fd(), level(*family), MCAST_MSFILTER, &mut filter) {
            Ok(len) => len,
            Err(
                Errno::EADDRNOTAVAIL | Errno::ENOPROTOOPT | Errno::EOPNOTSUPP | Errno::ENODEV | Errno::EINVAL,
            ) => continue,
            Err(errno) => return Err(errno).context(KIND, format_args!("asking for a group")),
        };
        filter.truncate(len);
        let word = |at: usize| {
            filter.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(u32::from_ne_bytes)
        };
        let plain = word(GROUP + STORAGE) == Some(EXCLUDE) && word(GROUP + STORAGE + 4) == Some(0);
        let interface = inet_address::interface(*interface)?;
        let filter = if plain { Vec::new() } else { filter };
        members.push(Member { family: *family, group: group.clone(), interface, filter });
    }
    Ok(members)
}

/// Joins a group again.
///
/// # Errors
/// The errno of the calls.
pub fn restore(member: &Member, fd: &OwnedFd) -> Result<()> {
    let doing = format_args!("joining a group on {}", member.interface);
    let interface = socket::interface(&member.interface).context(KIND, doing)?;
    let level = level(member.family);
    let join = request(interface, member.family, &member.group);
    socket::set_option(fd.as_fd(), level, MCAST_JOIN_GROUP, &join).context(KIND, doing)?;
    if !member.filter.is_empty() {
        let mut filter = member.filter.clone();
        for (to, from) in filter.iter_mut().zip(interface.to_ne_bytes()) {
            *to = from;
        }
        socket::set_option(fd.as_fd(), level, MCAST_MSFILTER, &filter).context(KIND, doing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{v4, v6};

    #[test]
    fn proc_files_are_read() {
        let text = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
                    1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n";
        assert_eq!(v4(text), [(1, libc::AF_INET, 0x0100_00e0_u32.to_ne_bytes().to_vec())]);
        let text = "2    eth0            ff020000000000000000000000000001     1 0000000C 0\n";
        let (interface, _, address) = &v6(text)[0];
        assert_eq!((*interface, address[0], address[15]), (2, 0xff, 1));
    }
}
