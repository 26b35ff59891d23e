//! A netlink socket (netlink(7)): talk with the kernel about links, device events and the like.
//!
//! What: protocol, port number, multicast groups, a connected destination, options with the filter.
//! Reads: getsockname(2), getpeername(2), NETLINK_LIST_MEMBERSHIPS, getsockopt(2); CTRL_CMD_GETFAMILY for the names of
//!   generic netlink's groups, whose numbers differ from boot to boot.
//! Rebuilds: socket(2), options, bind(2) to the same port number, or to any if that is taken; groups, by their names
//!   where they have names.
//! Loses: messages that nobody has read: what they tell about is from before the restore, and whoever
//!   listens must ask anew. A port number that something else has on the new boot.
//! Refuses: protocols where the kernel keeps more for a socket than it shows (netfilter queues, connector
//!   and others); a socket of another network namespace. What is set through one of NETLINK_XFRM or NETLINK_AUDIT, the
//!   kinds `netfilter` and `audit` refuse.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::{Description, Opener, World, options};
use crate::error::{Context, Error, Refusal, Result};
use crate::sys::netlink::{Socket, attributes, find, text, u32_at};
use crate::sys::{descriptor, socket};
use crate::text;

const KIND: &str = "netlink";
const SOL_NETLINK: i32 = 270;
const NETLINK_ADD_MEMBERSHIP: i32 = 1;
const NETLINK_LIST_MEMBERSHIPS: i32 = 9;
/// GENL_ID_CTRL, and struct genlmsghdr with CTRL_CMD_GETFAMILY (linux/genetlink.h).
const CONTROLLER: u16 = 16;
const GET_FAMILY: [u8; 4] = [3, 1, 0, 0];
const FAMILY_NAME: u16 = 2;
const GROUPS: u16 = 7;
const GROUP_NAME: u16 = 1;
const GROUP_NUMBER: u16 = 2;

crate::section! {
    /// A netlink socket in the image.
    pub struct State {
        /// SOCK_RAW or SOCK_DGRAM.
        pub kind: i32,
        /// NETLINK_*.
        pub protocol: i32,
        /// Its port number; nothing if it has none yet.
        pub port: Option<u32>,
        /// Where connect(2) pointed it: port number and groups.
        pub peer: Option<(u32, u32)>,
        /// Groups it listens to.
        pub groups: Vec<u32>,
        /// Those of generic netlink: family and group.
        pub names: Vec<String>,
        /// Options.
        pub options: options::State,
    }
}

/// Reads one socket.
///
/// # Errors
/// A refusal, as the head of the file says.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    let fd = &desc.fd;
    let ask = |name| {
        socket::number(fd.as_fd(), libc::SOL_SOCKET, name).context(KIND, format_args!("asking what it is"))
    };
    let (kind, protocol) = (ask(libc::SO_TYPE)?, ask(libc::SO_PROTOCOL)?);
    let later = "start its owner after `rcsnap ready`, or add it to rerun";
    // Those that only ask questions and listen to groups.
    let known = [
        libc::NETLINK_ROUTE,
        libc::NETLINK_SOCK_DIAG,
        libc::NETLINK_XFRM,
        libc::NETLINK_KOBJECT_UEVENT,
        libc::NETLINK_GENERIC,
        // Sends records; what auditd sets here is no part of the socket: `audit` refuses it.
        libc::NETLINK_AUDIT,
    ];
    if !known.contains(&protocol) {
        return Err(Refusal::new(
            format!("the kernel may keep more for netlink protocol {protocol} than it shows"),
            later,
        ));
    }
    if !world.same_network(fd)? {
        return Err(Refusal::new("it belongs to another network namespace", later));
    }
    let mut groups = groups(fd).context(KIND, format_args!("asking for its groups"))?;
    let mut names = Vec::new();
    if protocol == libc::NETLINK_GENERIC && !groups.is_empty() {
        generic(&mut |name, number| {
            if let Some(at) = groups.iter().position(|group| *group == number) {
                groups.remove(at);
                names.push(name);
            }
        })?;
        if !groups.is_empty() {
            return Err(Refusal::new("it listens to a group that has no name", later));
        }
    }
    let address = |peer| {
        let bytes = socket::name(fd.as_fd(), peer).unwrap_or_default();
        (u32_at(&bytes, 4), u32_at(&bytes, 8))
    };
    let port = Some(address(false).0).filter(|&port| port != 0);
    let peer = Some(address(true)).filter(|&peer| peer != (0, 0));
    if descriptor::ready(fd.as_fd(), libc::POLLIN).context(KIND, format_args!("looking at its queue"))?
        & libc::POLLIN
        != 0
    {
        crate::log!(Info, "netlink: messages of protocol {protocol} that nobody has read are not carried");
    }
    let options = options::capture(fd, (libc::AF_NETLINK, kind, protocol), world)?;
    Ok(Box::new(State { kind, protocol, port, peer, groups, names, options }))
}

/// Shows all groups of generic netlink, by family and group, with their numbers on this boot.
fn generic(each: &mut dyn FnMut(String, u32)) -> Result<()> {
    let families = Socket::generic().and_then(|mut socket| socket.dump(CONTROLLER, &GET_FAMILY));
    for family in families.context(KIND, format_args!("asking for generic groups"))? {
        let family = attributes(&family.body, 4);
        let name = text(find(&family, FAMILY_NAME).unwrap_or_default());
        for (_, group) in attributes(find(&family, GROUPS).unwrap_or_default(), 0) {
            let group = attributes(group, 0);
            let of = |kind| find(&group, kind).unwrap_or_default();
            each(name.clone() + " " + &text(of(GROUP_NAME)), u32_at(of(GROUP_NUMBER), 0));
        }
    }
    Ok(())
}

/// A bit for each group, group 1 first.
fn groups(fd: &OwnedFd) -> Result<Vec<u32>, Errno> {
    let mut bits = [0_u8; 512];
    let len = socket::ask_option(fd.as_fd(), SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, &mut bits)?;
    let mut groups = Vec::new();
    // The kernel writes words.
    for (at, word) in (0_u32..).zip(bits.get(..len).unwrap_or(&bits).chunks_exact(4)) {
        let word = u32_at(word, 0);
        groups.extend((0..32).filter(|bit| word >> bit & 1 != 0).map(|bit| at * 32 + bit + 1));
    }
    Ok(groups)
}

fn address(port: u32, groups: u32) -> Vec<u8> {
    let mut bytes = vec![0; 12];
    bytes[..2].copy_from_slice(&16_u16.to_ne_bytes());
    bytes[4..8].copy_from_slice(&port.to_ne_bytes());
    bytes[8..].copy_from_slice(&groups.to_ne_bytes());
    bytes
}

/// Opens it again.
///
/// # Errors
/// The errno of the calls.
pub fn restore(state: &State, _opener: &mut Opener) -> Result<OwnedFd> {
    let fd = socket::socket(libc::AF_NETLINK, state.kind, state.protocol)
        .context(KIND, format_args!("making one"))?;
    options::restore(&state.options, &fd)?;
    if let Some(port) = state.port {
        match socket::bind(fd.as_fd(), &address(port, 0)) {
            Err(Errno::EADDRINUSE) => {
                crate::log!(
                    Warning,
                    "netlink: port {port} of protocol {} is taken, using another",
                    state.protocol
                );
                socket::bind(fd.as_fd(), &address(0, 0))
                    .context(KIND, format_args!("binding to any port"))?;
            }
            other => other.context(KIND, format_args!("binding to port {port}"))?,
        }
    }
    let mut groups = state.groups.clone();
    if !state.names.is_empty() {
        generic(&mut |name, number| {
            if state.names.contains(&name) {
                groups.push(number);
            }
        })?;
        if groups.len() != state.names.len() {
            let names = text::joined(&mut state.names.iter().map(String::as_str), ", ");
            return Err(Error::new(KIND, "joining groups", format!("not all are there: {names}")));
        }
    }
    for group in &groups {
        socket::set_option(fd.as_fd(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group.to_ne_bytes())
            .context(KIND, format_args!("joining group {group}"))?;
    }
    if let Some((port, groups)) = state.peer {
        socket::connect(fd.as_fd(), &address(port, groups))
            .context(KIND, format_args!("connecting to port {port}"))?;
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::{NETLINK_ADD_MEMBERSHIP, SOL_NETLINK, State, address};
    use crate::file::testing::{refused, states_alone};
    use crate::sys::socket;

    fn new(protocol: i32) -> OwnedFd {
        socket::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol).unwrap()
    }

    #[test]
    fn port_groups_filter_and_buffer_come_back() {
        let fd = new(libc::NETLINK_KOBJECT_UEVENT);
        // BPF_RET | BPF_K with -1: everything passes.
        socket::set_filter(fd.as_fd(), &[0xffff_ffff_0000_0006]).unwrap();
        socket::set_number(fd.as_fd(), libc::SOL_SOCKET, 33, 1 << 20).unwrap();
        socket::bind(fd.as_fd(), &address(0x7ead_beef, 1)).unwrap();
        let found = states_alone(vec![fd]);
        assert_eq!(found.before, found.after);
        let crate::file::State::Netlink(state) = &found.before[0] else { panic!() };
        let State { port, groups, options, .. } = &**state;
        assert_eq!((*port, groups.as_slice()), (Some(0x7ead_beef), &[1][..]));
        assert_eq!((options.filter.len(), options.settings.len()), (1, 1));
    }

    #[test]
    fn groups_beyond_the_first_32_come_back() {
        let fd = new(libc::NETLINK_ROUTE);
        for group in [1_u32, 33] {
            socket::set_option(fd.as_fd(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group.to_ne_bytes())
                .unwrap();
        }
        let found = states_alone(vec![fd]);
        assert_eq!(found.before, found.after);
        let crate::file::State::Netlink(state) = &found.before[0] else { panic!() };
        assert_eq!(state.groups, [1, 33]);
    }

    #[test]
    fn generic_groups_are_kept_by_their_names() {
        let fd = new(libc::NETLINK_GENERIC);
        let mut known = Vec::new();
        super::generic(&mut |name, number| known.push((name, number))).unwrap();
        let of = |name: &str| known.iter().find(|(known, _)| known == name).map(|(_, number)| *number);
        assert_eq!(of("nlctrl notify"), Some(16));
        let mut names = vec!["nlctrl notify".to_owned()];
        names.extend(of("ethtool monitor").map(|_| "ethtool monitor".to_owned()));
        for group in names.iter().filter_map(|name| of(name)) {
            socket::set_option(fd.as_fd(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group.to_ne_bytes())
                .unwrap();
        }
        let found = states_alone(vec![fd]);
        assert_eq!(found.before, found.after);
        let crate::file::State::Netlink(state) = &found.before[0] else { panic!() };
        let mut kept = state.names.clone();
        kept.sort_by_key(|name| of(name));
        names.sort_by_key(|name| of(name));
        assert_eq!((kept, state.groups.len()), (names, 0));
    }

    #[test]
    fn protocol_with_hidden_state_is_refused() {
        let Ok(fd) = socket::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER) else {
            return;
        };
        assert!(refused(&[&fd]).reason.contains("protocol 12"));
    }
}
