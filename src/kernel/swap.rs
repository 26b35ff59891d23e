//! Swap areas.
//!
//! # What
//! Areas that the scripts turned on with swapon(2).
//! # Reads
//! /proc/swaps.
//! # Rebuilds
//! Nothing yet.
//! # Loses
//! Nothing.
//! # Refuses
//! Any area that was not in use before the scripts.

use super::refuse_new;
use super::root::Root;
use crate::error::Obstacle;
use crate::sorted::Listed;

/// The areas in use.
#[must_use]
pub fn baseline(root: &Root) -> Vec<String> {
    areas(&root.proc.read("swaps").unwrap_or_default())
}

/// The names of the areas: the first line is a heading, and a name has its blanks escaped.
fn areas(text: &str) -> Vec<String> {
    text.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().next()).map(str::to_owned).list()
}

/// Refuses what is new.
#[must_use]
pub fn capture(before: &[String], root: &Root) -> Vec<Obstacle> {
    let mut obstacles = refuse_new(
        "swap",
        before,
        baseline(root),
        "swap areas are not carried yet",
        "turn it on after the ready line",
    );
    for obstacle in &mut obstacles {
        obstacle.object.insert_str(0, "swap area ");
    }
    obstacles
}

#[cfg(test)]
mod tests {
    #[test]
    fn heading_is_not_an_area() {
        let text = "Filename Type Size Used Priority\n/dev/zram0\\040x partition 1024 0 -2\n";
        assert_eq!(super::areas(text), ["/dev/zram0\\040x"]);
        assert!(super::areas("").is_empty());
    }
}
