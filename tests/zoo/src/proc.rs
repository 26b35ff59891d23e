//! Readings of /proc about oneself and one's children.

use std::fs;

/// A file as text; an error as its text, so that it shows in a comparison.
#[must_use]
pub fn text(path: &str) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("{path}: {error}"),
    }
}

/// One field of /proc/PID/status; `who` is `self`, `thread-self` or a pid.
#[must_use]
pub fn status(who: &str, field: &str) -> String {
    let all = text(&format!("/proc/{who}/status"));
    let line = all.lines().find(|line| line.strip_prefix(field).is_some_and(|rest| rest.starts_with(':')));
    line.map_or_else(|| format!("no {field}"), |line| line[field.len() + 1..].trim().to_owned())
}

/// One field of /proc/PID/stat, counted as proc(5) counts: 3 is the state.
#[must_use]
pub fn stat(who: &str, field: usize) -> String {
    let all = text(&format!("/proc/{who}/stat"));
    let rest = all.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.split_whitespace().nth(field - 3).unwrap_or("none").to_owned()
}

/// The target of a link in /proc.
#[must_use]
pub fn link(path: &str) -> String {
    fs::read_link(path).map_or_else(|e| e.to_string(), |target| target.to_string_lossy().into_owned())
}

/// Whether a task sleeps, seen a few times in a row: it has reached the call it blocks in.
#[must_use]
pub fn sleeps(pid: i32) -> bool {
    let mut seen = 0;
    crate::eventually(10_000, || {
        seen = if stat(&pid.to_string(), 3) == "S" { seen + 1 } else { 0 };
        seen >= 4
    })
}

/// The VmFlags of the mapping that holds an address, without those the kernel sets by itself (`gu` comes from a
/// neighbour when two mappings merge).
#[must_use]
pub fn vm_flags(address: usize) -> String {
    let flags = smaps(address, "VmFlags");
    let keep = |flag: &&str| !matches!(*flag, "sd" | "ac" | "gu");
    flags.split_whitespace().filter(keep).collect::<Vec<_>>().join(" ")
}

/// One field of /proc/self/smaps for the mapping that holds an address.
#[must_use]
pub fn smaps(address: usize, field: &str) -> String {
    let mut inside = false;
    for line in text("/proc/self/smaps").lines() {
        if let Some((start, end)) = range(line) {
            inside = (start..end).contains(&address);
        } else if inside && let Some(rest) = line.strip_prefix(field).and_then(|rest| rest.strip_prefix(':'))
        {
            return rest.trim().to_owned();
        }
    }
    format!("no {field}")
}

/// The line of /proc/self/maps that holds an address, without device and inode.
#[must_use]
pub fn mapping(address: usize) -> String {
    let all = text("/proc/self/maps");
    let line =
        all.lines().find(|line| range(line).is_some_and(|(start, end)| (start..end).contains(&address)));
    line.map_or_else(|| "unmapped".into(), short)
}

/// A line of maps without device and inode, which a restore may not be able to keep.
#[must_use]
pub fn short(line: &str) -> String {
    let mut words = line.split_whitespace();
    let head: Vec<&str> = words.by_ref().take(3).collect();
    let name: Vec<&str> = words.skip(2).collect();
    format!("{} {}", head.join(" "), name.join(" ")).trim_end().to_owned()
}

/// The address range at the head of a line of maps or smaps.
#[must_use]
pub fn range(line: &str) -> Option<(usize, usize)> {
    let (start, rest) = line.split_once('-')?;
    let end = rest.split(' ').next()?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

/// Whether this process has the namespace of a sort (namespaces(7)) that its parent has: it must wait for us.
#[must_use]
pub fn with_parent(sort: &str) -> String {
    let link = |task: &str| link(&format!("/proc/{task}/ns/{sort}"));
    (link("self") == link(&std::os::unix::process::parent_id().to_string())).to_string()
}
