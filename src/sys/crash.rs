//! What PID 1 does when it gets a fatal signal: go on with the real init.
//!
//! The kernel panics when PID 1 dies. A forced signal (SIGSEGV from a bad access) also kills PID 1 when it has
//! no handler or has the signal blocked, so the handlers are there on every path, on a stack of their own:
//! the usual one may be what overflowed. Everything here is allowed in a handler (signal-safety(7)): system
//! calls on memory that was prepared before, no allocation, no lock.
#![allow(unsafe_code, reason = "signal handlers and execve take raw pointers")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use nix::errno::Errno;

use crate::sys::process::array;
use crate::sys::ptrace::Sys;

/// The signals that mean a mistake in the program.
const FATAL: [c_int; 5] = [libc::SIGSEGV, libc::SIGILL, libc::SIGABRT, libc::SIGBUS, libc::SIGFPE];
/// Bytes of the handlers' own stack; the handler needs some hundred, the signal frame with AVX-512 about 3 KiB.
const STACK: usize = 64 * 1024;

/// What to do, prepared while nothing is wrong.
#[derive(Debug)]
pub struct WayOut {
    /// Path of the real init.
    pub init: CString,
    /// Its arguments.
    pub args: Vec<CString>,
    /// Its environment.
    pub env: Vec<CString>,
    /// What rcsnap mounted, to be unmounted, innermost first.
    pub mounts: Vec<CString>,
    /// Former text of kernel.panic, to be written back.
    pub panic: Option<CString>,
    /// When this word has reached this value the kernel's state was changed: reboot instead.
    pub reboot_from: Option<(&'static AtomicU32, u32)>,
}

/// A [`WayOut`] with the arrays that execve(2) takes.
struct Prepared {
    way: WayOut,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
}

static PREPARED: AtomicPtr<Prepared> = AtomicPtr::new(null_mut());

/// Installs the handlers, or gives them a new way out. The memory stays for the life of the process.
///
/// # Errors
/// ENOMEM for the stack.
pub fn install(way: WayOut) -> Sys<()> {
    let mut prepared = Box::new(Prepared { way, argv: Vec::new(), envp: Vec::new() });
    prepared.argv = array(&prepared.way.args);
    prepared.envp = array(&prepared.way.env);
    let first = PREPARED.swap(Box::into_raw(prepared), Ordering::SeqCst).is_null();
    if !first {
        return Ok(());
    }
    let stack: &'static mut [u8] = Box::leak(vec![0u8; STACK].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
    // SAFETY: the stack is leaked, so it lives as long as the process.
    Errno::result(unsafe { libc::sigaltstack(&raw const stack, null_mut()) })?;
    for signal in FATAL {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: zeroed is a valid sigaction; the handler has the signature that goes without SA_SIGINFO.
        let set = unsafe {
            (*action.as_mut_ptr()).sa_sigaction = handler as *const () as usize;
            (*action.as_mut_ptr()).sa_flags = libc::SA_ONSTACK | libc::SA_NODEFER | libc::SA_RESETHAND;
            libc::sigaction(signal, action.as_ptr(), null_mut())
        };
        Errno::result(set)?;
    }
    Ok(())
}

extern "C" fn handler(signal: c_int) {
    // SAFETY: no arguments, cannot fail.
    if unsafe { libc::getpid() } == 1 {
        let prepared = PREPARED.load(Ordering::SeqCst);
        if !prepared.is_null() {
            // SAFETY: set by `install` from a box that is never freed.
            go(unsafe { &*prepared });
        }
    }
    // SAFETY: a plain number.
    unsafe { libc::_exit(128 + signal) };
}

fn go(prepared: &Prepared) {
    let way = &prepared.way;
    write(c"/dev/kmsg", b"<3>rcsnap: guard: a fatal signal in PID 1\n");
    // SAFETY: system calls with plain numbers and with strings that were prepared in `install`. The set of
    // signals is initialised by sigemptyset before it is used.
    unsafe {
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), null_mut());
        // Nothing that rcsnap started may live on beside the real init.
        libc::kill(-1, libc::SIGKILL);
        if let Some((word, from)) = way.reboot_from
            && word.load(Ordering::SeqCst) >= from
        {
            libc::sync();
            libc::reboot(libc::RB_AUTOBOOT);
        }
        reap();
        if let Some(text) = &way.panic {
            write(c"/proc/sys/kernel/panic", text.as_bytes());
        }
        for mount in &way.mounts {
            libc::umount2(mount.as_ptr(), libc::MNT_DETACH);
        }
        libc::execve(way.init.as_ptr(), prepared.argv.as_ptr(), prepared.envp.as_ptr());
    }
}

fn write(path: &CStr, text: &[u8]) {
    // SAFETY: a string with its end; a buffer with its length; a descriptor that was just opened.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, text.as_ptr().cast(), text.len());
            libc::close(fd);
        }
    }
}

/// Takes every dead child, for two seconds at most.
fn reap() {
    for _ in 0..200 {
        // SAFETY: no status is asked for; the pause is initialised.
        let child = unsafe { libc::waitpid(-1, null_mut(), libc::WNOHANG | libc::__WALL) };
        if child < 0 {
            return;
        }
        if child == 0 {
            // SAFETY: no descriptors; after 10 ms it returns.
            unsafe { libc::poll(null_mut(), 0, 10) };
        }
    }
}

/// Dies of this signal as a mistake in the program would: for the fault points of lab builds.
#[cfg(feature = "fault")]
pub fn segv() {
    // SAFETY: raises a signal in ourselves.
    unsafe { libc::raise(libc::SIGSEGV) };
}
