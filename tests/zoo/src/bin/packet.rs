//! Kind `packet`: sockets that read and write frames, bound to an interface, with filter, options and memberships.

use zoo::{Outcome, Zoo, fd, net, sys};

fn main() {
    zoo::run(program)
}

const SOL_PACKET: i32 = 263;
/// For experiments (IEEE 802), in the order of the network.
const PROTOCOL: u16 = 0x88b5_u16.to_be();

fn new(kind: i32, protocol: u16) -> Outcome<i32> {
    sys!(socket(libc::AF_PACKET, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, i32::from(protocol)))
}

fn set<T>(socket: i32, level: i32, name: i32, value: &T) -> Outcome {
    sys!(setsockopt(socket, level, name, std::ptr::from_ref(value).cast(), size_of::<T>() as u32))?;
    Ok(())
}

fn address(socket: i32) -> String {
    let mut address: libc::sockaddr_ll = sys::zeroed();
    let mut length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: room for an address, with its length.
    unsafe { libc::getsockname(socket, (&raw mut address).cast(), &raw mut length) };
    format!("{:x} {}", address.sll_protocol, address.sll_ifindex)
}

/// The line of the address that the loopback was asked to let through.
fn let_through() -> String {
    zoo::proc::text("/proc/self/net/dev_mcast").lines().filter(|line| line.contains("33445566")).collect()
}

fn bind(socket: i32, protocol: u16, interface: u32) -> Outcome {
    let mut address: libc::sockaddr_ll = sys::zeroed();
    address.sll_family = libc::AF_PACKET as u16;
    (address.sll_protocol, address.sll_ifindex) = (protocol, interface as i32);
    sys!(bind(socket, (&raw const address).cast(), size_of_val(&address) as u32))?;
    Ok(())
}

/// A frame for the loopback: two addresses, the protocol and what it carries.
fn send(socket: i32, interface: u32, text: &[u8]) -> Outcome {
    let mut address: libc::sockaddr_ll = sys::zeroed();
    address.sll_family = libc::AF_PACKET as u16;
    (address.sll_protocol, address.sll_ifindex) = (PROTOCOL, interface as i32);
    address.sll_halen = 6;
    sys!(sendto(
        socket,
        text.as_ptr().cast(),
        text.len(),
        0,
        (&raw const address).cast(),
        size_of_val(&address) as u32
    ))?;
    Ok(())
}

fn program(zoo: &mut Zoo) -> Outcome {
    let sender = match new(libc::SOCK_DGRAM, 0) {
        Err(_) if sys::errno() == libc::EAFNOSUPPORT => zoo.skip("no packet sockets"),
        sender => sender?,
    };
    net::loopback_up()?;
    // SAFETY: a string of C.
    let lo = unsafe { libc::if_nametoindex(c"lo".as_ptr()) };
    let listener = new(libc::SOCK_RAW, 0)?;
    // What begins, behind the Ethernet header, with a y passes; the rest does not.
    let program = [
        libc::sock_filter { code: 0x30, jt: 0, jf: 0, k: 14 },
        libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: u32::from(b'y') },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: u32::MAX },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 },
    ];
    let filter = libc::sock_fprog { len: 4, filter: program.as_ptr().cast_mut() };
    set(listener, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)?;
    // PACKET_AUXDATA, PACKET_VERSION, PACKET_RESERVE, PACKET_IGNORE_OUTGOING.
    for (name, value) in [(8, 1), (10, 2), (12, 8), (23, 1)] {
        set(listener, SOL_PACKET, name, &value)?;
    }
    bind(listener, PROTOCOL, lo)?;
    let member = libc::packet_mreq {
        mr_ifindex: lo as i32,
        mr_type: libc::PACKET_MR_MULTICAST as u16,
        mr_alen: 6,
        mr_address: [0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0],
    };
    for _ in 0..2 {
        set(listener, SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &member)?;
    }
    let everywhere = new(libc::SOCK_DGRAM, PROTOCOL)?;
    for socket in [sender, listener, everywhere] {
        zoo.keep(&format!("flags of {socket}"), move || fd::flags(socket));
        zoo.keep(&format!("address of {socket}"), move || address(socket));
        for name in [8, 10, 12, 23] {
            zoo.keep(&format!("option {name} of {socket}"), move || net::option(socket, SOL_PACKET, name));
        }
    }
    zoo.keep("what is let through", let_through);
    zoo.ready();
    send(sender, lo, b"no")?;
    send(sender, lo, b"yes")?;
    // None of them waits, and a frame may take a moment.
    let next = |socket| {
        zoo::eventually(10_000, || fd::polled(socket, libc::POLLIN) != 0);
        fd::read(socket, 100)
    };
    let mut bytes = next(listener)?;
    zoo.expect("what passes the filter", bytes.split_off(14), b"yes".to_vec());
    zoo.check("nothing else passes", fd::read(listener, 100).is_err());
    let seen = [next(everywhere)?, next(everywhere)?];
    zoo.check("all of it comes to the other", seen.contains(&b"no".to_vec()));
    for left in ["one", "none"] {
        set(listener, SOL_PACKET, libc::PACKET_DROP_MEMBERSHIP, &member)?;
        zoo.expect(&format!("with {left} left"), let_through().is_empty(), left == "none");
    }
    Ok(())
}
