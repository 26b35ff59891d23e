//! All memory, compressed into RAM while the tasks stand still, within bounds of time and of room.
//!
//! The picture lies beside the processes that it is of. A board whose RAM does not hold both must lose the
//! picture and not a daemon, so the kernel is asked what is available as the picture grows: how far pages
//! compress, and how many are the same, nobody can say before.

use std::time::{Duration, Instant};

use super::KIND;
use crate::error::{Context, Error, Result};
use crate::image::Sink;
use crate::image::pages::{PageIndex, PageWriter};
use crate::sys::fs;
use crate::sys::time::milliseconds;
use crate::task::memory::Object;
use crate::task::pages::{self, Origins};
use crate::task::tree::Process;

/// Bytes between two looks at what is available.
const STRIDE: usize = 1024 * 1024;
/// What is left to the system: one part of all memory in this many.
const SPARED: u64 = 32;

/// How long the tasks may stand still.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    begin: Instant,
    limit: Duration,
}

impl Clock {
    /// Starts now.
    #[must_use]
    pub fn start(limit: Duration) -> Clock {
        Clock { begin: Instant::now(), limit }
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn milliseconds(&self) -> u32 {
        u32::try_from(milliseconds(self.begin.elapsed())).unwrap_or(u32::MAX)
    }

    /// Whether there is time left.
    ///
    /// # Errors
    /// There is none.
    pub fn check(&self) -> Result<()> {
        if self.begin.elapsed() <= self.limit {
            return Ok(());
        }
        let cause = format!("they stood still for {} ms (limit.stop_ms)", self.milliseconds());
        Err(Error::new(KIND, "reading the tasks", cause))
    }
}

/// The compressed pages: every block is a moment to look at the clock, and at what is available.
struct Bounded {
    bytes: Vec<u8>,
    clock: Clock,
    /// When to look again.
    next: usize,
}

impl Sink for Bounded {
    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.clock.check()?;
        if self.bytes.len() >= self.next {
            let text = fs::text("/proc/meminfo");
            enough(&text.context(KIND, format_args!("reading /proc/meminfo"))?, self.bytes.len())?;
            self.next = self.bytes.len() + STRIDE;
        }
        Sink::push(&mut self.bytes, bytes)
    }
}

/// Whether what is available is more than what the system is left with.
fn enough(meminfo: &str, size: usize) -> Result<()> {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim_ascii().strip_suffix("kB")?.trim_ascii().parse::<u64>().ok()
    };
    // Before 3.14 there is no MemAvailable.
    let (Some(total), Some(available)) = (kib("MemTotal"), kib("MemAvailable")) else { return Ok(()) };
    if available >= total / SPARED + STRIDE as u64 / 1024 {
        return Ok(());
    }
    let cause = format!("no room: {} KiB so far, and {available} KiB of RAM are available", size / 1024);
    Err(Error::new(KIND, "compressing memory into RAM", cause))
}

/// Stores all memory, process by process, then the objects.
///
/// # Errors
/// It takes too long or too much room, or memory cannot be read.
pub fn capture(
    origins: &Origins,
    processes: &mut [Process],
    objects: &[Object],
    clock: Clock,
) -> Result<(PageIndex, Vec<u8>)> {
    let mut writer = PageWriter::new(Bounded { bytes: Vec::new(), clock, next: 0 });
    let mut buffer = pages::Buffer::new();
    let mut mm = 0;
    for process in processes {
        // What is all zeroes, or the same as before, never comes to the sink.
        clock.check()?;
        if let Some(body) = &mut process.body {
            body.memory.guards = pages::capture(origins, mm, &body.memory, &mut writer, &mut buffer)?;
        }
        mm += 1;
    }
    for object in objects {
        clock.check()?;
        pages::capture_object(origins, mm, object.size, &mut writer, &mut buffer)?;
        mm += 1;
    }
    let (index, sink) = writer.finish()?;
    Ok((index, sink.bytes))
}

#[cfg(test)]
mod tests {
    use super::{Bounded, Clock, enough};
    use crate::image::Sink;
    use std::time::Duration;

    #[test]
    fn tasks_do_not_stand_still_for_longer_than_they_may() {
        let mut sink = Bounded { bytes: Vec::new(), clock: Clock::start(Duration::ZERO), next: usize::MAX };
        std::thread::sleep(Duration::from_millis(2));
        let error = sink.push(b"x").unwrap_err().to_string();
        assert!(error.contains("limit.stop_ms"), "{error}");
        sink.clock = Clock::start(Duration::from_secs(60));
        sink.push(b"x").unwrap();
        assert_eq!(sink.bytes, b"x");
    }

    #[test]
    fn picture_that_leaves_no_room_is_given_up() {
        let text =
            |available: u32| format!("MemTotal:  65536 kB\nMemFree: 7 kB\nMemAvailable:{available:9} kB\n");
        enough(&text(3072), 0).unwrap();
        let error = enough(&text(3071), 4096).unwrap_err().to_string();
        assert!(error.contains("4 KiB so far, and 3071 KiB"), "{error}");
        enough("MemTotal: 65536 kB\n", 0).unwrap();
    }
}
