//! The pool of huge pages, which is this machine's: large enough for all programs that run at the same time, and put
//! back afterwards.

use std::fs;

/// The number of pages of the default size.
const PLACE: &str = "/proc/sys/vm/nr_hugepages";
/// What all programs take together, with what each has twice after a restore.
const PAGES: u64 = 64;

/// A pool that was made larger.
pub struct Pool(u64);

impl Pool {
    /// For these programs, if any of them takes from it. Where the machine has none they find out themselves.
    pub fn fill(programs: &[String]) -> Option<Pool> {
        let wanted = programs.iter().any(|program| program.starts_with("huge"));
        let before = fs::read_to_string(PLACE).ok()?.trim().parse::<u64>().ok().filter(|_| wanted)?;
        fs::write(PLACE, (before + PAGES).to_string()).ok()?;
        Some(Pool(before))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = fs::write(PLACE, self.0.to_string());
    }
}
