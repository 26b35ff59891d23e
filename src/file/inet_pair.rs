//! TCP connections whose two ends are both in the image.
//!
//! Both ends are connected again for real, under the same addresses, so that windows, sequence numbers and
//! timers are the kernel's own. What was on its way is sent once more by the end it came from.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::inet::{Role, State, bind, fresh};
use super::inet_address::{self, Address, Ip};
use super::{Description, Opener, World, options, pty_queue};
use crate::error::{Context, Error, Result};
use crate::sorted::Map;
use crate::sys::{ioctl, socket};

const KIND: &str = "inet";
const TCP: i32 = libc::IPPROTO_TCP;
const TCP_REPAIR: i32 = 19;
const TCP_REPAIR_QUEUE: i32 = 20;
const TCP_QUEUE_SEQ: i32 = 21;
const RECEIVED: i32 = 1;
const SENT: i32 = 2;
/// Leaves repair mode without a probe to the peer (4.19).
const QUIETLY: i32 = -1;
const SO_BUF_LOCK: i32 = 72;

/// Address and port of an end.
type End = (Ip, u16);
/// Every end of a TCP connection that the image holds: its own address and its peer's, and its entry.
pub type Connections = Map<(End, End), u32>;

/// Lists the ends of TCP connections.
///
/// # Errors
/// The errno of reading an address.
pub fn connections(descriptions: &mut dyn Iterator<Item = &Description>) -> Result<Connections> {
    let mut found = Connections::new();
    for desc in descriptions {
        if desc.stat.format() != libc::S_IFSOCK || desc.external.is_some() || desc.is_path() {
            continue;
        }
        let domain = socket::number(desc.fd.as_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN);
        let stream =
            socket::number(desc.fd.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE) == Ok(libc::SOCK_STREAM);
        if !stream || !matches!(domain, Ok(libc::AF_INET | libc::AF_INET6)) {
            continue;
        }
        if let (Some(local), Some(peer)) =
            (inet_address::read(&desc.fd, false)?, inet_address::read(&desc.fd, true)?)
        {
            found.insert((local.key(), peer.key()), desc.entry);
        }
    }
    Ok(found)
}

/// The description of the other end.
///
/// # Errors
/// The errno of reading an address.
pub fn other<'a>(local: &Address, peer: &Address, world: &'a World<'_>) -> Result<Option<&'a Description>> {
    let entry = world.connections()?.get(&(peer.key(), local.key()));
    Ok(entry.and_then(|&entry| world.descriptions.get(entry as usize)))
}

/// What this end has not read: its queue, and what the other end sent that is not in it yet.
///
/// # Errors
/// The errno of the calls.
pub fn unread(fd: &OwnedFd, other: Option<&OwnedFd>) -> Result<Vec<u8>> {
    let doing = format_args!("reading its queue");
    let waiting = |fd: &OwnedFd, request| ioctl::get(fd.as_fd(), request).context(KIND, doing);
    let len = usize::try_from(waiting(fd, &ioctl::UNREAD)?).unwrap_or(0);
    let mut bytes = Vec::new();
    if len > 0 {
        bytes = socket::receive(fd.as_fd(), len, libc::MSG_PEEK | libc::MSG_DONTWAIT).context(KIND, doing)?;
        if bytes.len() != len {
            return Err(Error::new(
                KIND,
                doing.to_string(),
                format!("{} of {len} bytes were there", bytes.len()),
            ));
        }
    }
    if let Some(other) = other
        && waiting(other, &ioctl::UNSENT)? > 0
    {
        bytes.extend(on_the_way(fd, other).context(KIND, format_args!("reading what is on its way"))?);
    }
    Ok(bytes)
}

/// Bytes that `other` keeps until they are confirmed, without those that `fd` has already.
fn on_the_way(fd: &OwnedFd, other: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let (sent, len, end) = in_repair(other, SENT, |end| {
        let len = usize::try_from(ioctl::get(other.as_fd(), &ioctl::UNSENT)?).unwrap_or(0);
        Ok((socket::receive(other.as_fd(), len, libc::MSG_PEEK | libc::MSG_DONTWAIT)?, len, end))
    })?;
    let next = in_repair(fd, RECEIVED, Ok)?;
    // Sequence numbers wrap. If its direction has ended, the mark counts as one more.
    let missing = usize::try_from(end.wrapping_sub(next)).unwrap_or(0);
    let missing = missing.saturating_sub(usize::from(len > sent.len()));
    let from = sent.len().checked_sub(missing);
    from.and_then(|from| sent.get(from..)).map(<[u8]>::to_vec).ok_or(Errno::EIO)
}

/// Runs `work` with the socket in repair mode, given the sequence number at the end of a queue.
fn in_repair<T>(fd: &OwnedFd, queue: i32, work: impl FnOnce(u32) -> Result<T, Errno>) -> Result<T, Errno> {
    // Leaving repair mode clears SO_REUSEADDR.
    let reuse = socket::number(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    socket::set_number(fd.as_fd(), TCP, TCP_REPAIR, 1)?;
    let done = socket::set_number(fd.as_fd(), TCP, TCP_REPAIR_QUEUE, queue)
        .and_then(|()| socket::number(fd.as_fd(), TCP, TCP_QUEUE_SEQ))
        .and_then(|number| work(u32::from_ne_bytes(number.to_ne_bytes())));
    socket::set_number(fd.as_fd(), TCP, TCP_REPAIR, QUIETLY)?;
    socket::set_number(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, reuse)?;
    done
}

/// Connects both ends again; the second is kept for its turn, or closed if it had been.
///
/// # Errors
/// The errno of the calls.
pub fn restore(state: &State, other: Option<u32>, opener: &mut Opener) -> Result<OwnedFd> {
    let gone;
    let second: &State = match other
        .and_then(|entry| opener.entries.get(entry as usize))
        .map(|entry| &entry.state)
    {
        Some(super::State::Inet(second)) => second,
        Some(_) => return Err(Error::new(KIND, "connecting two ends", "the other end is of another kind")),
        None => {
            gone = State {
                family: state.family,
                kind: state.kind,
                protocol: state.protocol,
                local: state.peer.clone(),
                peer: state.local.clone(),
                role: Role::Pair { other: None, unread: Vec::new(), ended: true },
                options: options::State { settings: Vec::new(), filter: Vec::new() },
                groups: Vec::new(),
            };
            &gone
        }
    };
    // Which end listens for the moment shows nowhere; but a port that is listened on suits the accepted one.
    let serves = opener.entries.iter().any(|entry| match &entry.state {
        super::State::Inet(found) => {
            matches!(found.role, Role::Listening { .. })
                && found.local.as_ref().map(Address::port) == state.local.as_ref().map(Address::port)
        }
        _ => false,
    });
    let (mine, its) = if serves { connect(state, second)? } else { swap(connect(second, state)?) };
    fill(&state.role, &its, &mine)?;
    fill(&second.role, &mine, &its)?;
    for (role, fd) in [(&state.role, &mine), (&second.role, &its)] {
        if let Role::Pair { ended: true, .. } = role {
            socket::shutdown(fd.as_fd(), libc::SHUT_WR)
                .context(KIND, format_args!("ending its direction"))?;
        }
    }
    if let Some(other) = other {
        opener.keep((KIND, other), its)?;
    }
    Ok(mine)
}

fn swap((a, b): (OwnedFd, OwnedFd)) -> (OwnedFd, OwnedFd) {
    (b, a)
}

fn connect(server: &State, client: &State) -> Result<(OwnedFd, OwnedFd)> {
    let missing = || Error::new(KIND, "connecting two ends", "an address is missing");
    let (here, there) =
        (server.local.as_ref().ok_or_else(missing)?, client.local.as_ref().ok_or_else(missing)?);
    let target = client.peer.as_ref().ok_or_else(missing)?;
    let listener = fresh(server)?;
    bind(&listener, here)?;
    socket::listen(listener.as_fd(), 1).context(KIND, format_args!("listening on {here} for a moment"))?;
    let connected = fresh(client)?;
    bind(&connected, there)?;
    socket::connect(connected.as_fd(), &target.here()?)
        .context(KIND, format_args!("connecting {there} to {target}"))?;
    let accepted = socket::accept(listener.as_fd()).context(KIND, format_args!("accepting on {here}"))?;
    // SO_REUSEADDR and the like came from the listener; what differs is set once more.
    options::again(&server.options, &accepted)?;
    Ok((accepted, connected))
}

/// Sends what `to` had not read from the end it came from.
fn fill(role: &Role, from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let (Role::Pair { unread, .. } | Role::Over { unread, .. }) = role else { return Ok(()) };
    if unread.is_empty() {
        return Ok(());
    }
    let doing = format_args!("filling its queue");
    let size = i32::try_from(unread.len()).unwrap_or(i32::MAX / 4).saturating_mul(4);
    // The queue may have grown beyond what a fresh connection takes.
    let mut grown = Vec::new();
    for (fd, name, force, bit) in [(from, libc::SO_SNDBUF, 32, 1), (to, libc::SO_RCVBUF, 33, 2)] {
        if socket::number(fd.as_fd(), libc::SOL_SOCKET, name).context(KIND, doing)? < size {
            let asked = socket::number(fd.as_fd(), libc::SOL_SOCKET, SO_BUF_LOCK).unwrap_or(3) & bit != 0;
            let was = socket::number(fd.as_fd(), libc::SOL_SOCKET, name).context(KIND, doing)?;
            socket::set_number(fd.as_fd(), libc::SOL_SOCKET, force, size).context(KIND, doing)?;
            grown.push((fd, force, bit, asked, was));
        }
    }
    let mut rest = unread.as_slice();
    while !rest.is_empty() {
        match socket::send(from.as_fd(), rest, socket::With::default()) {
            Ok(count) => rest = rest.get(count..).unwrap_or(&[]),
            Err(Errno::EAGAIN) => wait(from).context(KIND, doing)?,
            Err(errno) => return Err(errno).context(KIND, doing),
        }
    }
    for (fd, force, bit, asked, was) in grown {
        if asked {
            socket::set_number(fd.as_fd(), libc::SOL_SOCKET, force, was / 2).context(KIND, doing)?;
        } else if let Ok(lock) = socket::number(fd.as_fd(), libc::SOL_SOCKET, SO_BUF_LOCK) {
            // The kernel may size it by itself again.
            socket::set_number(fd.as_fd(), libc::SOL_SOCKET, SO_BUF_LOCK, lock & !bit)
                .context(KIND, doing)?;
        }
    }
    Ok(())
}

fn wait(fd: &OwnedFd) -> Result<(), Errno> {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut fds, PollTimeout::from(1000_u16))? {
        0 => Err(Errno::ETIMEDOUT),
        _ => Ok(()),
    }
}

/// A socket whose connection is over: it is connected on the loopback device, gets its queue and is reset.
///
/// # Errors
/// The errno of the calls.
pub fn over(state: &State, reset: bool, unread: usize) -> Result<OwnedFd> {
    let doing = format_args!("making a connection that is over");
    let mut address = vec![0_u8; if state.family == libc::AF_INET { 16 } else { 28 }];
    address[..2].copy_from_slice(&u16::try_from(state.family).unwrap_or(0).to_ne_bytes());
    if state.family == libc::AF_INET {
        address[4..8].copy_from_slice(&[127, 0, 0, 1]);
    } else {
        address[23] = 1;
    }
    let listener = socket::socket(state.family, libc::SOCK_STREAM, 0).context(KIND, doing)?;
    socket::bind(listener.as_fd(), &address).context(KIND, doing)?;
    socket::listen(listener.as_fd(), 1).context(KIND, doing)?;
    let address = socket::name(listener.as_fd(), false).context(KIND, doing)?;
    let fd = fresh(state)?;
    socket::connect(fd.as_fd(), &address).context(KIND, doing)?;
    let accepted = socket::accept(listener.as_fd()).context(KIND, doing)?;
    fill(&state.role, &accepted, &fd)?;
    // What is not there yet would not outlive the reset.
    let (len, mut left) = (i32::try_from(unread).unwrap_or(0), 1000);
    while ioctl::get(fd.as_fd(), &ioctl::UNREAD) != Ok(len) {
        pty_queue::pause(&mut left).context(KIND, doing)?;
    }
    // A linger time of 0 makes close(2) send a reset.
    let linger = [1_i32.to_ne_bytes(), 0_i32.to_ne_bytes()].concat();
    socket::set_option(accepted.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger).context(KIND, doing)?;
    drop(accepted);
    if !reset {
        // Asking for the error takes it away; what is left reads as the end.
        socket::number(fd.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR).context(KIND, doing)?;
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsFd, OwnedFd};

    use crate::file::State;
    use crate::file::inet::{Role, State as Inet};
    use crate::file::testing::{States, cured, entries_with, refused, states, states_alone};
    use crate::sys::socket;

    fn inet(state: &State) -> &Inet {
        match state {
            State::Inet(state) => state,
            other => panic!("{other:?}"),
        }
    }

    fn same(found: &States) {
        for (before, after) in found.before.iter().zip(&found.after) {
            assert!(before == after, "{:?} {:?}", inet(before).options, inet(after).options);
        }
    }

    fn connection(address: &str) -> (TcpListener, TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap().0;
        (listener, server, client)
    }

    #[test]
    fn listener_comes_back_with_options_and_backlog() {
        for (address, family) in [("127.0.0.1:0", libc::AF_INET), ("[::1]:0", libc::AF_INET6)] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap();
            let fd = OwnedFd::from(listener);
            socket::listen(fd.as_fd(), 9).unwrap();
            socket::set_number(fd.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1).unwrap();
            socket::set_number(fd.as_fd(), libc::SOL_SOCKET, libc::SO_PRIORITY, 3).unwrap();
            let found = states_alone(vec![fd]);
            same(&found);
            let state = inet(&found.before[0]);
            assert_eq!((state.family, &state.role), (family, &Role::Listening { backlog: 9 }));
            TcpStream::connect(port).unwrap();
        }
    }

    #[test]
    fn connection_inside_the_image_goes_on_with_what_was_unread() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (listener, server, client) = connection(address);
            (&client).write_all(b"question").unwrap();
            (&server).write_all(&vec![7; 60_000]).unwrap();
            let (local, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let found = states_alone(vec![client.into(), listener.into(), server.into()]);
            same(&found);
            let mut open = found.open.into_iter();
            let mut client = TcpStream::from(open.next().unwrap());
            let _listener = open.next();
            let mut server = TcpStream::from(open.next().unwrap());
            assert_eq!((client.local_addr().unwrap(), client.peer_addr().unwrap()), (local, peer));
            let mut text = [0; 8];
            server.read_exact(&mut text).unwrap();
            assert_eq!(&text, b"question");
            let mut bytes = vec![0; 60_000];
            client.read_exact(&mut bytes).unwrap();
            assert!(bytes.iter().all(|&byte| byte == 7));
            server.write_all(b"done").unwrap();
            client.read_exact(&mut text[..4]).unwrap();
            assert_eq!(&text[..4], b"done");
        }
    }

    #[test]
    fn bytes_that_do_not_fit_the_receiver_are_not_lost() {
        let (listener, server, client) = connection("127.0.0.1:0");
        client.set_nonblocking(true).unwrap();
        let mut count = 0;
        while let Ok(more) = (&client).write(&[7; 10_000]) {
            count += more;
        }
        client.set_nonblocking(false).unwrap();
        let found = states_alone(vec![server.into(), client.into(), listener.into()]);
        let Role::Pair { unread, .. } = &inet(&found.before[0]).role else { panic!() };
        assert_eq!(unread.len(), count);
        let mut open = found.open.into_iter();
        let mut server = TcpStream::from(open.next().unwrap());
        drop(open);
        let mut bytes = Vec::new();
        server.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), count);
    }

    #[test]
    fn half_closed_connection_comes_back() {
        let (listener, server, client) = connection("127.0.0.1:0");
        (&client).write_all(b"end").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
        drop(listener);
        let found = states_alone(vec![server.into(), client.into()]);
        same(&found);
        let mut server = TcpStream::from(found.open.into_iter().next().unwrap());
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "end");
    }

    #[test]
    fn connection_whose_other_end_was_closed_reads_the_rest() {
        let (listener, server, client) = connection("127.0.0.1:0");
        drop(listener);
        (&client).write_all(b"bye").unwrap();
        drop(client);
        std::thread::sleep(std::time::Duration::from_millis(5));
        let found = states_alone(vec![server.into()]);
        let Role::Pair { other: None, .. } = inet(&found.before[0]).role else { panic!() };
        let mut server = TcpStream::from(found.open.into_iter().next().unwrap());
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bye");
    }

    #[test]
    fn connection_that_was_reset_reports_it() {
        let (_listener, server, client) = connection("127.0.0.1:0");
        (&server).write_all(b"unread").unwrap();
        drop(client);
        std::thread::sleep(std::time::Duration::from_millis(5));
        let found = states(&[&server.into()]);
        same(&found);
        assert_eq!(inet(&found.before[0]).role, Role::Over { reset: true, unread: Vec::new() });
        let error = socket::receive(found.open[0].as_fd(), 1, 0).unwrap_err();
        assert_eq!(error, nix::errno::Errno::ECONNRESET);
    }

    #[test]
    fn udp_comes_back_bound_and_connected() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_broadcast(true).unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        let found = states_alone(vec![server.into(), client.into()]);
        same(&found);
        let mut open = found.open.into_iter();
        let (server, client) = (UdpSocket::from(open.next().unwrap()), UdpSocket::from(open.next().unwrap()));
        assert!(server.broadcast().unwrap());
        client.send(b"x").unwrap();
        assert_eq!(server.recv(&mut [0; 4]).unwrap(), 1);
    }

    #[test]
    fn joined_groups_come_back() {
        let v4 = UdpSocket::bind("0.0.0.0:0").unwrap();
        v4.join_multicast_v4(&"239.1.2.3".parse().unwrap(), &"127.0.0.1".parse().unwrap()).unwrap();
        let v6 = UdpSocket::bind("[::]:0").unwrap();
        v6.join_multicast_v6(&"ff02::1234".parse().unwrap(), 1).unwrap();
        let found = states_alone(vec![v4.into(), v6.into()]);
        same(&found);
        let groups: Vec<_> = found.before.iter().map(|state| inet(state).groups.clone()).collect();
        assert_eq!((groups[0].len(), groups[1].len()), (1, 1));
        assert_eq!(
            (groups[0][0].group.as_slice(), groups[0][0].interface.as_str()),
            (&[239, 1, 2, 3][..], "lo")
        );
    }

    #[test]
    fn raw_and_fresh_sockets_come_back() {
        let raw = socket::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).unwrap();
        socket::set_number(raw.as_fd(), libc::SOL_RAW, 1, 0x55).unwrap();
        let tcp = socket::socket(libc::AF_INET6, libc::SOCK_STREAM, 0).unwrap();
        let found = states(&[&raw, &tcp]);
        same(&found);
        assert_eq!(inet(&found.before[0]).options.settings.len(), 1);
        assert_eq!(inet(&found.before[1]).options.settings.len(), 0);
    }

    #[test]
    fn connection_of_a_rerun_service_counts_as_ended() {
        let (listener, server, client) = connection("127.0.0.1:0");
        drop(listener);
        (&client).write_all(b"before").unwrap();
        let states = crate::file::testing::capture_of_system(&[&server.into()]);
        let Role::Pair { other: None, unread, .. } = &inet(&states[0]).role else { panic!("{states:?}") };
        assert_eq!(unread, b"before");
    }

    #[test]
    fn connection_of_one_that_went_with_bytes_not_sent_is_refused() {
        let (_listener, server, client) = connection("127.0.0.1:0");
        client.set_nonblocking(true).unwrap();
        while (&client).write(&[7; 10_000]).is_ok() {}
        drop(client);
        let server = OwnedFd::from(server);
        let refusal = crate::file::testing::refused_of_system(&[&server]);
        assert!(refusal.reason.contains("outside the image"), "{refusal:?}");
    }

    #[test]
    fn peer_outside_is_refused() {
        let (_listener, server, _client) = connection("127.0.0.1:0");
        assert!(refused(&[&server.into()]).reason.contains("outside the image"));
    }

    #[test]
    fn peer_outside_may_be_closed() {
        let (_listener, server, client) = connection("127.0.0.9:8471");
        let local = client.local_addr().unwrap().ip();
        let (server, client) = (OwnedFd::from(server), OwnedFd::from(client));
        let (line, state) = cured(&[&client]);
        assert_eq!(line, "close = EXE: tcp:127.0.0.9:8471");
        assert_eq!(inet(&state).role, Role::Over { reset: true, unread: Vec::new() });
        // The kernel gave a port to the client: the next one is another.
        let (line, state) = cured(&[&server]);
        assert_eq!(line, format!("close = EXE: tcp:{local}"));
        assert_eq!(inet(&state).role, Role::Over { reset: true, unread: Vec::new() });
        for (line, allowed) in
            [("tcp", true), ("tcp:*:8471", true), ("tcp:127.0.0.9:847", false), ("unix", false)]
        {
            assert_eq!(entries_with(&format!("close = {line}"), &[&client]).is_ok(), allowed, "{line}");
        }
    }
}
