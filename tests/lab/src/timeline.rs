//! A boot as a row of moments, read from the console: what was said, and how long after PID 1 began.

use std::time::Duration;

use crate::console::Line;

/// PID 1 has begun: rcsnap's first word.
pub const START: &str = "rcsnap: start";

/// One boot, from PID 1's first word on.
pub struct Timeline {
    pub moments: Vec<(Duration, String)>,
}

impl Timeline {
    /// The last boot on this console: a guest may have rebooted.
    pub fn read(lines: &[Line]) -> Option<Self> {
        let first = lines.iter().rposition(|l| l.text.contains(START))?;
        let begin = lines[first].at;
        let moments = lines[first..].iter().filter_map(|l| Some((l.at - begin, moment(&l.text)?))).collect();
        Some(Self { moments })
    }

    /// The first moment that begins so, in full.
    pub fn text(&self, begin: &str) -> Option<String> {
        self.moments.iter().find(|(_, m)| m.starts_with(begin)).map(|(_, m)| m.clone())
    }

    /// When the last moment that begins so came.
    pub fn last(&self, begin: &str) -> Option<Duration> {
        self.moments.iter().rev().find(|(_, m)| m.starts_with(begin)).map(|(at, _)| *at)
    }

    /// From PID 1's start until `rcsnap ready` was done: on either kind of boot it prints its answer.
    pub fn ready(&self) -> Option<Duration> {
        self.moments.iter().find(|(_, m)| m == "cold" || m == "restored").map(|(at, _)| *at)
    }

    /// A table for people: each moment with the time since the start and since the one before.
    pub fn show(&self) -> String {
        let mut before = Duration::ZERO;
        let mut text = String::new();
        for (at, moment) in &self.moments {
            text += &format!("  {:9.1} ms  +{:8.1}  {moment}\n", ms(*at), ms(*at - before));
            before = *at;
        }
        text
    }
}

/// Milliseconds with a fraction.
pub fn ms(of: Duration) -> f64 {
    of.as_secs_f64() * 1000.0
}

/// The text of a line that marks a moment, without the kernel's time before it.
pub fn moment(line: &str) -> Option<String> {
    let bare = match line.strip_prefix('[').and_then(|l| l.split_once("] ")) {
        Some((_, rest)) => rest,
        None => line,
    };
    let own = ["rcsnap: ", "rc: ", "zoo: "].iter().any(|begin| bare.starts_with(begin))
        || bare == "cold"
        || bare == "restored";
    (own || bare.ends_with(" login: ")).then(|| bare.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn only_the_last_boot_counts() {
        let now = Instant::now();
        let line = |ms, text: &str| Line { at: now + Duration::from_millis(ms), text: text.into() };
        let lines = [
            line(0, "[    1.0] rcsnap: start"),
            line(5, "cold"),
            line(100, "[    1.0] rcsnap: start"),
            line(130, "noise"),
            line(150, "restored"),
        ];
        let timeline = Timeline::read(&lines).unwrap();
        assert_eq!(timeline.ready(), Some(Duration::from_millis(50)));
        assert_eq!(timeline.moments.len(), 2);
    }
}
