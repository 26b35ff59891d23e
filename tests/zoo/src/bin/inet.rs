//! Kind `inet`: TCP listeners, connections over loopback with data under way and ended in every way, bound and bare
//! sockets, also where the address is not there any more, options.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd};

use zoo::{Outcome, Zoo, fd, net, sys};

fn main() {
    zoo::run(program)
}

fn set(socket: i32, level: i32, name: i32, value: i32) -> Outcome {
    sys!(setsockopt(socket, level, name, (&raw const value).cast(), 4))?;
    Ok(())
}

const TCP: i32 = libc::IPPROTO_TCP;
const IP: i32 = libc::IPPROTO_IP;
const SOL: i32 = libc::SOL_SOCKET;

fn keep(zoo: &mut Zoo, socket: i32, what: &'static str) {
    zoo.keep(&format!("flags of {what}"), move || fd::flags(socket));
    let options = [
        (SOL, libc::SO_REUSEADDR),
        (SOL, libc::SO_REUSEPORT),
        (SOL, libc::SO_KEEPALIVE),
        (SOL, libc::SO_LINGER),
        (SOL, libc::SO_ACCEPTCONN),
        (SOL, libc::SO_RCVTIMEO),
        (SOL, libc::SO_PRIORITY),
        (SOL, libc::SO_OOBINLINE),
        (IP, libc::IP_TOS),
        (IP, libc::IP_TTL),
        (IP, libc::IP_FREEBIND),
        (TCP, libc::TCP_NODELAY),
        (TCP, libc::TCP_KEEPIDLE),
        (TCP, libc::TCP_KEEPINTVL),
        (TCP, libc::TCP_KEEPCNT),
        (TCP, libc::TCP_USER_TIMEOUT),
        (TCP, libc::TCP_DEFER_ACCEPT),
    ];
    for (level, name) in options {
        zoo.keep(&format!("option {level}.{name} of {what}"), move || net::option(socket, level, name));
    }
    zoo.keep(&format!("addresses of {what}"), move || addresses(socket));
}

fn addresses(socket: i32) -> String {
    let mut address: libc::sockaddr_in6 = sys::zeroed();
    let mut text = String::new();
    for peer in [false, true] {
        let mut length = size_of_val(&address) as libc::socklen_t;
        let at = (&raw mut address).cast::<libc::sockaddr>();
        // SAFETY: room for an address, with its length.
        let got = unsafe {
            if peer {
                libc::getpeername(socket, at, &raw mut length)
            } else {
                libc::getsockname(socket, at, &raw mut length)
            }
        };
        text += &format!(
            "{got} {} {} {:?}; ",
            address.sin6_port, address.sin6_flowinfo, address.sin6_addr.s6_addr
        );
    }
    text
}

/// Both ends of a new connection.
fn connection(listener: &TcpListener) -> Outcome<(i32, i32)> {
    let client = TcpStream::connect(listener.local_addr()?)?.into_raw_fd();
    Ok((client, listener.accept()?.0.into_raw_fd()))
}

/// What the byte at this place of a long stream is.
fn pattern(at: usize) -> u8 {
    (at * 7 + at / 256 + at / 65_536) as u8
}

/// Connections one or both of whose directions have ended, with something unread.
struct Ended {
    /// A client that wrote more than the server's window takes before its end, and how much; the server.
    long: (i32, usize, i32),
    /// A client that ended its direction, got its answer and the end.
    answered: i32,
    /// A client whose server said something and then went without listening.
    reset: i32,
}

impl Ended {
    fn new(listener: &TcpListener) -> Outcome<Ended> {
        let (client, server) = connection(listener)?;
        set(server, SOL, libc::SO_RCVBUF, 100_000)?;
        set(client, SOL, libc::SO_SNDBUF, 200_000)?;
        sys!(fcntl(client, libc::F_SETFL, libc::O_NONBLOCK))?;
        let mut count = 0;
        loop {
            let part: Vec<u8> = (count..count + 10_000).map(pattern).collect();
            // SAFETY: writes what is there.
            match unsafe { libc::write(client, part.as_ptr().cast(), part.len()) } {
                -1 if sys::errno() == libc::EAGAIN => break,
                n if n > 0 => count += n as usize,
                _ => return Err("a long stream".into()),
            }
        }
        sys!(fcntl(client, libc::F_SETFL, 0))?;
        sys!(shutdown(client, libc::SHUT_WR))?;
        let (answered, there) = connection(listener)?;
        sys!(shutdown(answered, libc::SHUT_WR))?;
        fd::write(there, b"the answer")?;
        fd::close(there);
        let (reset, there) = connection(listener)?;
        fd::write(reset, b"nobody reads this")?;
        fd::write(there, b"before the reset")?;
        fd::close(there);
        for socket in [answered, reset] {
            if !zoo::eventually(5000, || fd::polled(socket, 0) & libc::POLLHUP != 0) {
                return Err("a connection does not end".into());
            }
        }
        Ok(Ended { long: (client, count, server), answered, reset })
    }

    fn check(self, zoo: &mut Zoo) -> Outcome {
        let (client, count, server) = self.long;
        let mut got = Vec::new();
        loop {
            let part = fd::read(server, 1 << 20)?;
            if part.is_empty() {
                break;
            }
            got.extend(part);
        }
        zoo.expect("the length of what a window did not take", got.len(), count);
        zoo.check("its bytes", got.iter().enumerate().all(|(at, byte)| *byte == pattern(at)));
        fd::write(server, b"thanks")?;
        zoo.expect("the other direction", fd::read_text(client), "thanks".to_owned());
        zoo.expect("an answer", fd::read_text(self.answered), "the answer".to_owned());
        zoo.expect("its end", fd::read_text(self.answered), String::new());
        zoo.expect("what came before a reset", fd::read_text(self.reset), "before the reset".to_owned());
        zoo.check("the reset", fd::read(self.reset, 1).is_err() && sys::errno() == libc::ECONNRESET);
        Ok(())
    }
}

/// A socket that is bound to an address of this family which is not there, as when a router gave it and it went.
fn elsewhere(family: i32, kind: i32) -> Outcome<i32> {
    let socket = sys!(socket(family, kind, 0))?;
    let (level, name) = if family == libc::AF_INET { (IP, libc::IP_FREEBIND) } else { (41, 78) };
    set(socket, level, name, 1)?;
    if family == libc::AF_INET {
        let mut address: libc::sockaddr_in = sys::zeroed();
        address.sin_family = libc::AF_INET as libc::sa_family_t;
        address.sin_addr.s_addr = u32::from_ne_bytes([192, 0, 2, 7]);
        sys!(bind(socket, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t))?;
    } else {
        let mut address: libc::sockaddr_in6 = sys::zeroed();
        address.sin6_family = libc::AF_INET6 as libc::sa_family_t;
        address.sin6_addr.s6_addr = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).octets();
        sys!(bind(socket, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t))?;
    }
    set(socket, level, name, 0)?;
    Ok(socket)
}

fn program(zoo: &mut Zoo) -> Outcome {
    zoo::net::loopback_up()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?.into_raw_fd();
    let server = listener.accept()?.0.into_raw_fd();
    let listening = listener.as_raw_fd();
    set(listening, SOL, libc::SO_KEEPALIVE, 1)?;
    set(listening, TCP, libc::TCP_DEFER_ACCEPT, 0)?;
    set(client, TCP, libc::TCP_NODELAY, 1)?;
    set(client, TCP, libc::TCP_KEEPIDLE, 77)?;
    set(client, IP, libc::IP_TOS, 0x10)?;
    set(server, TCP, libc::TCP_USER_TIMEOUT, 12_345)?;
    fd::write(client, b"request in flight")?;
    fd::write(server, &vec![b'a'; 50_000])?;
    let six = TcpListener::bind("[::]:0").map(IntoRawFd::into_raw_fd).ok();
    let bare = sys!(socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0))?;
    set(bare, IP, libc::IP_TTL, 33)?;
    let bound = sys!(socket(libc::AF_INET, libc::SOCK_STREAM, 0))?;
    bind_any(bound)?;
    let far = elsewhere(libc::AF_INET, libc::SOCK_STREAM)?;
    sys!(listen(far, 3))?;
    keep(zoo, far, "a listener where no address is");
    for (socket, what) in [
        (listening, "the listener"),
        (client, "the client"),
        (server, "the server"),
        (bare, "a bare socket"),
        (bound, "a bound socket"),
    ] {
        keep(zoo, socket, what);
    }
    if let Some(six) = six {
        keep(zoo, six, "an IPv6 listener");
        let far = elsewhere(libc::AF_INET6, libc::SOCK_DGRAM)?;
        let mut peer: libc::sockaddr_in6 = sys::zeroed();
        peer.sin6_family = libc::AF_INET6 as libc::sa_family_t;
        (peer.sin6_addr.s6_addr, peer.sin6_port) = (std::net::Ipv6Addr::LOCALHOST.octets(), 9_u16.to_be());
        sys!(connect(far, (&raw const peer).cast(), size_of_val(&peer) as libc::socklen_t))?;
        keep(zoo, far, "a connected socket where no address is");
    }
    let ended = Ended::new(&listener)?;
    // A server's worker, asleep in accept on the shared listener.
    let worker = zoo.fork(move |zoo| {
        zoo.arrive();
        let socket = sys!(accept(listening, std::ptr::null_mut(), std::ptr::null_mut()))?;
        zoo.expect("what the worker is asked", fd::read_text(socket), "new".to_owned());
        fd::write(socket, b"served")
    })?;
    zoo.ready();

    ended.check(zoo)?;
    zoo.expect("a request under way", fd::read_text(server), "request in flight".to_owned());
    let mut count = 0;
    while count < 50_000 && zoo::eventually(5000, || fd::polled(client, libc::POLLIN) != 0) {
        let n = fd::read(client, 65536)?.len();
        if n == 0 {
            break;
        }
        count += n;
    }
    zoo.expect("the length of an answer under way", count, 50_000);
    fd::write(client, b"more")?;
    zoo.expect("the connection goes on", fd::read_text(server), "more".to_owned());
    fd::write(server, b"back")?;
    zoo.expect("and back", fd::read_text(client), "back".to_owned());
    let new = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?.into_raw_fd();
    fd::write(new, b"new")?;
    zoo.expect("a new connection", fd::read_text(new), "served".to_owned());
    zoo.reap("the worker", worker);
    fd::close(client);
    zoo.expect("the end of the connection", fd::read_text(server), String::new());
    Ok(())
}

fn bind_any(socket: i32) -> Outcome {
    let mut address: libc::sockaddr_in = sys::zeroed();
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    sys!(bind(socket, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t))?;
    Ok(())
}
