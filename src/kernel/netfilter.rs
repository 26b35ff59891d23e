//! Packet filters, and queueing disciplines.
//!
//! # What
//! Tables of nftables; tables of iptables, ip6tables and arptables; disciplines and filters of tc(8).
//! # Reads
//! NFT_MSG_GETTABLE, /proc/net/*_tables_names, RTM_GETQDISC. nftables is asked only if it is in the kernel: a
//! question would make the kernel load it.
//! # Rebuilds
//! Nothing yet.
//! # Loses
//! Tracked connections.
//! # Refuses
//! Any table or discipline that was not there before the scripts.

use super::link::{Seen, name_of};
use super::refuse_new;
use super::root::Root;
use crate::error::{Context, Obstacle, Result};
use crate::sorted;
use crate::sys::fs;
use crate::sys::netlink::{Socket, attributes, find, text, u8_at, u32_at};
use crate::text;

/// NFNL_SUBSYS_NFTABLES and NFT_MSG_GETTABLE.
const GET_TABLE: u16 = (10 << 8) | 1;
const GET_QDISC: u16 = 38;

/// What is in use, in words, sorted.
///
/// # Errors
/// What the kernel answers.
pub fn baseline(root: &Root, links: &[Seen], socket: &mut Socket) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for file in ["ip_tables_names", "ip6_tables_names", "arp_tables_names"] {
        let names = root.of_task(&format!("net/{file}")).unwrap_or_default();
        let tool = file.strip_suffix("_names").unwrap_or(file);
        found.extend(names.lines().map(|name| format!("table {name} of {tool}")));
    }
    if has_nftables(root)
        && let Ok(mut socket) = Socket::netfilter()
    {
        // A kernel without it answers that it does not know the message.
        for message in socket.dump(GET_TABLE, &[0; 4]).unwrap_or_default() {
            let name = find(&attributes(&message.body, 4), 1).map(text).unwrap_or_default();
            found.push(format!("table {name} of nftables (family {})", u8_at(&message.body, 0)));
        }
    }
    for message in
        socket.dump(GET_QDISC, &[0; 20]).context("netfilter", format_args!("listing disciplines"))?
    {
        // struct tcmsg: family, interface, handle. The kernel's own disciplines have no handle.
        if u32_at(&message.body, 8) >> 16 != 0 {
            let kind = find(&attributes(&message.body, 20), 1).map(text).unwrap_or_default();
            found.push(format!("discipline {kind} of {}", name_of(links, u32_at(&message.body, 4))));
        }
    }
    sorted::sort(&mut found);
    found.dedup();
    Ok(found)
}

/// Whether nftables is loaded or built in. Without /proc/modules nothing can be loaded, so asking is harmless.
fn has_nftables(root: &Root) -> bool {
    let Ok(loaded) = root.proc.read("modules") else { return true };
    let release = root.proc.line("sys/kernel/osrelease");
    let builtin = root.path(&format!("/lib/modules/{release}/modules.builtin"));
    let builtin = fs::text(builtin).unwrap_or_default();
    loaded.lines().any(|line| line.starts_with("nf_tables ")) || text::has(&builtin, "/nf_tables.ko")
}

/// Refuses what is new.
#[must_use]
pub fn capture(before: &[String], now: Vec<String>) -> Vec<Obstacle> {
    let reason = "packet filters are not carried yet";
    refuse_new("netfilter", before, now, reason, "load them in a rerun script")
}
