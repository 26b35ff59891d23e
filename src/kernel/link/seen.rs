//! Network interfaces as the kernel describes them (rtnetlink(7)).

use crate::sorted::Listed;
use nix::errno::Errno;

use crate::error::{Context, Error, Result};
use crate::kernel::root::Root;
use crate::sorted;
use crate::sys::netlink::{Socket, attributes, find, text, u16_at, u32_at};
use crate::text;

pub(super) const NEW: u16 = 16;
const GET: u16 = 18;
/// struct ifinfomsg.
const INFO: usize = 16;

// include/uapi/linux/if_link.h
pub(super) const ADDRESS: u16 = 1;
pub(super) const NAME: u16 = 3;
pub(super) const MTU: u16 = 4;
pub(super) const LINK: u16 = 5;
pub(super) const MASTER: u16 = 10;
pub(super) const QUEUE: u16 = 13;
pub(super) const LINKINFO: u16 = 18;
pub(super) const ALIAS: u16 = 20;
pub(super) const GROUP: u16 = 27;
pub(super) const KIND: u16 = 1;
pub(super) const DATA: u16 = 2;
pub(super) const SLAVE_KIND: u16 = 4;
pub(super) const SLAVE_DATA: u16 = 5;

/// IFF_UP.
pub const UP: u32 = 1;
/// IFF_UP, DEBUG, NOTRAILERS, NOARP, PROMISC, ALLMULTI, MULTICAST, DYNAMIC: what an administrator sets.
pub(super) const FLAGS: u32 = 0x1 | 0x4 | 0x20 | 0x80 | 0x100 | 0x200 | 0x1000 | 0x8000;

/// An interface as the kernel describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    pub(super) flags: u32,
    pub(super) mtu: u32,
    pub(super) queue: u32,
    pub(super) address: Vec<u8>,
    pub(super) alias: String,
    pub(super) group: u32,
    pub(super) kind: String,
    pub(super) data: Vec<(u16, Vec<u8>)>,
    pub(super) slave_kind: String,
    pub(super) slave: Vec<(u16, Vec<u8>)>,
    pub(super) lower: u32,
    pub(super) master: u32,
    pub(super) device: String,
    pub(super) fixed_address: bool,
    pub(super) wireless: bool,
}

impl Seen {
    /// Its hardware address.
    #[must_use]
    pub fn address(&self) -> &[u8] {
        &self.address
    }
}

/// The name of an interface by its number.
#[must_use]
pub fn name_of(links: &[Seen], index: u32) -> String {
    links.iter().find(|link| link.index == index).map_or_else(String::new, |link| link.name.clone())
}

/// The number of an interface by its name.
///
/// # Errors
/// There is none.
pub fn index_of(links: &[Seen], kind: &'static str, name: &str) -> Result<u32> {
    let found = links.iter().find(|link| link.name == name);
    found
        .map(|link| link.index)
        .ok_or_else(|| Error::new(kind, format!("looking for {name}"), "no such interface"))
}

/// All interfaces, in the order of their numbers.
///
/// # Errors
/// What the kernel answers.
pub fn baseline(socket: &mut Socket, root: &Root) -> Result<Vec<Seen>> {
    let answer = socket.dump(GET, &[0; INFO]).context("link", format_args!("listing interfaces"))?;
    let mut found: Vec<Seen> = answer.iter().map(|message| seen(&message.body)).list();
    for link in &mut found {
        let dir = format!("class/net/{}", link.name);
        if let Ok(path) = root.sys.link(&format!("{dir}/device")) {
            // The link is relative to the directory of the interface; where that lies ends in /net/NAME.
            let own = root.sys.link(&dir).unwrap_or_default();
            let device =
                text::from_top(text::split(&own, "/net/").map_or(&own, |(device, _)| device)).to_owned();
            let port = root.sys.line(&format!("{dir}/dev_port"));
            link.device = if device.is_empty() { path } else { format!("{device}:{port}") };
        }
        // 1: drawn by the kernel, 3: set by somebody. 0 is the hardware's own, 2 another interface's.
        link.fixed_address = matches!(root.sys.line(&format!("{dir}/addr_assign_type")).as_str(), "1" | "3");
        link.wireless = root.sys.exists(&format!("{dir}/phy80211"));
    }
    sorted::sort_by_key(&mut found, |link| link.index);
    Ok(found)
}

fn seen(body: &[u8]) -> Seen {
    let list = attributes(body, INFO);
    let number = |kind| find(&list, kind).map_or(0, |value| u32_at(value, 0));
    let string = |kind| find(&list, kind).map(text).unwrap_or_default();
    let info = attributes(find(&list, LINKINFO).unwrap_or(&[]), 0);
    let nested = |kind| {
        let inner = attributes(find(&info, kind).unwrap_or(&[]), 0);
        inner.into_iter().map(|(kind, value)| (kind, value.to_vec())).list()
    };
    Seen {
        index: u32_at(body, 4),
        name: string(NAME),
        flags: u32_at(body, 8) & FLAGS,
        mtu: number(MTU),
        queue: number(QUEUE),
        address: find(&list, ADDRESS).unwrap_or(&[]).to_vec(),
        alias: string(ALIAS),
        group: number(GROUP),
        kind: find(&info, KIND).map(text).unwrap_or_default(),
        data: nested(DATA),
        slave_kind: find(&info, SLAVE_KIND).map(text).unwrap_or_default(),
        slave: nested(SLAVE_DATA),
        lower: number(LINK),
        master: number(MASTER),
        ..Seen::default()
    }
}

/// Static entries of bridges, which are not carried: NUD_NOARP in a dump of AF_BRIDGE.
///
/// # Errors
/// What the kernel answers.
pub fn bridge_entries(socket: &mut Socket) -> Result<usize> {
    let answer = match socket.dump(30, &[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) {
        Err(Errno::EOPNOTSUPP) => return Ok(0),
        answer => answer.context("link", format_args!("listing bridge entries"))?,
    };
    // Entries of the bridge have a master (NDA_MASTER); others are multicast filters of the devices.
    let fixed = |body: &[u8]| u16_at(body, 8) & 0x40 != 0 && find(&attributes(body, 12), 9).is_some();
    Ok(answer.iter().filter(|message| fixed(&message.body)).count())
}
