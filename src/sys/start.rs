//! The entry point in place of std's own.
//!
//! std's start code opens /dev/null for a closed stdin, stdout or stderr, and aborts when that is not
//! possible. A kernel that finds no /dev/console starts PID 1 with all three closed, and with an empty /dev
//! there is no /dev/null either, so the board would end in a kernel panic before `main`. It also ignores
//! SIGPIPE, which the real init would inherit.
#![allow(unsafe_code, reason = "argv and environ are C arrays")]

use std::ffi::{CStr, CString, c_char};

use crate::sorted::Listed;

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
        self.args.iter().map(|arg| arg.to_string_lossy().into_owned()).list()
    }
}

/// Collects the arguments that `main` was called with, and the environment.
///
/// # Safety
/// Both are lists of strings that end with a null pointer, as every `main` is given.
#[must_use]
pub unsafe fn given(argv: *const *const c_char, envp: *const *const c_char) -> Given {
    // SAFETY: the caller's promise.
    unsafe { Given { args: strings(argv), env: strings(envp) } }
}

/// # Safety
/// As for [`given`].
unsafe fn strings(mut list: *const *const c_char) -> Vec<CString> {
    let mut found = Vec::new();
    // SAFETY: the caller's promise: strings that live as long as the process, and a null pointer at the end.
    while let Some(text) = unsafe { (*list).as_ref() } {
        // SAFETY: as above; before the end there is one more.
        unsafe {
            found.push(CStr::from_ptr(text).to_owned());
            list = list.add(1);
        }
    }
    found
}

/// Defines the C `main` that calls a `fn(Given) -> u8`.
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        /// Called by the C library's start code.
        ///
        /// # Safety
        /// `argv` and `envp` end with a null pointer.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn main(
            _argc: ::std::ffi::c_int,
            argv: *const *const ::std::ffi::c_char,
            envp: *const *const ::std::ffi::c_char,
        ) -> ::std::ffi::c_int {
            // SAFETY: these are the lists that `main` was called with.
            let given = unsafe { $crate::sys::start::given(argv, envp) };
            ::std::ffi::c_int::from($run(given))
        }
    };
}
