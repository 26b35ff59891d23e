//! /proc/PID/fdinfo/FD (proc_pid_fdinfo(5)).

/// The common lines, and every other line as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FdInfo {
    /// File offset.
    pub pos: u64,
    /// Status and creation flags, O_CLOEXEC among them (that one belongs to the fd, not the description).
    pub flags: i32,
    /// The mount the file was opened through; a number of /proc/PID/mountinfo.
    pub mnt_id: i32,
    /// All lines that are not `pos`, `flags`, `mnt_id` or `ino`: what the kind of file adds.
    pub rest: Vec<String>,
}

/// Parses the text. Lines that are not understood are kept in `rest`.
#[must_use]
pub fn parse(text: &str) -> FdInfo {
    let mut info = FdInfo::default();
    for line in text.lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.trim_ascii();
        match name {
            "pos" => info.pos = value.parse().unwrap_or(0),
            "flags" => info.flags = i32::from_str_radix(value, 8).unwrap_or(0),
            "mnt_id" => info.mnt_id = value.parse().unwrap_or(-1),
            "ino" => {}
            _ => info.rest.push(line.to_owned()),
        }
    }
    info
}

impl FdInfo {
    /// The value of a line `name: value` that the kind of file adds.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.rest.iter().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            (found.trim_ascii() == name).then(|| value.trim_ascii())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn eventfd_lines_are_kept() {
        let info = parse(
            "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t1063\neventfd-count:                3\neventfd-id: 1\n",
        );
        assert_eq!((info.pos, info.flags, info.mnt_id), (0, 0o2_000_002, 16));
        assert_eq!(info.value("eventfd-count"), Some("3"));
        assert_eq!(info.value("eventfd-semaphore"), None);
    }
}
