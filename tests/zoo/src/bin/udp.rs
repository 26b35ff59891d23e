//! Kind `udp`: bound, connected and bare sockets with their options. Datagrams under way may be lost: that is UDP.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

use zoo::{Outcome, Zoo, fd, net, sys};

fn main() {
    zoo::run(program)
}

fn keep(zoo: &mut Zoo, what: &'static str, socket: &UdpSocket) {
    let fd = socket.as_raw_fd();
    let copy = handle(fd);
    zoo.keep(&format!("flags of {what}"), move || fd::flags(fd));
    zoo.keep(&format!("addresses of {what}"), move || {
        format!("{:?} {:?}", copy.local_addr().ok(), copy.peer_addr().ok())
    });
    let (sol, ip) = (libc::SOL_SOCKET, libc::IPPROTO_IP);
    let v6 = libc::IPPROTO_IPV6;
    let options = [
        // SO_TIMESTAMP_NEW; IPV6_2292HOPLIMIT, IPV6_FLOWINFO, IPV6_FLOWINFO_SEND.
        (sol, 63),
        (v6, 8),
        (v6, 11),
        (v6, 33),
        (sol, libc::SO_BROADCAST),
        (sol, libc::SO_REUSEADDR),
        (sol, libc::SO_RCVBUF),
        (sol, libc::SO_SNDBUF),
        (sol, libc::SO_NO_CHECK),
        (sol, libc::SO_TIMESTAMP),
        (sol, libc::SO_PRIORITY),
        (ip, libc::IP_TTL),
        (ip, libc::IP_TOS),
        (ip, libc::IP_PKTINFO),
        (ip, libc::IP_RECVERR),
        (ip, libc::IP_MULTICAST_TTL),
        (ip, libc::IP_MULTICAST_LOOP),
    ];
    for (level, name) in options {
        zoo.keep(&format!("option {level}.{name} of {what}"), move || net::option(fd, level, name));
    }
}

/// A handle on the same descriptor that does not close it.
fn handle(fd: i32) -> std::mem::ManuallyDrop<UdpSocket> {
    use std::os::fd::FromRawFd;
    // SAFETY: never dropped, and the owner lives as long as the program.
    std::mem::ManuallyDrop::new(unsafe { UdpSocket::from_raw_fd(fd) })
}

/// A socket that has its port together with others, as time servers do: allowed for the moment of bind(2) only.
fn together(address: Ipv4Addr, port: u16) -> Outcome<UdpSocket> {
    use std::os::fd::FromRawFd;
    let fd = sys!(socket(libc::AF_INET, libc::SOCK_DGRAM, 0))?;
    // SAFETY: fresh, and nobody else's.
    let socket = unsafe { UdpSocket::from_raw_fd(fd) };
    allow(&socket, 1)?;
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    };
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    sys!(bind(fd, (&raw const address).cast(), length))?;
    Ok(socket)
}

fn allow(socket: &UdpSocket, on: i32) -> Outcome {
    sys!(setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, (&raw const on).cast(), 4))?;
    Ok(())
}

fn program(zoo: &mut Zoo) -> Outcome {
    zoo::net::loopback_up()?;
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    client.connect(server.local_addr()?)?;
    any.set_broadcast(true)?;
    any.set_multicast_ttl_v4(7)?;
    any.set_multicast_loop_v4(false)?;
    any.set_ttl(44)?;
    any.set_nonblocking(true)?;
    let (yes, fd) = (1_i32, server.as_raw_fd());
    sys!(setsockopt(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, (&raw const yes).cast(), 4))?;
    sys!(setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, (&raw const yes).cast(), 4))?;
    // What begins, behind the UDP header, with a t passes; the rest does not.
    let filter = [
        libc::sock_filter { code: 0x30, jt: 0, jf: 0, k: 8 },
        libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: u32::from(b't') },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: u32::MAX },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 },
    ];
    let filter = libc::sock_fprog { len: 4, filter: filter.as_ptr().cast_mut() };
    let size = size_of_val(&filter) as libc::socklen_t;
    let to = any.as_raw_fd();
    sys!(setsockopt(to, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, (&raw const filter).cast(), size))?;
    let bare = sys!(socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, 0))?;
    for (what, socket) in [("the server", &server), ("a wildcard socket", &any), ("the client", &client)] {
        keep(zoo, what, socket);
    }
    let six = UdpSocket::bind("[::]:0").ok();
    if let Some(six) = &six {
        for (level, name) in [
            (libc::SOL_SOCKET, 63),
            (libc::IPPROTO_IPV6, 8),
            (libc::IPPROTO_IPV6, 11),
            (libc::IPPROTO_IPV6, 33),
        ] {
            sys!(setsockopt(six.as_raw_fd(), level, name, (&raw const yes).cast(), 4))?;
        }
        keep(zoo, "an IPv6 socket", six);
    }
    let wide = together(Ipv4Addr::UNSPECIFIED, 0)?;
    let narrow = together(Ipv4Addr::LOCALHOST, wide.local_addr()?.port())?;
    for (what, socket) in [("a shared port", &wide), ("the same port of one address", &narrow)] {
        allow(socket, 0)?;
        keep(zoo, what, socket);
    }
    zoo.keep("flags of a bare socket", move || fd::flags(bare));
    zoo.ready();

    client.send(b"question")?;
    let mut bytes = [0; 32];
    let (n, from) = server.recv_from(&mut bytes)?;
    zoo.expect("a datagram", (&bytes[..n], from), (&b"question"[..], client.local_addr()?));
    server.send_to(b"answer", from)?;
    let n = client.recv(&mut bytes)?;
    zoo.expect("the answer", &bytes[..n], b"answer");
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    stranger.send_to(b"x", client.local_addr()?)?;
    client.set_nonblocking(true)?;
    zoo.check("a connected socket hears its peer only", client.recv(&mut bytes).is_err());
    stranger.send_to(b"does not pass", (Ipv4Addr::LOCALHOST, any.local_addr()?.port()))?;
    stranger.send_to(b"to any", (Ipv4Addr::LOCALHOST, any.local_addr()?.port()))?;
    // It does not wait, and a datagram may take a moment.
    let mut heard = None;
    zoo::eventually(10_000, || {
        heard = any.recv(&mut bytes).ok();
        heard.is_some()
    });
    zoo.expect("the wildcard socket", heard, Some(6));
    stranger.send_to(b"narrow", narrow.local_addr()?)?;
    zoo.expect("the socket of one address", narrow.recv(&mut bytes)?, 6);
    if let Some(six) = six {
        six.send_to(b"six", ("::1", six.local_addr()?.port()))?;
        zoo.expect("the IPv6 socket", six.recv(&mut bytes)?, 3);
    }
    Ok(())
}
