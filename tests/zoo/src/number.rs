//! Numbers of processes that had another owner before.

use crate::{Outcome, Zoo, child, fd, sys};

/// The last number that was given away (proc_sys_kernel(5)).
const CURSOR: &str = "/proc/sys/kernel/ns_last_pid";

/// Asks for this number for the next process.
///
/// # Errors
/// When that is not allowed, or there is no such file.
pub fn next(number: i32) -> Outcome {
    Ok(std::fs::write(CURSOR, (number - 1).to_string())?)
}

/// A child that ends at once, with 5.
///
/// # Errors
/// The errno of fork(2).
pub fn quick() -> Outcome<i32> {
    let pid = sys!(fork())?;
    if pid == 0 {
        // SAFETY: ends a child.
        unsafe { libc::_exit(5) }
    }
    Ok(pid)
}

/// Makes a process with `make` that has the number of another one which is gone: (the number, what `hold` opened of the
/// first owner before it was waited for). Somebody else may be faster, so this is tried several times.
///
/// # Errors
/// What `hold` and `make` say.
pub fn again(
    zoo: &mut Zoo,
    mut hold: impl FnMut(i32) -> Outcome<i32>,
    make: impl Fn(&mut Zoo) -> Outcome<i32>,
) -> Outcome<(i32, i32)> {
    for _ in 0..20 {
        let number = quick()?;
        let held = hold(number)?;
        zoo.expect("the first owner", child::wait(number, 0).words(), "exit 5".to_owned());
        if let Err(problem) = next(number) {
            zoo.skip(&format!("{CURSOR}: {problem}"));
        }
        let pid = make(zoo)?;
        if pid == number {
            return Ok((number, held));
        }
        fd::close(held);
        sys!(kill(pid, libc::SIGKILL))?;
        child::wait(pid, 0);
    }
    zoo.skip("somebody else is always faster")
}
