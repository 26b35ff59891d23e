//! One file a processor architecture, and what each must provide.
//!
//! The contract is two traits: [`Registers`] for the general registers, [`Processor`] for everything else. An
//! architecture's file implements them for its types `Regs` and `Cpu`; a name that is missing, or has another
//! form, does not compile. Nothing outside this folder knows a register, an instruction or a number that is not
//! the same everywhere. `docs/porting.md` says what a new file must think of, and what proves it.
//!
//! The machine code between `rcsnap_blob_start` and `rcsnap_blob_end`, which the file defines with
//! `global_asm!`, is the only code that ever runs inside another process. It is position independent, uses no
//! stack and no memory but its list of calls, and serves capture (injected into a stopped process) and restore
//! (in a puppet). A call is eight machine words: number, six arguments, result. The top bit of the number
//! means "may fail"; any other call that fails ends the list. The list ends in tgkill(self, SIGTRAP): one
//! signal-delivery-stop for the whole batch. It is no breakpoint, whose forced signal would reset a blocked
//! handler and, in PID 1, clear its protection. What follows it runs only when the tracer is gone: the call of
//! last resort, for ever (reboot(2) for a PID 1 half restored, rt_sigreturn(2) for a live process).
#![allow(unsafe_code, reason = "the batch loop is assembly")]

use crate::error::{Context, Refusal, Result};
use crate::proc::syscall::Call;
use crate::sys::abi::Number;
use crate::sys::ptrace;
use crate::task::batch::Batch;

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "arm", path = "arm.rs")]
mod this;

pub use this::{Cpu, Regs};

/// The general registers: what NT_PRSTATUS of ptrace(2) holds. A `section!` with the name `Regs`.
pub trait Registers: Clone + Sized {
    /// From the kernel's layout; `None` when the task is of another ABI (a 32-bit program on a 64-bit kernel).
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
    /// The kernel's layout.
    fn to_bytes(&self) -> Vec<u8>;
    /// The instruction pointer.
    fn ip(&self) -> u64;
    /// Sets the instruction pointer.
    fn set_ip(&mut self, ip: u64);
}

/// What depends on the processor.
pub trait Processor {
    /// This architecture in the image header: e_machine of elf(5).
    const ARCH: u16;
    /// The instruction that makes a system call, in the state in which [`Processor::set_call`] runs it.
    const CALL_INSN: &'static [u8];
    /// Where such an instruction may stand: a multiple of this.
    const CALL_ALIGN: usize;
    /// mmap(2): its number, and the unit of its offset.
    const MMAP: (Number, u64);
    /// Whether the first argument of a call that ended in EINTR is nowhere in `Regs`, so that it must be read
    /// from /proc/TID/syscall while the task still sleeps in it.
    const FORGETS_ARGUMENT: bool;
    /// The notes of register sets (of [`Processor::sets`]) that injected system calls spoil: they are written
    /// back into a live thread.
    const SPOILED: &'static [u32];
    /// Where the stack pointer of rt_sigreturn(2) lies in a [`Processor::signal_frame`], from its start.
    const FRAME_STACK: u64;

    /// An instruction that makes system calls and that the stopped task has just used, if another call may be
    /// made there. Not where the kernel takes that address for the restart of the interrupted call.
    fn call_behind(regs: &Regs) -> Option<u64>;
    /// Prepares one system call at a borrowed instruction, so that the kernel restarts nothing.
    fn set_call(regs: &mut Regs, insn: u64, number: Number, args: &[u64; 6]);
    /// The result of that call: see [`result`].
    fn call_result(regs: &Regs) -> i64;
    /// Prepares a run of the batch loop. No flag of the interrupted program may reach the loop, and
    /// sigaltstack(2) must not find it on the stack that it sets.
    fn set_batch(regs: &mut Regs, run: &Loop);
    /// Where the loop stopped: the address of the call that failed, or the end of the list.
    fn batch_position(regs: &Regs) -> u64;

    /// Makes registers that were read at a stop ready to run in another process: an interrupted system call
    /// starts again from its beginning. `asleep` is the call that the task slept in before the stop, where
    /// [`Processor::FORGETS_ARGUMENT`]. `signal_waits` says that a signal is pending whose handler will run
    /// first: then a call that ended in EINTR ended because of that.
    ///
    /// Calls that end in EINTR after any ptrace stop although no handler ran are those of [`QUIET`]; they are
    /// started again too.
    fn rewind(regs: &mut Regs, asleep: Option<&Call>, signal_waits: bool);
    /// The same for the live task, which goes on in place: where the kernel itself would go on with what is
    /// left of a time-out, it still must.
    fn resume(regs: &mut Regs, asleep: Option<&Call>, signal_waits: bool);
    /// What rt_sigreturn(2) takes from the stack to put a task back where it was, with as many of its register
    /// sets as a task inside a system call would miss.
    fn signal_frame(regs: &Regs, sets: &[Set], mask: u64) -> Vec<u8>;

    /// Reads all further register sets of a stopped thread: vector state, thread pointer, keys.
    ///
    /// # Errors
    /// A state that cannot be carried.
    fn sets(tid: u32) -> Result<Vec<Set>, Refusal>;
    /// Writes them into a stopped thread. The last thing before its general registers.
    ///
    /// # Errors
    /// The CPU lacks what the image has, or the thread is gone.
    fn write_sets(tid: u32, sets: &[Set]) -> Result<()>;
    /// What of the sets only the thread itself can set, by a system call.
    fn restore_inside(batch: &mut Batch, sets: &[Set]);
}

crate::section! {
    /// A register set beside the general registers.
    pub struct Set {
        /// Its note (NT_* of <linux/elf.h>), or a number of the architecture's own.
        pub note: u32,
        /// What PTRACE_GETREGSET gives.
        pub bytes: Vec<u8>,
    }
}

/// One run of the batch loop.
#[derive(Debug, Clone, Copy)]
pub struct Loop {
    /// Address of the loop.
    pub code: u64,
    /// Address of the first call.
    pub first: u64,
    /// Address after the last call.
    pub end: u64,
    /// Whom to stop: process.
    pub tgid: u32,
    /// Whom to stop: thread.
    pub tid: u32,
    /// Address of the call that is made when the tracer is gone.
    pub last_resort: u64,
    /// Stack pointer for that call.
    pub stack: u64,
}

/// System calls that end in EINTR after any ptrace stop, although no handler ran. Besides these, an architecture
/// may have older calls of the same sort.
pub const QUIET: [Number; 17] = [
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_io_getevents,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    // Of sockets with SO_RCVTIMEO or SO_SNDTIMEO, when nothing has been moved yet.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
];

/// EINTR as the kernel returns it.
pub const EINTR: i64 = -4;

/// A word that a system call returned: -4095 to -1 for an error, otherwise what it says without a sign.
#[must_use]
pub fn result(word: usize) -> i64 {
    match word.cast_signed() {
        error @ -4095..=-1 => error as i64,
        _ => (word as u64).cast_signed(),
    }
}

/// A register set, if this kernel and this CPU have it: EINVAL and ENODEV are the answers of those that do not.
fn set(tid: u32, note: u32, room: usize) -> Result<Option<Set>> {
    use nix::errno::Errno;
    match ptrace::regset(tid, note, room) {
        Ok(bytes) => Ok(Some(Set { note, bytes })),
        Err(Errno::EINVAL | Errno::ENODEV) => Ok(None),
        Err(errno) => Err(errno).context("thread", format_args!("reading register set {note:#x} of {tid}")),
    }
}

/// Writes one register set.
fn write_set(tid: u32, set: &Set) -> Result<()> {
    ptrace::set_regset(tid, set.note, &set.bytes)
        .context("thread", format_args!("setting register set {:#x} of {tid}", set.note))
}

/// Puts back what injected calls spoiled in a live thread.
///
/// # Errors
/// The thread is gone.
pub fn write_spoiled(tid: u32, sets: &[Set]) -> Result<()> {
    sets.iter().filter(|set| Cpu::SPOILED.contains(&set.note)).try_for_each(|set| write_set(tid, set))
}

unsafe extern "C" {
    static rcsnap_blob_start: u8;
    static rcsnap_blob_end: u8;
}

/// The batch loop's machine code.
#[must_use]
pub fn blob() -> &'static [u8] {
    let start = &raw const rcsnap_blob_start;
    let end = &raw const rcsnap_blob_end;
    // SAFETY: both symbols stand in one read-only section of this binary, `end` after `start`, and the
    // bytes between them are initialised and never change.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

#[cfg(test)]
mod tests {
    use super::{Cpu, Processor, blob, result};

    #[test]
    fn blob_is_small_and_makes_calls() {
        assert!((64..512).contains(&blob().len()));
        let insn = Cpu::CALL_INSN;
        assert!(blob().chunks(Cpu::CALL_ALIGN).flatten().count() == blob().len());
        assert!(blob().windows(insn.len()).step_by(Cpu::CALL_ALIGN).any(|w| w == insn));
    }

    #[test]
    fn results_have_a_sign_only_when_they_are_errors() {
        assert_eq!(result(usize::MAX), -1);
        assert_eq!(result(usize::MAX - 4094), -4095);
        assert_eq!(result(usize::MAX - 4095).cast_unsigned(), (usize::MAX - 4095) as u64);
        assert_eq!(result(7), 7);
    }
}
