//! Addresses of IPv4 and IPv6 sockets as an image keeps them.

use crate::sorted::Listed;
use std::os::fd::{AsFd, OwnedFd};

use nix::net::if_::if_indextoname;

use crate::error::{Context, Error, Result};
use crate::sys::socket;

const KIND: &str = "inet";

crate::section! {
    /// A sockaddr of AF_INET or AF_INET6.
    pub struct Address {
        /// The whole sockaddr, with its scope number set to 0.
        pub bytes: Vec<u8>,
        /// The interface that a link-local address belongs to: its number may differ on the next boot.
        pub zone: String,
    }
}

/// An address of IPv6, or one of IPv4 mapped into it.
pub type Ip = [u8; 16];

/// The loopback address of IPv6.
const LOOPBACK: Ip = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Where the scope number of a sockaddr_in6 is.
const SCOPE: usize = 24;

/// The own address or the peer's; nothing if there is none.
///
/// # Errors
/// An interface that is gone.
pub fn read(fd: &OwnedFd, peer: bool) -> Result<Option<Address>> {
    let Ok(mut bytes) = socket::name(fd.as_fd(), peer) else { return Ok(None) };
    let mut zone = String::new();
    if let Some(scope) = bytes.get_mut(SCOPE..SCOPE + 4) {
        let number = <[u8; 4]>::try_from(&*scope).map_or(0, u32::from_ne_bytes);
        if number != 0 {
            zone = interface(number)?;
            scope.fill(0);
        }
    }
    Ok(Some(Address { bytes, zone }))
}

impl Address {
    /// The sockaddr with the scope number that the interface has now.
    ///
    /// # Errors
    /// An interface that is missing.
    pub fn here(&self) -> Result<Vec<u8>> {
        let mut bytes = self.bytes.clone();
        if !self.zone.is_empty() {
            let number =
                socket::interface(&self.zone).context(KIND, format_args!("looking for {}", self.zone))?;
            for (to, from) in bytes.iter_mut().skip(SCOPE).zip(number.to_ne_bytes()) {
                *to = from;
            }
        }
        Ok(bytes)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.bytes.get(2..4).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok()).map_or(0, u16::from_be_bytes)
    }

    /// The address as one of IPv6, the way a socket for both families shows it.
    #[must_use]
    pub fn ip(&self) -> Ip {
        let mut ip = [0; 16];
        if self.bytes.len() >= SCOPE {
            ip.copy_from_slice(&self.bytes[8..24]);
        } else {
            ip[10..12].fill(0xff);
            ip[12..].copy_from_slice(self.bytes.get(4..8).unwrap_or(&[0; 4]));
        }
        ip
    }

    /// The address as one of IPv4, if it is.
    #[must_use]
    pub fn v4(&self) -> Option<[u8; 4]> {
        let ip = self.ip();
        (ip[..10] == [0; 10] && ip[10..12] == [0xff; 2]).then_some([ip[12], ip[13], ip[14], ip[15]])
    }

    /// Address and port in a form in which both ends of a connection agree.
    #[must_use]
    pub fn key(&self) -> (Ip, u16) {
        (self.ip(), self.port())
    }

    /// Whether nothing is bound: neither an address nor a port.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.port() == 0 && (self.ip() == [0; 16] || self.v4() == Some([0; 4]))
    }

    /// Whether it is a loopback address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.ip() == LOOPBACK || self.v4().is_some_and(|v4| v4[0] == 127)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.v4() {
            Some([a, b, c, d]) => write!(f, "{a}.{b}.{c}.{d}:{}", self.port()),
            None => write!(f, "[{}]:{}", groups(&self.ip()), self.port()),
        }
    }
}

/// An address of IPv6 as RFC 5952 has it: the first of the longest runs of zeroes is left out.
fn groups(ip: &Ip) -> String {
    let groups = ip.as_chunks().0.iter().map(|group| u16::from_be_bytes(*group)).list();
    let zeroes = |at: usize| groups[at..].iter().take_while(|group| **group == 0).count();
    let (mut from, mut len) = (8, 1);
    for at in 0..8 {
        if zeroes(at) > len {
            (from, len) = (at, zeroes(at));
        }
    }
    let mut text = String::new();
    for (at, group) in groups.iter().enumerate() {
        if at == from {
            text.push_str("::");
        } else if at < from || at >= from + len {
            let between = if at == 0 || at == from + len { "" } else { ":" };
            text.push_str(&format!("{between}{group:x}"));
        }
    }
    text
}

/// The name of an interface: its number may be another one on the next boot.
///
/// # Errors
/// It is gone.
pub fn interface(number: u32) -> Result<String> {
    let name = if_indextoname(number).context(KIND, format_args!("looking for interface {number}"))?;
    name.into_string().map_err(|_| Error::new(KIND, "naming an interface", "odd name"))
}

#[cfg(test)]
mod tests {
    use super::{Address, groups};

    #[test]
    fn addresses_read_as_std_writes_them() {
        for text in
            ["::", "::1", "1::", "fe80::1:0:0:2", "1:0:2::3", "1:2:3:4:5:6:7:8", "0:1::", "1::2:0:0:3:4"]
        {
            let ip: std::net::Ipv6Addr = text.parse().unwrap();
            assert_eq!(groups(&ip.octets()), ip.to_string(), "{text}");
        }
        let mut bytes = vec![2, 0, 0, 80, 127, 0, 0, 1];
        bytes.resize(16, 0);
        let address = Address { bytes, zone: String::new() };
        assert_eq!(address.to_string(), "127.0.0.1:80");
        assert!(address.is_loopback() && !address.is_empty());
    }
}
