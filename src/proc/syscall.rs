//! /proc/TID/syscall: the system call that a sleeping task is in (proc_pid_syscall(5)).

/// A call as its task waits in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub number: i64,
    /// Its arguments.
    pub args: [u64; 6],
    /// The stack pointer.
    pub sp: u64,
    /// The instruction pointer, after the instruction that made the call.
    pub ip: u64,
}

/// Parses the text; `None` for a task that runs, or sleeps outside any call.
#[must_use]
pub fn parse(text: &str) -> Option<Call> {
    let mut words = text.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    let mut hex = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let args = [hex()?, hex()?, hex()?, hex()?, hex()?, hex()?];
    Some(Call { number, args, sp: hex()?, ip: hex()? })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_call_is_read() {
        let call =
            parse("22 0x4 0xffffdeadbee0 0x1 0xffffffffffffffff 0x0 0x8 0xffffdeadbea0 0x417a2c\n").unwrap();
        assert_eq!((call.number, call.args[0], call.args[3]), (22, 4, u64::MAX));
        assert_eq!((call.sp, call.ip), (0xffff_dead_bea0, 0x41_7a2c));
        assert_eq!(parse("running\n"), None);
        assert_eq!(parse("-1 0x7ffd1 0x7f2\n"), None);
    }
}
