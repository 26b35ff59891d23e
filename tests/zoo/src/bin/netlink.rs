//! Kind `netlink`: sockets keep protocol, port, groups and options; requests and events work afterwards.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn open(protocol: i32, port: u32, groups: u32) -> Outcome<i32> {
    let socket = sys!(socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol))?;
    let mut address: libc::sockaddr_nl = sys::zeroed();
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address.nl_pid = port;
    address.nl_groups = groups;
    sys!(bind(socket, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t))?;
    Ok(socket)
}

fn address(socket: i32) -> String {
    let mut address: libc::sockaddr_nl = sys::zeroed();
    let mut length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: room for an address, with its length.
    unsafe { libc::getsockname(socket, (&raw mut address).cast(), &raw mut length) };
    format!("port {} groups {:#x}", address.nl_pid, address.nl_groups)
}

fn set(socket: i32, option: i32, value: i32) -> Outcome {
    sys!(setsockopt(socket, libc::SOL_NETLINK, option, (&raw const value).cast(), 4))?;
    Ok(())
}

fn get(socket: i32, level: i32, option: i32) -> String {
    let mut value = [0_u8; 16];
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: room for the value, with its length.
    let got = unsafe { libc::getsockopt(socket, level, option, value.as_mut_ptr().cast(), &raw mut length) };
    if got == -1 { format!("errno {}", sys::errno()) } else { format!("{:?}", &value[..length as usize]) }
}

/// Asks for the loopback interface (RTM_GETLINK 18) and returns the type of the answer.
fn ask(socket: i32) -> Outcome<u16> {
    let mut request = [0_u8; 32];
    request[0] = 32;
    request[4] = 18;
    request[6] = 1; // NLM_F_REQUEST
    request[8] = 9; // sequence
    request[20] = 1; // ifi_index
    fd::write(socket, &request)?;
    let answer = fd::read(socket, 65536)?;
    Ok(u16::from_ne_bytes([answer[4], answer[5]]))
}

/// The attributes from an offset on, by type.
fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while bytes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let Some(value) = bytes.get(4..length) else { break };
        found.push((u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The number of a group of generic netlink on this boot (CTRL_CMD_GETFAMILY of one family).
fn generic(family: &str, group: &str) -> Outcome<Option<i32>> {
    let socket = open(libc::NETLINK_GENERIC, 0, 0)?;
    let length = 16 + 4 + (4 + family.len() + 1).next_multiple_of(4);
    let mut request = vec![0_u8; length];
    request[0] = length as u8;
    request[4] = 16; // GENL_ID_CTRL
    request[6] = 1; // NLM_F_REQUEST
    (request[16], request[17]) = (3, 1); // CTRL_CMD_GETFAMILY
    (request[20], request[22]) = ((4 + family.len() + 1) as u8, 2); // CTRL_ATTR_FAMILY_NAME
    request[24..24 + family.len()].copy_from_slice(family.as_bytes());
    fd::write(socket, &request)?;
    let answer = fd::read(socket, 65536)?;
    fd::close(socket);
    let name = [group.as_bytes(), b"\0"].concat();
    for (kind, groups) in attributes(answer.get(20..).unwrap_or_default()) {
        // CTRL_ATTR_MCAST_GROUPS, each with a name and a number.
        for (_, group) in attributes(if kind == 7 { groups } else { &[] }) {
            let group = attributes(group);
            if group.iter().any(|(kind, value)| *kind == 1 && *value == name) {
                let number = group.iter().find(|(kind, _)| *kind == 2).map(|(_, value)| *value);
                return Ok(number.and_then(|n| n.try_into().ok()).map(i32::from_ne_bytes));
            }
        }
    }
    Ok(None)
}

#[repr(C)]
struct Ethtool {
    name: [u8; 16],
    value: *mut [u32; 2],
    rest: [u8; 16],
}

/// Turns segmentation of the loopback off and on (ETHTOOL_SGSO), for those who listen.
fn ethtool_toggle() -> Outcome {
    let socket = sys!(socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
    for on in [0, 1] {
        let mut value = [0x24, on];
        let mut request = Ethtool { name: [0; 16], value: &raw mut value, rest: [0; 16] };
        request.name[..2].copy_from_slice(b"lo");
        sys!(ioctl(socket, 0x8946 as _, &raw mut request))?;
    }
    fd::close(socket);
    Ok(())
}

fn program(zoo: &mut Zoo) -> Outcome {
    let own = std::process::id();
    let monitor = open(libc::NETLINK_GENERIC, 0, 0)?;
    set(monitor, libc::NETLINK_ADD_MEMBERSHIP, generic("nlctrl", "notify")?.ok_or("no controller")?)?;
    let ethtool = generic("ethtool", "monitor")?;
    if let Some(group) = ethtool {
        set(monitor, libc::NETLINK_ADD_MEMBERSHIP, group)?;
    }
    let route = open(libc::NETLINK_ROUTE, 0, 0)?;
    let events = open(libc::NETLINK_ROUTE, own + 1_000_000, 1)?; // RTMGRP_LINK
    let uevents = open(libc::NETLINK_KOBJECT_UEVENT, 0, 1)?;
    let bare = sys!(socket(libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_ROUTE))?;
    set(route, libc::NETLINK_EXT_ACK, 1)?;
    set(events, libc::NETLINK_NO_ENOBUFS, 1)?;
    set(events, libc::NETLINK_ADD_MEMBERSHIP, 33)?; // beyond the 32 that fit into an address
    let large = 300_000_i32;
    sys!(setsockopt(uevents, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const large).cast(), 4))?;
    for socket in [route, events, uevents, bare, monitor] {
        zoo.keep(&format!("flags of {socket}"), move || fd::flags(socket));
        zoo.keep(&format!("address of {socket}"), move || address(socket));
        for (level, option) in [
            (libc::SOL_SOCKET, libc::SO_RCVBUF),
            (libc::SOL_SOCKET, libc::SO_TYPE),
            (libc::SOL_SOCKET, libc::SO_PROTOCOL),
            (libc::SOL_SOCKET, libc::SO_PASSCRED),
            (libc::SOL_NETLINK, libc::NETLINK_EXT_ACK),
            (libc::SOL_NETLINK, libc::NETLINK_NO_ENOBUFS),
            (libc::SOL_NETLINK, libc::NETLINK_LIST_MEMBERSHIPS),
        ] {
            zoo.keep(&format!("option {level}.{option} of {socket}"), move || get(socket, level, option));
        }
    }
    zoo.expect("a request before the wait", ask(route)?, 16);
    zoo.ready();
    zoo.expect("a request after the wait (RTM_NEWLINK)", ask(route)?, 16);
    while fd::polled(events, libc::POLLIN) != 0 {
        fd::read(events, 65536)?;
    }
    if ethtool.is_some() {
        ethtool_toggle()?;
        let told = zoo::eventually(5000, || fd::polled(monitor, libc::POLLIN) != 0);
        zoo.check("an event of a generic group comes", told);
    }
    zoo::net::loopback_toggle()?;
    zoo.check("an event comes", zoo::eventually(5000, || fd::polled(events, libc::POLLIN) != 0));
    Ok(())
}
