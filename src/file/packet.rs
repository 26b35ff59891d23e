//! A packet socket (packet(7)): what DHCP clients and LLDP daemons read and write frames with.
//!
//! What: type, protocol, the interface it is bound to, memberships, options with the filter.
//! Reads: getsockname(2), getsockopt(2); sock_diag(7) for memberships, rings and groups.
//! Rebuilds: socket(2) without a protocol, so that nothing comes in yet, options, bind(2) to the interface of
//!   the same name, memberships.
//! Loses: frames that nobody has read; counters (PACKET_STATISTICS).
//! Refuses: rings, which are memory that the kernel shares; groups (PACKET_FANOUT); the old SOCK_PACKET; an
//!   interface that is gone; a kernel without packet_diag; a socket of another network namespace.

use std::os::fd::{AsFd, OwnedFd};

use nix::net::if_::if_indextoname;

use super::{Description, World, options};
use crate::error::{Context, Refusal, Result};
use crate::sys::netlink::{self, u16_at, u32_at};
use crate::sys::{descriptor, socket};

const KIND: &str = "packet";
const SOL_PACKET: i32 = 263;
const PACKET_ADD_MEMBERSHIP: i32 = 1;
/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// PACKET_SHOW_MCLIST | PACKET_SHOW_RING_CFG | PACKET_SHOW_FANOUT.
const SHOW: u32 = 0xe;
/// Attributes of linux/packet_diag.h.
const MEMBERSHIPS: u16 = 1;
const REFUSED: [(u16, &str); 3] = [
    (2, "it has a ring, which is memory that the kernel shares"),
    (3, "it has a ring, which is memory that the kernel shares"),
    (4, "it shares its frames with others (PACKET_FANOUT)"),
];
/// Bytes of a struct packet_diag_mclist: interface, count, type, length, address.
const MEMBER: usize = 44;

crate::section! {
    /// A packet socket in the image.
    pub struct State {
        /// SOCK_RAW or SOCK_DGRAM.
        pub kind: i32,
        /// Which frames it gets, in the order of the network: ETH_P_*.
        pub protocol: u16,
        /// The interface it is bound to, if it is to one.
        pub interface: Option<String>,
        /// What it has asked interfaces to let through.
        pub members: Vec<Member>,
        /// Options.
        pub options: options::State,
    }
}

crate::section! {
    /// A membership.
    pub struct Member {
        /// The interface's name.
        pub interface: String,
        /// How often it was added.
        pub count: u32,
        /// PACKET_MR_*.
        pub kind: u16,
        /// The address, for those that have one.
        pub address: Vec<u8>,
    }
}

/// Reads one socket.
///
/// # Errors
/// A refusal, as the head of the file says.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    let fd = &desc.fd;
    let later = "start its owner after `rcsnap ready`, or add it to rerun";
    let doing = format_args!("asking what it is");
    let kind = socket::number(fd.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE).context(KIND, doing)?;
    if !world.same_network(fd)? {
        return Err(Refusal::new("it belongs to another network namespace", later));
    }
    // Family, protocol, padding; inode number, what to show, cookie.
    let mut request = vec![17, 0, 0, 0];
    for word in [0, SHOW, 0, 0] {
        request.extend_from_slice(&u32::to_ne_bytes(word));
    }
    let answer = netlink::Socket::diagnosis().and_then(|mut all| all.dump(BY_FAMILY, &request));
    let answer = answer.unwrap_or_default();
    let own = answer.iter().find(|message| u64::from(u32_at(&message.body, 4)) == desc.stat.ino);
    let own = own.ok_or_else(|| Refusal::new("the kernel does not tell about it (packet_diag)", later))?;
    let attributes = netlink::attributes(&own.body, 16);
    if let Some((_, reason)) = REFUSED.iter().find(|(kind, _)| netlink::find(&attributes, *kind).is_some()) {
        return Err(Refusal::new(*reason, later));
    }
    if kind != libc::SOCK_RAW && kind != libc::SOCK_DGRAM {
        return Err(Refusal::new("it is of the old type SOCK_PACKET", later));
    }
    let name = |index: u32| {
        let gone = |_| Refusal::new("its interface is gone", later);
        if_indextoname(index).map(|name| name.to_string_lossy().into_owned()).map_err(gone)
    };
    let address = socket::name(fd.as_fd(), false).context(KIND, doing)?;
    let interface = match u32_at(&address, 4) {
        0 => None,
        index => Some(name(index)?),
    };
    let mut members = Vec::new();
    for one in netlink::find(&attributes, MEMBERSHIPS).unwrap_or_default().chunks_exact(MEMBER) {
        let (kind, len) = (u16_at(one, 8), usize::from(u16_at(one, 10)));
        let address = one.get(12..12 + len).unwrap_or_default().to_vec();
        members.push(Member { interface: name(u32_at(one, 0))?, count: u32_at(one, 4), kind, address });
    }
    if descriptor::ready(fd.as_fd(), libc::POLLIN).is_ok_and(|ready| ready & libc::POLLIN != 0) {
        crate::log!(Info, "packet: frames that nobody has read are not carried");
    }
    let options = options::capture(fd, (libc::AF_PACKET, kind, 0), world)?;
    let protocol = u16_at(&address, 2);
    Ok(Box::new(State { kind, protocol, interface, members, options }))
}

/// Opens it again.
///
/// # Errors
/// The errno of the calls; an interface that is not there.
pub fn restore(state: &State) -> Result<OwnedFd> {
    let fd = socket::socket(libc::AF_PACKET, state.kind, 0).context(KIND, format_args!("making one"))?;
    options::restore(&state.options, &fd)?;
    let index = |name: &str| socket::interface(name).context(KIND, format_args!("looking for {name}"));
    let number = state.interface.as_deref().map_or(Ok(0), index)?;
    if number != 0 || state.protocol != 0 {
        // struct sockaddr_ll: family, protocol, interface, and what is not looked at.
        let mut address = 17_u16.to_ne_bytes().to_vec();
        address.extend_from_slice(&state.protocol.to_ne_bytes());
        address.extend_from_slice(&number.to_ne_bytes());
        address.resize(20, 0);
        socket::bind(fd.as_fd(), &address).context(KIND, format_args!("binding to {number}"))?;
    }
    for member in &state.members {
        // struct packet_mreq: interface, type, length, address of 8 bytes or more.
        let mut wanted = index(&member.interface)?.to_ne_bytes().to_vec();
        wanted.extend_from_slice(&member.kind.to_ne_bytes());
        wanted.extend_from_slice(&u16::try_from(member.address.len()).unwrap_or(0).to_ne_bytes());
        wanted.extend_from_slice(&member.address);
        wanted.resize(wanted.len().max(16), 0);
        for _ in 0..member.count {
            socket::set_option(fd.as_fd(), SOL_PACKET, PACKET_ADD_MEMBERSHIP, &wanted)
                .context(KIND, format_args!("joining on {}", member.interface))?;
        }
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::{PACKET_ADD_MEMBERSHIP, SOL_PACKET};
    use crate::file::State;
    use crate::file::testing::{refused, states_alone};
    use crate::sys::socket;

    fn new() -> OwnedFd {
        socket::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).unwrap()
    }

    #[test]
    fn interface_filter_and_memberships_come_back() {
        let fd = new();
        socket::set_filter(fd.as_fd(), &[0x0000_ffff_0000_0006]).unwrap();
        // PACKET_VERSION 2, PACKET_AUXDATA, PACKET_RESERVE.
        for (name, value) in [(10, 1), (8, 1), (12, 16)] {
            socket::set_number(fd.as_fd(), SOL_PACKET, name, value).unwrap();
        }
        let lo = socket::interface("lo").unwrap();
        let mut address = [17_u16.to_ne_bytes(), 0x86dd_u16.to_be_bytes()].concat();
        address.extend_from_slice(&lo.to_ne_bytes());
        address.resize(20, 0);
        socket::bind(fd.as_fd(), &address).unwrap();
        let mut member = lo.to_ne_bytes().to_vec();
        // PACKET_MR_MULTICAST.
        member.extend_from_slice(&[0, 0, 6, 0, 1, 2, 3, 4, 5, 6, 0, 0]);
        for _ in 0..2 {
            socket::set_option(fd.as_fd(), SOL_PACKET, PACKET_ADD_MEMBERSHIP, &member).unwrap();
        }
        let found = states_alone(vec![fd]);
        assert_eq!(found.before, found.after);
        let State::Packet(state) = &found.before[0] else { panic!() };
        assert_eq!((state.interface.as_deref(), state.members[0].count), (Some("lo"), 2));
        assert_eq!((state.options.settings.len(), state.options.filter.len()), (3, 1));
    }

    #[test]
    fn ring_and_group_are_refused() {
        let ring = new();
        // struct tpacket_req: block size and number, frame size and number.
        let wanted = [4096_u32, 1, 2048, 2].map(u32::to_ne_bytes).concat();
        socket::set_option(ring.as_fd(), SOL_PACKET, 5, &wanted).unwrap();
        assert!(refused(&[&ring]).reason.contains("ring"));
        let group = socket::socket(libc::AF_PACKET, libc::SOCK_RAW, 0x8888).unwrap();
        socket::set_number(group.as_fd(), SOL_PACKET, 18, 4711).unwrap();
        assert!(refused(&[&group]).reason.contains("FANOUT"));
    }
}
