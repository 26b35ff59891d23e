//! Kind `unix`: pairs and connections of all types with what waits in them, listeners, credentials and options.

use std::os::fd::IntoRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use zoo::{Outcome, Zoo, fd, net, sys};

fn main() {
    zoo::run(program)
}

fn pair(kind: i32) -> Outcome<[i32; 2]> {
    let mut ends = [0; 2];
    sys!(socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()))?;
    Ok(ends)
}

fn option(socket: i32, name: i32) -> String {
    net::option(socket, libc::SOL_SOCKET, name)
}

fn set(socket: i32, name: i32, value: i32) -> Outcome {
    sys!(setsockopt(socket, libc::SOL_SOCKET, name, (&raw const value).cast(), 4))?;
    Ok(())
}

fn names(socket: i32) -> String {
    let mut address: libc::sockaddr_un = sys::zeroed();
    let mut length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: room for an address, with its length.
    let (own, peer) = unsafe {
        let at = (&raw mut address).cast::<libc::sockaddr>();
        let own = (libc::getsockname(socket, at, &raw mut length), length, address.sun_path);
        length = size_of_val(&address) as libc::socklen_t;
        address = sys::zeroed();
        (own, (libc::getpeername(socket, at, &raw mut length), length, address.sun_path))
    };
    let text = |path: &[libc::c_char]| {
        path.iter().take(40).map(|c| if *c == 0 { '.' } else { *c as u8 as char }).collect::<String>()
    };
    format!("{} {} {} / {} {} {}", own.0, own.1, text(&own.2), peer.0, peer.1, text(&peer.2))
}

const OPTIONS: [i32; 11] = [
    libc::SO_TYPE,
    libc::SO_PASSCRED,
    libc::SO_PEERCRED,
    libc::SO_SNDBUF,
    libc::SO_RCVBUF,
    libc::SO_ACCEPTCONN,
    libc::SO_RCVTIMEO,
    libc::SO_SNDTIMEO,
    libc::SO_RCVLOWAT,
    libc::SO_PRIORITY,
    libc::SO_LINGER,
];

fn keep(zoo: &mut Zoo, socket: i32) {
    zoo.keep(&format!("flags of {socket}"), move || fd::flags(socket));
    zoo.keep(&format!("names of {socket}"), move || names(socket));
    for name in OPTIONS {
        zoo.keep(&format!("option {name} of {socket}"), move || option(socket, name));
    }
}

fn program(zoo: &mut Zoo) -> Outcome {
    let stream = pair(libc::SOCK_STREAM | libc::SOCK_CLOEXEC)?;
    fd::write(stream[0], b"one way")?;
    fd::write(stream[1], &vec![b'o'; 100_000])?;
    set(stream[1], libc::SO_PASSCRED, 1)?;
    set(stream[0], libc::SO_SNDBUF, 30_000)?;
    let limit = zoo::time::val(12_340);
    let size = size_of_val(&limit) as libc::socklen_t;
    sys!(setsockopt(stream[0], libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const limit).cast(), size))?;
    let packets = pair(libc::SOCK_SEQPACKET)?;
    fd::write(packets[0], b"first")?;
    fd::write(packets[0], b"second packet")?;
    let datagrams = pair(libc::SOCK_DGRAM | libc::SOCK_NONBLOCK)?;
    fd::write(datagrams[1], b"datagram")?;
    let half = pair(libc::SOCK_STREAM)?;
    fd::write(half[0], b"last")?;
    sys!(shutdown(half[0], libc::SHUT_WR))?;
    let lone = pair(libc::SOCK_STREAM)?;
    fd::write(lone[1], b"goodbye")?;
    fd::close(lone[1]);
    let bare = sys!(socket(libc::AF_UNIX, libc::SOCK_STREAM, 0))?;
    for socket in [stream, packets, datagrams, half].concat().into_iter().chain([bare]) {
        keep(zoo, socket);
    }
    zoo.keep("flags of one without a peer", move || fd::flags(lone[0]));
    let named = named(zoo)?;
    let log = log(zoo)?;
    let child = zoo.fork(move |zoo| {
        zoo.arrive();
        zoo.expect("what the parent sends after the wait", fd::read_text(half[0]), "ping".to_owned());
        Ok(())
    })?;
    zoo.ready();

    zoo.expect("a stream's contents", fd::read_text(stream[1]), "one way".to_owned());
    let mut count = 0;
    while fd::polled(stream[0], libc::POLLIN) & libc::POLLIN != 0 {
        count += fd::read(stream[0], 65536)?.len();
    }
    zoo.expect("the length of the other way's contents", count, 100_000);
    fd::write(stream[0], b"again")?;
    zoo.expect("a stream after the wait", fd::read_text(stream[1]), "again".to_owned());
    zoo.expect("a packet", fd::read_text(packets[1]), "first".to_owned());
    zoo.expect("the next packet", fd::read_text(packets[1]), "second packet".to_owned());
    zoo.expect("a datagram", fd::read_text(datagrams[0]), "datagram".to_owned());
    zoo.check("no more datagrams", fd::read(datagrams[0], 10).is_err());
    zoo.expect("before the shutdown", fd::read_text(half[1]), "last".to_owned());
    zoo.expect("the shutdown", fd::read_text(half[1]), String::new());
    fd::write(half[1], b"ping")?;
    zoo.reap("the child that shares a socket", child);
    zoo.expect("the last words of a closed peer", fd::read_text(lone[0]), "goodbye".to_owned());
    zoo.expect("its end", fd::read_text(lone[0]), String::new());
    named.check(zoo)?;
    log.check(zoo)
}

/// A listener with a path, one connection to it, and a listener with an abstract name.
struct Named {
    path: std::path::PathBuf,
    listener: i32,
    server: i32,
    client: i32,
    hidden: i32,
    renamed: Vec<(std::path::PathBuf, i32)>,
}

/// Listeners that were bound to a passing name, as a server does that takes a place over when it is ready: the file
/// of one is renamed, that of the other has a second name and loses the first.
fn renamed(zoo: &mut Zoo) -> Outcome<Vec<(std::path::PathBuf, i32)>> {
    let mut all = Vec::new();
    for (name, second) in [("renamed", false), ("second name", true)] {
        let (path, passing) = (zoo.path(name), zoo.path(&format!("{name}.new")));
        let listener = UnixListener::bind(&passing)?.into_raw_fd();
        if second {
            std::fs::hard_link(&passing, &path)?;
            std::fs::remove_file(&passing)?;
        } else {
            std::fs::rename(&passing, &path)?;
        }
        keep(zoo, listener);
        all.push((path, listener));
    }
    Ok(all)
}

fn named(zoo: &mut Zoo) -> Outcome<Named> {
    let path = zoo.path("socket");
    let listener = UnixListener::bind(&path)?;
    let client = UnixStream::connect(&path)?.into_raw_fd();
    let server = listener.accept()?.0.into_raw_fd();
    let listener = listener.into_raw_fd();
    fd::write(client, b"request")?;
    sys!(chmod(zoo.cpath("socket")?.as_ptr(), 0o4622))?;
    let hidden = sys!(socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK, 0))?;
    let (address, length) = hidden_name();
    sys!(bind(hidden, (&raw const address).cast(), length))?;
    sys!(listen(hidden, 7))?;
    for socket in [listener, server, client, hidden] {
        keep(zoo, socket);
    }
    let name = path.clone();
    zoo.keep("mode of the socket's node", move || {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(&name).map_or_else(|e| e.to_string(), |meta| format!("{:o}", meta.mode()))
    });
    Ok(Named { path, listener, server, client, hidden, renamed: renamed(zoo)? })
}

/// An abstract name with a NUL inside.
fn hidden_name() -> (libc::sockaddr_un, libc::socklen_t) {
    let mut address: libc::sockaddr_un = sys::zeroed();
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let name = format!("\0zoo\0{}", std::process::id());
    for (to, from) in address.sun_path.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    (address, (size_of::<libc::sa_family_t>() + name.len()) as libc::socklen_t)
}

impl Named {
    fn check(self, zoo: &mut Zoo) -> Outcome {
        zoo.expect("a request that waited", fd::read_text(self.server), "request".to_owned());
        fd::write(self.server, b"answer")?;
        zoo.expect("the answer", fd::read_text(self.client), "answer".to_owned());
        let new = UnixStream::connect(&self.path)?.into_raw_fd();
        let accepted = sys!(accept(self.listener, std::ptr::null_mut(), std::ptr::null_mut()))?;
        fd::write(new, b"new")?;
        zoo.expect("a new connection", fd::read_text(accepted), "new".to_owned());
        zoo.check("nobody else is in the queue", fd::polled(self.listener, libc::POLLIN) == 0);
        for (path, listener) in self.renamed {
            fd::write(UnixStream::connect(&path)?.into_raw_fd(), b"new")?;
            let accepted = sys!(accept(listener, std::ptr::null_mut(), std::ptr::null_mut()))?;
            zoo.expect("a connection by a later name", fd::read_text(accepted), "new".to_owned());
            zoo.check("the first name is gone", !path.with_extension("new").exists());
        }
        let (address, length) = hidden_name();
        let new = sys!(socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0))?;
        sys!(connect(new, (&raw const address).cast(), length))?;
        zoo.check("the abstract listener", fd::polled(self.hidden, libc::POLLIN) != 0);
        Ok(())
    }
}

/// The way of syslog: one datagram server, many clients.
struct Log {
    path: std::path::PathBuf,
    server: i32,
    clients: Vec<i32>,
}

fn log(zoo: &mut Zoo) -> Outcome<Log> {
    let path = zoo.path("log");
    let server = UnixDatagram::bind(&path)?.into_raw_fd();
    let mut clients = Vec::new();
    for number in 0..3 {
        let client = UnixDatagram::unbound()?;
        client.connect(&path)?;
        client.send(format!("line {number}").as_bytes())?;
        clients.push(client.into_raw_fd());
    }
    for socket in clients.iter().chain([&server]) {
        keep(zoo, *socket);
    }
    Ok(Log { path, server, clients })
}

impl Log {
    fn check(self, zoo: &mut Zoo) -> Outcome {
        for number in 0..3 {
            zoo.expect("a line that waited", fd::read_text(self.server), format!("line {number}"));
        }
        for client in self.clients {
            fd::write(client, b"later")?;
            zoo.expect("a line after the wait", fd::read_text(self.server), "later".to_owned());
        }
        let new = UnixDatagram::unbound()?;
        new.send_to(b"unconnected", &self.path)?;
        zoo.expect("a line from somebody new", fd::read_text(self.server), "unconnected".to_owned());
        Ok(())
    }
}
