//! Kind `namespace`: a network of a process's own, with its interfaces, addresses, parameters and sockets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use zoo::{Outcome, Zoo, sys};

fn main() {
    zoo::run(program)
}

/// In both networks.
const PORT: u16 = 4711;
const NAME: &[u8] = b"zoo-namespace-net";
/// Below /proc/sys/net, in the order of writing: each first one of a group sets what the next ones set back to what it
/// was.
const PARAMETERS: [(&str, &str); 9] = [
    ("ipv4/ip_default_ttl", "77"),
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/lo/disable_ipv6", "0"),
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/accept_redirects", "1"),
    ("ipv4/conf/default/forwarding", "0"),
    ("ipv4/conf/lo/forwarding", "0"),
    ("ipv4/conf/default/arp_notify", "1"),
    ("ipv4/conf/lo/arp_notify", "0"),
];

/// Their values; nothing for those that this kernel does not have.
fn parameters() -> String {
    let value = |path: &str| std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap_or_default();
    PARAMETERS.map(|(path, _)| format!("{path} {}", value(path))).concat()
}

/// What this network consists of.
fn network() -> String {
    let interfaces = zoo::proc::text("/proc/thread-self/net/dev");
    let names = interfaces.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let names: Vec<&str> = names.collect();
    let addresses = zoo::proc::text("/proc/thread-self/net/fib_trie");
    let local: Vec<&str> = addresses.lines().filter(|line| line.contains("|--")).map(str::trim).collect();
    let more = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
    // Of the loopback: the kernel gives the others theirs when it likes, and lists all in the order of a hash.
    let more = more.lines().filter(|line| line.ends_with(" lo"));
    let more: Vec<&str> = more.filter_map(|line| line.split(' ').next()).collect();
    format!("{names:?} {local:?} {more:?}")
}

fn echo(stream: &mut TcpStream, other: &mut TcpStream, text: &[u8]) -> Outcome<Vec<u8>> {
    stream.write_all(text)?;
    let mut got = vec![0; text.len()];
    other.read_exact(&mut got)?;
    Ok(got)
}

struct Sockets {
    listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
    udp: UdpSocket,
    names: UnixListener,
}

fn sockets(zoo: &mut Zoo, text: &[u8]) -> Outcome<Sockets> {
    zoo::net::loopback_up()?;
    let listener = TcpListener::bind(("127.0.0.1", PORT))?;
    let mut client = TcpStream::connect(("127.0.0.1", PORT))?;
    let (server, _) = listener.accept()?;
    // Under way.
    client.write_all(text)?;
    let udp = UdpSocket::bind(("127.0.0.1", PORT))?;
    let names = UnixListener::bind_addr(&SocketAddr::from_abstract_name(NAME)?)?;
    zoo.keep("the network", network);
    Ok(Sockets { listener, client, server, udp, names })
}

fn check(zoo: &mut Zoo, mut have: Sockets, text: &[u8]) -> Outcome {
    zoo.verify();
    let mut got = vec![0; text.len()];
    have.server.read_exact(&mut got)?;
    zoo.expect("what was under way", got, text.to_vec());
    zoo.expect("an old connection", echo(&mut have.client, &mut have.server, b"old")?, b"old".to_vec());
    let mut client = TcpStream::connect(("127.0.0.1", PORT))?;
    let mut server = have.listener.accept()?.0;
    zoo.expect("a new connection", echo(&mut client, &mut server, text)?, text.to_vec());
    UdpSocket::bind(("127.0.0.1", 0))?.send_to(text, ("127.0.0.1", PORT))?;
    let mut got = [0; 64];
    let length = have.udp.recv(&mut got)?;
    zoo.expect("a datagram", got[..length].to_vec(), text.to_vec());
    let mut client = UnixStream::connect_addr(&SocketAddr::from_abstract_name(NAME)?)?;
    let mut server = have.names.accept()?.0;
    client.write_all(text)?;
    let mut got = vec![0; text.len()];
    server.read_exact(&mut got)?;
    zoo.expect("an abstract name", got, text.to_vec());
    Ok(())
}

fn away(zoo: &mut Zoo) -> Outcome {
    sys!(unshare(libc::CLONE_NEWNET))?;
    for (path, value) in PARAMETERS {
        let path = format!("/proc/sys/net/{path}");
        if std::fs::exists(&path)? {
            std::fs::write(path, value)?;
        }
    }
    zoo.keep("the parameters", parameters);
    let have = sockets(zoo, b"away")?;
    // One that was made at home is still of that network.
    zoo.keep("whether it is where its parent is", || zoo::proc::with_parent("net"));
    zoo.arrive();
    zoo.wait();
    check(zoo, have, b"away")
}

fn program(zoo: &mut Zoo) -> Outcome {
    let have = sockets(zoo, b"home")?;
    let stays = UdpSocket::bind(("127.0.0.1", 0))?;
    let number = stays.local_addr()?.port();
    let child = zoo.fork(move |zoo| {
        // Two networks in one process: a socket goes on in the one where it was made.
        let outcome = away(zoo);
        stays.send_to(b"from away", ("127.0.0.1", PORT))?;
        outcome
    })?;
    zoo.ready();
    zoo.reap("the child", child);
    let mut got = [0; 64];
    let (length, from) = have.udp.recv_from(&mut got)?;
    zoo.expect("what the child sent at home", (&got[..length], from.port()), (&b"from away"[..], number));
    check(zoo, have, b"home")?;
    Ok(())
}
