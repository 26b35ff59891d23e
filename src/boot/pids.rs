//! The pid band: numbers of captured tasks must be free when they are needed again.
//!
//! Kernel threads take numbers from the same space, at moments that nobody can predict. So on a cold boot the
//! scripts' tasks begin well above all that the kernel has started, and on a restore the cursor is set above
//! the band before anything can start a thread: clone3(2) with set_tid does not move it.

use crate::error::{Context, Result};
use crate::sys::fs;

/// The lowest number for a task of the scripts. Boards start with fewer than 200 kernel threads.
const FLOOR: u32 = 1000;
/// Free numbers above the last kernel thread: threads that the scripts' modules start find room there on a
/// boot that restores.
const SLACK: u32 = 200;
/// Free numbers above the band, for the restore's own helpers.
const MARGIN: u32 = 64;
/// The cursor: the last number that was given away (proc_sys_kernel(5)).
const CURSOR: &str = "/proc/sys/kernel/ns_last_pid";

/// Where the band of a cold boot begins.
#[must_use]
fn band(cursor: u32) -> u32 {
    FLOOR.max(cursor.saturating_add(SLACK))
}

fn move_to(number: u32) -> Result<()> {
    fs::write(CURSOR, number.to_string()).context("boot", format_args!("moving the pid cursor to {number}"))
}

/// Cold: raises the cursor before the scripts run. Called by the watcher, which has the last number.
///
/// # Errors
/// No /proc, or no CONFIG_CHECKPOINT_RESTORE.
pub fn raise() -> Result<()> {
    let cursor = fs::text(CURSOR).ok().and_then(|text| text.trim_ascii().parse().ok());
    move_to(band(cursor.unwrap_or_else(std::process::id)))
}

/// Restore: puts the cursor above the highest captured number.
///
/// # Errors
/// As [`raise`].
pub fn pass(highest: u32) -> Result<()> {
    move_to(highest.saturating_add(MARGIN))
}

#[cfg(test)]
mod tests {
    use super::band;

    #[test]
    fn the_band_begins_above_the_kernel_threads() {
        assert_eq!(band(120), 1000);
        assert_eq!(band(900), 1100);
    }
}
