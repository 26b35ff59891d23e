//! Small seccomp filters.

use crate::{Outcome, raw, sys};

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const EQUALS: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
/// SECCOMP_RET_ALLOW.
pub const ALLOW: u32 = 0x7fff_0000;
/// SECCOMP_RET_ERRNO; the errno is added.
pub const ERRNO: u32 = 0x0005_0000;
/// SECCOMP_RET_TRAP.
pub const TRAP: u32 = 0x0003_0000;
/// SECCOMP_RET_KILL_PROCESS.
pub const KILL: u32 = 0x8000_0000;

fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Installs a filter that answers `listed` to these calls and `others` to all others.
///
/// # Errors
/// The errno of the call.
pub fn install(calls: &[libc::c_long], listed: u32, others: u32) -> Outcome {
    with_flags(calls, listed, others, 0)
}

fn with_flags(calls: &[libc::c_long], listed: u32, others: u32, flags: usize) -> Outcome {
    let mut program = vec![step(LOAD, 0, 0, 0)];
    for (i, call) in calls.iter().enumerate() {
        let left = (calls.len() - i) as u8;
        program.push(step(EQUALS, left, 0, *call as u32));
    }
    program.push(step(RETURN, 0, 0, others));
    program.push(step(RETURN, 0, 0, listed));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    sys::set_prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    match raw!(SYS_seccomp, 1, flags, &raw const filter)? {
        0 => Ok(()),
        tid => Err(format!("thread {tid} has another filter").into()),
    }
}

/// Installs a filter under which one call fails with this errno.
///
/// # Errors
/// The errno of the call.
pub fn deny(call: libc::c_long, errno: u32) -> Outcome {
    install(&[call], ERRNO | errno, ALLOW)
}

/// The same for all threads of the process, which must have the same filters.
///
/// # Errors
/// The errno of the call, or a thread that has others.
pub fn deny_all(call: libc::c_long, errno: u32) -> Outcome {
    const TSYNC: usize = 1;
    with_flags(&[call], ERRNO | errno, ALLOW, TSYNC)
}
