//! Kind `inet`: sockets that have joined groups, with the sources that they want and do not want, hear after
//! the wait what they heard before, and no more.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_BLOCK_SOURCE: i32 = 43;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
const MCAST_MSFILTER: i32 = 48;
const IP_MULTICAST_ALL: i32 = 49;
const IPV6_MULTICAST_ALL: i32 = 29;
/// The loopback, the same in every namespace.
const LOOPBACK: u32 = 1;
/// A struct sockaddr_storage, and where it begins behind a number of 32 bits.
const STORAGE: usize = 128;
const AT: usize = size_of::<usize>();

/// An address as the kernel takes it, of 16 or 28 bytes.
fn address(text: &str, port: u16) -> Outcome<Vec<u8>> {
    let mut bytes;
    match text.parse().map_err(|_| "no address")? {
        std::net::IpAddr::V4(four) => {
            bytes = vec![0; 16];
            bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            bytes[4..8].copy_from_slice(&four.octets());
        }
        std::net::IpAddr::V6(six) => {
            bytes = vec![0; 28];
            bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            bytes[8..24].copy_from_slice(&six.octets());
            if six.is_multicast() {
                bytes[24..].copy_from_slice(&LOOPBACK.to_ne_bytes());
            }
        }
    }
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    Ok(bytes)
}

fn set(socket: i32, level: i32, name: i32, value: &[u8]) -> Outcome {
    sys!(setsockopt(socket, level, name, value.as_ptr().cast(), value.len() as u32))?;
    Ok(())
}

/// A socket that does not wait, bound to an address. Without the groups of others: only what it has joined counts.
fn new(six: bool, at: &str, port: u16) -> Outcome<i32> {
    let family = if six { libc::AF_INET6 } else { libc::AF_INET };
    let socket = sys!(socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0))?;
    let (on, off) = (1_i32.to_ne_bytes(), 0_i32.to_ne_bytes());
    set(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &on)?;
    if six {
        set(socket, libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL, &off)?;
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &on)?;
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, &LOOPBACK.to_ne_bytes())?;
    } else {
        set(socket, libc::IPPROTO_IP, IP_MULTICAST_ALL, &off)?;
        set(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &[127, 0, 0, 1])?;
    }
    let address = address(at, port)?;
    sys!(bind(socket, address.as_ptr().cast(), address.len() as u32))?;
    Ok(socket)
}

/// struct group_req, or group_source_req with a source.
fn group(socket: i32, interface: u32, name: i32, group: &str, source: Option<&str>) -> Outcome {
    let mut bytes = vec![0; AT + STORAGE * if source.is_some() { 2 } else { 1 }];
    bytes[..4].copy_from_slice(&interface.to_ne_bytes());
    for (n, text) in [Some(group), source].into_iter().flatten().enumerate() {
        let address = address(text, 0)?;
        let at = AT + n * STORAGE;
        bytes[at..at + address.len()].copy_from_slice(&address);
    }
    set(socket, if group.contains(':') { libc::IPPROTO_IPV6 } else { libc::IPPROTO_IP }, name, &bytes)
}

/// What the kernel says of one group: mode, number of sources and the sources, or why it says nothing.
fn filter(socket: i32, six: bool, group: &str) -> String {
    let Ok(address) = address(group, 0) else { return String::new() };
    let mut bytes = [0_u8; AT + STORAGE + 8 + 4 * STORAGE];
    bytes[..4].copy_from_slice(&LOOPBACK.to_ne_bytes());
    bytes[AT..AT + address.len()].copy_from_slice(&address);
    bytes[AT + STORAGE + 4] = 4;
    let mut length = bytes.len() as libc::socklen_t;
    let level = if six { libc::IPPROTO_IPV6 } else { libc::IPPROTO_IP };
    // SAFETY: room for the answer, with its length.
    let got = unsafe {
        libc::getsockopt(socket, level, MCAST_MSFILTER, bytes.as_mut_ptr().cast(), &raw mut length)
    };
    if got == -1 {
        return format!("errno {}", sys::errno());
    }
    let number = bytes[AT + STORAGE + 4];
    let sources: Vec<&[u8]> =
        bytes[AT + STORAGE + 8..].chunks(STORAGE).take(number.into()).map(|one| &one[4..24]).collect();
    format!("mode {} {sources:?}", bytes[AT + STORAGE])
}

/// A socket, the group that it is in, and the sources that it hears.
struct Listener {
    socket: i32,
    six: bool,
    group: &'static str,
    hears: &'static [&'static str],
}

const PORT: u16 = 7077;

fn listener(
    group_: &'static str,
    name: i32,
    source: Option<&str>,
    hears: &'static [&'static str],
) -> Outcome<Listener> {
    let six = group_.contains(':');
    let socket = new(six, if six { "::" } else { "0.0.0.0" }, PORT)?;
    if name == MCAST_BLOCK_SOURCE {
        group(socket, LOOPBACK, MCAST_JOIN_GROUP, group_, None)?;
    }
    group(socket, LOOPBACK, name, group_, source)?;
    Ok(Listener { socket, six, group: group_, hears })
}

/// All that has arrived, as soon as these have, which may be one after the other; without anything to wait for, soon.
fn heard(socket: i32, wanted: &[String]) -> Outcome<Vec<String>> {
    let mut all = Vec::new();
    zoo::eventually(if wanted.is_empty() { 50 } else { 10_000 }, || {
        while fd::polled(socket, libc::POLLIN) != 0 {
            let Ok(bytes) = fd::read(socket, 64) else { return true };
            all.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        !wanted.is_empty() && all.len() >= wanted.len()
    });
    all.sort();
    Ok(all)
}

/// Every sender sends to every group; who hears whom?
fn talk(zoo: &mut Zoo, listeners: &[Listener], senders: &[(&'static str, i32)]) -> Outcome {
    for (name, sender) in senders {
        for listener in listeners.iter().filter(|listener| listener.six == name.contains(':')) {
            let to = address(listener.group, PORT)?;
            sys!(sendto(*sender, name.as_ptr().cast(), name.len(), 0, to.as_ptr().cast(), to.len() as u32))?;
        }
    }
    for listener in listeners {
        let what = format!("what {} hears", listener.group);
        let hears: Vec<String> = listener.hears.iter().map(|name| (*name).to_owned()).collect();
        zoo.expect(&what, heard(listener.socket, &hears)?, hears);
    }
    Ok(())
}

/// The loopback has no route for IPv6 groups: one to ff02::/16 of the sort that its own addresses have (RTM_NEWROUTE).
/// One that is there already, from another program, does as well.
fn route() -> Outcome {
    let socket = sys!(socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE))?;
    let mut request = vec![0_u8; 56];
    request[0] = 56;
    request[4] = 24;
    // NLM_F_REQUEST, NLM_F_CREATE
    request[6..8].copy_from_slice(&0x401_u16.to_ne_bytes());
    // struct rtmsg: family, length, _, _, RT_TABLE_LOCAL, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_LOCAL
    request[16..24].copy_from_slice(&[libc::AF_INET6 as u8, 16, 0, 0, 255, 3, 0, 2]);
    (request[28], request[30]) = (20, 1); // RTA_DST
    request[32..34].copy_from_slice(&[0xff, 0x02]);
    (request[48], request[50]) = (8, 4); // RTA_OIF
    request[52..].copy_from_slice(&LOOPBACK.to_ne_bytes());
    fd::write(socket, &request)?;
    fd::close(socket);
    Ok(())
}

/// A socket in two groups of an interface that has no fixed number, one of them with a source, and one that sends there.
fn elsewhere(zoo: &mut Zoo) -> Outcome<(i32, i32)> {
    // That of a board is made by its scripts.
    const BOARD: &std::ffi::CStr = c"dummy0";
    const OWN: &std::ffi::CStr = c"zoo-groups";
    if zoo::net::index(BOARD).or_else(|| zoo::net::index(OWN)).is_none() {
        zoo::net::bridge(OWN, [192, 168, 177, 1])?;
    }
    let (interface, source) = match zoo::net::index(BOARD) {
        Some(index) => (index, "192.168.77.1"),
        None => (zoo::net::index(OWN).ok_or("no interface")?, "192.168.177.1"),
    };
    let hears = new(false, "0.0.0.0", PORT)?;
    group(hears, interface, MCAST_JOIN_GROUP, ELSEWHERE[0], None)?;
    group(hears, interface, MCAST_JOIN_SOURCE_GROUP, ELSEWHERE[1], Some(source))?;
    group(hears, interface, MCAST_JOIN_SOURCE_GROUP, ELSEWHERE[2], Some("10.9.9.9"))?;
    zoo.keep("flags of the other interface's", move || fd::flags(hears));
    let says = new(false, source, 0)?;
    // struct ip_mreqn: the number of the interface is the last.
    let [a, b, c, d] = interface.to_ne_bytes();
    set(says, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &[0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d])?;
    Ok((hears, says))
}

/// Groups on the other interface, of which the last wants to hear somebody else.
const ELSEWHERE: [&str; 3] = ["239.7.8.1", "239.7.8.2", "239.7.8.3"];

fn talk_elsewhere(zoo: &mut Zoo, (hears, says): (i32, i32), loopback: i32) -> Outcome {
    for group in ELSEWHERE {
        for from in [says, loopback] {
            let to = address(group, PORT)?;
            let text = if from == says { group } else { "by the loopback" };
            sys!(sendto(from, text.as_ptr().cast(), text.len(), 0, to.as_ptr().cast(), to.len() as u32))?;
        }
    }
    let wanted: Vec<String> = ELSEWHERE[..2].iter().map(|group| (*group).to_owned()).collect();
    zoo.expect("what comes from the other interface", heard(hears, &wanted)?, wanted);
    Ok(())
}

fn program(zoo: &mut Zoo) -> Outcome {
    zoo::net::loopback_up()?;
    let other = elsewhere(zoo)?;
    let mut listeners = vec![
        listener("239.7.7.1", MCAST_JOIN_GROUP, None, &["127.0.0.1", "127.0.0.2"])?,
        listener("239.7.7.2", MCAST_JOIN_SOURCE_GROUP, Some("127.0.0.1"), &["127.0.0.1"])?,
        listener("239.7.7.3", MCAST_BLOCK_SOURCE, Some("127.0.0.1"), &["127.0.0.2"])?,
    ];
    let mut senders =
        vec![("127.0.0.1", new(false, "127.0.0.1", 0)?), ("127.0.0.2", new(false, "127.0.0.2", 0)?)];
    // ::1 may take a moment, and a kernel may have no IPv6.
    let mut six = None;
    zoo::eventually(2000, || {
        six = new(true, "::1", 0).ok();
        six.is_some()
    });
    if let Some(six) = six {
        route()?;
        senders.push(("::1", six));
        listeners.extend([
            listener("ff02::7:1", MCAST_JOIN_GROUP, None, &["::1"])?,
            listener("ff02::7:2", MCAST_JOIN_SOURCE_GROUP, Some("::1"), &["::1"])?,
            listener("ff02::7:3", MCAST_BLOCK_SOURCE, Some("::1"), &[])?,
        ]);
    }
    for Listener { socket, six, group, .. } in &listeners {
        let (socket, six, group) = (*socket, *six, *group);
        zoo.keep(&format!("flags of {group}"), move || fd::flags(socket));
        zoo.keep(&format!("filter of {group}"), move || filter(socket, six, group));
    }
    let loopback = senders[0].1;
    talk(zoo, &listeners, &senders)?;
    talk_elsewhere(zoo, other, loopback)?;
    zoo.ready();
    talk(zoo, &listeners, &senders)?;
    talk_elsewhere(zoo, other, loopback)
}
