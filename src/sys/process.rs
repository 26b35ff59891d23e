//! fork(2), programs that are run, and words of memory that parent and child share.
#![allow(unsafe_code, reason = "fork returns twice, and shared memory is untyped")]

use crate::sorted::Listed;
use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU32;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Pid, chdir, pipe2, read, setpgid, write};

use crate::sys::ptrace::Sys;

/// Which side of a fork we are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The parent, with the child's pid.
    Parent(u32),
    /// The child.
    Child,
}

/// fork(2). rcsnap has one thread, so the child may go on as it likes.
///
/// # Errors
/// EAGAIN, ENOMEM.
pub fn fork() -> Sys<Fork> {
    // SAFETY: the process has one thread, so no lock is held by a thread that the child lacks.
    match Errno::result(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent(child.cast_unsigned())),
    }
}

/// Ends the process without running anything else: what a forked child must do.
pub fn leave(status: i32) -> ! {
    // SAFETY: a plain number.
    unsafe { libc::_exit(status) }
}

/// Runs a program: `args` with its path as the first, in `/` and in a process group of its own. It has our
/// standard streams and ignored signals, but for SIGPIPE.
///
/// # Errors
/// The errno of fork(2) or execve(2).
pub fn spawn(args: &[CString], env: &[CString]) -> Sys<u32> {
    let (from, to) = pipe2(OFlag::O_CLOEXEC)?;
    match fork()? {
        Fork::Child => {
            let Err(errno) = replace(args, env);
            let _ = write(&to, &(errno as i32).to_ne_bytes());
            leave(127)
        }
        Fork::Parent(child) => {
            drop(to);
            match word(&from) {
                // The other end was closed by execve(2).
                None => Ok(child),
                Some(errno) => {
                    let _ = super::brief::reap(child);
                    Err(errno)
                }
            }
        }
    }
}

/// The array of strings that execve(2) takes. It is good as long as they are there.
pub(super) fn array(strings: &[CString]) -> Vec<*const c_char> {
    let mut array: Vec<_> = strings.iter().map(|text| text.as_ptr()).list();
    array.push(std::ptr::null());
    array
}

/// execve(2).
///
/// # Errors
/// The errno: it only comes back when it did not work.
pub fn exec(program: &CStr, args: &[CString], env: &[CString]) -> Sys<Infallible> {
    let (args, env) = (array(args), array(env));
    // SAFETY: strings with their ends, and arrays of such that end in a null pointer.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    Err(Errno::last())
}

/// The child's part of [`spawn`].
fn replace(args: &[CString], env: &[CString]) -> Sys<Infallible> {
    let program = args.first().ok_or(Errno::EINVAL)?;
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    chdir(c"/")?;
    // SAFETY: the default action runs nothing of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    exec(program, args, env)
}

/// The errno that a child wrote before it ended.
fn word(from: &OwnedFd) -> Option<Errno> {
    let mut bytes = [0; 4];
    loop {
        match read(from, &mut bytes) {
            Err(Errno::EINTR) => {}
            Ok(4) => return Some(Errno::from_raw(i32::from_ne_bytes(bytes))),
            _ => return None,
        }
    }
}

/// Every descriptor from this number on is closed at the next execve(2) (close_range(2), 5.11). A program that
/// was started with somebody else's descriptors must not hand them to a system that is to be captured.
///
/// # Errors
/// EINVAL on older kernels.
pub fn close_on_exec_from(first: u32) -> Sys<()> {
    // SAFETY: plain numbers; no descriptor is closed now.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(done).map(drop)
}

/// A page of zeroed words that this process and its later children share, for ever.
///
/// # Errors
/// ENOMEM.
pub fn shared_words<const N: usize>() -> Sys<&'static [AtomicU32; N]> {
    // SAFETY: a fresh mapping at an address that the kernel chooses aliases nothing.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size_of::<[AtomicU32; N]>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: page aligned, zeroed, as large as asked for, and never unmapped; the words are atomic.
    Ok(unsafe { &*page.cast::<[AtomicU32; N]>() })
}

#[cfg(test)]
mod tests {
    use super::{Fork, fork, leave, shared_words, spawn};
    use nix::errno::Errno;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::Pid;
    use std::ffi::CString;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_program_gets_its_arguments_and_environment() {
        let text = |text: &str| CString::new(text).unwrap();
        let script = "[ $0-$1-$A-$PWD = x-y-z-/ ] && exit 7";
        let args = ["/bin/sh", "-c", script, "x", "y"].map(text);
        let child = Pid::from_raw(spawn(&args, &[text("A=z")]).unwrap().cast_signed());
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 7)));
        assert_eq!(spawn(&[text("/nonexistent")], &[]), Err(Errno::ENOENT));
    }

    #[test]
    fn a_child_writes_where_its_parent_reads() {
        let words = shared_words::<4>().unwrap();
        match fork().unwrap() {
            Fork::Child => {
                words[2].store(7, Ordering::Relaxed);
                leave(0);
            }
            Fork::Parent(child) => {
                nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child.cast_signed()), None).unwrap();
                assert_eq!(words[2].load(Ordering::Relaxed), 7);
            }
        }
    }
}
