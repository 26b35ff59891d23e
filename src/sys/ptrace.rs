//! ptrace(2): seize, stop, read and write another task.
#![allow(unsafe_code, reason = "ptrace takes untyped addresses")]

use std::fmt;
use std::mem::MaybeUninit;

use nix::errno::Errno;

use crate::arch::{Registers, Regs};

/// Result of a raw call: the errno says why not.
pub type Sys<T> = std::result::Result<T, Errno>;

/// Options for PTRACE_SEIZE: system-call stops are marked, new children and threads are attached too.
pub const FOLLOW: i32 = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE;
/// PTRACE_O_EXITKILL: the tracee dies with its tracer. For puppets; never for PID 1 or a captured task.
pub const EXITKILL: i32 = libc::PTRACE_O_EXITKILL;
/// PTRACE_O_SUSPEND_SECCOMP (4.3): while it is traced, the tracee lives as if it had no seccomp(2). Needs
/// CAP_SYS_ADMIN and CONFIG_CHECKPOINT_RESTORE.
pub const SUSPEND_SECCOMP: i32 = libc::PTRACE_O_SUSPEND_SECCOMP;

const PEEKSIGINFO: Request = 0x4209;
const GETSIGMASK: Request = 0x420a;
const SETSIGMASK: Request = 0x420b;
const SECCOMP_GET_FILTER: Request = 0x420c;
const SECCOMP_GET_METADATA: Request = 0x420d;
const GET_RSEQ_CONFIGURATION: Request = 0x420f;
const NT_PRSTATUS: u32 = 1;
/// Room for the general registers of any ABI that the kernel runs.
const PRSTATUS_MAX: usize = 512;

/// The type of PTRACE_* differs between C libraries: c_uint in glibc, c_int in musl.
#[cfg(target_env = "gnu")]
type Request = u32;
#[cfg(not(target_env = "gnu"))]
type Request = i32;

fn request(request: Request, tid: u32, addr: usize, data: usize) -> Sys<libc::c_long> {
    // SAFETY: the callers below pass for `addr` and `data` what ptrace(2) asks for with that request: plain
    // numbers, or the address of a buffer that outlives the call and has the size the request writes.
    let result = unsafe { libc::syscall(libc::SYS_ptrace, request as usize, tid as usize, addr, data) };
    Errno::result(result)
}

/// PTRACE_SEIZE: attach without stopping.
pub fn seize(tid: u32, options: i32) -> Sys<()> {
    request(libc::PTRACE_SEIZE, tid, 0, options as usize).map(drop)
}

/// PTRACE_SETOPTIONS: other options than those of the seizing.
pub fn set_options(tid: u32, options: i32) -> Sys<()> {
    request(libc::PTRACE_SETOPTIONS, tid, 0, options as usize).map(drop)
}

/// A filter of seccomp(2), the oldest is 0: its instructions of 64 bits, and its flags. ENOENT behind the newest.
pub fn seccomp_filter(tid: u32, index: usize) -> Sys<(Vec<u64>, u64)> {
    let count = request(SECCOMP_GET_FILTER, tid, index, 0)?;
    let mut code = vec![0_u64; usize::try_from(count).unwrap_or(0)];
    request(SECCOMP_GET_FILTER, tid, index, code.as_mut_ptr().addr())?;
    let mut metadata = [index as u64, 0];
    request(SECCOMP_GET_METADATA, tid, size_of_val(&metadata), metadata.as_mut_ptr().addr())?;
    Ok((code, metadata[1]))
}

/// PTRACE_INTERRUPT: ask for a stop, PTRACE_EVENT_STOP.
pub fn interrupt(tid: u32) -> Sys<()> {
    request(libc::PTRACE_INTERRUPT, tid, 0, 0).map(drop)
}

/// PTRACE_CONT with a signal to deliver (0: none).
pub fn cont(tid: u32, signal: i32) -> Sys<()> {
    request(libc::PTRACE_CONT, tid, 0, signal as usize).map(drop)
}

/// PTRACE_SYSCALL: go on to the next entry to or exit from a system call.
pub fn to_syscall(tid: u32) -> Sys<()> {
    request(libc::PTRACE_SYSCALL, tid, 0, 0).map(drop)
}

/// PTRACE_DETACH: the task runs on by itself.
pub fn detach(tid: u32, signal: i32) -> Sys<()> {
    request(libc::PTRACE_DETACH, tid, 0, signal as usize).map(drop)
}

/// The text of an event message: the new task's id after a fork or clone event.
pub fn event_message(tid: u32) -> Sys<libc::c_ulong> {
    let mut message: libc::c_ulong = 0;
    request(libc::PTRACE_GETEVENTMSG, tid, 0, (&raw mut message).addr())?;
    Ok(message)
}

/// General registers; ENOSYS for a task of another ABI.
pub fn regs(tid: u32) -> Sys<Regs> {
    Regs::from_bytes(&regset(tid, NT_PRSTATUS, PRSTATUS_MAX)?).ok_or(Errno::ENOSYS)
}

/// Sets the general registers.
pub fn set_regs(tid: u32, regs: &Regs) -> Sys<()> {
    set_regset(tid, NT_PRSTATUS, &regs.to_bytes())
}

/// A register set by its note number, as many bytes as the kernel has.
pub fn regset(tid: u32, note: u32, room: usize) -> Sys<Vec<u8>> {
    let mut buffer = vec![0u8; room];
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    request(libc::PTRACE_GETREGSET, tid, note as usize, (&raw mut iov).addr())?;
    buffer.truncate(iov.iov_len);
    Ok(buffer)
}

/// Writes a register set.
pub fn set_regset(tid: u32, note: u32, bytes: &[u8]) -> Sys<()> {
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    request(libc::PTRACE_SETREGSET, tid, note as usize, (&raw mut iov).addr()).map(drop)
}

/// The thread pointer, which has a request of its own on 32-bit ARM.
#[cfg(target_arch = "arm")]
pub fn thread_pointer(tid: u32) -> Sys<u32> {
    const GET_THREAD_AREA: Request = 22;
    let mut pointer = 0_u32;
    request(GET_THREAD_AREA, tid, 0, (&raw mut pointer).addr())?;
    Ok(pointer)
}

/// The blocked signals, bit N-1 for signal N. Inside sigsuspend(2) and its like this is the mask that will
/// be put back, which is the right one: the call is issued again with its own mask.
pub fn sigmask(tid: u32) -> Sys<u64> {
    let mut mask = 0u64;
    request(GETSIGMASK, tid, 8, (&raw mut mask).addr())?;
    Ok(mask)
}

/// Sets the blocked signals.
pub fn set_sigmask(tid: u32, mask: u64) -> Sys<()> {
    request(SETSIGMASK, tid, 8, (&raw const mask).addr()).map(drop)
}

/// Bytes of a siginfo_t.
pub const SIGINFO: usize = 128;

/// Queued signals as raw siginfo_t, private to the thread or shared by the process; none is consumed.
pub fn queued_signals(tid: u32, shared: bool) -> Sys<Vec<[u8; SIGINFO]>> {
    #[repr(C)]
    struct Args {
        off: u64,
        flags: u32,
        nr: i32,
    }
    let mut found = Vec::new();
    loop {
        let args = Args { off: found.len() as u64, flags: u32::from(shared), nr: 16 };
        let mut batch = [[0u8; SIGINFO]; 16];
        let n = request(PEEKSIGINFO, tid, (&raw const args).addr(), batch.as_mut_ptr().addr())?;
        let Some(got) = usize::try_from(n).ok().filter(|n| *n > 0) else { return Ok(found) };
        found.extend_from_slice(&batch[..got.min(16)]);
    }
}

/// What the thread registered with rseq(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RseqConfiguration {
    /// Address of struct rseq; 0 when not registered.
    pub address: u64,
    /// Its registered size.
    pub size: u32,
    /// The signature before each abort handler.
    pub signature: u32,
    /// Flags.
    pub flags: u32,
    pad: u32,
}

/// PTRACE_GET_RSEQ_CONFIGURATION (5.13).
pub fn rseq(tid: u32) -> Sys<RseqConfiguration> {
    let mut conf = RseqConfiguration::default();
    request(GET_RSEQ_CONFIGURATION, tid, size_of::<RseqConfiguration>(), (&raw mut conf).addr())?;
    Ok(conf)
}

/// Whether this kernel has rseq(2) at all. The call says what is wrong with its arguments, or that it is unknown.
#[must_use]
pub fn knows_rseq() -> bool {
    let none: libc::c_long = 0;
    // SAFETY: a length of 0 is refused before the address is looked at, whatever is registered.
    let result = unsafe { libc::syscall(crate::sys::abi::RSEQ, none, none, none, none) };
    Errno::result(result) != Err(Errno::ENOSYS)
}

/// The signal of a signal-delivery-stop: si_signo and si_code.
pub fn stop_signal_code(tid: u32) -> Sys<(i32, i32)> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    request(libc::PTRACE_GETSIGINFO, tid, 0, info.as_mut_ptr().addr())?;
    // SAFETY: zeroed is a valid siginfo_t, and the kernel filled it.
    let info = unsafe { info.assume_init() };
    Ok((info.si_signo, info.si_code))
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// A PTRACE_EVENT_STOP: our interrupt, or the first stop of a new child.
    Interrupted,
    /// A group stop with this signal.
    GroupStop(i32),
    /// A fork, vfork or clone event.
    NewChild,
    /// Another ptrace event.
    Event(i32),
    /// Entry to or exit from a system call.
    Syscall,
    /// About to deliver this signal.
    Signal(i32),
    /// Exited, with the wait status.
    Gone(i32),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, number) = match *self {
            Status::Interrupted => return f.write_str("an interrupt"),
            Status::NewChild => return f.write_str("a new child"),
            Status::Syscall => return f.write_str("a system call"),
            Status::GroupStop(number) => ("stop signal", number),
            Status::Event(number) => ("event", number),
            Status::Signal(number) => ("signal", number),
            Status::Gone(number) => ("its end", number),
        };
        write!(f, "{name} {number}")
    }
}

/// Decodes a wait status (ptrace(2), "Stopped states").
#[must_use]
pub fn decode(status: i32) -> Status {
    if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
        return Status::Gone(status);
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        0 if signal == libc::SIGTRAP | 0x80 => Status::Syscall,
        0 => Status::Signal(signal),
        libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => Status::Interrupted,
        libc::PTRACE_EVENT_STOP => Status::GroupStop(signal),
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => Status::NewChild,
        event => Status::Event(event),
    }
}

/// wait4(2) with __WALL: -1 for any. `None` when WNOHANG found nothing.
pub fn wait(pid: i32, flags: i32) -> Sys<Option<(u32, i32)>> {
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call; no rusage is asked for.
        let got = unsafe { libc::wait4(pid, &raw mut status, flags | libc::__WALL, std::ptr::null_mut()) };
        match Errno::result(got) {
            Ok(0) => return Ok(None),
            Ok(tid) => return Ok(Some((tid.cast_unsigned(), status))),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
