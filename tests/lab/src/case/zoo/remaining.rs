//! Times that are left: they shrink while a program runs, so it is the moment when they are due that must be the same.

use serde_json::{Value, json};

/// Clocks go on through a time namespace, so that a due time moves by no more than rounding and how long a batch of
/// calls takes on a busy machine.
const TOLERANCE: i64 = 2_000_000_000;
const SECOND: i64 = 1_000_000_000;
/// CLOCK_BOOTTIME and CLOCK_BOOTTIME_ALARM.
const BOOTTIME: [i64; 2] = [7, 9];

/// One that is armed or not.
struct Left {
    read: i64,
    left: i64,
    interval: i64,
    /// It goes by the time of a processor.
    cpu: bool,
}

impl Left {
    /// Whether the later look fits the earlier one.
    fn fits(&self, after: &Left) -> bool {
        if self.interval != after.interval {
            return false;
        }
        let due = |of: &Left| if of.cpu { of.left } else { of.read + of.left };
        let late = due(after) - due(self);
        match (self.left, after.left, self.interval) {
            (0, 0, _) => true,
            // It went off meanwhile.
            (_, 0, 0) => !self.cpu && due(self) <= after.read + TOLERANCE,
            (0, ..) | (_, 0, _) => false,
            (.., 0) => late.abs() <= TOLERANCE,
            (.., interval) => {
                let off = late.rem_euclid(interval);
                late >= -TOLERANCE && off.min(interval - off) <= TOLERANCE
            }
        }
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// `[interval s, parts, left s, parts]`, of which a second has so many.
fn setting(value: &Value, parts: i64, read: i64, cpu: bool) -> Left {
    let time = |at: usize| number(&value[at]) * SECOND + number(&value[at + 1]) * (SECOND / parts);
    Left { read, left: time(2), interval: time(0), cpu }
}

/// What is left may be the same and yet be due at another moment.
fn settle(fits: bool, before: &Value, after: &Value) -> Value {
    if fits { before.clone() } else { json!({ "left, not due when it was": after }) }
}

/// Compares the timers of a process; gives the later ones with the earlier times where those fit.
pub fn timers(before: &Value, after: &Value) -> Value {
    let mut settled = after.clone();
    for (n, interval) in settled["intervals"].as_array_mut().into_iter().flatten().enumerate() {
        let left = |of: &Value| setting(&of["intervals"][n], 1_000_000, number(&of["read"][0]), n > 0);
        *interval = settle(left(before).fits(&left(after)), &before["intervals"][n], interval);
    }
    for (n, timer) in settled["posix"].as_array_mut().into_iter().flatten().enumerate() {
        let clock = number(&timer["clock"]);
        let read = usize::from(BOOTTIME.contains(&clock));
        let cpu = clock < 0 || clock == 2 || clock == 3;
        let left = |of: &Value| setting(&of["posix"][n]["setting"], SECOND, number(&of["read"][read]), cpu);
        let fits = left(before).fits(&left(after));
        timer["setting"] = settle(fits, &before["posix"][n]["setting"], &timer["setting"]);
    }
    settled["read"] = before["read"].clone();
    settled
}

/// The same for a timerfd. What went off meanwhile counts.
pub fn timerfd(before: &Value, after: &Value) -> Value {
    let mut settled = after.clone();
    let left = |of: &Value| {
        let time = |of: &Value| number(&of[0]) * SECOND + number(&of[1]);
        // A moment on the wall clock is stored as it is.
        let fixed = number(&of["clock"]) == 0 && number(&of["flags"]) & 1 != 0;
        let read = if fixed { 0 } else { number(&of["read"]) };
        Left { read, left: time(&of["value"]), interval: time(&of["interval"]), cpu: false }
    };
    let fits = left(before).fits(&left(after));
    settled["value"] = settle(fits, &before["value"], &after["value"]);
    if fits && after["value"] != before["value"] && number(&after["ticks"]) >= number(&before["ticks"]) {
        settled["ticks"] = before["ticks"].clone();
    }
    settled["read"] = json!(before["read"]);
    settled
}

#[cfg(test)]
mod tests {
    use super::{timerfd, timers};
    use serde_json::json;

    #[test]
    fn due_times_must_stay() {
        let of = |read: i64, left: i64| {
            json!({"read": [read, read], "intervals": [[0, 0, left, 0]], "posix":
                   [{"clock": 1, "setting": [10, 0, left, 0]}, {"clock": -6, "setting": [0, 0, left, 0]}]})
        };
        let before = of(5_000_000_000, 90);
        // Seven seconds later; a processor's time has hardly gone on.
        let mut after = of(12_000_000_000, 83);
        after["posix"][1]["setting"] = json!([0, 0, 89, 0]);
        assert_eq!(timers(&before, &after), before);
        after["intervals"][0][2] = json!(60);
        assert_ne!(timers(&before, &after), before);
        after["intervals"][0][2] = json!(0);
        assert_ne!(timers(&before, &after), before, "lost");
        let mut gone = of(200_000_000_000, 0);
        gone["posix"] = before["posix"].clone();
        gone["posix"][0]["setting"][2] = json!(5);
        assert_eq!(timers(&before, &gone), before, "it went off; the other goes off every ten seconds");
        gone["posix"][0]["setting"][0] = json!(11);
        assert_ne!(timers(&before, &gone), before);
    }

    #[test]
    fn moments_on_the_wall_clock_are_kept_as_they_are() {
        let of = |flags: i64, read: i64, value: i64| json!({"clock": 0, "flags": flags, "ticks": 0, "value": [value, 0], "read": read, "interval": [0, 0]});
        assert_eq!(timerfd(&of(1, 5, 100), &of(1, 9_000_000_000, 100)), of(1, 5, 100));
        assert_ne!(timerfd(&of(0, 5, 100), &of(0, 9_000_000_000, 100)), of(0, 5, 100));
        assert_eq!(timerfd(&of(0, 5, 100), &of(0, 9_000_000_000, 91)), of(0, 5, 100));
    }
}
