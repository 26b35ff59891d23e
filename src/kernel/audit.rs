//! What the kernel records for audit.
//!
//! # What
//! The daemon that takes the records, settings and rules (auditctl(8)), if the scripts set any.
//! # Reads
//! AUDIT_GET and AUDIT_LIST_RULES, before and after the scripts.
//! # Rebuilds
//! Nothing yet.
//! # Loses
//! Nothing; a program that only sends records goes on: see `netlink`.
//! # Refuses
//! Another daemon, other settings, or another number of rules than before the scripts.

use super::refuse_new;
use super::root::Root;
use crate::error::Obstacle;
use crate::sys::netlink::{Socket, u32_at};

const GET: u16 = 1000;
const LIST_RULES: u16 = 1013;

/// The state in words; none without audit, or where the kernel does not tell.
#[must_use]
pub fn baseline(root: &Root) -> Vec<String> {
    // A kernel without audit would look for a module.
    if !root.proc.exists("self/loginuid") {
        return Vec::new();
    }
    let status = Socket::audit().and_then(|mut socket| Ok((socket.ask(GET)?, socket.dump(LIST_RULES, &[])?)));
    let (status, rules) = status.unwrap_or_default();
    status.iter().map(|status| words(&status.body, rules.len())).collect()
}

/// struct audit_status: mask, enabled, failure, pid, limits of the rate and of the queue.
fn words(status: &[u8], rules: usize) -> String {
    let [enabled, failure, pid, rate, queue] = [4, 8, 12, 16, 20].map(|at| u32_at(status, at));
    format!("daemon {pid}, {rules} rules, settings {enabled} {failure} {rate} {queue}")
}

/// Refuses what is new.
#[must_use]
pub fn capture(before: &[String], root: &Root) -> Vec<Obstacle> {
    let reason = "the audit daemon, rules and settings are not carried yet";
    refuse_new("audit", before, baseline(root), reason, "start it after the ready line")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Root, baseline, capture, words};

    #[test]
    fn daemon_rules_and_settings_are_in_the_words() {
        let mut status = Vec::new();
        for number in [0_u32, 1, 2, 345, 6, 64, 0, 0, 0] {
            status.extend_from_slice(&number.to_ne_bytes());
        }
        assert_eq!(words(&status, 3), "daemon 345, 3 rules, settings 1 2 6 64");
    }

    #[test]
    fn another_daemon_is_refused() {
        let root = Root::open(Path::new("/proc"), Path::new("/sys"), Path::new("/"), "self").unwrap();
        let now = baseline(&root);
        assert_eq!(capture(&now, &root), []);
        // The kernel tells only who may set it.
        if let [words] = now.as_slice() {
            let found = capture(&[words.replace("daemon ", "daemon 1")], &root);
            assert_eq!((found.len(), found[0].kind.as_ref()), (1, "audit"));
        }
    }
}
