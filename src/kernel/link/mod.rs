//! Network interfaces: made, renamed, configured and brought up by the scripts.
//!
//! # What
//! Interfaces of the kinds dummy, bridge, vlan and ifb that the scripts made; of all interfaces the name, flags,
//! MTU, queue length, hardware address, alias, group, and the bridge they are a port of.
//! # Reads
//! RTM_GETLINK before and after the scripts; in sysfs the device of each interface.
//! # Rebuilds
//! Finds interfaces of hardware by the path of their device, renames them, makes the others with their numbers,
//! sets what the scripts had changed, and brings them up in a second step, after their parameters are set.
//! # Loses
//! The number of an interface of hardware, which depends on the order of probing; settings of ethtool(8). The
//! carrier comes when it comes.
//! # Refuses
//! Other kinds of interfaces made by scripts; a wireless interface that is up; bridges that filter VLANs.

use std::time::Instant;

use nix::errno::Errno;

use crate::error::{Context, Error, Obstacle, Refusal, Result};
use crate::kernel::bytes::Bytes;
use crate::kernel::root::Root;
use crate::section;
use crate::sorted::Listed;
use crate::sys::netlink::{CREATE, EXCLUSIVE, Socket, put, put_text};
use crate::text;
use seen::{
    ADDRESS, ALIAS, DATA, FLAGS, GROUP, KIND, LINK, LINKINFO, MASTER, MTU, NAME, NEW, QUEUE, SLAVE_DATA,
    SLAVE_KIND,
};

pub use seen::{Seen, UP, baseline, bridge_entries, index_of, name_of};

mod seen;

const DELETE: u16 = 17;
const BRIDGE_VLAN_FILTERING: u16 = 7;

/// The settings of a bridge that are written as they are read; the rest is what it is doing just now.
const BRIDGE: &[u16] = &[1, 2, 3, 4, 5, 6, 9, 22, 23, 24, 25, 27, 28, 29, 30, 31, 32, 33, 34, 35, 42, 43, 44];
/// The settings of a port: priority, hairpin, guard, protect, fast leave, learning, flooding, isolation.
const PORT: &[u16] = &[2, 4, 5, 6, 7, 8, 9, 10, 11, 27, 28, 30, 33];

/// Interfaces that a module makes by itself and that cannot be taken away.
const FALLBACK: &[&str] =
    &["sit0", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0"];

section! {
    /// All interfaces after the scripts, in the order of their numbers.
    pub struct State {
        /// Each interface.
        pub list: Vec<Link>,
    }
}

section! {
    /// One interface, and what the scripts changed of it.
    pub struct Link {
        /// Its name.
        pub name: String,
        /// Its name before the scripts; empty if they made it.
        pub before: String,
        /// The path in sysfs of its device and its port there; empty if it has none.
        pub device: String,
        /// Its number, if the scripts made it.
        pub index: u32,
        /// The kind of a virtual interface.
        pub kind: String,
        /// The settings of the kind.
        pub data: Vec<(u16, Bytes)>,
        /// The interface below it (vlan).
        pub lower: String,
        /// The bridge it is a port of; an empty name takes it out.
        pub master: Option<String>,
        /// Its settings as a port.
        pub port: Vec<(u16, Bytes)>,
        /// Flags, and which of them are meant.
        pub flags: (u32, u32),
        /// Largest packet.
        pub mtu: Option<u32>,
        /// Length of its queue.
        pub queue: Option<u32>,
        /// Hardware address.
        pub address: Option<Bytes>,
        /// Text for people.
        pub alias: Option<String>,
        /// Group.
        pub group: Option<u32>,
    }
}

/// What the scripts changed.
#[must_use]
pub fn capture(before: &[Seen], now: &[Seen]) -> (State, Vec<Obstacle>) {
    let (mut state, mut obstacles) = (State { list: Vec::new() }, Vec::new());
    for link in now {
        let old =
            before.iter().find(|b| b.index == link.index && b.device == link.device && b.kind == link.kind);
        if let Some(refusal) = refuse(link, old) {
            obstacles.push(Obstacle::kernel("link", format!("interface {}", link.name), refusal));
            continue;
        }
        state.list.push(difference(link, old, now, before));
    }
    (state, obstacles)
}

fn refuse(link: &Seen, old: Option<&Seen>) -> Option<Refusal> {
    let filtering = |data: &[(u16, Vec<u8>)]| {
        data.iter().any(|(kind, value)| *kind == BRIDGE_VLAN_FILTERING && value != &[0])
    };
    if link.wireless && link.flags & UP != 0 && old.is_none_or(|old| old.flags & UP == 0) {
        return Some(Refusal::new(
            "the state of a wireless interface is not carried",
            "bring it up in a rerun script",
        ));
    }
    if link.kind == "bridge" && filtering(&link.data) {
        return Some(Refusal::new(
            "a bridge that filters VLANs is not carried yet",
            "make it after the ready line",
        ));
    }
    let known = link.kind.is_empty() && old.is_some()
        || !link.device.is_empty()
        || matches!(link.kind.as_str(), "dummy" | "bridge" | "vlan" | "ifb")
        || FALLBACK.contains(&link.name.as_str());
    let told = match old {
        Some(old) => old.data == link.data || link.kind == "bridge",
        None => known,
    };
    let port = link.slave_kind.is_empty()
        || link.slave_kind == "bridge"
        || old.is_some_and(|o| o.master == link.master);
    (!told || !port).then(|| {
        let kind = if told { &link.slave_kind } else { &link.kind };
        Refusal::new(format!("interfaces of the kind {kind} are not carried"), "make it after the ready line")
    })
}

fn difference(link: &Seen, old: Option<&Seen>, now: &[Seen], before: &[Seen]) -> Link {
    let keep = |list: &[(u16, Vec<u8>)], wanted: Option<&[u16]>| -> Vec<(u16, Bytes)> {
        let wanted = |kind: &u16| wanted.is_none_or(|wanted| wanted.contains(kind));
        list.iter().filter(|(kind, _)| wanted(kind)).map(|(kind, value)| (*kind, Bytes(value.clone()))).list()
    };
    fn changed<T: PartialEq + Clone>(is: &T, was: Option<&T>) -> Option<T> {
        (was != Some(is)).then(|| is.clone())
    }
    let bridge = link.kind == "bridge";
    let data = keep(&link.data, bridge.then_some(BRIDGE));
    let told = old.is_some_and(|old| keep(&old.data, bridge.then_some(BRIDGE)) == data);
    let master = name_of(now, link.master);
    let is_port = link.slave_kind == "bridge"
        && old.is_none_or(|old| old.master != link.master || old.slave != link.slave);
    // A bridge without an address of its own has that of a port, and goes on choosing one.
    let ports = now.iter().any(|port| port.master == link.index);
    let own = if bridge { link.fixed_address && !ports } else { link.fixed_address };
    Link {
        name: link.name.clone(),
        before: old.map(|old| old.name.clone()).unwrap_or_default(),
        device: link.device.clone(),
        index: if old.is_none() && link.device.is_empty() { link.index } else { 0 },
        kind: link.kind.clone(),
        data: if told { Vec::new() } else { data },
        lower: if link.kind == "vlan" { name_of(now, link.lower) } else { String::new() },
        master: changed(&master, old.map(|old| name_of(before, old.master)).or(Some(String::new())).as_ref()),
        port: if is_port { keep(&link.slave, Some(PORT)) } else { Vec::new() },
        flags: (link.flags, old.map_or(FLAGS, |old| old.flags ^ link.flags)),
        mtu: changed(&link.mtu, old.map(|old| &old.mtu)),
        queue: changed(&link.queue, old.map(|old| &old.queue)),
        address: changed(&link.address, old.map(|old| &old.address))
            .filter(|_| old.is_some() || own)
            .map(Bytes),
        alias: changed(&link.alias, Some(old.map_or(&String::new(), |old| &old.alias))),
        group: changed(&link.group, Some(old.map_or(&0, |old| &old.group))),
    }
}

/// Waits for interfaces of hardware until the deadline.
///
/// # Errors
/// One that did not come.
pub fn check(state: &State, root: &Root, deadline: Instant) -> Result<()> {
    for link in state.list.iter().filter(|link| !link.device.is_empty()) {
        let (device, port) = text::split_last(&link.device, ':').unwrap_or((&link.device, ""));
        let mut there = || {
            let names = root.sys.names(&format!("{device}/net")).unwrap_or_default();
            names.iter().any(|name| root.sys.line(&format!("{device}/net/{}/dev_port", name.name)) == port)
        };
        crate::kernel::wait_for(deadline, &mut there).map_err(|()| {
            Error::new("link", format!("checking {}", link.name), format!("no interface at {device}"))
        })?;
    }
    Ok(())
}

/// The interface of a message: family, type, number, flags, which of them.
fn message(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    // Without a mask the kernel would take the flags for all there are.
    for word in [index, flags & change, change] {
        body.extend_from_slice(&word.to_ne_bytes());
    }
    body
}

fn nest(list: &[(u16, Bytes)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in list {
        put(&mut body, *kind, &value.0);
    }
    body
}

/// Makes, renames and configures the interfaces; none is brought up yet.
///
/// # Errors
/// What the kernel answers.
pub fn restore(state: &State, socket: &mut Socket, root: &Root) -> Result<()> {
    let live = baseline(socket, root)?;
    let mut matched: Vec<u32> = Vec::new();
    for link in &state.list {
        matched.extend(existing(link, &live).map(|seen| seen.index));
    }
    for extra in live.iter().filter(|seen| !matched.contains(&seen.index) && !seen.kind.is_empty()) {
        // A module brought it and a script took it away; some kinds are the kernel's and stay.
        match socket.change(DELETE, 0, &message(extra.index, 0, 0)) {
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::EINVAL) => {}
            Err(errno) => return Err(Error::os("link", format!("removing {}", extra.name), errno)),
        }
    }
    rename(state, &live, socket)?;
    for link in &state.list {
        if existing(link, &live).is_none() {
            create(link, socket, root)?;
        }
    }
    let live = baseline(socket, root)?;
    for link in &state.list {
        configure(link, &live, socket)?;
    }
    Ok(())
}

/// The interface that is meant, if it exists already.
fn existing<'a>(link: &Link, live: &'a [Seen]) -> Option<&'a Seen> {
    live.iter().find(|seen| {
        if !link.device.is_empty() {
            seen.device == link.device
        } else if link.before.is_empty() {
            seen.name == link.name && seen.kind == link.kind
        } else {
            seen.device.is_empty() && seen.name == link.before
        }
    })
}

/// In two rounds if names are exchanged: an interface whose name is taken waits under one of ours.
fn rename(state: &State, live: &[Seen], socket: &mut Socket) -> Result<()> {
    let wanted =
        |link: &&Link| existing(link, live).filter(|seen| seen.name != link.name).map(|seen| seen.index);
    let mut set = |index: u32, name: &str| {
        let mut body = message(index, 0, 0);
        put_text(&mut body, NAME, name);
        socket.change(NEW, 0, &body).context("link", format_args!("renaming an interface to {name}"))
    };
    for link in &state.list {
        if let Some(index) = wanted(&link)
            && live.iter().any(|seen| seen.name == link.name)
        {
            set(index, &format!("rcsnap{index}"))?;
        }
    }
    for link in &state.list {
        if let Some(index) = wanted(&link) {
            set(index, &link.name)?;
        }
    }
    Ok(())
}

fn create(link: &Link, socket: &mut Socket, root: &Root) -> Result<()> {
    let mut body = message(link.index, 0, 0);
    put_text(&mut body, NAME, &link.name);
    if !link.lower.is_empty() {
        let live = baseline(socket, root)?;
        put(&mut body, LINK, &index_of(&live, "link", &link.lower)?.to_ne_bytes());
    }
    // Here and not later, because some kinds do not let it be changed.
    if let Some(address) = &link.address {
        put(&mut body, ADDRESS, &address.0);
    }
    let mut info = Vec::new();
    put_text(&mut info, KIND, &link.kind);
    put(&mut info, DATA, &nest(&link.data));
    put(&mut body, LINKINFO, &info);
    socket
        .change(NEW, CREATE | EXCLUSIVE, &body)
        .context("link", format_args!("making {} of the kind {}", link.name, link.kind))
}

fn configure(link: &Link, live: &[Seen], socket: &mut Socket) -> Result<()> {
    let index = index_of(live, "link", &link.name)?;
    let doing = format_args!("configuring {}", link.name);
    let (flags, mask) = link.flags;
    let mut body = message(index, flags, mask & !UP);
    if let Some(mtu) = link.mtu {
        put(&mut body, MTU, &mtu.to_ne_bytes());
    }
    if let Some(queue) = link.queue {
        put(&mut body, QUEUE, &queue.to_ne_bytes());
    }
    let seen = live.iter().find(|seen| seen.index == index);
    if let Some(address) = &link.address
        && seen.is_none_or(|seen| seen.address() != address.0)
    {
        put(&mut body, ADDRESS, &address.0);
    }
    if let Some(alias) = &link.alias {
        put(&mut body, ALIAS, alias.as_bytes());
    }
    if let Some(group) = link.group {
        put(&mut body, GROUP, &group.to_ne_bytes());
    }
    if let Some(master) = &link.master {
        let master = if master.is_empty() { 0 } else { index_of(live, "link", master)? };
        put(&mut body, MASTER, &master.to_ne_bytes());
    }
    socket.change(NEW, 0, &body).context("link", doing)?;
    if !link.before.is_empty() && !link.data.is_empty() {
        let mut info = Vec::new();
        put_text(&mut info, KIND, &link.kind);
        put(&mut info, DATA, &nest(&link.data));
        let mut body = message(index, 0, 0);
        put(&mut body, LINKINFO, &info);
        socket.change(NEW, 0, &body).context("link", doing)?;
    }
    // After it is a port.
    if link.port.is_empty() {
        return Ok(());
    }
    let mut info = Vec::new();
    put_text(&mut info, SLAVE_KIND, "bridge");
    put(&mut info, SLAVE_DATA, &nest(&link.port));
    let mut body = message(index, 0, 0);
    put(&mut body, LINKINFO, &info);
    socket.change(NEW, 0, &body).context("link", doing)
}

/// Brings interfaces up or down as they were; a vlan after what is below it.
///
/// # Errors
/// What the kernel answers.
pub fn restore_flags(state: &State, socket: &mut Socket, root: &Root) -> Result<()> {
    let live = baseline(socket, root)?;
    let (below, above): (Vec<&Link>, Vec<&Link>) = state.list.iter().partition(|link| link.lower.is_empty());
    for link in below.into_iter().chain(above) {
        let (flags, mask) = link.flags;
        if mask & UP != 0 {
            let body = message(index_of(&live, "link", &link.name)?, flags, UP);
            socket
                .change(NEW, 0, &body)
                .context("link", format_args!("bringing {} up or down", link.name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{BRIDGE_VLAN_FILTERING, FLAGS, Seen, UP, capture, message};

    fn link(name: &str, index: u32, kind: &str) -> Seen {
        Seen { name: name.into(), index, kind: kind.into(), ..Seen::default() }
    }

    #[test]
    fn filtering_bridge_is_refused() {
        let mut bridge = link("br0", 5, "bridge");
        bridge.data = vec![(BRIDGE_VLAN_FILTERING, vec![1])];
        let (_, obstacles) = capture(&[], &[bridge.clone()]);
        assert!(obstacles[0].reason.contains("filters VLANs"), "{obstacles:?}");
        bridge.data = vec![(BRIDGE_VLAN_FILTERING, vec![0])];
        assert!(capture(&[], &[bridge]).1.is_empty());
    }

    #[test]
    fn wireless_interface_is_refused_once_it_is_up() {
        let mut radio = Seen { wireless: true, device: "devices/usb:0".into(), ..link("wlan0", 3, "") };
        assert!(capture(&[radio.clone()], &[radio.clone()]).1.is_empty());
        let before = radio.clone();
        radio.flags = UP;
        assert!(capture(&[before], &[radio]).1[0].reason.contains("wireless"));
    }

    #[test]
    fn only_changes_of_hardware_are_kept() {
        let before = Seen { device: "devices/pci:0".into(), mtu: 1500, ..link("eth0", 2, "") };
        let after = Seen { name: "lan".into(), flags: UP, mtu: 1400, ..before.clone() };
        let (state, _) = capture(&[before], &[after]);
        let link = &state.list[0];
        assert_eq!((link.before.as_str(), link.name.as_str(), link.index), ("eth0", "lan", 0));
        assert_eq!((link.mtu, link.queue, link.flags), (Some(1400), None, (UP, UP)));
    }

    #[test]
    fn number_of_a_new_interface_is_kept() {
        let (state, _) = capture(&[], &[link("d0", 7, "dummy")]);
        assert_eq!((state.list[0].index, state.list[0].flags), (7, (0, FLAGS)));
    }

    #[test]
    fn flags_without_a_mask_are_not_sent() {
        assert_eq!(message(1, UP, 0)[8..], [0; 8]);
    }
}
