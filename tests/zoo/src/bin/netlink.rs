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

fn program(zoo: &mut Zoo) -> Outcome {
    let own = std::process::id();
    let route = open(libc::NETLINK_ROUTE, 0, 0)?;
    let events = open(libc::NETLINK_ROUTE, own + 1_000_000, 1)?; // RTMGRP_LINK
    let uevents = open(libc::NETLINK_KOBJECT_UEVENT, 0, 1)?;
    let bare = sys!(socket(libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_ROUTE))?;
    set(route, libc::NETLINK_EXT_ACK, 1)?;
    set(events, libc::NETLINK_NO_ENOBUFS, 1)?;
    set(events, libc::NETLINK_ADD_MEMBERSHIP, 33)?; // beyond the 32 that fit into an address
    let large = 300_000_i32;
    sys!(setsockopt(uevents, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const large).cast(), 4))?;
    for socket in [route, events, uevents, bare] {
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
    zoo::net::loopback_toggle()?;
    zoo.check("an event comes", zoo::eventually(5000, || fd::polled(events, libc::POLLIN) != 0));
    Ok(())
}
