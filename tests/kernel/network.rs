//! Interfaces, addresses, routes, rules, neighbours.
//!
//! A pair of veth interfaces that is there before the scripts stands for hardware; dummy and vlan interfaces
//! are made on the boards, because not every kernel of a development machine has them.

use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, send, socket,
};
use rcsnap::error::Obstacle;
use rcsnap::kernel::{self, Root};
use rcsnap::sys::netlink::put_text;

use crate::world::{capture, restore, with_world};

/// Each line is one call of ip(8).
fn ip(lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let done = Command::new("ip")
            .args(line.split(' '))
            .stdin(Stdio::inherit())
            .output()
            .expect("ip(8) of iproute2");
        assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

fn ask(line: &str) -> String {
    let done =
        Command::new("ip").args(line.split(' ')).stdin(Stdio::inherit()).output().expect("ip(8) of iproute2");
    String::from_utf8(done.stdout).unwrap()
}

fn hardware() {
    ip("link add v0 type veth peer name v1");
}

fn round_trip(script: fn(), check: fn()) {
    let (state, tmpfs) = with_world(move |root: &Root| {
        hardware();
        let before = kernel::baseline(root).unwrap();
        script();
        let (state, tmpfs, obstacles) = capture(&before, root);
        assert_eq!(obstacles, []);
        (state, tmpfs)
    });
    with_world(move |root: &Root| {
        hardware();
        let before = kernel::baseline(root).unwrap();
        restore(&state, &tmpfs, root, || {});
        check();
        let (state_again, _, obstacles) = capture(&before, root);
        assert_eq!(obstacles, []);
        assert_eq!(state_again.network, state.network);
        let values = |state: &kernel::State| state.sysctl.values.clone();
        assert_eq!(values(&state_again), values(&state));
    });
}

fn obstacles(script: fn()) -> Vec<Obstacle> {
    with_world(move |root: &Root| {
        hardware();
        let before = kernel::baseline(root).unwrap();
        script();
        capture(&before, root).2
    })
}

#[test]
fn loopback_comes_up() {
    round_trip(
        || ip("link set lo up"),
        || assert!(ask("addr show dev lo").contains("inet 127.0.0.1/8 scope host lo")),
    );
}

#[test]
fn interfaces_come_back() {
    fn script() {
        ip("link set v1 name lan0
            link set lan0 address 02:00:00:00:07:01 mtu 1400 txqueuelen 55 group 9 alias uplink
            link add br0 type bridge stp_state 1 forward_delay 400 ageing_time 100
            link set v0 master br0
            link set v0 type bridge_slave hairpin on priority 8
            link add air0 type ifb
            link set air0 arp on multicast off txqueuelen 77 mtu 1280
            link set br0 up
            link set v0 up
            link set lan0 up");
    }
    fn check() {
        let lan = ask("link show dev lan0");
        assert!(
            lan.contains("mtu 1400") && lan.contains("02:00:00:00:07:01") && lan.contains("alias uplink"),
            "{lan}"
        );
        assert!(ask("-d link show dev br0").contains("forward_delay 400"));
        let port = ask("-d link show dev v0");
        assert!(port.contains("master br0") && port.contains("hairpin on"), "{port}");
    }
    round_trip(script, check);
}

#[test]
fn exchanged_names_come_back() {
    fn script() {
        ip("link set v0 name x
            link set v1 name v0
            link set x name v1
            link set v1 mtu 1300");
    }
    round_trip(script, || assert!(ask("link show dev v1").contains("mtu 1300")));
}

#[test]
fn addresses_routes_rules_and_neighbours_come_back() {
    fn script() {
        ip("link set lo up
            link set v0 up
            link set v1 up
            addr add 10.0.0.1/24 broadcast 10.0.0.255 dev v0 label v0:1
            addr add 10.0.0.2/24 dev v0
            addr add 10.1.0.1/32 peer 10.1.0.2 dev v1
            addr add 10.2.0.1/24 dev v1 metric 700
            addr add fd00::1/64 dev v0 nodad
            addr add fd00:1::1/128 dev lo
            route add default via 10.0.0.254
            route add 192.168.0.0/16 via 10.0.0.253 dev v0 table 100 proto static metric 5
            route add 172.16.0.0/12 nexthop via 10.0.0.3 weight 2 nexthop dev v1 weight 3
            route add blackhole 10.9.0.0/16
            route add 10.8.0.0/16 dev v1 src 10.2.0.1 mtu 1200
            -6 route add 2001:db8::/32 via fd00::2
            -6 route add default via fe80::1 dev v0 metric 10
            rule add from 10.0.0.0/8 iif v1 lookup 100 priority 500
            rule add not fwmark 0x7 lookup 100
            rule del lookup default
            -6 rule add to fd00:9::/32 lookup 200
            neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev v0 nud permanent
            neigh add proxy 10.0.0.10 dev v1
            -6 neigh add fd00::9 lladdr 02:00:00:00:00:08 dev v0 nud permanent");
    }
    fn check() {
        assert_eq!(ask("-6 addr show dev v0 to fd00::/16 tentative"), "");
        assert!(ask("route").contains("default via 10.0.0.254 dev v0"));
        assert!(ask("-6 route").contains("2001:db8::/32 via fd00::2"));
        assert!(!ask("rule").contains("lookup default"));
        assert!(ask("neigh show proxy").contains("10.0.0.10"));
    }
    round_trip(script, check);
}

#[test]
fn what_the_scripts_took_away_is_gone() {
    fn before() {
        ip("link set lo up
            link set v0 up
            addr add 10.0.0.1/24 dev v0
            route add 10.3.0.0/16 via 10.0.0.2
            link add br9 type bridge");
    }
    fn script() {
        ip("route del 10.3.0.0/16
            addr del 10.0.0.1/24 dev v0
            link del br9
            link set v0 down");
    }
    let state = with_world(move |root: &Root| {
        hardware();
        before();
        let baseline = kernel::baseline(root).unwrap();
        script();
        capture(&baseline, root).0
    });
    with_world(move |root: &Root| {
        hardware();
        before();
        let (_, tmpfs, _) = capture(&kernel::baseline(root).unwrap(), root);
        restore(&state, &tmpfs, root, || {});
        assert!(ask("link show dev v0").contains("state DOWN"));
        assert_eq!(ask("-4 addr show dev v0"), "");
        assert_eq!(ask("link show dev br9"), "");
        assert!(!ask("route").contains("10.3.0.0"));
    });
}

#[test]
fn parameter_of_an_interface_is_set_before_it_comes_up() {
    fn script() {
        std::fs::write("/proc/sys/net/ipv6/conf/v0/disable_ipv6", "1\n").unwrap();
        ip("link set v0 up
            link set v1 up");
        std::fs::write("/proc/sys/net/ipv4/conf/v0/rp_filter", "2\n").unwrap();
    }
    fn check() {
        assert_eq!(ask("-6 addr show dev v0"), "");
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/conf/v0/rp_filter").unwrap(), "2\n");
    }
    round_trip(script, check);
}

#[test]
fn other_kinds_of_interfaces_are_refused() {
    let found = obstacles(|| ip("link add tunnel type vxlan id 7 dstport 4789 dev v0"));
    assert!(
        matches!(found.as_slice(), [one] if one.kind == "link" && one.object == "interface tunnel"),
        "{found:?}"
    );
}

#[test]
fn nexthop_objects_are_refused() {
    let found = obstacles(|| {
        ip("link set lo up
            nexthop add id 5 blackhole")
    });
    assert!(matches!(found.as_slice(), [one] if one.kind == "route"), "{found:?}");
}

#[test]
fn packet_filter_is_refused() {
    let found = obstacles(|| make_table("guard"));
    assert!(
        matches!(found.as_slice(), [one] if one.object == "table guard of nftables (family 2)"),
        "{found:?}"
    );
}

/// The objects that are refused, all as the kind `netfilter`.
fn refused(script: fn()) -> Vec<String> {
    let found = obstacles(script);
    assert!(found.iter().all(|one| one.kind == "netfilter"), "{found:?}");
    found.into_iter().map(|one| one.object).collect()
}

#[test]
fn ipsec_is_refused() {
    let found = refused(|| {
        ip("xfrm policy add src 10.0.0.1 dst 10.0.0.2 dir out
            xfrm state allocspi src 10.0.0.1 dst 10.0.0.2 proto esp mode tunnel min 0x777 max 0x777");
    });
    assert_eq!(found, ["1 policies of IPsec", "1 states of IPsec"]);
}

#[test]
fn routing_of_multicast_is_refused() {
    for (script, family) in [
        ((|| route_multicast(libc::AF_INET, 2, 0)) as fn(), "ipv4"),
        (|| route_multicast(libc::AF_INET6, 58, 41), "ipv6"),
    ] {
        assert_eq!(refused(script), [format!("1 in /proc/sys/net/{family}/conf/all/mc_forwarding")]);
    }
}

/// What igmpproxy does first: MRT_INIT and MRT6_INIT have the same number. The socket stays open.
fn route_multicast(domain: i32, protocol: i32, level: i32) {
    let fd = rcsnap::sys::socket::socket(domain, libc::SOCK_RAW, protocol).unwrap();
    rcsnap::sys::socket::set_option(std::os::fd::AsFd::as_fd(&fd), level, 200, &1_i32.to_ne_bytes()).unwrap();
    std::mem::forget(fd);
}

#[test]
fn missing_hardware_is_refused_untouched() {
    with_world(|root: &Root| {
        hardware();
        let (mut state, _, _) = capture(&kernel::baseline(root).unwrap(), root);
        state.network.link.list[1].device = "devices/none:0".into();
        let error = kernel::check(&state, root, crate::world::soon()).unwrap_err();
        assert!(error.to_string().contains("no interface at devices/none"), "{error}");
    });
}

/// One table of nftables: changes are taken only as a batch.
fn make_table(name: &str) {
    let message = |kind: u16, flags: u16, body: &[u8]| {
        let mut out = (16 + u32::try_from(body.len()).unwrap()).to_ne_bytes().to_vec();
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(&flags.to_ne_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(body);
        out
    };
    // struct nfgenmsg: family, version, subsystem in network order.
    let mut table = vec![2, 0, 0, 0];
    put_text(&mut table, 1, name);
    let batch =
        [message(16, 1, &[0, 0, 0, 10]), message(10 << 8, 0x405, &table), message(17, 1, &[0, 0, 0, 10])];
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::empty(), SockProtocol::NetlinkNetFilter)
        .unwrap();
    let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
    bind(raw, &NetlinkAddr::new(0, 0)).unwrap();
    send(raw, &batch.concat(), MsgFlags::empty()).unwrap();
    let mut answer = [0; 64];
    let len = nix::sys::socket::recv(raw, &mut answer, MsgFlags::empty()).unwrap();
    assert_eq!(answer[16..len.min(20)], [0; 4], "{:?}", Errno::last());
}
