//! What the kernel records for audit.
//!
//! # What
//! The daemon that takes the records, and rules (auditctl(8)), if the scripts set any.
//! # Reads
//! AUDIT_GET and AUDIT_LIST_RULES, before and after the scripts.
//! # Rebuilds
//! Nothing yet.
//! # Loses
//! Other settings: limits, what is done at a failure. A program that only sends records goes on: see `netlink`.
//! # Refuses
//! Another daemon, or another number of rules than before the scripts.

use super::root::Root;
use crate::error::{Obstacle, Refusal};
use crate::sys::netlink::{Socket, u32_at};

const GET: u16 = 1000;
const LIST_RULES: u16 = 1013;
/// Where struct audit_status has the number of the daemon.
const PID: usize = 12;

/// The daemon and the number of rules; 0 without audit, or where the kernel does not tell.
#[must_use]
pub fn baseline(root: &Root) -> (u32, usize) {
    // A kernel without audit would look for a module.
    if root.proc.exists("self/loginuid")
        && let Ok(mut socket) = Socket::audit()
        && let Ok(status) = socket.ask(GET)
        && let Ok(rules) = socket.dump(LIST_RULES, &[])
    {
        return (u32_at(&status, PID), rules.len());
    }
    (0, 0)
}

/// Refuses what is new.
#[must_use]
pub fn capture(before: (u32, usize), root: &Root) -> Option<Obstacle> {
    let reason = "the audit daemon and its rules are not carried yet";
    (before != baseline(root)).then(|| {
        Obstacle::kernel("audit", "daemon or rules", Refusal::new(reason, "start it after the ready line"))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Root, baseline, capture};

    #[test]
    fn another_daemon_and_other_rules_are_refused() {
        let root = Root::open(Path::new("/proc"), Path::new("/sys"), Path::new("/"), "self").unwrap();
        let (pid, rules) = baseline(&root);
        assert_eq!(capture((pid, rules), &root), None);
        for before in [(pid + 1, rules), (pid, rules + 1)] {
            assert_eq!(capture(before, &root).unwrap().kind, "audit");
        }
    }
}
