//! A unix socket (unix(7)): stream, datagram or seqpacket.
//!
//! What: its address and the file it is bound to, its role (listening, one of a pair, a client of a server,
//!   left by its peer), who its peer was when it was connected (SO_PEERCRED), what is in its queue with the
//!   descriptors that are on their way there (SCM_RIGHTS), shutdown state, options.
//! Reads: sock_diag(7) for peers, backlogs and shutdown; getsockname(2), getsockopt(2), SIOCUNIXFILE; the
//!   queue with MSG_PEEK from SO_PEEK_OFF on, which copies the descriptors in it.
//! Rebuilds: pairs first, by socketpair(2), or through a listening socket of the moment if one side has an
//!   address; then servers by bind(2) and listen(2); then datagram clients by connect(2). What the kernel
//!   remembers of the caller is done by the process that did it (see [`Actor`](super::Actor)).
//! Loses: supplementary groups in SO_PEERGROUPS; urgent data's mark; the sender's number on a queued message,
//!   if that process is gone; whether unread bytes of a stream were sent before the descriptors behind them.
//! Refuses: a peer outside the image (in a whole system that is a rerun service, and counts as ended);
//!   connections that nobody has accepted, unless `close` lets them end; an epoll or inotify on its way in a queue; a queued datagram from
//!   an address that nobody in the image has; a relative name whose file was moved, and an absolute one whose
//!   file was moved to another directory, or was bound under another root.

use std::os::fd::{AsFd, OwnedFd};

use super::unix_name::{self, Node};
use super::{Description, Opener, World, options, unix_peer, unix_queue};
use crate::config::Key;
use crate::error::{Context, Error, Refusal, Result};
use crate::sys::sockdiag::Unix;
use crate::sys::{descriptor, socket};

const KIND: &str = "unix";
/// Peers that will be gone when every socket is open.
const LEAVES: &str = "unix leaves";
const LISTEN: u8 = 10;
const SO_TYPE: i32 = 3;

crate::section! {
    /// A unix socket in the image.
    pub struct State {
        /// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
        pub kind: i32,
        /// Its address without the family; empty if it has none, beginning with NUL if it is abstract.
        pub name: Vec<u8>,
        /// The file it is bound to.
        pub node: Option<Node>,
        /// What it does.
        pub role: Role,
        /// pid, euid and egid that SO_PEERCRED shows.
        pub peer: Option<(u32, u32, u32)>,
        /// What it has received and not read.
        pub queue: Vec<unix_queue::Message>,
        /// RCV_SHUTDOWN 1, SEND_SHUTDOWN 2.
        pub shutdown: u8,
        /// Options.
        pub options: options::State,
    }
}

crate::section! {
    /// What a unix socket does.
    pub enum Role {
        /// Neither connected nor listening.
        Idle,
        /// Waits for connections.
        Listening {
            /// The backlog.
            backlog: i32,
        },
        /// One of two that are connected with each other, and were made together or by an accept(2).
        Pair {
            /// The other one's entry.
            peer: u32,
        },
        /// A datagram socket that sends to another one.
        Client {
            /// That one's entry.
            server: u32,
        },
        /// Its peer is gone.
        Left {
            /// The address the peer had.
            name: Vec<u8>,
            /// The next call gets ECONNRESET: the peer left without reading everything.
            reset: bool,
        },
    }
}

/// Reads one socket.
///
/// # Errors
/// A refusal, as the head of the file says.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    let fd = desc.fd.as_fd();
    let kind =
        socket::number(fd, libc::SOL_SOCKET, SO_TYPE).context(KIND, format_args!("asking its type"))?;
    let table = world.unix()?;
    let Some(found) = table.get(&desc.stat.ino) else {
        return Err(Refusal::new(
            "it belongs to another network namespace",
            "start its owner after `rcsnap ready`",
        ));
    };
    let name = unix_name::own(&desc.fd)?;
    if (found.waiting > 0 || (found.state == LISTEN && found.queue.0 > 0))
        && let Some(remedy) = world.lacks(Key::Close, desc, &unix_name::shown(&name))
    {
        let reason = "connections wait in its backlog, and may hold data that nobody can read";
        return Err(Refusal::new(reason, remedy));
    }
    let role = role(desc, world, kind, found)?;
    let node = unix_name::node(&desc.fd, &name, found, table, world)?;
    let queue = match role {
        Role::Listening { .. } => Vec::new(),
        _ => unix_queue::read(desc, kind, world)?,
    };
    if kind == libc::SOCK_DGRAM && matches!(role, Role::Left { .. }) && !queue.is_empty() && !name.is_empty()
    {
        let reason = "its peer is gone, and other senders' messages are in its queue";
        return Err(Refusal::new(reason, "call `rcsnap ready` when the daemons are idle"));
    }
    let peer = unix_peer::read(&desc.fd)?;
    if let Some((pid, ..)) = peer {
        unix_peer::check(pid, world)?;
    }
    let connected = matches!(role, Role::Listening { .. }) || kind != libc::SOCK_DGRAM && role != Role::Idle;
    if connected && peer.is_none() {
        let reason = "its peer was connected by a process of another pid namespace";
        return Err(Refusal::new(reason, "start both owners after `rcsnap ready`"));
    }
    let options = options::capture(&desc.fd, (libc::AF_UNIX, kind, 0), world)?;
    Ok(Box::new(State { kind, name, node, role, peer, queue, shutdown: found.shutdown, options }))
}

fn role(desc: &Description, world: &World<'_>, kind: i32, found: &Unix) -> Result<Role, Refusal> {
    if found.state == LISTEN {
        return Ok(Role::Listening { backlog: i32::try_from(found.queue.1).unwrap_or(i32::MAX) });
    }
    let Some(peer) = found.peer else { return Ok(Role::Idle) };
    if peer == 0 {
        let name = unix_name::peer(&desc.fd, world);
        return Ok(Role::Left {
            name,
            reset: failed(&desc.fd).context(KIND, format_args!("looking for errors"))?,
        });
    }
    let is_peer = |other: &&Description| other.stat.dev == desc.stat.dev && other.stat.ino == u64::from(peer);
    let Some(other) = world.descriptions.iter().find(is_peer) else {
        if world.outside_ends() {
            return Ok(Role::Left { name: unix_name::peer(&desc.fd, world), reset: false });
        }
        return Err(Refusal::new("its peer is outside the image", "start both owners after `rcsnap ready`"));
    };
    if other.external.is_some() {
        return Err(Refusal::new("its peer is the caller's own", "give this end as an external too"));
    }
    if kind != libc::SOCK_DGRAM {
        return Ok(Role::Pair { peer: other.entry });
    }
    // Only a datagram pair without addresses can have been made by socketpair(2).
    let named = !unix_name::own(&desc.fd)?.is_empty() || !unix_name::own(&other.fd)?.is_empty();
    let back = world.unix()?.get(&other.stat.ino).and_then(|other| other.peer).map(u64::from);
    if !named && back == Some(desc.stat.ino) {
        return Ok(Role::Pair { peer: other.entry });
    }
    if unix_name::own(&other.fd)?.is_empty() {
        let reason = "it sends to a socket without an address that does not send back";
        return Err(Refusal::new(reason, "start its owner after `rcsnap ready`"));
    }
    Ok(Role::Client { server: other.entry })
}

/// Whether an error waits to be reported; asking for it would take it away.
fn failed(fd: &OwnedFd) -> nix::Result<bool> {
    Ok(descriptor::ready(fd.as_fd(), 0)? & libc::POLLERR != 0)
}

/// Opens one socket. Of a pair, the second is kept until its own turn.
///
/// # Errors
/// The errno of the calls.
pub fn restore(state: &State, opener: &mut Opener) -> Result<OwnedFd> {
    if let Some(fd) = opener.ends.remove(&(KIND, opener.entry)) {
        return Ok(fd);
    }
    match &state.role {
        Role::Pair { peer } => {
            let (fd, second) = pair(state, other(opener, *peer)?, opener)?;
            opener.keep((KIND, *peer), second)?;
            Ok(fd)
        }
        Role::Left { name, reset } => left(state, name, *reset, opener),
        Role::Idle | Role::Client { .. } | Role::Listening { .. } => open(state, opener),
    }
}

fn other<'a>(opener: &Opener<'a>, entry: u32) -> Result<&'a State> {
    match opener.entries.get(entry as usize).map(|entry| &entry.state) {
        Some(super::State::Unix(state)) => Ok(state),
        _ => Err(Error::new(KIND, format!("looking for entry {entry}"), "it is not a unix socket")),
    }
}

fn fresh(state: &State) -> Result<OwnedFd> {
    let fd = socket::socket(libc::AF_UNIX, state.kind, 0).context(KIND, format_args!("making one"))?;
    options::restore(&state.options, &fd)?;
    Ok(fd)
}

/// A socket on its own: bound, listening, or neither.
fn open(state: &State, opener: &mut Opener) -> Result<OwnedFd> {
    let fd = fresh(state)?;
    if !state.name.is_empty() {
        unix_name::bind(&fd, &state.name, state.node.as_ref(), &mut |node| {
            // A later client reaches a deleted name through this.
            if let Some(node) = node {
                let key = ("unix node", opener.entry);
                opener.keep(key, node)?;
            }
            Ok(())
        })?;
    }
    if let Role::Listening { backlog } = state.role {
        unix_peer::listen(opener, &unix_peer::who(state)?, &fd, backlog)?;
    }
    Ok(fd)
}

/// Both sockets of a connection. What `first` sees as its peer is who made `second`, and the reverse.
fn pair(first: &State, second: &State, opener: &mut Opener) -> Result<(OwnedFd, OwnedFd)> {
    if first.name.is_empty() && second.name.is_empty() {
        let made = unix_peer::socketpair(opener, &unix_peer::who(first)?, first.kind)?;
        options::restore(&first.options, &made.0)?;
        options::restore(&second.options, &made.1)?;
        return Ok(made);
    }
    // The accepted side has its listener's address, so the name is borrowed.
    let borrowed = |state: &State| state.node.as_ref().is_some_and(|node| !node.live);
    let first_serves =
        !first.name.is_empty() && (second.name.is_empty() || borrowed(first) || !borrowed(second));
    let (server, client) = if first_serves { (first, second) } else { (second, first) };
    let (accepted, connected) = connection(server, client, opener)?;
    if first_serves { Ok((accepted, connected)) } else { Ok((connected, accepted)) }
}

/// Connects through a socket that listens under the server's address for a moment.
fn connection(server: &State, client: &State, opener: &mut Opener) -> Result<(OwnedFd, OwnedFd)> {
    let listener =
        socket::socket(libc::AF_UNIX, server.kind, 0).context(KIND, format_args!("making a listener"))?;
    let connected = fresh(client)?;
    if !client.name.is_empty() {
        unix_name::bind(&connected, &client.name, client.node.as_ref(), &mut |_| Ok(()))?;
    }
    let (makes, connects) = (unix_peer::who(client)?, unix_peer::who(server)?);
    let address = unix_name::reachable(&server.name, server.node.as_ref());
    let mut accepted = None;
    unix_name::bind(&listener, &server.name, server.node.as_ref(), &mut |_| {
        unix_peer::listen(opener, &makes, &listener, 1)?;
        unix_peer::connect(opener, &connects, &connected, &address)?;
        accepted = Some(socket::accept(listener.as_fd()).context(KIND, format_args!("accepting"))?);
        Ok(())
    })?;
    let accepted = accepted.ok_or_else(|| Error::new(KIND, "accepting", "nobody connected"))?;
    options::restore(&server.options, &accepted)?;
    Ok((accepted, connected))
}

/// A socket whose peer is gone: it is connected once more, gets its queue, and is left again.
fn left(state: &State, name: &[u8], reset: bool, opener: &mut Opener) -> Result<OwnedFd> {
    let options = options::State { settings: Vec::new(), filter: Vec::new() };
    let gone = State {
        kind: state.kind,
        name: name.to_vec(),
        node: (!name.is_empty() && name[0] != 0).then(|| Node::passing(name)),
        role: Role::Idle,
        peer: state.peer,
        queue: Vec::new(),
        shutdown: state.shutdown,
        options,
    };
    let (fd, peer) = if state.kind == libc::SOCK_DGRAM && !(state.name.is_empty() && name.is_empty()) {
        let fd = open(state, opener)?;
        let peer = fresh(&gone)?;
        unix_name::bind(&peer, name, gone.node.as_ref(), &mut |_| {
            let address = unix_name::reachable(name, gone.node.as_ref());
            socket::connect(fd.as_fd(), &address)
                .context(KIND, format_args!("connecting to a peer that is gone"))
        })?;
        (fd, peer)
    } else if state.peer.is_some() {
        pair(state, &gone, opener)?
    } else {
        let made = socket::pair(state.kind).context(KIND, format_args!("making a pair"))?;
        options::restore(&state.options, &made.0)?;
        made
    };
    if state.queue.iter().any(|message| !message.rights.is_empty()) {
        // What is on its way in there may not be open yet.
        opener.keep((LEAVES, opener.entry), peer)?;
    } else {
        leave(state, reset, &fd, &peer, opener)?;
    }
    Ok(fd)
}

/// The peer's last acts.
fn leave(state: &State, reset: bool, fd: &OwnedFd, peer: &OwnedFd, opener: &Opener) -> Result<()> {
    if state.kind != libc::SOCK_DGRAM || state.name.is_empty() {
        unix_queue::write(&state.queue, fd, &state.name, Some(peer), opener)?;
    }
    if reset {
        socket::send(fd.as_fd(), b"x", socket::With::default())
            .context(KIND, format_args!("leaving something unread"))?;
    }
    Ok(())
}

/// What needs all sockets to be open: queues, datagram clients, shutdown.
///
/// # Errors
/// The errno of the calls.
pub fn finish(state: &State, entry: u32, opener: &mut Opener) -> Result<()> {
    let copy = |opener: &Opener, entry| {
        let fd =
            opener.get(entry).ok_or_else(|| Error::new(KIND, "completing a socket", "it is not open"))?;
        descriptor::copy(fd, 3).context(KIND, format_args!("copying"))
    };
    let fd = copy(opener, entry)?;
    match &state.role {
        Role::Left { reset, .. } => {
            let peer = opener.ends.remove(&(LEAVES, entry));
            return peer.map_or(Ok(()), |peer| leave(state, *reset, &fd, &peer, opener));
        }
        Role::Pair { peer } => {
            let peer = copy(opener, *peer)?;
            unix_queue::write(&state.queue, &fd, &state.name, Some(&peer), opener)?;
        }
        // Before it is connected, because then only its peer may send to it.
        _ => unix_queue::write(&state.queue, &fd, &state.name, None, opener)?,
    }
    if let Role::Client { server } = state.role {
        let address = unix_name::of_server(server, opener)?;
        socket::connect(fd.as_fd(), &address)
            .context(KIND, format_args!("connecting to a datagram server"))?;
    }
    Ok(())
}

/// Shuts down what was shut down: after every queue is filled.
///
/// # Errors
/// The errno of the call.
pub fn shut(state: &State, fd: &OwnedFd) -> Result<()> {
    let how = match state.shutdown {
        _ if matches!(state.role, Role::Left { .. } | Role::Listening { .. }) => return Ok(()),
        1 => libc::SHUT_RD,
        2 => libc::SHUT_WR,
        3 => libc::SHUT_RDWR,
        _ => return Ok(()),
    };
    socket::shutdown(fd.as_fd(), how).context(KIND, format_args!("shutting down"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::Role;
    use crate::file::testing::{
        States, cured, directory, refused, states, states_alone, states_of_system, table,
    };
    use crate::file::{State, unix};
    use crate::sys::socket::{self, accept, bind, connect, listen, pair, receive, send, shutdown};

    const SORTS: [i32; 3] = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET];

    fn state(state: &State) -> &unix::State {
        match state {
            State::Unix(state) => state,
            other => panic!("{other:?}"),
        }
    }

    fn say(fd: &OwnedFd, text: &[u8]) {
        assert_eq!(send(fd.as_fd(), text, socket::With::default()).unwrap(), text.len());
    }

    fn hear(fd: &OwnedFd) -> Vec<u8> {
        receive(fd.as_fd(), 100, libc::MSG_DONTWAIT).unwrap()
    }

    fn new(kind: i32) -> OwnedFd {
        socket::socket(libc::AF_UNIX, kind, 0).unwrap()
    }

    fn path(dir: &str, name: &str) -> Vec<u8> {
        super::unix_name::address(format!("{dir}/{name}\0").as_bytes())
    }

    fn same(found: &States) {
        for (before, after) in found.before.iter().zip(&found.after) {
            assert_eq!(before, after);
        }
    }

    #[test]
    fn pairs_with_data_in_both_queues_come_back() {
        for kind in SORTS {
            let (a, b) = pair(kind).unwrap();
            say(&a, b"one");
            say(&a, b"two");
            say(&b, b"back");
            let found = states(&[&a, &b]);
            same(&found);
            assert_eq!(state(&found.before[0]).role, Role::Pair { peer: 1 });
            if kind == libc::SOCK_STREAM {
                assert_eq!(hear(&found.open[1]), b"onetwo");
            } else {
                assert_eq!((hear(&found.open[1]), hear(&found.open[1])), (b"one".to_vec(), b"two".to_vec()));
            }
            assert_eq!(hear(&found.open[0]), b"back");
            say(&found.open[0], b"more");
            assert_eq!(hear(&found.open[1]), b"more");
            // The originals have kept theirs.
            assert!(hear(&b).starts_with(b"one"));
        }
    }

    #[test]
    fn empty_datagrams_keep_their_place() {
        let (a, b) = pair(libc::SOCK_DGRAM).unwrap();
        for text in [&b""[..], b"x", b""] {
            say(&a, text);
        }
        let open = table(&[&a, &b]);
        assert_eq!((hear(&open[1]), hear(&open[1]), hear(&open[1])), (vec![], b"x".to_vec(), vec![]));
    }

    #[test]
    fn listener_with_backlog_mode_and_accepted_connection_come_back() {
        use std::os::unix::fs::PermissionsExt;
        let dir = directory();
        let address = path(&dir, "server");
        for kind in [libc::SOCK_STREAM, libc::SOCK_SEQPACKET] {
            let (server, client) = (new(kind), new(kind));
            bind(server.as_fd(), &address).unwrap();
            let mode = std::fs::Permissions::from_mode(0o631);
            std::fs::set_permissions(format!("{dir}/server"), mode).unwrap();
            listen(server.as_fd(), 7).unwrap();
            connect(client.as_fd(), &address).unwrap();
            let accepted = accept(server.as_fd()).unwrap();
            say(&client, b"question");
            let found = states_alone(vec![accepted, client, server]);
            same(&found);
            assert_eq!(state(&found.before[2]).role, Role::Listening { backlog: 7 });
            assert_eq!(hear(&found.open[0]), b"question");
            assert_eq!(socket::name(found.open[1].as_fd(), true).unwrap(), address);
            let another = new(kind);
            connect(another.as_fd(), &address).unwrap();
            let accepted = accept(found.open[2].as_fd()).unwrap();
            say(&another, b"hi");
            assert_eq!(hear(&accepted), b"hi");
            std::fs::remove_file(format!("{dir}/server")).unwrap();
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn abstract_listener_comes_back_with_its_connection() {
        let name = format!("\0rcsnap-test-{}", std::process::id());
        let address = super::unix_name::address(name.as_bytes());
        let (server, client) = (new(libc::SOCK_STREAM), new(libc::SOCK_STREAM));
        bind(server.as_fd(), &address).unwrap();
        listen(server.as_fd(), 3).unwrap();
        connect(client.as_fd(), &address).unwrap();
        let accepted = accept(server.as_fd()).unwrap();
        let found = states_alone(vec![server, accepted, client]);
        same(&found);
        say(&found.open[1], b"answer");
        assert_eq!(hear(&found.open[2]), b"answer");
    }

    #[test]
    fn many_clients_of_one_datagram_server_come_back() {
        let dir = directory();
        let address = path(&dir, "log");
        let server = new(libc::SOCK_DGRAM);
        bind(server.as_fd(), &address).unwrap();
        let clients: Vec<_> = (0..3).map(|_| new(libc::SOCK_DGRAM)).collect();
        for client in &clients {
            connect(client.as_fd(), &address).unwrap();
            say(client, b"early");
        }
        let mut all = clients;
        all.push(server);
        let found = states_alone(all);
        same(&found);
        assert_eq!(state(&found.before[0]).role, Role::Client { server: 3 });
        assert_eq!(state(&found.before[3]).queue.len(), 3);
        for _ in 0..3 {
            assert_eq!(hear(&found.open[3]), b"early");
        }
        say(&found.open[1], b"late");
        assert_eq!(hear(&found.open[3]), b"late");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn server_whose_file_was_deleted_keeps_its_clients_and_the_name_stays_free() {
        let dir = directory();
        let address = path(&dir, "gone");
        let (server, client) = (new(libc::SOCK_DGRAM), new(libc::SOCK_DGRAM));
        bind(server.as_fd(), &address).unwrap();
        connect(client.as_fd(), &address).unwrap();
        std::fs::write(format!("{dir}/keep"), "").unwrap();
        std::fs::remove_file(format!("{dir}/gone")).unwrap();
        std::fs::write(format!("{dir}/gone"), "a plain file").unwrap();
        let found = states_alone(vec![client, server]);
        same(&found);
        say(&found.open[0], b"still");
        assert_eq!(hear(&found.open[1]), b"still");
        assert_eq!(std::fs::read_to_string(format!("{dir}/gone")).unwrap(), "a plain file");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn half_closed_connection_comes_back() {
        let (a, b) = pair(libc::SOCK_STREAM).unwrap();
        say(&a, b"last words");
        shutdown(a.as_fd(), libc::SHUT_WR).unwrap();
        let found = states(&[&a, &b]);
        same(&found);
        assert_eq!(hear(&found.open[1]), b"last words");
        assert_eq!(hear(&found.open[1]), b"");
        say(&found.open[1], b"reply");
        assert_eq!(hear(&found.open[0]), b"reply");
    }

    #[test]
    fn socket_left_by_its_peer_reads_the_rest_and_then_the_end() {
        let (a, b) = pair(libc::SOCK_STREAM).unwrap();
        say(&b, b"rest");
        drop(b);
        let found = states(&[&a]);
        same(&found);
        assert_eq!(hear(&found.open[0]), b"rest");
        assert_eq!(hear(&found.open[0]), b"");
    }

    #[test]
    fn reset_by_a_peer_that_left_early_comes_back() {
        let (a, b) = pair(libc::SOCK_STREAM).unwrap();
        say(&a, b"never read");
        drop(b);
        let found = states(&[&a]);
        same(&found);
        let error = receive(found.open[0].as_fd(), 10, libc::MSG_DONTWAIT).unwrap_err();
        assert_eq!(error, nix::errno::Errno::ECONNRESET);
    }

    #[test]
    fn client_of_a_datagram_server_that_is_gone_gets_refused() {
        let dir = directory();
        let address = path(&dir, "syslog");
        let (server, client) = (new(libc::SOCK_DGRAM), new(libc::SOCK_DGRAM));
        bind(server.as_fd(), &address).unwrap();
        connect(client.as_fd(), &address).unwrap();
        drop(server);
        let found = states(&[&client]);
        same(&found);
        assert_eq!(socket::name(found.open[0].as_fd(), true).unwrap(), address);
        let error = send(found.open[0].as_fd(), b"x", socket::With::default()).unwrap_err();
        assert_eq!(error, nix::errno::Errno::ECONNREFUSED);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn options_and_credentials_of_queued_bytes_come_back() {
        let (a, b) = pair(libc::SOCK_STREAM).unwrap();
        socket::set_number(b.as_fd(), 1, libc::SO_PASSCRED, 1).unwrap();
        socket::set_number(b.as_fd(), 1, libc::SO_RCVBUF, 50_000).unwrap();
        say(&a, b"signed");
        socket::set_number(b.as_fd(), 1, libc::SO_PASSCRED, 0).unwrap();
        say(&a, b"not signed");
        socket::set_number(b.as_fd(), 1, libc::SO_PASSCRED, 1).unwrap();
        let found = states(&[&a, &b]);
        same(&found);
        let queue = &state(&found.before[1]).queue;
        assert_eq!(queue[0].who, Some([std::process::id(), 0, 0]));
        assert_eq!((queue.len(), queue[1].who), (2, None));
        assert_eq!(state(&found.before[1]).options.settings.len(), 2);
    }

    /// A number that no process has.
    fn free_pid() -> u32 {
        (20_000..30_000).find(|pid| !crate::file::unix_peer::lives(*pid)).unwrap()
    }

    fn peer(fd: &OwnedFd) -> (u32, u32, u32) {
        crate::file::unix_peer::read(fd).unwrap().unwrap()
    }

    #[test]
    fn what_a_process_made_that_is_gone_still_shows_it() {
        let dir = directory();
        let address = path(&dir, "daemon");
        let (first, second) = (free_pid(), free_pid() + 1);
        let (server, client) = (new(libc::SOCK_STREAM), new(libc::SOCK_STREAM));
        bind(server.as_fd(), &address).unwrap();
        crate::sys::brief::listen_as([first, 0, 0], server.as_fd(), 5).unwrap();
        crate::sys::brief::connect_as([second, 0, 9], client.as_fd(), &address).unwrap();
        let accepted = accept(server.as_fd()).unwrap();
        let (one, two) = crate::sys::brief::pair_as([first, 7, 8], libc::SOCK_SEQPACKET).unwrap();
        let found = states_alone(vec![server, client, accepted, one, two]);
        same(&found);
        let seen: Vec<_> = found.open.iter().map(peer).collect();
        let expected = [(first, 0, 0), (first, 0, 0), (second, 0, 9), (first, 7, 8), (first, 7, 8)];
        assert_eq!(seen, expected);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn peer_of_a_rerun_service_counts_as_ended() {
        let (a, b) = pair(libc::SOCK_STREAM).unwrap();
        say(&b, b"before");
        let found = states_of_system(vec![a]);
        assert_eq!(hear(&found.open[0]), b"before");
        assert_eq!(hear(&found.open[0]), b"");
    }

    #[test]
    fn peer_outside_is_refused() {
        let (a, _b) = pair(libc::SOCK_STREAM).unwrap();
        assert!(refused(&[&a]).reason.contains("peer is outside"));
    }

    #[test]
    fn waiting_connection_is_refused() {
        let dir = directory();
        let address = path(&dir, "busy");
        let (server, client) = (new(libc::SOCK_STREAM), new(libc::SOCK_STREAM));
        bind(server.as_fd(), &address).unwrap();
        listen(server.as_fd(), 3).unwrap();
        connect(client.as_fd(), &address).unwrap();
        assert!(refused(&[&server, &client]).reason.contains("backlog"));
        let (line, state) = cured(&[&server]);
        assert_eq!(line, format!("close = EXE: unix:{dir}/busy"));
        assert!(matches!(&state, State::Unix(state) if state.role == Role::Listening { backlog: 3 }));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn descriptors_on_their_way_come_back_where_they_were() {
        use std::os::fd::AsRawFd;
        let (a, b) = pair(libc::SOCK_STREAM).unwrap();
        let (out, into) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let rights = [out.as_raw_fd(), into.as_raw_fd()].map(i32::cast_unsigned);
        say(&a, b"plain");
        let with = |rights| socket::With { rights, ..socket::With::default() };
        send(a.as_fd(), b"with", with(&rights)).unwrap();
        say(&a, b"after");
        send(a.as_fd(), b"again", with(&rights[1..])).unwrap();
        let found = states(&[&a, &b, &out, &into]);
        let seen = |state: &unix::State| {
            state.queue.iter().map(|m| (m.bytes.clone(), m.rights.clone())).collect::<Vec<_>>()
        };
        let before = seen(state(&found.before[1]));
        let expected: [(&[u8], &[u32]); 2] = [(b"plainwith", &[2, 3]), (b"afteragain", &[3])];
        assert_eq!(before, expected.map(|(bytes, rights)| (bytes.to_vec(), rights.to_vec())));
        assert_eq!(seen(state(&found.after[1])), before);
    }

    #[test]
    fn epoll_on_its_way_is_refused() {
        use std::os::fd::AsRawFd;
        let (a, b) = pair(libc::SOCK_STREAM).unwrap();
        let epoll = nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::EPOLL_CLOEXEC).unwrap().0;
        let rights = [epoll.as_raw_fd().cast_unsigned()];
        send(a.as_fd(), b"x", socket::With { rights: &rights, ..socket::With::default() }).unwrap();
        assert!(refused(&[&a, &b, &epoll]).reason.contains("on its way"));
    }
}
