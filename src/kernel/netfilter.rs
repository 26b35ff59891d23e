//! Packet filters, queueing disciplines, IPsec, and multicast routing.
//!
//! # What
//! Tables of nftables; tables of iptables, ip6tables and arptables; modules of ebtables and of sets (ipset); services
//! of IPVS; disciplines and filters of tc(8); states and policies of IPsec (ip-xfrm(8)); routing of multicast packets.
//! # Reads
//! NFT_MSG_GETTABLE, XFRM_MSG_GETSA, XFRM_MSG_GETPOLICY, RTM_GETQDISC; /proc/net/{*_tables_names, ip_vs, ip_mr_vif,
//! ip6_mr_vif}; the parameter mc_forwarding; /proc/modules. nftables and IPsec are asked only if they are in the kernel,
//! or may be: a question would make the kernel load them.
//! # Rebuilds
//! Nothing yet.
//! # Loses
//! Tracked connections.
//! # Refuses
//! Any of these that was not there before the scripts.

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
/// XFRM_MSG_GETSA and XFRM_MSG_GETPOLICY.
const IPSEC: [(&str, u16); 2] = [("states", 0x12), ("policies", 0x15)];
/// Modules, as /proc/modules begins their lines: nothing lists what is in them without changing it.
const HIDDEN: [&str; 3] = ["ebtable_", "ip_set ", "af_key "];
/// Files of procfs, and how many lines of each are a heading. A daemon that routes multicast packets counts in
/// mc_forwarding before it has any interface.
const LISTS: [(&str, usize); 8] = [
    ("net/ip_tables_names", 0),
    ("net/ip6_tables_names", 0),
    ("net/arp_tables_names", 0),
    ("net/ip_vs", 3),
    ("net/ip_mr_vif", 1),
    ("net/ip6_mr_vif", 1),
    ("sys/net/ipv4/conf/all/mc_forwarding", 0),
    ("sys/net/ipv6/conf/all/mc_forwarding", 0),
];

/// What is in use, in words, sorted.
///
/// # Errors
/// What the kernel answers.
pub fn baseline(root: &Root, links: &[Seen], socket: &mut Socket) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut add = |what: &str, file: &str| found.push(format!("{what} in /proc/{file}"));
    for (file, heading) in LISTS {
        let text = root.of_task(file).or_else(|_| root.proc.read(file)).unwrap_or_default();
        // 0: nobody routes.
        text.lines().skip(heading).filter(|line| *line != "0").for_each(|line| add(line, file));
    }
    let loaded = root.proc.read("modules").ok();
    for line in loaded.as_deref().unwrap_or_default().lines() {
        if HIDDEN.iter().any(|name| line.starts_with(name)) {
            add(line, "modules");
        }
    }
    if may_have(root, loaded.as_deref(), "nf_tables ", "/nf_tables.ko")
        && let Ok(mut socket) = Socket::netfilter()
    {
        // A kernel without it answers that it does not know the message.
        list(&mut socket, GET_TABLE, &[0; 4], &mut |body| {
            let name = find(&attributes(body, 4), 1).map(text).unwrap_or_default();
            found.push(format!("table {name} of nftables (family {})", u8_at(body, 0)));
        })
        .ok();
    }
    if may_have(root, loaded.as_deref(), "xfrm_user ", "/xfrm_user.ko")
        && let Ok(mut socket) = Socket::ipsec()
    {
        for (what, kind) in IPSEC {
            let mut count = 0_u32;
            list(&mut socket, kind, &[], &mut |_| count += 1)?;
            found.push(format!("{count} {what} of IPsec"));
        }
    }
    list(socket, GET_QDISC, &[0; 20], &mut |body| {
        // struct tcmsg: family, interface, handle. The kernel's own disciplines have no handle.
        if u32_at(body, 8) >> 16 != 0 {
            let kind = find(&attributes(body, 20), 1).map(text).unwrap_or_default();
            found.push(format!("discipline {kind} of {}", name_of(links, u32_at(body, 4))));
        }
    })?;
    sorted::sort(&mut found);
    found.dedup();
    Ok(found)
}

/// Shows what a table has.
fn list(socket: &mut Socket, kind: u16, header: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<()> {
    let answer = socket.dump(kind, header).context("netfilter", format_args!("listing table {kind}"))?;
    answer.iter().for_each(|message| each(&message.body));
    Ok(())
}

/// Whether a module is loaded, or may be built in. Without /proc/modules nothing can be loaded, so asking is harmless;
/// and so it is where the module has no file.
fn may_have(root: &Root, loaded: Option<&str>, line: &str, file: &str) -> bool {
    let Some(loaded) = loaded else { return true };
    let release = root.proc.line("sys/kernel/osrelease");
    let list = |list| fs::text(root.path(&format!("/lib/modules/{release}/modules.{list}")));
    text::has(loaded, line)
        || match list("builtin") {
            Ok(builtin) => text::has(&builtin, file),
            Err(_) => !text::has(&list("dep").unwrap_or_default(), file),
        }
}

/// Refuses what is new.
#[must_use]
pub fn capture(before: &[String], now: Vec<String>) -> Vec<Obstacle> {
    let reason = "packet filters, IPsec and multicast routing are not carried yet";
    refuse_new("netfilter", before, now, reason, "set it up after the ready line")
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, remove_dir_all, write};
    use std::path::PathBuf;

    use super::{Root, Socket, baseline, capture, may_have};

    /// A system in a folder that is its procfs too.
    fn system(name: &str) -> (PathBuf, Root) {
        let dir = std::env::temp_dir().join(format!("rcsnap-netfilter-{name}-{}", std::process::id()));
        for part in ["1/net", "sys/kernel", "sys/net/ipv6/conf/all", "lib/modules/6.1"] {
            create_dir_all(dir.join(part)).unwrap();
        }
        write(dir.join("sys/kernel/osrelease"), "6.1\n").unwrap();
        let root = Root::open(&dir, &dir, &dir, "1").unwrap();
        (dir, root)
    }

    #[test]
    fn modules_and_lists_of_procfs_are_refused() {
        let (dir, root) = system("lists");
        let put = |name: &str, text: &str| write(dir.join(name), text).unwrap();
        let now = || baseline(&root, &[], &mut Socket::route().unwrap()).unwrap();
        put("lib/modules/6.1/modules.builtin", "");
        put("modules", "nfnetlink 20480 1 - Live 0x0\n");
        let before = now();
        let objects = || capture(&before, now()).into_iter().map(|one| one.object).collect::<Vec<_>>();
        put("modules", "ebtable_nat 16384 1 - Live 0x0\nnfnetlink 20480 1 - Live 0x0\n");
        put("1/net/ip_vs", "IP Virtual Server\nProt Local\n  -> Remote\n");
        put("1/net/ip_mr_vif", "Interface BytesIn\n");
        put("sys/net/ipv6/conf/all/mc_forwarding", "0\n");
        assert_eq!(objects(), ["ebtable_nat 16384 1 - Live 0x0 in /proc/modules"]);
        put("modules", "nfnetlink 20480 1 - Live 0x0\n");
        put("1/net/ip_vs", "IP Virtual Server\nProt Local\n  -> Remote\nTCP 0A000001:0050 rr\n");
        put("1/net/ip_mr_vif", "Interface BytesIn\n 0 eth0 0\n");
        assert_eq!(
            objects(),
            [" 0 eth0 0 in /proc/net/ip_mr_vif", "TCP 0A000001:0050 rr in /proc/net/ip_vs"]
        );
        remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_may_be_built_in_is_asked() {
        let (dir, root) = system("modules");
        let put = |name: &str, text: &str| write(dir.join("lib/modules/6.1").join(name), text).unwrap();
        let may = |loaded| may_have(&root, loaded, "nf_tables ", "/nf_tables.ko");
        assert!(may(Some("")) && may(None));
        put("modules.dep", "kernel/net/netfilter/nf_tables.ko: kernel/net/netfilter/nfnetlink.ko\n");
        assert!(!may(Some("nfnetlink 1 1 nft_ct,nf_tables, Live\n")) && may(Some("nf_tables 1 0 - Live\n")));
        put("modules.builtin", "kernel/net/netfilter/nfnetlink.ko\n");
        assert!(!may(Some("")));
        put("modules.builtin", "kernel/net/netfilter/nf_tables.ko\n");
        assert!(may(Some("")));
        remove_dir_all(dir).unwrap();
    }
}
