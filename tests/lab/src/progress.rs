//! What the lab is doing now, for a person and for a CI log alike: whole lines on stderr, no cursor
//! movement, each with the time since the command began.

use std::sync::OnceLock;
use std::time::Instant;

static BEGIN: OnceLock<Instant> = OnceLock::new();

/// One line: what begins now.
pub fn say(what: impl AsRef<str>) {
    let begin = BEGIN.get_or_init(Instant::now);
    eprintln!("[{:6.1}s] {}", begin.elapsed().as_secs_f64(), what.as_ref());
}
