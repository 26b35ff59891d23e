//! The entry point in place of std's own.
//!
//! std's start code opens /dev/null for a closed stdin, stdout or stderr, and aborts when that is not
//! possible. A kernel that finds no /dev/console starts PID 1 with all three closed, and with an empty /dev
//! there is no /dev/null either, so the board would end in a kernel panic before `main`. It also ignores
//! SIGPIPE, which the real init would inherit.
#![allow(unsafe_code, reason = "argv and environ are C arrays")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;

/// What the kernel or the caller gave us: passed on as it is to the real init.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// The arguments, with the name of the program.
    pub args: Vec<CString>,
    /// The environment, `NAME=value`.
    pub env: Vec<CString>,
}

impl Given {
    /// The arguments as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        self.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect()
    }
}

/// Collects the arguments that `main` was called with, and the environment.
///
/// # Safety
/// `argv` must have `argc` strings, as every `main` is given.
#[must_use]
pub unsafe fn given(argc: c_int, argv: *const *const c_char) -> Given {
    let count = usize::try_from(argc).unwrap_or(0);
    let args = (0..count)
        // SAFETY: the caller's promise: `count` pointers to strings that live as long as the process.
        .map(|i| unsafe { CStr::from_ptr(*argv.add(i)) }.to_owned())
        .collect();
    let env = std::env::vars_os()
        .filter_map(|(name, value)| {
            let mut text = name.into_vec();
            text.push(b'=');
            text.extend(value.into_vec());
            CString::new(text).ok()
        })
        .collect();
    Given { args, env }
}

/// Defines the C `main` that calls a `fn(Given) -> u8`.
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        /// Called by the C library's start code.
        ///
        /// # Safety
        /// `argv` has `argc` strings.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn main(
            argc: ::std::ffi::c_int,
            argv: *const *const ::std::ffi::c_char,
        ) -> ::std::ffi::c_int {
            // SAFETY: these are the arguments that `main` was called with.
            let given = unsafe { $crate::sys::start::given(argc, argv) };
            ::std::ffi::c_int::from($run(given))
        }
    };
}
