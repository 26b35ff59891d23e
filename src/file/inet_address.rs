//! Addresses of IPv4 and IPv6 sockets as an image keeps them.

use std::os::fd::{AsFd, OwnedFd};

use nix::net::if_::{if_indextoname, if_nametoindex};

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
            let name =
                if_indextoname(number).context(KIND, format_args!("looking for interface {number}"))?;
            zone = name.into_string().map_err(|_| Error::new(KIND, "naming an interface", "odd name"))?;
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
            let number = if_nametoindex(self.zone.as_str())
                .context(KIND, format_args!("looking for {}", self.zone))?;
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
    pub fn ip(&self) -> std::net::Ipv6Addr {
        if self.bytes.len() >= SCOPE
            && let Some(Ok(ip)) = self.bytes.get(8..24).map(<[u8; 16]>::try_from)
        {
            return ip.into();
        }
        let v4 = self.bytes.get(4..8).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).unwrap_or_default();
        std::net::Ipv4Addr::from(v4).to_ipv6_mapped()
    }

    /// Address and port in a form in which both ends of a connection agree.
    #[must_use]
    pub fn key(&self) -> (std::net::Ipv6Addr, u16) {
        (self.ip(), self.port())
    }

    /// Whether nothing is bound: neither an address nor a port.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let ip = self.ip();
        self.port() == 0 && (ip.is_unspecified() || ip.to_ipv4_mapped().is_some_and(|v4| v4.is_unspecified()))
    }

    /// Whether it is a loopback address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let ip = self.ip();
        ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.ip().to_ipv4_mapped() {
            Some(v4) => write!(f, "{v4}:{}", self.port()),
            None => write!(f, "[{}]:{}", self.ip(), self.port()),
        }
    }
}
