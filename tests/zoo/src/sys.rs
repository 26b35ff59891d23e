//! System calls as C writes them, with errors as text.

use std::ffi::CStr;
use std::fmt;

/// Why a step did not work, as text.
#[derive(Debug, Clone)]
pub struct Problem(pub String);

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Problem {
        Problem(error.to_string())
    }
}

impl From<String> for Problem {
    fn from(text: String) -> Problem {
        Problem(text)
    }
}

impl From<&str> for Problem {
    fn from(text: &str) -> Problem {
        Problem(text.into())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A result of a C call that says "error" with -1.
pub trait Returned: Copy {
    /// Whether it is the error value.
    fn is_error(self) -> bool;
}

impl Returned for i32 {
    fn is_error(self) -> bool {
        self == -1
    }
}

impl Returned for u32 {
    fn is_error(self) -> bool {
        self == u32::MAX
    }
}

impl Returned for usize {
    fn is_error(self) -> bool {
        self == usize::MAX
    }
}

impl Returned for i64 {
    fn is_error(self) -> bool {
        self == -1
    }
}

impl Returned for isize {
    fn is_error(self) -> bool {
        self == -1
    }
}

impl Returned for *mut libc::c_void {
    fn is_error(self) -> bool {
        self == libc::MAP_FAILED
    }
}

/// -1 becomes a [`Problem`] with the name of the call and the errno.
///
/// # Errors
/// When the call failed.
pub fn done<T: Returned>(call: &str, result: T) -> Result<T, Problem> {
    if result.is_error() {
        return Err(Problem(format!("{call}: {}", std::io::Error::last_os_error())));
    }
    Ok(result)
}

/// Calls a function of libc and turns -1 into a [`Problem`]: `sys!(pipe2(fds.as_mut_ptr(), 0))?`.
#[macro_export]
macro_rules! sys {
    ($call:ident ( $($arg:expr),* $(,)? )) => {
        // SAFETY: the pointers are to live objects of the right size; a wrong one ends this test program only.
        $crate::sys::done(stringify!($call), unsafe { libc::$call($($arg),*) })
    };
}

/// Makes a raw system call by number; -1 becomes a [`Problem`].
#[macro_export]
macro_rules! raw {
    ($number:ident $(, $arg:expr)* $(,)?) => {
        // SAFETY: as for `sys!`.
        $crate::sys::done(stringify!($number), unsafe { libc::syscall(libc::$number $(, $arg)*) } as i64)
    };
}

/// Makes a system call that takes times, which are [`Time`](crate::time::Time) on every architecture;
/// -1 becomes a [`Problem`].
#[macro_export]
macro_rules! timed {
    ($number:ident $(, $arg:expr)* $(,)?) => {
        // SAFETY: as for `sys!`.
        $crate::sys::done(stringify!($number), unsafe { libc::syscall($crate::time::$number $(, $arg)*) } as i64)
    };
}

/// errno of the last call.
#[must_use]
pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Writes to standard output in one piece, past all buffers.
pub fn say(text: &str) {
    write_all(1, text.as_bytes());
}

/// A remark for the log.
pub fn note(text: &str) {
    write_all(2, format!("note: {}[{}]: {text}\n", crate::env_name(), std::process::id()).as_bytes());
}

fn write_all(fd: i32, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: pointer and length are those of a slice.
        let n = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(n) {
            Ok(n) if n > 0 => bytes = &bytes[n..],
            _ => return,
        }
    }
}

/// Whether a name exists.
#[must_use]
pub fn exists(path: &CStr) -> bool {
    // SAFETY: a C string.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
}

/// A zeroed C struct.
#[must_use]
pub fn zeroed<T>() -> T {
    // SAFETY: used for plain structs of the kernel's ABI only, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// The word at an address.
#[must_use]
pub fn peek(at: usize) -> u64 {
    // SAFETY: an aligned address in a mapping of the program's own.
    unsafe { std::ptr::read_volatile(at as *const u64) }
}

/// Puts a word at an address.
pub fn poke(at: usize, value: u64) {
    // SAFETY: an aligned address in a mapping of the program's own.
    unsafe { std::ptr::write_volatile(at as *mut u64, value) }
}

/// Gives a signal a handler.
///
/// # Errors
/// The errno of sigaction(2).
pub fn handle(signal: i32, handler: extern "C" fn(i32), flags: i32) -> Result<i32, Problem> {
    let mut action: libc::sigaction = zeroed();
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = flags;
    // SAFETY: a live struct, and a handler that takes the number of the signal.
    done("sigaction", unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })
}

/// The thread's own id.
#[must_use]
pub fn gettid() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// prctl(2) that sets something to an integer.
///
/// # Errors
/// The errno of the call.
pub fn set_prctl(option: i32, value: usize) -> Result<i32, Problem> {
    // SAFETY: the options used here take integers, which are a register each.
    done("prctl", unsafe { libc::prctl(option, value, 0_usize, 0_usize, 0_usize) })
}

/// prctl(2) with integers only: its value, or the errno in words.
#[must_use]
pub fn prctl(option: i32, arg: u64) -> String {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take integers.
    match unsafe { libc::prctl(option, arg as libc::c_ulong, zero, zero, zero) } {
        -1 => std::io::Error::last_os_error().to_string(),
        value => value.to_string(),
    }
}
