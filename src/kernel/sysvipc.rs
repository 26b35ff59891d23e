//! System V shared memory, semaphores and message queues.
//!
//! # What
//! Objects in the IPC namespace, whoever made them.
//! # Reads
//! /proc/sysvipc, which shows the reader's namespace.
//! # Rebuilds
//! Nothing yet.
//! # Loses
//! Nothing.
//! # Refuses
//! Any object that was not there before the scripts.

use super::refuse_new;
use super::root::Root;
use crate::error::Obstacle;

/// Names of the three tables, and what is in them.
const TABLES: &[(&str, &str)] = &[("shm", "shared memory"), ("sem", "semaphores"), ("msg", "message queue")];

/// The objects that exist.
#[must_use]
pub fn baseline(root: &Root) -> Vec<String> {
    let mut found = Vec::new();
    for (table, noun) in TABLES {
        let text = root.proc.read(&format!("sysvipc/{table}")).unwrap_or_default();
        found.extend(objects(&text).map(|(key, id)| format!("{noun} {id} (key {key})")));
    }
    found
}

/// Key and number of each line after the heading.
fn objects(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().skip(1).filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        Some((words.next()?, words.next()?))
    })
}

/// Refuses what is new.
#[must_use]
pub fn capture(before: &[String], root: &Root) -> Vec<Obstacle> {
    refuse_new(
        "sysvipc",
        before,
        baseline(root),
        "System V IPC is not carried yet",
        "start its user after the ready line",
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_after_the_heading_are_objects() {
        let text = "       key      semid perms      nsems\n      4660          3   600          1\n";
        assert_eq!(super::objects(text).collect::<Vec<_>>(), [("4660", "3")]);
    }
}
