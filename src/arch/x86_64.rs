//! x86_64: registers, the batch loop, restart of system calls, vdso.
//!
//! The loop below is the only code that ever runs inside another process. It is position independent, uses
//! no stack and no memory but its list of calls, and serves capture (injected into a stopped process) and
//! restore (in a puppet). A call is eight words: number, six arguments, result. Bit 63 of the number means
//! "may fail"; any other call that fails ends the list.
//!
//! Registers: rbx the next call, rbp the end of the list, r12 tgid, r13 tid, r14 the call of last resort,
//! r15 a stack pointer for it. The kernel's syscall instruction changes only rax, rcx and r11.
//!
//! The list ends in tgkill(self, SIGTRAP): one signal-delivery-stop for the whole batch. It is not a
//! breakpoint, whose forced signal would reset a blocked handler and, in PID 1, clear its protection. What
//! follows runs only when the tracer is gone: the call of last resort (reboot(2) for a PID 1 half restored,
//! rt_sigreturn(2) for a live process).
#![allow(unsafe_code, reason = "the batch loop is assembly")]

use std::arch::global_asm;

use crate::sys::abi::Number;
use crate::task::remote::Batch;

/// This architecture in the image header (EM_X86_64 of elf(5)).
pub const ARCH: u16 = 62;
/// `syscall`.
pub const SYSCALL_INSN: [u8; 2] = [0x0f, 0x05];
/// NT_X86_XSTATE: x87, SSE, AVX and the rest in the XSAVE layout.
pub const FLOAT_NOTE: i32 = 0x202;
/// Room for the largest XSAVE area known (11008 bytes with AMX).
pub const FLOAT_MAX: usize = 16 * 1024;
/// End of user addresses with four page-table levels, less the guard page.
pub const TASK_TOP: u64 = 0x7fff_ffff_f000;

crate::section! {
    /// struct user_regs_struct of <sys/user.h>: what NT_PRSTATUS holds. fs_base and gs_base are the TLS.
    pub struct Regs {
        /// r15.
        pub r15: u64,
        /// r14.
        pub r14: u64,
        /// r13.
        pub r13: u64,
        /// r12.
        pub r12: u64,
        /// rbp.
        pub rbp: u64,
        /// rbx.
        pub rbx: u64,
        /// r11.
        pub r11: u64,
        /// r10.
        pub r10: u64,
        /// r9.
        pub r9: u64,
        /// r8.
        pub r8: u64,
        /// rax.
        pub rax: u64,
        /// rcx.
        pub rcx: u64,
        /// rdx.
        pub rdx: u64,
        /// rsi.
        pub rsi: u64,
        /// rdi.
        pub rdi: u64,
        /// number of the system call being made; -1: none.
        pub orig_rax: u64,
        /// rip.
        pub rip: u64,
        /// cs.
        pub cs: u64,
        /// eflags.
        pub eflags: u64,
        /// rsp.
        pub rsp: u64,
        /// ss.
        pub ss: u64,
        /// fs_base.
        pub fs_base: u64,
        /// gs_base.
        pub gs_base: u64,
        /// ds.
        pub ds: u64,
        /// es.
        pub es: u64,
        /// fs.
        pub fs: u64,
        /// gs.
        pub gs: u64,
    }
}

impl Regs {
    /// The kernel's layout: 27 words.
    #[must_use]
    pub fn to_words(&self) -> [u64; 27] {
        [
            self.r15,
            self.r14,
            self.r13,
            self.r12,
            self.rbp,
            self.rbx,
            self.r11,
            self.r10,
            self.r9,
            self.r8,
            self.rax,
            self.rcx,
            self.rdx,
            self.rsi,
            self.rdi,
            self.orig_rax,
            self.rip,
            self.cs,
            self.eflags,
            self.rsp,
            self.ss,
            self.fs_base,
            self.gs_base,
            self.ds,
            self.es,
            self.fs,
            self.gs,
        ]
    }

    /// From the kernel's layout.
    #[must_use]
    pub fn from_words(w: &[u64; 27]) -> Regs {
        Regs {
            r15: w[0],
            r14: w[1],
            r13: w[2],
            r12: w[3],
            rbp: w[4],
            rbx: w[5],
            r11: w[6],
            r10: w[7],
            r9: w[8],
            r8: w[9],
            rax: w[10],
            rcx: w[11],
            rdx: w[12],
            rsi: w[13],
            rdi: w[14],
            orig_rax: w[15],
            rip: w[16],
            cs: w[17],
            eflags: w[18],
            rsp: w[19],
            ss: w[20],
            fs_base: w[21],
            gs_base: w[22],
            ds: w[23],
            es: w[24],
            fs: w[25],
            gs: w[26],
        }
    }

    /// Whether this is a 64-bit task: __USER_CS is 0x33, a compat task runs with 0x23.
    #[must_use]
    pub fn is_native(&self) -> bool {
        self.cs == 0x33
    }

    /// The instruction pointer.
    #[must_use]
    pub fn ip(&self) -> u64 {
        self.rip
    }

    /// Sets the instruction pointer.
    pub fn set_ip(&mut self, ip: u64) {
        self.rip = ip;
    }
}

global_asm!(
    ".pushsection .rodata.rcsnap_blob, \"a\"",
    ".balign 16",
    ".global rcsnap_blob_start",
    ".global rcsnap_blob_end",
    "rcsnap_blob_start:",
    "2: cmp rbx, rbp", // every call done?
    "jae 4f",
    "mov rax, [rbx]",
    "btr rax, 63", // without the "may fail" bit
    "mov rdi, [rbx + 8]",
    "mov rsi, [rbx + 16]",
    "mov rdx, [rbx + 24]",
    "mov r10, [rbx + 32]",
    "mov r8, [rbx + 40]",
    "mov r9, [rbx + 48]",
    "syscall",
    "mov [rbx + 56], rax",
    "cmp rax, -4095",
    "jb 3f",
    "test byte ptr [rbx + 7], 0x80", // an error: allowed for this call?
    "jz 4f",
    "3: add rbx, 64",
    "jmp 2b",
    "4: mov eax, 234", // tgkill(r12, r13, SIGTRAP): the one stop
    "mov rdi, r12",
    "mov rsi, r13",
    "mov edx, 5",
    "syscall",
    "mov rsp, r15", // nobody traces us any more
    "mov rax, [r14]",
    "mov rdi, [r14 + 8]",
    "mov rsi, [r14 + 16]",
    "mov rdx, [r14 + 24]",
    "mov r10, [r14 + 32]",
    "syscall",
    "jmp 4b",
    "rcsnap_blob_end:",
    ".popsection",
);

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

/// Prepares one system call at a borrowed `syscall` instruction.
pub fn set_call(regs: &mut Regs, insn: u64, number: Number, args: &[u64; 6]) {
    regs.rip = insn;
    regs.rax = number.cast_unsigned();
    [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = *args;
    // No call is pending any more, so that the kernel restarts nothing.
    regs.orig_rax = u64::MAX;
}

/// The result of that call.
#[must_use]
pub fn call_result(regs: &Regs) -> i64 {
    regs.rax.cast_signed()
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

/// Prepares a run of the batch loop.
pub fn set_batch(regs: &mut Regs, run: &Loop) {
    regs.rip = run.code;
    regs.rbx = run.first;
    regs.rbp = run.end;
    regs.r12 = u64::from(run.tgid);
    regs.r13 = u64::from(run.tid);
    regs.r14 = run.last_resort;
    regs.r15 = run.stack;
    // The loop uses no stack; sigaltstack(2) must not find us on the one it sets.
    regs.rsp = run.last_resort;
    regs.orig_rax = u64::MAX;
    // A direction or trap flag of the interrupted program must not reach the loop.
    regs.eflags = 0x202;
}

/// Where the loop stopped: the address of the call that failed, or the end of the list.
#[must_use]
pub fn batch_position(regs: &Regs) -> u64 {
    regs.rbx
}

const ERESTARTSYS: i64 = -512;
const ERESTARTNOHAND: i64 = -514;
const ERESTART_RESTARTBLOCK: i64 = -516;
const EINTR: i64 = -4;

/// Whether the stop interrupted a system call which the kernel means to restart.
#[must_use]
pub fn needs_restart(regs: &Regs) -> bool {
    regs.orig_rax.cast_signed() >= 0
        && (ERESTART_RESTARTBLOCK..=ERESTARTSYS).contains(&regs.rax.cast_signed())
}

/// Makes an interrupted system call start again from its beginning in another process.
///
/// A pending call shows rax = -512, -513, -514 or -516 and orig_rax = its number, with rip after the
/// `syscall`. Calls that end in EINTR after any ptrace stop although no handler ran (epoll_wait,
/// rt_sigtimedwait, semop, io_getevents, the receive and accept family with a time-out) are started again
/// too, unless a signal is pending whose handler will run. restart_syscall (219) has lost its number: EINTR.
pub fn rewind(regs: &mut Regs, signal_waits: bool) {
    const QUIET: [i64; 14] = [
        libc::SYS_epoll_wait,
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
    ];
    let number = regs.orig_rax.cast_signed();
    let result = regs.rax.cast_signed();
    if number < 0 {
        return;
    }
    let again = match result {
        ERESTARTNOHAND..=ERESTARTSYS => true,
        ERESTART_RESTARTBLOCK => number != libc::SYS_restart_syscall,
        EINTR => QUIET.contains(&number) && !signal_waits,
        _ => false,
    };
    if again {
        regs.rax = regs.orig_rax;
        regs.rip = regs.rip.wrapping_sub(2);
    } else if result == ERESTART_RESTARTBLOCK {
        regs.rax = EINTR.cast_unsigned();
    }
    regs.orig_rax = u64::MAX;
}

/// What rt_sigreturn(2) takes from the stack to put a task back where it was: struct rt_sigframe of
/// arch/x86/include/asm/sigframe.h up to the signal mask. The stack pointer for the call lies 8 bytes above
/// its start. Vector registers come back empty, which a task inside a system call does not notice.
#[must_use]
pub fn signal_frame(regs: &Regs, mask: u64) -> Vec<u8> {
    // The stack segment is in the frame, and is meant.
    const FLAGS: u64 = 0x2 | 0x4;
    // An alternate stack that is too small to be accepted: the present one stays.
    const NO_STACK: [u64; 3] = [0, 0, 1];
    let r = regs;
    let segments = (r.cs & 0xffff) | (r.gs & 0xffff) << 16 | (r.fs & 0xffff) << 32 | (r.ss & 0xffff) << 48;
    let mut words = vec![0, FLAGS, 0];
    words.extend(NO_STACK);
    words.extend([r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15]);
    words.extend([r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax, r.rcx, r.rsp, r.rip, r.eflags, segments]);
    // err, trapno, oldmask, cr2, fpstate (none), reserved
    words.extend([0; 13]);
    words.push(mask);
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Maps this boot's [vvar] and [vdso] so that the group starts at `start` (ARCH_MAP_VDSO_64, arch_prctl(2);
/// needs CONFIG_CHECKPOINT_RESTORE). The bytes of a vdso differ between boots, so they are never restored.
pub fn place_vdso(batch: &mut Batch, start: u64) {
    const ARCH_MAP_VDSO_64: u64 = 0x2003;
    batch.call(libc::SYS_arch_prctl, &[ARCH_MAP_VDSO_64, start]);
}

#[cfg(test)]
mod tests {
    use super::{Regs, blob, rewind};

    fn stopped(number: i64, result: i64) -> Regs {
        let mut regs = Regs::from_words(&[0; 27]);
        regs.orig_rax = number.cast_unsigned();
        regs.rax = result.cast_unsigned();
        regs.rip = 0x1002;
        regs
    }

    #[test]
    fn restarted_calls_are_issued_again() {
        for (number, result) in [(0, -512), (1, -513), (34, -514), (35, -516), (232, -4)] {
            let mut regs = stopped(number, result);
            rewind(&mut regs, false);
            assert_eq!(
                (regs.rip, regs.rax.cast_signed(), regs.orig_rax),
                (0x1000, number, u64::MAX),
                "{number}"
            );
        }
    }

    #[test]
    fn a_call_that_a_handler_interrupted_stays_interrupted() {
        let mut regs = stopped(232, -4);
        rewind(&mut regs, true);
        assert_eq!((regs.rip, regs.rax.cast_signed()), (0x1002, -4));
        let mut regs = stopped(219, -516);
        rewind(&mut regs, false);
        assert_eq!((regs.rip, regs.rax.cast_signed()), (0x1002, -4));
    }

    #[test]
    fn blob_is_small() {
        assert!((64..512).contains(&blob().len()));
    }
}
