//! Socket options (socket(7), ip(7), ipv6(7), tcp(7), udp(7), raw(7), netlink(7)).
//!
//! Every option of a list is compared with that of a fresh socket of the same sort, and kept if it differs.
//! A list that names few options forgets the rest without a word, so it names all that can be read and set.
//! Interfaces are kept by their names: their numbers may be other ones on the next boot.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::{World, inet_address};
use crate::error::{Context, Refusal, Result};
use crate::sorted::Map;
use crate::sys::netlink::u32_at;
use crate::sys::socket;

const KIND: &str = "option";

crate::section! {
    /// One option in the image.
    pub struct Setting {
        /// SOL_SOCKET, IPPROTO_IP and so on.
        pub level: i32,
        /// SO_*, IP_*.
        pub name: i32,
        /// Its value.
        pub value: Vec<u8>,
    }
}

crate::section! {
    /// The options of a socket that differ from a fresh one's.
    pub struct State {
        /// Plain options.
        pub settings: Vec<Setting>,
        /// A classic filter program, an instruction a number.
        pub filter: Vec<u64>,
    }
}

/// Family, type and protocol.
pub type Sort = (i32, i32, i32);
/// The options of fresh sockets, by their sort.
pub type Fresh = Map<Sort, Vec<Setting>>;

/// A range of names of one level.
type List = (i32, &'static [i32]);

// Numbers: asm-generic/socket.h, the same on x86, ARM and RISC-V.
const SO_SNDBUF: i32 = 7;
const SO_RCVBUF: i32 = 8;
const SO_SNDBUFFORCE: i32 = 32;
const SO_RCVBUFFORCE: i32 = 33;
const SO_MARK: i32 = 36;
const SO_LOCK_FILTER: i32 = 44;
const SO_BUF_LOCK: i32 = 72;
const SO_BINDTODEVICE: i32 = 25;

/// DEBUG REUSEADDR DONTROUTE BROADCAST SNDBUF RCVBUF KEEPALIVE OOBINLINE NO_CHECK PRIORITY LINGER REUSEPORT
/// PASSCRED RCVLOWAT RCVTIMEO SNDTIMEO BINDTODEVICE TIMESTAMP PASSSEC TIMESTAMPNS MARK TIMESTAMPING RXQ_OVFL
/// WIFI_STATUS PEEK_OFF NOFCS SELECT_ERR_QUEUE BUSY_POLL MAX_PACING_RATE ZEROCOPY TXTIME TIMESTAMP_NEW TIMESTAMPNS_NEW
/// TIMESTAMPING_NEW PREFER_BUSY_POLL BUSY_POLL_BUDGET RESERVE_MEM TXREHASH RCVMARK PASSPIDFD RCVPRIORITY PASSRIGHTS
/// INQ. The new forms of time stamps come last: the old ones turn them off. INCOMING_CPU is left out, because the
/// kernel writes it too.
const ANY: List = (
    1,
    &[
        1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 18, 20, 21, 25, 29, 34, 35, 36, 37, 40, 41, 42, 43, 45,
        46, 47, 60, 61, 63, 64, 65, 69, 70, 73, 74, 75, 76, 82, 83, 84,
    ],
);
/// TOS TTL HDRINCL OPTIONS RECVOPTS RETOPTS PKTINFO MTU_DISCOVER RECVERR RECVTTL RECVTOS FREEBIND PASSSEC
/// TRANSPARENT RECVORIGDSTADDR MINTTL NODEFRAG CHECKSUM BIND_ADDRESS_NO_PORT RECVFRAGSIZE RECVERR_RFC4884
/// MULTICAST_IF MULTICAST_TTL MULTICAST_LOOP MULTICAST_ALL UNICAST_IF LOCAL_PORT_RANGE.
const IP: List = (
    0,
    &[1, 2, 3, 4, 6, 7, 8, 10, 11, 12, 13, 15, 18, 19, 20, 21, 22, 23, 24, 25, 26, 32, 33, 34, 49, 50, 51],
);
/// 2292PKTINFO 2292HOPOPTS 2292DSTOPTS 2292RTHDR CHECKSUM 2292HOPLIMIT FLOWINFO UNICAST_HOPS MULTICAST_IF
/// MULTICAST_HOPS MULTICAST_LOOP MTU_DISCOVER RECVERR V6ONLY RECVERR_RFC4884 FLOWINFO_SEND HDRINCL MULTICAST_ALL
/// RECVPKTINFO RECVHOPLIMIT RECVHOPOPTS RTHDRDSTOPTS RECVRTHDR RECVDSTOPTS RECVPATHMTU DONTFRAG RECVTCLASS TCLASS
/// AUTOFLOWLABEL ADDR_PREFERENCES MINHOPCOUNT RECVORIGDSTADDR TRANSPARENT UNICAST_IF RECVFRAGSIZE FREEBIND.
const IPV6: List = (
    41,
    &[
        2, 3, 4, 5, 7, 8, 11, 16, 17, 18, 19, 23, 25, 26, 29, 31, 33, 36, 49, 51, 53, 56, 58, 60, 62, 66, 67,
        70, 72, 73, 74, 75, 76, 77, 78,
    ],
);
/// NODELAY MAXSEG CORK KEEPIDLE KEEPINTVL KEEPCNT SYNCNT LINGER2 DEFER_ACCEPT WINDOW_CLAMP QUICKACK CONGESTION
/// THIN_LINEAR_TIMEOUTS THIN_DUPACK USER_TIMEOUT FASTOPEN NOTSENT_LOWAT SAVE_SYN FASTOPEN_CONNECT FASTOPEN_NO_COOKIE
/// INQ TX_DELAY RTO_MAX_MS.
const TCP: List = (6, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 16, 17, 18, 23, 25, 27, 30, 34, 36, 37, 44]);
/// CORK ENCAP NO_CHECK6_TX NO_CHECK6_RX SEGMENT GRO.
const UDP: List = (17, &[1, 100, 101, 102, 103, 104]);
/// ICMP_FILTER.
const RAW: List = (255, &[1]);
/// ICMPV6_FILTER.
const ICMPV6: List = (58, &[1]);
/// PKTINFO BROADCAST_ERROR NO_ENOBUFS LISTEN_ALL_NSID CAP_ACK EXT_ACK GET_STRICT_CHK.
const NETLINK: List = (270, &[3, 4, 5, 8, 10, 11, 12]);
/// COPY_THRESH AUXDATA ORIGDEV VERSION RESERVE LOSS VNET_HDR TIMESTAMP TX_HAS_OFF QDISC_BYPASS IGNORE_OUTGOING VNET_HDR_SZ.
const PACKET: List = (263, &[7, 8, 9, 10, 12, 14, 15, 17, 19, 20, 23, 24]);

/// The longest value of the lists (TCP_CONGESTION is 16, ICMPV6_FILTER is 32, IP_OPTIONS is 40).
const LONGEST: usize = 64;

fn lists((family, kind, protocol): Sort) -> Vec<List> {
    let mut lists = vec![ANY];
    match family {
        libc::AF_INET => lists.push(IP),
        // The IPv4 options act on a v6 socket's mapped side.
        libc::AF_INET6 => lists.extend([IP, IPV6]),
        libc::AF_NETLINK => lists.push(NETLINK),
        libc::AF_PACKET => lists.push(PACKET),
        _ => {}
    }
    match (family, kind, protocol) {
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, _) => lists.push(TCP),
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP) => lists.push(UDP),
        (libc::AF_INET, libc::SOCK_RAW, _) => lists.push(RAW),
        (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6) => lists.push(ICMPV6),
        _ => {}
    }
    lists
}

/// Every option of the lists that a socket of this sort has on this kernel.
fn values(fd: &OwnedFd, sort: Sort) -> Vec<Setting> {
    let mut found = Vec::new();
    for (level, names) in lists(sort) {
        for &name in names {
            if let Ok(value) = socket::option(fd.as_fd(), level, name, LONGEST) {
                found.push(Setting { level, name, value });
            }
        }
    }
    found
}

/// Reads the options of a socket that differ from a fresh one's.
///
/// # Errors
/// A refusal for a filter that is not classic.
pub fn capture(fd: &OwnedFd, sort: Sort, world: &World<'_>) -> Result<State, Refusal> {
    let mut known = world.known.fresh.borrow_mut();
    if !known.contains_key(&sort) {
        let fresh = socket::socket(sort.0, sort.1, sort.2)
            .context(KIND, format_args!("making a socket to compare with"))?;
        known.insert(sort, values(&fresh, sort));
    }
    let usual = &known[&sort];
    // Buffers grow by themselves; only sizes that were asked for are kept (SO_BUF_LOCK, 5.14).
    let asked = socket::number(fd.as_fd(), 1, SO_BUF_LOCK).unwrap_or(3);
    let mut settings = values(fd, sort);
    settings.retain(|setting| {
        let grown = match (setting.level, setting.name) {
            (1, SO_SNDBUF) => asked & 1 == 0,
            (1, SO_RCVBUF) => asked & 2 == 0,
            _ => false,
        };
        !grown && !usual.contains(setting)
    });
    for setting in &mut settings {
        if let Some(swap) = interface(setting) {
            let number = u32_at(&setting.value, 0);
            let number = if swap { u32::from_be(number) } else { number };
            setting.value = inet_address::interface(number)?.into_bytes();
        }
    }
    let filter = match socket::filter(fd.as_fd()) {
        Ok(filter) => filter,
        Err(Errno::EACCES) => {
            return Err(Refusal::new("it has a BPF filter", "start its owner after `rcsnap ready`"));
        }
        Err(_) => Vec::new(),
    };
    if socket::number(fd.as_fd(), 1, SO_LOCK_FILTER).unwrap_or(0) != 0 {
        settings.push(Setting { level: 1, name: SO_LOCK_FILTER, value: 1_i32.to_ne_bytes().to_vec() });
    }
    Ok(State { settings, filter })
}

/// Whether the value is the number of an interface, and whether its bytes are in the order of the network:
/// IP_UNICAST_IF and IPV6_UNICAST_IF, IPV6_MULTICAST_IF.
fn interface(setting: &Setting) -> Option<bool> {
    match (setting.level, setting.name) {
        (0, 50) | (41, 76) => Some(true),
        (41, 17) => Some(false),
        _ => None,
    }
}

/// Sets the options.
///
/// # Errors
/// The errno of the calls.
pub fn restore(state: &State, fd: &OwnedFd) -> Result<()> {
    set_those(state, fd, true)
}

/// Sets them once more on a socket that came from a listener: all that need not be set before bind(2).
///
/// # Errors
/// The errno of the calls.
pub fn again(state: &State, fd: &OwnedFd) -> Result<()> {
    set_those(state, fd, false)
}

fn set_those(state: &State, fd: &OwnedFd, all: bool) -> Result<()> {
    if !state.filter.is_empty() {
        socket::set_filter(fd.as_fd(), &state.filter).context(KIND, format_args!("attaching a filter"))?;
    }
    for setting in state.settings.iter().filter(|setting| all || !before_bind(setting)) {
        set(setting, fd)
            .context(KIND, format_args!("setting {} of level {}", setting.name, setting.level))?;
    }
    Ok(())
}

fn set(setting: &Setting, fd: &OwnedFd) -> Result<(), Errno> {
    let Setting { level, name, value } = setting;
    if let Some(swap) = interface(setting) {
        let number = socket::interface(std::str::from_utf8(value).map_err(|_| Errno::EINVAL)?)?;
        let number = if swap { number.to_be() } else { number };
        return socket::set_number(fd.as_fd(), *level, *name, number.cast_signed());
    }
    let half = |force, plain| {
        // The kernel doubles what it is given.
        let number = <[u8; 4]>::try_from(value.as_slice()).map_or(0, i32::from_ne_bytes) / 2;
        let done = socket::set_number(fd.as_fd(), 1, force, number);
        if done == Err(Errno::EPERM) { socket::set_number(fd.as_fd(), 1, plain, number) } else { done }
    };
    match (*level, *name) {
        (1, SO_SNDBUF) => half(SO_SNDBUFFORCE, SO_SNDBUF),
        (1, SO_RCVBUF) => half(SO_RCVBUFFORCE, SO_RCVBUF),
        _ => socket::set_option(fd.as_fd(), *level, *name, value),
    }
}

/// Whether an option belongs to where packets go, so that it must be set before bind(2).
fn before_bind(setting: &Setting) -> bool {
    let Setting { level, name, .. } = setting;
    // REUSEADDR, REUSEPORT, BINDTODEVICE, MARK; IP_FREEBIND, IP_TRANSPARENT; V6ONLY, TRANSPARENT, FREEBIND.
    matches!((*level, *name), (1, 2 | 15 | SO_BINDTODEVICE | SO_MARK) | (0, 15 | 19) | (41, 26 | 75 | 78))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use crate::file::testing::states_alone;
    use crate::sys::socket;

    #[test]
    fn interfaces_are_kept_by_their_names() {
        let fd = socket::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).unwrap();
        socket::set_number(fd.as_fd(), 41, 17, 1).unwrap();
        socket::set_option(fd.as_fd(), 41, 76, &1_u32.to_be_bytes()).unwrap();
        let found = states_alone(vec![fd]);
        assert_eq!(found.before, found.after);
        let crate::file::State::Inet(state) = &found.before[0] else { panic!() };
        let values: Vec<&[u8]> = state.options.settings.iter().map(|set| set.value.as_slice()).collect();
        assert_eq!(values, [b"lo", b"lo"]);
    }
}
