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
    let mut program = vec![step(LOAD, 0, 0, 0)];
    for (i, call) in calls.iter().enumerate() {
        let left = (calls.len() - i) as u8;
        program.push(step(EQUALS, left, 0, *call as u32));
    }
    program.push(step(RETURN, 0, 0, others));
    program.push(step(RETURN, 0, 0, listed));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    sys::set_prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    raw!(SYS_seccomp, 1, 0, &raw const filter)?;
    Ok(())
}

/// Installs a filter under which one call fails with this errno.
///
/// # Errors
/// The errno of the call.
pub fn deny(call: libc::c_long, errno: u32) -> Outcome {
    install(&[call], ERRNO | errno, ALLOW)
}
