//! `capture(restore(capture(x))) == capture(x)`, on everything the images say but the contents of pages, which
//! the programs look at themselves.
//!
//! Left out is what runs on by itself between the two: registers, clocks, where pages happen to lie in the image; and
//! what a kind says it loses: the name of a file that has none, and who sent a message that was queued before anybody
//! asked for its sender. Of remaining times it is the due ones that are compared ([`remaining`]).

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use picture::Picture;
use serde_json::Value;

use super::remaining;

/// What goes on by itself, or says how an image was made.
const VOLATILE: [&str; 8] =
    [".pages", ".contents", ".clocks", ".stopped_ms", ".inode", ".id[0]", ".id[1]", ".Deleted.body.name"];
/// Registers, of what runs on.
const RUNNING: [&str; 2] = [".regs", ".sets"];
/// Senders.
const SENDERS: &str = ".who[";

/// Differences as `where: before, after`, at most a handful.
pub fn differences(before: &Path, after: &Path) -> Result<Vec<String>> {
    let (before, after) = (Picture::read(before)?.values()?, Picture::read(after)?.values()?);
    let mut found = Vec::new();
    compare("", &before, &after, &mut found);
    found.retain(|text| !of_registers(text) && !of_others(text));
    found.truncate(6);
    Ok(found)
}

/// All differences, those in registers among them, but not those in memory.
pub fn all(before: &Value, after: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", before, after, &mut found);
    found
}

/// Whether a difference is in control groups that no program of the zoo has made: what keeps order on this machine may
/// put processes into groups of its own at any time.
fn of_others(difference: &str) -> bool {
    difference.starts_with(".tree.groups") && !difference.contains("zoo.")
}

/// Whether a difference is one in registers, which all that runs has.
pub fn of_registers(difference: &str) -> bool {
    let place = difference.split(": ").next().unwrap_or("");
    RUNNING.iter().any(|part| place.contains(part))
}

fn compare(at: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    if VOLATILE.iter().any(|end| at.ends_with(end)) || at.contains(SENDERS) {
        return;
    }
    match (before, after) {
        (Value::Object(_), Value::Object(_)) if at.ends_with(".timers") => {
            fields(at, before, &remaining::timers(before, after), found);
        }
        (Value::Object(_), Value::Object(_)) if at.ends_with(".Timerfd") => {
            fields(at, before, &remaining::timerfd(before, after), found);
        }
        (Value::Object(_), Value::Object(_)) => fields(at, before, after, found),
        (Value::Array(before), Value::Array(after)) if at.ends_with(".vmas") && !merges(before, after) => {
            compare(at, &merged(before), &merged(after), found);
        }
        (Value::Array(before), Value::Array(after))
            if at.ends_with(".queue") && before.len() != after.len() =>
        {
            let sent = |queue: &[Value]| queue.iter().filter(|info| !is_expiry(info)).cloned().collect();
            let (before, after): (Vec<Value>, Vec<Value>) = (sent(before), sent(after));
            if before != after {
                found.push(format!("{at}: {}, {}", start(&before.into()), start(&after.into())));
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (i, (before, after)) in before.iter().zip(after).enumerate() {
                compare(&format!("{at}[{i}]"), before, after, found);
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            // The first few say enough of many bytes.
            let only = |ours: &[Value], theirs: &[Value]| {
                let items = ours.iter().filter(|item| !theirs.contains(item)).take(4);
                format!("{} of {}", items.map(start).collect::<Vec<_>>().join(" and "), ours.len())
            };
            found.push(format!("{at}: {}, {}", only(before, after), only(after, before)));
        }
        _ if before == after => {}
        _ => found.push(format!("{at}: {}, {}", start(before), start(after))),
    }
}

/// Compares what objects hold.
fn fields(at: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    let names = [before, after].into_iter().filter_map(Value::as_object).flat_map(|fields| fields.keys());
    for name in names.collect::<BTreeSet<&String>>() {
        compare(&format!("{at}.{name}"), &before[name.as_str()], &after[name.as_str()], found);
    }
}

/// Whether a siginfo_t is that of a timer: si_code is SI_TIMER, or SI_KERNEL of SIGALRM. What is overdue comes at once,
/// and a capture may come sooner than its handler.
fn is_expiry(info: &Value) -> bool {
    let word = |at: usize| (0..4).rev().fold(0, |word, i| word << 8 | info[at + i].as_u64().unwrap_or(0));
    word(8) == 0xffff_fffe || (word(0), word(8)) == (14, 0x80)
}

/// Whether nothing is left to merge in either.
fn merges(before: &[Value], after: &[Value]) -> bool {
    [before, after]
        .iter()
        .all(|list| merged(list).as_array().is_some_and(|merged| merged.len() == list.len()))
}

/// Mappings with neighbours of the same sort made one: the kernel merges them or not by their history.
fn merged(mappings: &[Value]) -> Value {
    let mut all: Vec<Value> = Vec::new();
    for next in mappings {
        if let Some(last) = all.last_mut() {
            let same = ["backing", "flags", "prot", "shared"].iter().all(|name| last[name] == next[name]);
            let (from, to) = (last["start"].as_u64(), last["end"].as_u64());
            let length = to.zip(from).map(|(to, from)| to - from);
            let offset = last["offset"].as_u64().zip(length).map(|(offset, length)| offset + length);
            let follows =
                to == next["start"].as_u64() && (next["offset"] == 0 || offset == next["offset"].as_u64());
            if same && follows {
                last["end"] = next["end"].clone();
                continue;
            }
        }
        all.push(next.clone());
    }
    Value::Array(all)
}

fn start(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(150) {
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{compare, of_registers};
    use serde_json::{Value, json};

    #[test]
    fn differences_are_named_and_what_runs_on_is_not() {
        let before = json!({"clocks": 1, "processes": [{"pid": 2, "umask": 18, "regs": {"rax": 1}}]});
        let after = json!({"clocks": 2, "processes": [{"pid": 2, "umask": 63, "regs": {"rax": 2}}]});
        let mut found = Vec::new();
        compare("", &before, &after, &mut found);
        assert!(of_registers(&found[0]));
        found.retain(|text| !of_registers(text));
        assert_eq!(found, [".processes[0].umask: 18, 63"]);
        compare("", &before, &before, &mut found);
        assert_eq!(found.len(), 1);
        let signal =
            |number: u8, code: u8, sign: u8| json!([number, 0, 0, 0, 0, 0, 0, 0, code, sign, sign, sign]);
        let queue = |signals: &[Value]| json!({ "queue": signals });
        let (timer, other) = (signal(42, 254, 255), signal(42, 255, 255));
        compare("", &queue(std::slice::from_ref(&other)), &queue(&[timer.clone(), other]), &mut found);
        assert_eq!(found.len(), 1);
        compare("", &queue(&[]), &queue(&[signal(42, 255, 255), timer]), &mut found);
        assert_eq!(found.len(), 2);
    }
}
