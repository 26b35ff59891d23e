//! Kind `inet`: raw sockets and those of ping go on hearing what their protocol and filter let through.

use zoo::{Outcome, Zoo, fd, net, sys};

fn main() {
    zoo::run(program)
}

const SOL_RAW: i32 = 255;
const ICMP_FILTER: i32 = 1;
/// For experiments (RFC 3692).
const PROTOCOL: i32 = 253;
const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;

fn new(kind: i32, protocol: i32) -> Outcome<i32> {
    sys!(socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol))
}

fn loopback() -> libc::sockaddr_in {
    let mut address: libc::sockaddr_in = sys::zeroed();
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    address
}

fn send(socket: i32, bytes: &[u8]) -> Outcome {
    let to = loopback();
    let length = size_of_val(&to) as libc::socklen_t;
    sys!(sendto(socket, bytes.as_ptr().cast(), bytes.len(), 0, (&raw const to).cast(), length))?;
    Ok(())
}

fn set(socket: i32, level: i32, name: i32, value: i32) -> Outcome {
    sys!(setsockopt(socket, level, name, (&raw const value).cast(), 4))?;
    Ok(())
}

/// An echo request with its checksum.
fn request(number: u8) -> [u8; 8] {
    let mut bytes = [ECHO, 0, 0, 0, 0x77, 0x07, 0, number];
    let sum: u32 = bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The next packet, from behind the header of IP on.
fn next(socket: i32, skip: usize) -> Outcome<Vec<u8>> {
    zoo::eventually(5000, || fd::polled(socket, libc::POLLIN) != 0);
    Ok(fd::read(socket, 256)?.split_off(skip))
}

fn program(zoo: &mut Zoo) -> Outcome {
    zoo::net::loopback_up()?;
    // Hears replies only: the filter has a bit for each type that does not pass.
    let icmp = new(libc::SOCK_RAW, libc::IPPROTO_ICMP)?;
    set(icmp, SOL_RAW, ICMP_FILTER, !(1 << ECHO_REPLY))?;
    set(icmp, libc::IPPROTO_IP, libc::IP_TTL, 9)?;
    let own = new(libc::SOCK_RAW, PROTOCOL)?;
    let address = loopback();
    sys!(bind(own, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t))?;
    // Writes the header of IP itself, and hears nothing.
    let writer = new(libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    // A group that may ping: not set everywhere.
    let ping = new(libc::SOCK_DGRAM, libc::IPPROTO_ICMP).ok();
    for (what, socket) in [("icmp", icmp), ("a protocol of its own", own), ("the writer", writer)] {
        zoo.keep(&format!("flags of {what}"), move || fd::flags(socket));
        for (level, name) in
            [(SOL_RAW, ICMP_FILTER), (libc::IPPROTO_IP, libc::IP_TTL), (libc::IPPROTO_IP, libc::IP_HDRINCL)]
        {
            zoo.keep(&format!("option {level}.{name} of {what}"), move || net::option(socket, level, name));
        }
    }
    zoo.ready();

    while fd::polled(icmp, libc::POLLIN) != 0 {
        fd::read(icmp, 256)?;
    }
    send(icmp, &request(1))?;
    zoo.expect(
        "the first that a raw socket hears is the reply",
        next(icmp, 20)?.first().copied(),
        Some(ECHO_REPLY),
    );
    let mut packet = vec![0x45, 0, 0, 24, 0, 1, 0, 0, 4, PROTOCOL as u8, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1];
    packet.extend(*b"raw!");
    send(writer, &packet)?;
    zoo.expect("a packet of a protocol of its own", next(own, 20)?, b"raw!".to_vec());
    if let Some(ping) = ping {
        send(ping, &request(2))?;
        zoo.expect("the reply to a ping", next(ping, 0)?.first().copied(), Some(ECHO_REPLY));
    }
    Ok(())
}
