//! /proc/PID/status (proc_pid_status(5)).

use crate::sorted::Listed;

/// The lines that capture uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Real, effective, saved and file-system user.
    pub uid: [u32; 4],
    /// The same for groups.
    pub gid: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capability sets: inheritable, permitted, effective, bounding, ambient.
    pub caps: [u64; 5],
    /// File mode creation mask.
    pub umask: u32,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
    /// Who traces it; 0 nobody.
    pub tracer: u32,
    /// Signals with a handler, bit N-1 for signal N.
    pub caught: u64,
    /// Ignored signals.
    pub ignored: u64,
    /// Number of threads.
    pub threads: u32,
    /// Ids in nested pid namespaces, this one first.
    pub nspid: Vec<u32>,
}

/// Parses the text; a missing line leaves its default.
#[must_use]
pub fn parse(text: &str) -> Status {
    let mut status = Status::default();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim_ascii();
        let hex = || u64::from_str_radix(value, 16).unwrap_or(0);
        let number = || value.parse().unwrap_or(0u32);
        match name {
            "Uid" => status.uid = four(value),
            "Gid" => status.gid = four(value),
            "Groups" => status.groups = numbers(value),
            "CapInh" => status.caps[0] = hex(),
            "CapPrm" => status.caps[1] = hex(),
            "CapEff" => status.caps[2] = hex(),
            "CapBnd" => status.caps[3] = hex(),
            "CapAmb" => status.caps[4] = hex(),
            "Umask" => status.umask = u32::from_str_radix(value, 8).unwrap_or(0o022),
            "NoNewPrivs" => status.no_new_privs = value == "1",
            "Seccomp" => status.seccomp = number(),
            "TracerPid" => status.tracer = number(),
            "SigCgt" => status.caught = hex(),
            "SigIgn" => status.ignored = hex(),
            "Threads" => status.threads = number(),
            "NSpid" => status.nspid = numbers(value),
            _ => {}
        }
    }
    status
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_ascii_whitespace().filter_map(|n| n.parse().ok()).list()
}

fn four(text: &str) -> [u32; 4] {
    numbers(text).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn credentials_are_read() {
        let status = parse(
            "Name:\tx\nUmask:\t0027\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t1\nSigCgt:\t0000000180014a03\n",
        );
        assert_eq!(status.uid, [1, 2, 3, 4]);
        assert_eq!(status.groups, [9, 10]);
        assert_eq!(status.caps[3], 0x1ff_ffff_ffff);
        assert_eq!((status.umask, status.no_new_privs, status.caught), (0o027, true, 0x1_8001_4a03));
    }
}
