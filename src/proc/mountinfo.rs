//! /proc/PID/mountinfo (proc_pid_mountinfo(5)).

use crate::error::{Error, Result};
use crate::sorted::Listed;
use crate::text;

/// One mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// Its number, unique as long as it is mounted.
    pub id: u32,
    /// The number of the mount it is mounted on.
    pub parent: u32,
    /// Major and minor number of the file system.
    pub dev: (u32, u32),
    /// The directory of the file system that is its root.
    pub root: String,
    /// Where it is mounted.
    pub point: String,
    /// Options of the mount: `rw`, `nosuid`, `relatime`.
    pub options: String,
    /// Peer group it shares mounts with.
    pub shared: Option<u32>,
    /// Peer group it receives mounts from.
    pub master: Option<u32>,
    /// MS_UNBINDABLE.
    pub unbindable: bool,
    /// Type of the file system.
    pub fstype: String,
    /// Device, or any word.
    pub source: String,
    /// Options of the file system: `rw`, `size=64k`.
    pub super_options: String,
}

/// Parses the table; the order is the kernel's.
///
/// # Errors
/// A line that does not have the documented form.
pub fn parse(text: &str) -> Result<Vec<Mount>> {
    text.lines()
        .map(|line| {
            line_of(line).ok_or_else(|| Error::new("mount", "reading mountinfo", format!("odd line: {line}")))
        })
        .whole()
}

fn line_of(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    let mut mount = Mount {
        id: fields.next()?.parse().ok()?,
        parent: fields.next()?.parse().ok()?,
        dev: {
            let (major, minor) = fields.next()?.split_once(':')?;
            (major.parse().ok()?, minor.parse().ok()?)
        },
        root: unescape(fields.next()?),
        point: unescape(fields.next()?),
        options: fields.next()?.to_owned(),
        ..Mount::default()
    };
    loop {
        match fields.next()? {
            "-" => break,
            "unbindable" => mount.unbindable = true,
            field => match field.split_once(':') {
                Some(("shared", group)) => mount.shared = Some(group.parse().ok()?),
                Some(("master", group)) => mount.master = Some(group.parse().ok()?),
                // propagate_from depends on the reader's root, and fields to come are allowed for.
                _ => {}
            },
        }
    }
    mount.fstype = unescape(fields.next()?);
    mount.source = unescape(fields.next()?);
    mount.super_options = unescape(fields.next().unwrap_or(""));
    Some(mount)
}

/// Undoes the octal escapes of space, tab, line feed, backslash and `#`.
fn unescape(field: &str) -> String {
    if !field.contains('\\') {
        return field.to_owned();
    }
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        let code = (byte == b'\\').then(|| field.get(i + 1..i + 4)).flatten();
        match code.and_then(|digits| u64::from_str_radix(digits, 8).ok()?.try_into().ok()) {
            Some(value) => {
                out.push(value);
                i += 4;
            }
            None => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether `path` is `dir` or lies below it.
#[must_use]
pub fn below(path: &str, dir: &str) -> bool {
    let dir = text::without_end(dir, "/");
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The mount that all others are on.
#[must_use]
pub fn root(table: &[Mount]) -> Option<&Mount> {
    root_of(&table.iter().list())
}

fn root_of<'a>(table: &[&'a Mount]) -> Option<&'a Mount> {
    table.iter().find(|m| !table.iter().any(|p| p.id == m.parent && p.id != m.id)).copied()
}

/// The mount that a lookup of `path` ends in, if only the mounts of `table` existed: from the root on, the
/// first mount point met on the way wins, again and again.
#[must_use]
pub fn lookup<'a>(table: &[&'a Mount], path: &str) -> Option<&'a Mount> {
    let mut at = root_of(table)?;
    loop {
        let next = table
            .iter()
            .filter(|m| m.parent == at.id && m.id != at.id && below(path, &m.point))
            .min_by_key(|m| text::without_end(&m.point, "/").len());
        match next {
            Some(mount) => at = mount,
            None => return Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{below, lookup, parse};

    const TABLE: &str = "\
24 1 254:2 / / ro,relatime - ext4 /dev/vda2 ro
25 24 0:5 / /dev rw,nosuid - devtmpfs devtmpfs rw,size=100k,mode=755
30 24 0:30 / /a\\040b rw shared:1 master:2 propagate_from:3 - tmpfs none\\134x rw,size=64k
31 24 0:31 / /a\\040b/c rw unbindable - tmpfs none rw
32 30 0:32 / /a\\040b rw - tmpfs top rw
";

    #[test]
    fn fields_and_escapes_are_read() {
        let table = parse(TABLE).unwrap();
        assert_eq!(table[0].dev, (254, 2));
        assert_eq!((table[2].point.as_str(), table[2].source.as_str()), ("/a b", "none\\x"));
        assert_eq!((table[2].shared, table[2].master), (Some(1), Some(2)));
        assert!(table[3].unbindable);
        assert_eq!(table[1].super_options, "rw,size=100k,mode=755");
    }

    #[test]
    fn odd_line_is_an_error() {
        assert!(parse("24 1 254:2 / /\n").is_err());
        assert!(parse("24 1 254 / / ro - ext4 x ro\n").is_err());
    }

    #[test]
    fn lookup_ends_in_the_mount_on_top() {
        let table = parse(TABLE).unwrap();
        let all: Vec<_> = table.iter().collect();
        assert_eq!(lookup(&all, "/dev/null").unwrap().id, 25);
        assert_eq!(lookup(&all, "/a b/c").unwrap().id, 32);
        assert_eq!(lookup(&all, "/device").unwrap().id, 24);
        let early: Vec<_> = table.iter().filter(|m| m.id != 32 && m.id != 30).collect();
        assert_eq!(lookup(&early, "/a b/c/d").unwrap().id, 31);
    }

    #[test]
    fn below_compares_whole_names() {
        assert!(below("/run/x", "/run") && below("/run", "/run") && below("/run", "/"));
        assert!(!below("/running", "/run"));
    }
}
