//! Clocks and times of files in 64 bits, which the C library of a 32-bit board may not have.
#![allow(unsafe_code, reason = "raw calls, because the C library's time_t may be narrower")]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use crate::sys::abi;
use crate::sys::ptrace::Sys;

/// What a clock (`CLOCK_*`) shows: seconds and nanoseconds.
///
/// # Errors
/// EINVAL if there is no such clock.
pub fn now(clock: i32) -> Sys<(i64, i64)> {
    let mut time = [0_i64; 2];
    // SAFETY: the kernel writes one struct __kernel_timespec: two words of 64 bits.
    Errno::result(unsafe { libc::syscall(abi::CLOCK_GETTIME, clock, time.as_mut_ptr()) })?;
    Ok((time[0], time[1]))
}

/// The same in nanoseconds.
///
/// # Errors
/// EINVAL if there is no such clock.
pub fn nanoseconds(clock: i32) -> Sys<i64> {
    now(clock).map(|(seconds, rest)| seconds.saturating_mul(1_000_000_000).saturating_add(rest))
}

/// The milliseconds of a duration, in a number of the usual width.
#[must_use]
pub fn milliseconds(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1000).saturating_add(span.subsec_millis().into())
}

/// Sets both times of a file, or of a link itself.
///
/// # Errors
/// The errno of utimensat(2).
pub fn set_of_file(path: &Path, (seconds, nanoseconds): (i64, u32)) -> Sys<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let times = [seconds, nanoseconds.into(), seconds, nanoseconds.into()];
    // SAFETY: a string with its end, and two struct __kernel_timespec, which the kernel reads.
    let done = unsafe {
        libc::syscall(
            abi::UTIMENSAT,
            libc::AT_FDCWD,
            path.as_ptr(),
            times.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
        )
    };
    Errno::result(done).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_link_has_its_own_time() {
        let path = std::env::temp_dir().join(format!("rcsnap-time-{}", std::process::id()));
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        super::set_of_file(&path, (4_000_000_000, 5)).unwrap();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (4_000_000_000, 5));
    }

    #[test]
    fn clocks_go_on() {
        let first = super::nanoseconds(libc::CLOCK_MONOTONIC).unwrap();
        assert!(first > 0 && super::nanoseconds(libc::CLOCK_MONOTONIC).unwrap() >= first);
        assert!(super::now(libc::CLOCK_REALTIME).unwrap().0 > 1_700_000_000);
    }
}
