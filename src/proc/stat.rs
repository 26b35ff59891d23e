//! /proc/PID/stat (proc_pid_stat(5)).

use crate::sorted::Listed;
use crate::text;

/// The fields that capture uses, named as in the manual page; addresses are 0 without ptrace access.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stat {
    /// (1) Process or thread id.
    pub pid: u32,
    /// (2) Name.
    pub comm: String,
    /// (3) State: `R`, `S`, `D`, `T`, `t`, `Z`, ...
    pub state: char,
    /// (4) Parent.
    pub ppid: u32,
    /// (5) Process group.
    pub pgrp: u32,
    /// (6) Session; 0 when its leader is outside the pid namespace, and for tasks of the kernel.
    pub session: u32,
    /// (7) Controlling terminal.
    pub tty_nr: i32,
    /// (8) Foreground process group of that terminal.
    pub tpgid: i32,
    /// (9) PF_* of <linux/sched.h>.
    pub flags: u64,
    /// (22) Start time in clock ticks.
    pub starttime: u64,
    /// (26) to (28), (45) to (51): code start and end, stack, data start and end, brk start, arguments
    /// start and end, environment start and end.
    pub layout: Layout,
    /// (52) Wait status of a zombie.
    pub exit_code: i32,
}

crate::section! {
    /// The addresses of struct mm_struct that exec(2) set, as PR_SET_MM_MAP takes them.
    #[derive(Default, Eq)]
    pub struct Layout {
        /// Start of the program's code.
        pub start_code: u64,
        /// End of it.
        pub end_code: u64,
        /// Start of initialised data.
        pub start_data: u64,
        /// End of it.
        pub end_data: u64,
        /// Where brk(2) began.
        pub start_brk: u64,
        /// Bottom of the initial stack.
        pub start_stack: u64,
        /// Arguments.
        pub arg_start: u64,
        /// End of them.
        pub arg_end: u64,
        /// Environment.
        pub env_start: u64,
        /// End of it.
        pub env_end: u64,
    }
}

/// PF_KTHREAD: a thread of the kernel.
pub const PF_KTHREAD: u64 = 0x0020_0000;

/// Parses the line. The name may hold spaces and brackets, so fields count from its last bracket.
#[must_use]
pub fn parse(text: &str) -> Option<Stat> {
    let (head, tail) = text::split_last(text, ')')?;
    let (pid, comm) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().list();
    // Field 3 of the manual page is the first here. Those behind the name are in every kernel's line.
    let field = |n: usize| fields.get(n - 3).copied().unwrap_or_default();
    let number = |n: usize| field(n).parse().unwrap_or(0_u64);
    let mut ids = [0_i32; 5];
    for (id, field) in ids.iter_mut().zip(fields.get(1..6)?) {
        *id = field.parse().ok()?;
    }
    let [ppid, pgrp, session, tty_nr, tpgid] = ids;
    Some(Stat {
        pid: pid.trim_ascii_end().parse().ok()?,
        comm: comm.to_owned(),
        state: char::from(*field(3).as_bytes().first()?),
        ppid: ppid.cast_unsigned(),
        pgrp: pgrp.cast_unsigned(),
        session: session.cast_unsigned(),
        tty_nr,
        tpgid,
        flags: number(9),
        starttime: number(22),
        layout: Layout {
            start_code: number(26),
            end_code: number(27),
            start_stack: number(28),
            start_data: number(45),
            end_data: number(46),
            start_brk: number(47),
            arg_start: number(48),
            arg_end: number(49),
            env_start: number(50),
            env_end: number(51),
        },
        exit_code: field(52).parse().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let text = "42 (a) (b) S 1 42 42 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 1234 5 6 7 8 9 10 11 12 0 0 0 0 0 0 0 17 0 0 0 0 0 0 13 14 15 16 17 18 19 256\n";
        let stat = parse(text).unwrap();
        assert_eq!((stat.pid, stat.comm.as_str(), stat.state, stat.ppid), (42, "a) (b", 'S', 1));
        assert_eq!((stat.starttime, stat.layout.start_code, stat.layout.start_stack), (1234, 8, 10));
        assert_eq!((stat.layout.start_data, stat.layout.env_end, stat.exit_code), (13, 19, 256));
    }
}
