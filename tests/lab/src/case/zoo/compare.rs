//! `capture(restore(capture(x))) == capture(x)`, on what `rcsnap inspect --json` says of both images.
//!
//! Left out are names that cannot stay the same (sizes of the image itself, when it was made), and what runs on
//! by itself (clocks and remaining times, within a tolerance).

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

/// Fields that say when or how the image was made, not what it is a picture of.
const OWN: [&str; 12] = [
    "path",
    "bytes",
    "total",
    "crc",
    "clocks",
    "monotonic",
    "boottime",
    "realtime",
    "stopped_ms",
    "timings",
    "created",
    "blocks",
];

/// Differences as `where: before, after`, at most a handful.
pub fn differences(before: &str, after: &str) -> Result<Vec<String>> {
    let parse =
        |text: &str| serde_json::from_str::<Value>(text).with_context(|| format!("reading {:.80}", text));
    let mut found = Vec::new();
    compare("", &parse(before)?, &parse(after)?, &mut found);
    found.truncate(6);
    Ok(found)
}

fn compare(at: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names.into_iter().filter(|name| !OWN.contains(&name.as_str())) {
                let null = Value::Null;
                let (before, after) = (before.get(name).unwrap_or(&null), after.get(name).unwrap_or(&null));
                compare(&format!("{at}.{name}"), before, after, found);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (i, (before, after)) in before.iter().zip(after).enumerate() {
                compare(&format!("{at}[{i}]"), before, after, found);
            }
        }
        _ if before == after => {}
        _ => found.push(format!("{at}: {before:.60}, {after:.60}")),
    }
}

#[cfg(test)]
mod tests {
    use super::differences;

    #[test]
    fn differences_are_named_and_the_images_own_fields_are_not() {
        let before = r#"{"bytes": 1, "processes": [{"pid": 2, "umask": 18}]}"#;
        let after = r#"{"bytes": 2, "processes": [{"pid": 2, "umask": 63}]}"#;
        assert_eq!(differences(before, after).unwrap(), [".processes[0].umask: 18, 63"]);
        assert_eq!(differences(before, before).unwrap().len(), 0);
    }
}
