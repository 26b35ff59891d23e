//! The *_DIAG modules: with them the kernel tells all about sockets (sock_diag(7)).
//!
//! They are loaded before the watcher looks at the kernel, so that the difference made by the scripts
//! does not hold them. The kernel would load them itself through /sbin/modprobe, where there is one.

use crate::error::Context;
use crate::sorted::Listed;
use crate::sys::fs;
use crate::text;
use crate::{log, sys};

/// Those of the families that are asked about.
const WANTED: [&str; 2] = ["unix_diag", "af_packet_diag"];

/// Loads those that this kernel has as modules. A kernel without them is asked in other ways, or the capture
/// finds obstacles.
pub fn load() {
    let folder = format!("/lib/modules/{}", fs::kernel("osrelease").unwrap_or_default());
    let Ok(index) = fs::text(format!("{folder}/modules.dep")) else { return };
    for wanted in WANTED {
        for file in chain(&index, wanted) {
            if let Err(error) = sys::module::load(format!("{folder}/{file}").as_ref(), "")
                .context("watcher", format_args!("loading {file}"))
            {
                log!(Info, "{error}");
            }
        }
    }
}

/// The files of a module and of all it needs, what is needed first: modules.dep lists the nearest first.
fn chain<'a>(index: &'a str, wanted: &str) -> Vec<&'a str> {
    let line = index.lines().find_map(|line| {
        let (file, needs) = line.split_once(':')?;
        (stem(file) == wanted).then_some((file, needs))
    });
    let Some((file, needs)) = line else { return Vec::new() };
    let mut chain: Vec<&str> = needs.split_ascii_whitespace().list();
    chain.reverse();
    chain.push(file);
    chain
}

/// `unix_diag` of `kernel/net/unix/unix_diag.ko.xz`.
fn stem(file: &str) -> &str {
    let name = text::file_name(file);
    name.split('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::chain;

    #[test]
    fn what_a_module_needs_comes_first() {
        let index = "kernel/net/ipv4/inet_diag.ko.xz:\nkernel/net/ipv4/tcp_diag.ko.xz: kernel/net/ipv4/inet_diag.ko.xz\n";
        assert_eq!(
            chain(index, "tcp_diag"),
            ["kernel/net/ipv4/inet_diag.ko.xz", "kernel/net/ipv4/tcp_diag.ko.xz"]
        );
        assert!(chain(index, "udp_diag").is_empty());
    }
}
