//! Kind `inet`: TCP listeners, connections over loopback with data under way, bound and bare sockets, options.

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
    }
    // A server's worker, asleep in accept on the shared listener.
    let worker = zoo.fork(move |zoo| {
        zoo.arrive();
        let socket = sys!(accept(listening, std::ptr::null_mut(), std::ptr::null_mut()))?;
        zoo.expect("what the worker is asked", fd::read_text(socket), "new".to_owned());
        fd::write(socket, b"served")
    })?;
    zoo.ready();

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
