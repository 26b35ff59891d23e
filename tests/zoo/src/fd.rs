//! Small things about descriptors.

use crate::{Outcome, sys};

/// pipe2(2): (read end, write end).
///
/// # Errors
/// The errno of the call.
pub fn pipe(flags: i32) -> Outcome<(i32, i32)> {
    let mut ends = [0; 2];
    sys!(pipe2(ends.as_mut_ptr(), flags))?;
    Ok((ends[0], ends[1]))
}

/// close(2), errors ignored.
pub fn close(fd: i32) {
    // SAFETY: takes an integer.
    unsafe { libc::close(fd) };
}

/// Writes everything.
///
/// # Errors
/// The errno of the call, or a short count.
pub fn write(fd: i32, bytes: &[u8]) -> Outcome {
    let n = sys!(write(fd, bytes.as_ptr().cast(), bytes.len()))?;
    if n as usize == bytes.len() {
        Ok(())
    } else {
        Err(format!("write: {n} of {} bytes", bytes.len()).into())
    }
}

/// Reads once, up to `limit` bytes.
///
/// # Errors
/// The errno of the call.
pub fn read(fd: i32, limit: usize) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0; limit];
    let n = sys!(read(fd, bytes.as_mut_ptr().cast(), limit))?;
    bytes.truncate(n as usize);
    Ok(bytes)
}

/// What a read gives, in words: bytes as text or the errno.
#[must_use]
pub fn read_text(fd: i32) -> String {
    read(fd, 65536).map_or_else(|problem| problem.0, |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Flags that only say how a file was opened, and mean nothing afterwards.
const SPENT: i32 = libc::O_DIRECTORY | libc::O_NOFOLLOW | LARGE | libc::O_TMPFILE;
/// O_LARGEFILE, which every description opened by name has on 64 bit, and others not. On 32 bit it has a meaning.
const LARGE: i32 = match () {
    () if cfg!(target_arch = "x86_64") => 0o100_000,
    () if cfg!(target_pointer_width = "64") => 0o400_000,
    () => 0,
};

/// F_GETFL and F_GETFD and the offset, as far as there is one: what every description has.
#[must_use]
pub fn flags(fd: i32) -> String {
    // SAFETY: integers only.
    unsafe {
        let (status, own) = (libc::fcntl(fd, libc::F_GETFL) & !SPENT, libc::fcntl(fd, libc::F_GETFD));
        format!("flags {status:#o} cloexec {own} offset {}", libc::lseek(fd, 0, libc::SEEK_CUR))
    }
}

/// poll(2) on one descriptor: the events that are up now.
#[must_use]
pub fn polled(fd: i32, events: i16) -> i16 {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&raw mut poll, 1, 0) };
    poll.revents
}

/// A field of /proc/self/fdinfo/FD.
#[must_use]
pub fn info(fd: i32, field: &str) -> String {
    let all = crate::proc::text(&format!("/proc/self/fdinfo/{fd}"));
    let mut found = all
        .lines()
        .filter_map(|line| line.strip_prefix(field))
        .map(|rest| rest.trim_start_matches(':').trim());
    found.next().map_or_else(|| format!("no {field}"), str::to_owned)
}

/// The errno's text of a call that must not succeed, or `done`.
#[must_use]
pub fn outcome_of(result: Outcome<impl Sized>) -> String {
    match result {
        Ok(_) => "done".into(),
        Err(problem) => problem.0,
    }
}

/// A remark when a descriptor is not there.
#[must_use]
pub fn is_open(fd: i32) -> bool {
    // SAFETY: integers only.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 || sys::errno() != libc::EBADF }
}
