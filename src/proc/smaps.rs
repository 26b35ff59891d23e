//! /proc/PID/smaps: the mappings of a process with their flags (proc_pid_smaps(5)).

use crate::sorted::Listed;
use crate::text;

/// One mapping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address after the last byte.
    pub end: u64,
    /// PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4.
    pub prot: u8,
    /// MAP_SHARED.
    pub shared: bool,
    /// Offset into the file in bytes.
    pub offset: u64,
    /// Device of the file, as in the text: `fe:01`.
    pub dev: String,
    /// Inode; 0 for private anonymous memory.
    pub ino: u64,
    /// Path or pseudo name, octal escapes resolved; empty for anonymous memory.
    pub name: String,
    /// VmFlags, two letters each.
    pub flags: Vec<[u8; 2]>,
}

impl Mapping {
    /// Whether a VmFlags mnemonic is set.
    #[must_use]
    pub fn has(&self, flag: &[u8; 2]) -> bool {
        self.flags.contains(flag)
    }
}

/// Parses the text; a line that is not understood is skipped.
#[must_use]
pub fn parse(text: &str) -> Vec<Mapping> {
    let mut maps: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if let Some(last) = maps.last_mut() {
                last.flags =
                    flags.split_ascii_whitespace().filter_map(|f| f.as_bytes().try_into().ok()).list();
            }
        } else if let Some(map) = header(line) {
            maps.push(map);
        }
    }
    maps
}

fn header(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let perms = fields.next()?.as_bytes();
    let [r, w, x, share] = *perms else { return None };
    let prot = u8::from(r == b'r') | u8::from(w == b'w') << 1 | u8::from(x == b'x') << 2;
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        prot,
        shared: share == b's',
        offset: u64::from_str_radix(fields.next()?, 16).ok()?,
        dev: fields.next()?.to_owned(),
        ino: fields.next()?.parse().ok()?,
        // The kernel escapes only the newline here (seq_file's mangling of "\n").
        name: text::replaced(fields.next().unwrap_or("").trim_ascii_start(), "\\012", "\n"),
        flags: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn headers_and_flags_are_read() {
        let maps = parse(
            "559a4e8b5000-559a4e8b7000 r-xp 00002000 fe:01 1234                       /usr/bin/a b\nSize:                  8 kB\nVmFlags: rd ex mr mw me sd \n7ffd9a0c0000-7ffd9a0e1000 rw-p 00000000 00:00 0                          [stack]\nVmFlags: rd wr mr mw me gd ac \n",
        );
        assert_eq!(maps.len(), 2);
        assert_eq!((maps[0].start, maps[0].prot, maps[0].ino), (0x559a_4e8b_5000, 5, 1234));
        assert_eq!(maps[0].name, "/usr/bin/a b");
        assert!(maps[1].has(b"gd") && !maps[1].shared);
    }
}
