//! A socket of IPv4 or IPv6: TCP, UDP, ICMP or raw (ip(7), tcp(7), udp(7), raw(7)).
//!
//! What: addresses, role, options, joined groups with the sources that are wanted or not; for TCP inside the image
//!   also what is on its way.
//! Reads: getsockname(2), getpeername(2), getsockopt(2) with TCP_INFO and MCAST_MSFILTER; the receive queue with MSG_PEEK, and
//!   what the peer sent and is not there yet through TCP_REPAIR.
//! Rebuilds: connections between two tasks of the image first, by connecting them again under their old
//!   addresses through a listening socket of the moment; then listeners and everything that is bound.
//! Loses: received datagrams; connections to the outside that nobody has accepted yet, as a power cut does;
//!   the mark of urgent data; TCP_MD5SIG keys; extension headers that a socket sends with everything (RFC 3542),
//!   flow labels, IPsec policies and programs that choose among sockets of one port (SO_ATTACH_REUSEPORT_CBPF): the
//!   kernel does not show them; an interface for what is sent to groups that was given by its number alone
//!   (IP_MULTICAST_IF); SO_INCOMING_CPU.
//! Refuses: connections to a peer outside the image, unless it is a rerun service on the loopback device, whose
//!   connections end and which has sent everything (`close` lets others end with a reset, as after a power cut); corked
//!   UDP; MPTCP, SCTP and other protocols; TLS in the kernel; a socket of another network namespace.

use std::os::fd::{AsFd, OwnedFd};

use super::inet_address::{self, Address};
use super::{Description, Opener, World, inet_pair, multicast, options};
use crate::config::Key;
use crate::error::{Context, Error, Refusal, Result};
use crate::sys::netlink::u32_at;
use crate::sys::{descriptor, ioctl, sockdiag, socket};

const KIND: &str = "inet";
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;
const TCP_INFO: i32 = 11;
const TCP_ULP: i32 = 31;

crate::section! {
    /// An IP socket in the image.
    pub struct State {
        /// AF_INET or AF_INET6.
        pub family: i32,
        /// SOCK_STREAM, SOCK_DGRAM or SOCK_RAW.
        pub kind: i32,
        /// IPPROTO_*.
        pub protocol: i32,
        /// Where it is bound.
        pub local: Option<Address>,
        /// Where it is connected.
        pub peer: Option<Address>,
        /// What it does.
        pub role: Role,
        /// Options.
        pub options: options::State,
        /// Groups it has joined.
        pub groups: Vec<multicast::Member>,
    }
}

crate::section! {
    /// What an IP socket does.
    pub enum Role {
        /// Bound, connected without a connection (UDP, raw), or neither.
        Plain,
        /// Waits for connections.
        Listening {
            /// The backlog.
            backlog: i32,
        },
        /// Has begun to connect.
        Connecting,
        /// One end of a TCP connection inside the image.
        Pair {
            /// The other end's entry; nothing if that end was closed.
            other: Option<u32>,
            /// What it has received, or is about to receive, and has not read.
            unread: Vec<u8>,
            /// It has ended its own direction (shutdown(2) for writing).
            ended: bool,
        },
        /// Its connection is over.
        Over {
            /// The next call gets ECONNRESET, or the next one that finds nothing unread.
            reset: bool,
            /// What it has received and not read.
            unread: Vec<u8>,
        },
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
    let (family, kind, protocol) = (ask(libc::SO_DOMAIN)?, ask(libc::SO_TYPE)?, ask(libc::SO_PROTOCOL)?);
    let icmp = protocol == libc::IPPROTO_ICMP || protocol == libc::IPPROTO_ICMPV6;
    let known = match kind {
        libc::SOCK_STREAM => protocol == libc::IPPROTO_TCP,
        libc::SOCK_DGRAM => protocol == libc::IPPROTO_UDP || icmp,
        libc::SOCK_RAW => true,
        _ => false,
    };
    let later = "start its owner after `rcsnap ready`";
    if !known {
        return Err(Refusal::new(format!("protocol {protocol} is not carried"), later));
    }
    if !world.same_network(fd)? {
        return Err(Refusal::new("it belongs to another network namespace", later));
    }
    let local = inet_address::read(fd, false)?.filter(|local| !local.is_empty());
    let peer = inet_address::read(fd, true)?;
    let role = match kind {
        libc::SOCK_STREAM => stream(desc, world, &local, &peer)?,
        _ => plain(fd, protocol, later)?,
    };
    let connected = matches!(role, Role::Pair { .. } | Role::Over { .. });
    let mut options = options::capture(fd, (family, kind, protocol), world)?;
    if connected {
        options.settings.retain(|setting| !measured(setting));
    }
    // A bound address of IPv6 implies V6ONLY, which cannot be taken back after bind(2).
    let mapped = local.as_ref().is_none_or(|local| local.v4().is_some());
    if connected && !mapped {
        options.settings.retain(|setting| (setting.level, setting.name) != (libc::IPPROTO_IPV6, 26));
    }
    // TCP joins none.
    let groups = if kind == libc::SOCK_STREAM { Vec::new() } else { multicast::capture(fd, world)? };
    // What is over has no address any more that would matter.
    let over = matches!(role, Role::Over { .. });
    let (local, peer) = if over { (None, None) } else { (local, peer) };
    Ok(Box::new(State { family, kind, protocol, local, peer, role, options, groups }))
}

/// What a connection finds out by itself: TCP's MAXSEG, WINDOW_CLAMP and QUICKACK; and the multicast options
/// of IP and IPv6, whose fields TCP uses for what it saw in the first packet.
fn measured(setting: &options::Setting) -> bool {
    match setting.level {
        libc::IPPROTO_TCP => matches!(setting.name, 2 | 10 | 12),
        libc::IPPROTO_IP => matches!(setting.name, 32 | 33 | 34 | 49),
        libc::IPPROTO_IPV6 => matches!(setting.name, 17 | 18 | 19 | 29),
        _ => false,
    }
}

fn plain(fd: &OwnedFd, protocol: i32, later: &'static str) -> Result<Role, Refusal> {
    if protocol == libc::IPPROTO_UDP && socket::number(fd.as_fd(), libc::IPPROTO_UDP, 1).unwrap_or(0) != 0 {
        return Err(Refusal::new("a datagram is being put together (UDP_CORK)", later));
    }
    if ioctl::get(fd.as_fd(), &ioctl::UNREAD).unwrap_or(0) > 0 {
        crate::log!(Warning, "inet: received datagrams that nobody has read are not carried");
    }
    Ok(Role::Plain)
}

fn stream(
    desc: &Description,
    world: &World<'_>,
    local: &Option<Address>,
    peer: &Option<Address>,
) -> Result<Role, Refusal> {
    let fd = &desc.fd;
    if socket::option(fd.as_fd(), libc::IPPROTO_TCP, TCP_ULP, 16).is_ok_and(|name| !name.is_empty()) {
        return Err(Refusal::new(
            "its data goes through TLS in the kernel",
            "start its owner after `rcsnap ready`",
        ));
    }
    let info = socket::option(fd.as_fd(), libc::IPPROTO_TCP, TCP_INFO, 32)
        .context(KIND, format_args!("asking its state"))?;
    let events =
        descriptor::ready(fd.as_fd(), libc::POLLRDHUP).context(KIND, format_args!("asking its state"))?;
    match (info.first().copied().unwrap_or(CLOSE), local, peer) {
        // tcpi_unacked and tcpi_sacked are the length and the limit of a listener's queue.
        (LISTEN, ..) => Ok(Role::Listening { backlog: i32::try_from(u32_at(&info, 28)).unwrap_or(i32::MAX) }),
        // A connection that is over looks like a fresh socket, but both directions are shut.
        (CLOSE, ..) if events & libc::POLLRDHUP != 0 => {
            let unread = inet_pair::unread(fd, None)?;
            Ok(Role::Over { reset: events & libc::POLLERR != 0, unread })
        }
        (CLOSE, ..) => Ok(Role::Plain),
        (SYN_SENT, ..) => Ok(Role::Connecting),
        (state, Some(local), Some(peer)) => connection(desc, world, state, local, peer),
        (state, ..) => {
            Err(Error::new(KIND, "asking its state", format!("state {state} without addresses")).into())
        }
    }
}

fn connection(
    desc: &Description,
    world: &World<'_>,
    state: u8,
    local: &Address,
    peer: &Address,
) -> Result<Role, Refusal> {
    let other = inet_pair::other(local, peer, world)?;
    // CLOSE_WAIT with a peer on this machine that nobody holds: it was closed, and only what it sent is left.
    // So will be what a rerun service holds; but not what is left of one that ended before it could send everything.
    let ends = || world.outside_ends() && !sockdiag::leaving(peer.port(), local.port());
    let closed = other.is_none() && peer.is_loopback() && (state == 8 || ends());
    if other.is_none() && !closed {
        let Some(mut remedy) = world.lacks(Key::Close, desc, &format!("tcp:{peer}")) else {
            return Ok(Role::Over { reset: true, unread: Vec::new() });
        };
        // A port that the kernel gave to a client is another one on the next boot.
        if peer.port() >= 32768 {
            remedy.truncate(remedy.len() - 6);
        }
        return Err(Refusal::new(format!("its peer {peer} is outside the image"), remedy));
    }
    let unread = inet_pair::unread(&desc.fd, other.map(|other| &other.fd))?;
    // FIN_WAIT1, FIN_WAIT2, LAST_ACK, CLOSING: its own end was sent.
    let ended = state != ESTABLISHED && state != 8;
    Ok(Role::Pair { other: other.map(|other| other.entry), unread, ended })
}

/// Opens one socket. Of a connection, the second end is kept until its own turn.
///
/// # Errors
/// The errno of the calls.
pub fn restore(state: &State, opener: &mut Opener) -> Result<OwnedFd> {
    if let Some(fd) = opener.ends.remove(&(KIND, opener.entry)) {
        return Ok(fd);
    }
    match &state.role {
        Role::Pair { other, .. } => inet_pair::restore(state, *other, opener),
        Role::Over { reset, unread } => inet_pair::over(state, *reset, unread.len()),
        Role::Plain | Role::Listening { .. } | Role::Connecting => open(state),
    }
}

/// A fresh socket with its options.
///
/// # Errors
/// The errno of the calls.
pub fn fresh(state: &State) -> Result<OwnedFd> {
    let fd =
        socket::socket(state.family, state.kind, state.protocol).context(KIND, format_args!("making one"))?;
    options::restore(&state.options, &fd)?;
    Ok(fd)
}

/// Binds with SO_REUSEADDR until all sockets are there ([`settle`]): others may have the same port, such as
/// connections, and a wildcard beside single addresses. And with IP_FREEBIND: the address may be one that a router
/// gives later.
///
/// # Errors
/// The errno of the calls.
pub fn bind(fd: &OwnedFd, local: &Address) -> Result<()> {
    let doing = format_args!("binding to {local}");
    for (level, name) in LENIENT {
        let _ = socket::set_number(fd.as_fd(), level, name, 1);
    }
    socket::bind(fd.as_fd(), &local.here()?).context(KIND, doing)
}

/// SO_REUSEADDR, which all have, and IP_FREEBIND, which also means IPv6 but is unknown to its raw sockets.
const LENIENT: [(i32, i32); 2] = [(libc::SOL_SOCKET, libc::SO_REUSEADDR), (libc::IPPROTO_IP, 15)];

/// Sets both options as they were, when all sockets are bound.
pub fn settle(state: &State, fd: &OwnedFd) {
    for (level, name) in LENIENT {
        let on = match state.options.settings.iter().find(|set| (set.level, set.name) == (level, name)) {
            Some(setting) => setting.value.first() == Some(&1),
            // What a fresh one has: raw and ICMP sockets share their addresses from the start.
            None => {
                level == libc::SOL_SOCKET
                    && !matches!(
                        state.protocol,
                        libc::IPPROTO_TCP | libc::IPPROTO_UDP | libc::IPPROTO_UDPLITE
                    )
            }
        };
        let _ = socket::set_number(fd.as_fd(), level, name, on.into());
    }
}

fn open(state: &State) -> Result<OwnedFd> {
    let fd = fresh(state)?;
    if let Some(local) = &state.local {
        bind(&fd, local)?;
    }
    // The kernel lists the latest first.
    for member in state.groups.iter().rev() {
        multicast::restore(member, &fd)?;
    }
    let connect = |peer: &Address| match socket::connect(fd.as_fd(), &peer.here()?) {
        Err(nix::errno::Errno::EINPROGRESS) => Ok(()),
        other => other.context(KIND, format_args!("connecting to {peer}")),
    };
    match (&state.role, &state.peer) {
        (Role::Listening { backlog }, _) => {
            socket::listen(fd.as_fd(), *backlog).context(KIND, format_args!("listening"))?;
        }
        (Role::Connecting, Some(peer)) => {
            nonblocking(&fd)?;
            connect(peer)?;
        }
        (_, Some(peer)) if state.kind != libc::SOCK_STREAM => connect(peer)?,
        _ => {}
    }
    Ok(fd)
}

/// The flag that was captured is set at the end, with all others.
fn nonblocking(fd: &OwnedFd) -> Result<()> {
    use crate::sys::descriptor::{FcntlNumber, fcntl};
    fcntl(fd.as_fd(), FcntlNumber::SetFlags, libc::O_NONBLOCK)
        .context(KIND, format_args!("not waiting"))
        .map(drop)
}
