//! x86_64: registers, the batch loop, restart of system calls.
//!
//! Registers of the loop: rbx the next call, rbp the end of the list, r12 tgid, r13 tid, r14 the call of last
//! resort, r15 a stack pointer for it. The kernel's syscall instruction changes only rax, rcx and r11.
#![allow(unsafe_code, reason = "the batch loop is assembly")]

#[path = "xsave.rs"]
mod xsave;

use std::arch::global_asm;

use super::{EINTR, Loop, Processor, QUIET, Registers, Set};
use crate::error::{Context, Error, Refusal, Result};
use crate::proc::syscall::Call;
use crate::sys::abi::{Number, bytes};
use crate::sys::ptrace;
use crate::task::batch::Batch;

/// NT_X86_XSTATE: x87, SSE, AVX and the rest in the XSAVE layout.
const XSTATE: u32 = 0x202;
/// NT_PRFPREG: x87 and SSE in the FXSAVE layout. All that a processor without XSAVE has.
const FXSAVE: u32 = 2;
/// Size of struct user_fpregs_struct, in bytes.
const FXSAVE_BYTES: usize = 512;
/// Room for the largest XSAVE area known (11008 bytes with AMX).
const XSTATE_MAX: usize = 16 * 1024;
/// The code segment of a 64-bit task, __USER_CS; a 32-bit one runs with 0x23.
const USER_CS: u64 = 0x33;

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

impl Registers for Regs {
    fn from_bytes(bytes: &[u8]) -> Option<Regs> {
        let (words, rest) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        let [
            r15,
            r14,
            r13,
            r12,
            rbp,
            rbx,
            r11,
            r10,
            r9,
            r8,
            rax,
            rcx,
            rdx,
            rsi,
            rdi,
            orig_rax,
            rip,
            cs,
            eflags,
            rsp,
            ss,
            fs_base,
            gs_base,
            ds,
            es,
            fs,
            gs,
        ] = <[u64; 27]>::try_from(words).ok()?;
        (rest.is_empty() && cs == USER_CS).then_some(Regs {
            r15,
            r14,
            r13,
            r12,
            rbp,
            rbx,
            r11,
            r10,
            r9,
            r8,
            rax,
            rcx,
            rdx,
            rsi,
            rdi,
            orig_rax,
            rip,
            cs,
            eflags,
            rsp,
            ss,
            fs_base,
            gs_base,
            ds,
            es,
            fs,
            gs,
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let words = [
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
        ];
        bytes(&words)
    }

    fn ip(&self) -> u64 {
        self.rip
    }

    fn set_ip(&mut self, ip: u64) {
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

const ERESTARTSYS: i64 = -512;
const ERESTARTNOINTR: i64 = -513;
const ERESTARTNOHAND: i64 = -514;
const ERESTART_RESTARTBLOCK: i64 = -516;

/// Whether a call is one of those that end in EINTR after any stop.
fn is_quiet(number: Number) -> bool {
    number == libc::SYS_epoll_wait || QUIET.contains(&number)
}

/// The processor of this file.
#[derive(Debug)]
pub struct Cpu;

impl Processor for Cpu {
    const ARCH: u16 = 62;
    const CALL_INSN: &'static [u8] = &[0x0f, 0x05];
    const CALL_ALIGN: usize = 1;
    const MMAP: (Number, u64) = (libc::SYS_mmap, 1);
    const FORGETS_ARGUMENT: bool = false;
    const SPOILED: &'static [u32] = &[];
    // The kernel takes the return address off the stack before it looks for the frame.
    const FRAME_STACK: u64 = 8;

    fn call_behind(regs: &Regs) -> Option<u64> {
        Some(regs.rip.wrapping_sub(2))
    }

    fn set_call(regs: &mut Regs, insn: u64, number: Number, args: &[u64; 6]) {
        regs.rip = insn;
        regs.rax = number.cast_unsigned();
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = *args;
        // No call is pending any more, so that the kernel restarts nothing.
        regs.orig_rax = u64::MAX;
    }

    fn call_result(regs: &Regs) -> i64 {
        regs.rax.cast_signed()
    }

    fn set_batch(regs: &mut Regs, run: &Loop) {
        regs.rip = run.code;
        regs.rbx = run.first;
        regs.rbp = run.end;
        regs.r12 = u64::from(run.tgid);
        regs.r13 = u64::from(run.tid);
        regs.r14 = run.last_resort;
        regs.r15 = run.stack;
        regs.rsp = run.last_resort;
        regs.orig_rax = u64::MAX;
        // Without direction and trap flag.
        regs.eflags = 0x202;
    }

    fn batch_position(regs: &Regs) -> u64 {
        regs.rbx
    }

    /// A pending call shows rax = -512, -513, -514 or -516 and orig_rax = its number, with rip after the
    /// `syscall`. restart_syscall (219) has lost its number: EINTR. So end -514 and -516 when a handler runs.
    fn rewind(regs: &mut Regs, _: Option<&Call>, signal_waits: bool) {
        let number = regs.orig_rax.cast_signed();
        let result = regs.rax.cast_signed();
        if number < 0 {
            return;
        }
        let again = match result {
            ERESTARTNOHAND => !signal_waits,
            ERESTARTNOINTR..=ERESTARTSYS => true,
            ERESTART_RESTARTBLOCK => number != libc::SYS_restart_syscall && !signal_waits,
            EINTR => is_quiet(number) && !signal_waits,
            _ => false,
        };
        if again {
            regs.rax = regs.orig_rax;
            regs.rip = regs.rip.wrapping_sub(2);
        } else if matches!(result, ERESTART_RESTARTBLOCK | ERESTARTNOHAND) {
            regs.rax = EINTR.cast_unsigned();
        }
        regs.orig_rax = u64::MAX;
    }

    /// The kernel restarts what it means to restart, on the way out of a signal stop.
    fn resume(regs: &mut Regs, asleep: Option<&Call>, signal_waits: bool) {
        if regs.rax.cast_signed() == EINTR {
            Cpu::rewind(regs, asleep, signal_waits);
        }
    }

    /// struct rt_sigframe of arch/x86/include/asm/sigframe.h up to the signal mask. Vector registers come back
    /// empty.
    fn signal_frame(regs: &Regs, _: &[Set], mask: u64) -> Vec<u8> {
        // The stack segment is in the frame, and is meant.
        const FLAGS: u64 = 0x2 | 0x4;
        // An alternate stack that is too small to be accepted: the present one stays.
        const NO_STACK: [u64; 3] = [0, 0, 1];
        let r = regs;
        let segments =
            (r.cs & 0xffff) | (r.gs & 0xffff) << 16 | (r.fs & 0xffff) << 32 | (r.ss & 0xffff) << 48;
        let mut words = vec![0, FLAGS, 0];
        words.extend(NO_STACK);
        words.extend([r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15]);
        words.extend([r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax, r.rcx, r.rsp, r.rip, r.eflags, segments]);
        // err, trapno, oldmask, cr2, fpstate (none), reserved
        words.extend([0; 13]);
        words.push(mask);
        bytes(&words)
    }

    /// The XSAVE area, or the FXSAVE area of a processor without it; trailing zeroes cut off.
    fn sets(tid: u32) -> Result<Vec<Set>, Refusal> {
        let set = match super::set(tid, XSTATE, XSTATE_MAX)? {
            None => super::set(tid, FXSAVE, FXSAVE_BYTES)?,
            extended => extended,
        };
        let mut set =
            set.ok_or_else(|| Refusal::new("the kernel does not show its vector state", "rerun it"))?;
        xsave::cut(&mut set.bytes);
        Ok(vec![set])
    }

    fn write_sets(tid: u32, sets: &[Set]) -> Result<()> {
        let doing = format_args!("setting the vector state of {tid}");
        for set in sets {
            let have = match set.note {
                XSTATE => ptrace::regset(tid, XSTATE, XSTATE_MAX).context("thread", doing)?,
                _ => vec![0; FXSAVE_BYTES],
            };
            let bytes = xsave::fit(&set.bytes, &have)
                .ok_or_else(|| Error::new("thread", doing.to_string(), "this CPU has less vector state"))?;
            ptrace::set_regset(tid, set.note, &bytes).context("thread", doing)?;
        }
        Ok(())
    }

    fn restore_inside(_: &mut Batch, _: &[Set]) {}
}

#[cfg(test)]
mod tests {
    use super::{Cpu, Processor, Registers, Regs, USER_CS};

    fn stopped(number: i64, result: i64) -> Regs {
        let mut bytes = vec![0; 27 * 8];
        bytes[17 * 8..18 * 8].copy_from_slice(&USER_CS.to_ne_bytes());
        let mut regs = Regs::from_bytes(&bytes).unwrap();
        regs.orig_rax = number.cast_unsigned();
        regs.rax = result.cast_unsigned();
        regs.rip = 0x1002;
        regs
    }

    #[test]
    fn registers_keep_the_layout_of_the_kernel() {
        let bytes: Vec<u8> =
            (0..27u64).flat_map(|i| if i == 17 { USER_CS } else { i + 100 }.to_ne_bytes()).collect();
        let regs = Regs::from_bytes(&bytes).unwrap();
        assert_eq!((regs.r15, regs.rip, regs.fs_base, regs.gs), (100, 116, 121, 126));
        assert_eq!(regs.to_bytes(), bytes);
        // What a 32-bit program has is shorter, or its code segment another.
        assert!(Regs::from_bytes(&bytes[..68]).is_none());
        assert!(Regs::from_bytes(&vec![0; 27 * 8]).is_none());
    }

    #[test]
    fn restarted_calls_are_issued_again() {
        for (number, result) in [(0, -512), (1, -513), (34, -514), (35, -516), (232, -4)] {
            let mut regs = stopped(number, result);
            Cpu::rewind(&mut regs, None, false);
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
        Cpu::rewind(&mut regs, None, true);
        assert_eq!((regs.rip, regs.rax.cast_signed()), (0x1002, -4));
        let mut regs = stopped(219, -516);
        Cpu::rewind(&mut regs, None, false);
        assert_eq!((regs.rip, regs.rax.cast_signed()), (0x1002, -4));
    }

    #[test]
    fn a_live_task_goes_on_as_the_kernel_means_it_to() {
        let mut regs = stopped(232, -4);
        Cpu::resume(&mut regs, None, false);
        assert_eq!((regs.rip, regs.rax), (0x1000, 232));
        let asked = stopped(35, -516);
        let mut regs = asked.clone();
        Cpu::resume(&mut regs, None, false);
        assert_eq!(regs, asked);
    }
}
