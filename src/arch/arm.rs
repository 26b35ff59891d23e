//! 32-bit ARM (EABI, v7): registers, the batch loop, restart of system calls.
//!
//! The loop is ARM code, never Thumb, whatever the program is: its processor state goes in with the registers and
//! comes out with them. A call's number is in r7, its arguments in r0 to r5, and the kernel changes only r0.
//! Loop registers: r8 the next call, r9 the end of the list, r10 tgid, r11 tid, r12 the call of last resort, lr a
//! stack pointer for it.
#![allow(unsafe_code, reason = "the batch loop is assembly")]

use crate::sorted::Listed;
use std::arch::global_asm;

use super::{EINTR, Loop, Processor, QUIET, Registers, Set};
use crate::error::{Context, Refusal, Result};
use crate::proc::syscall::Call;
use crate::sys::abi::Number;
use crate::sys::ptrace;
use crate::task::batch::Batch;

/// NT_ARM_VFP: d0 to d31, 8 bytes each, then fpscr.
const VFP: u32 = 0x400;
/// Bytes of it.
const VFP_BYTES: usize = 32 * 8 + 4;
/// Our own number for the thread pointer: PTRACE_GET_THREAD_AREA reads it, and nothing sets it from outside.
const THREAD_POINTER: u32 = 0x1_0000;
/// set_tls of arch/arm/kernel/traps.c (__ARM_NR_set_tls).
const SET_TLS: Number = 0x000f_0005;
/// User mode, ARM code, no flags (PSR of the architecture manual).
const ARM_STATE: u32 = 0x10;
/// The bit of cpsr that says Thumb.
const THUMB: u32 = 0x20;
/// No system call is being made: what the kernel has in ORIG_r0 of a task that was interrupted elsewhere.
const NO_CALL: u32 = u32::MAX;

crate::section! {
    /// struct pt_regs of arch/arm/include/uapi/asm/ptrace.h: what NT_PRSTATUS holds.
    #[derive(Eq)]
    pub struct Regs {
        /// r0 to r15.
        pub r: [u32; 16],
        /// cpsr.
        pub cpsr: u32,
        /// r0 as it was when a system call began.
        pub orig_r0: u32,
    }
}

impl Registers for Regs {
    fn from_bytes(bytes: &[u8]) -> Option<Regs> {
        let (words, []) = bytes.as_chunks::<4>() else { return None };
        let words: [u32; 18] = words.iter().map(|w| u32::from_ne_bytes(*w)).list().try_into().ok()?;
        let mut r = [0; 16];
        r.copy_from_slice(&words[..16]);
        Some(Regs { r, cpsr: words[16], orig_r0: words[17] })
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.r.iter().chain([&self.cpsr, &self.orig_r0]).flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn ip(&self) -> u64 {
        self.r[15].into()
    }

    fn set_ip(&mut self, ip: u64) {
        self.r[15] = word(ip);
    }
}

/// An address or an argument as a register takes it.
#[allow(clippy::cast_possible_truncation, reason = "the low half is what a register takes")]
fn word(value: u64) -> u32 {
    value as u32
}

global_asm!(
    ".pushsection .rodata.rcsnap_blob, \"a\", %progbits",
    ".syntax unified",
    ".arm",
    ".balign 16",
    ".global rcsnap_blob_start",
    ".global rcsnap_blob_end",
    "rcsnap_blob_start:",
    "2: cmp r8, r9", // every call done?
    "bhs 4f",
    "ldr r7, [r8]",
    "bic r7, r7, #0x80000000", // without the "may fail" bit
    "ldmib r8, {{r0-r5}}",
    "svc #0",
    "str r0, [r8, #28]",
    "cmn r0, #4096", // -4095 to -1: carry, and not zero
    "bls 3f",
    "ldr r7, [r8]",
    "tst r7, #0x80000000", // an error: allowed for this call?
    "beq 4f",
    "3: add r8, r8, #32",
    "b 2b",
    "4: mov r7, #268", // tgkill(r10, r11, SIGTRAP): the one stop
    "mov r0, r10",
    "mov r1, r11",
    "mov r2, #5",
    "svc #0",
    "mov sp, lr", // nobody traces us any more
    "ldr r7, [r12]",
    "ldmib r12, {{r0-r3}}",
    "svc #0",
    "b 4b",
    "rcsnap_blob_end:",
    ".popsection",
);

/// Calls with 64-bit times, and older ones, that end in EINTR after any stop as those of [`QUIET`] do: epoll_wait,
/// send, recv, io_pgetevents, io_pgetevents_time64, recvmmsg_time64, semtimedop_time64, rt_sigtimedwait_time64.
const QUIET_HERE: [u32; 8] = [252, 289, 291, 399, 416, 417, 420, 421];

fn is_quiet(number: u32) -> bool {
    QUIET_HERE.contains(&number) || QUIET.iter().any(|quiet| u32::try_from(*quiet) == Ok(number))
}

impl Regs {
    /// The bytes of the instruction that makes a system call, in the state of the program.
    fn call_length(&self) -> u32 {
        if self.cpsr & THUMB == 0 { 4 } else { 2 }
    }
}

/// The processor of this file.
#[derive(Debug)]
pub struct Cpu;

impl Processor for Cpu {
    const ARCH: u16 = 40;
    // svc #0
    const CALL_INSN: &'static [u8] = &[0, 0, 0, 0xef];
    const CALL_ALIGN: usize = 4;
    // mmap2
    const MMAP: (Number, u64) = (192, 4096);
    const FORGETS_ARGUMENT: bool = false;
    const SPOILED: &'static [u32] = &[];
    const FRAME_STACK: u64 = 0;

    /// A task that is to restart a call stands before its instruction, so that the one behind is another. In Thumb
    /// code there is none that could be used.
    fn call_behind(regs: &Regs) -> Option<u64> {
        (regs.cpsr & THUMB == 0).then(|| regs.ip().wrapping_sub(4))
    }

    fn set_call(regs: &mut Regs, insn: u64, number: Number, args: &[u64; 6]) {
        regs.r[7] = number.cast_unsigned();
        for (into, arg) in regs.r.iter_mut().zip(args) {
            *into = word(*arg);
        }
        regs.r[15] = word(insn);
        regs.cpsr = ARM_STATE;
        regs.orig_r0 = NO_CALL;
    }

    fn call_result(regs: &Regs) -> i64 {
        super::result(regs.r[0] as usize)
    }

    fn set_batch(regs: &mut Regs, run: &Loop) {
        regs.r[8] = word(run.first);
        regs.r[9] = word(run.end);
        regs.r[10] = run.tgid;
        regs.r[11] = run.tid;
        regs.r[12] = word(run.last_resort);
        regs.r[13] = word(run.last_resort);
        regs.r[14] = word(run.stack);
        regs.r[15] = word(run.code);
        regs.cpsr = ARM_STATE;
        regs.orig_r0 = NO_CALL;
    }

    fn batch_position(regs: &Regs) -> u64 {
        regs.r[8].into()
    }

    /// The kernel has gone back before the instruction and has put the first argument back before the stop
    /// (do_signal of arch/arm/kernel/signal.c): only calls that ended in EINTR are left. r7 has the number always.
    fn rewind(regs: &mut Regs, _: Option<&Call>, signal_waits: bool) {
        let ended = i64::from(regs.r[0].cast_signed()) == EINTR && regs.orig_r0 != NO_CALL;
        if ended && is_quiet(regs.r[7]) && !signal_waits {
            regs.r[0] = regs.orig_r0;
            regs.r[15] = regs.r[15].wrapping_sub(regs.call_length());
        }
        regs.orig_r0 = NO_CALL;
    }

    fn resume(regs: &mut Regs, asleep: Option<&Call>, signal_waits: bool) {
        Cpu::rewind(regs, asleep, signal_waits);
    }

    /// struct rt_sigframe of arch/arm/kernel/signal.h: siginfo, ucontext, and behind it the vector state, which
    /// the kernel wants to see.
    fn signal_frame(regs: &Regs, sets: &[Set], mask: u64) -> Vec<u8> {
        const SIGINFO: usize = 128;
        /// Where the vector state begins: after flags, link, stack, registers, mask and 30 unused words.
        const EXTRA: usize = SIGINFO + 232;
        const MAGIC: u32 = 0x5646_5001;
        /// Bytes of struct vfp_sigframe.
        const SIZE: u32 = 288;
        /// fpexc: enabled.
        const ENABLED: u32 = 1 << 30;
        // An alternate stack that is too small to be accepted: the present one stays. Then trap number, error code
        // and old mask.
        let mut words = vec![0, 0, 0, 0, 1, 0, 0, 0];
        words.extend(regs.r);
        words.extend([regs.cpsr, 0]);
        let mut frame = vec![0; SIGINFO];
        frame.extend(words.iter().flat_map(|word: &u32| word.to_ne_bytes()));
        frame.extend(mask.to_ne_bytes());
        frame.resize(EXTRA, 0);
        frame.extend([MAGIC, SIZE].iter().flat_map(|word| word.to_ne_bytes()));
        if let Some(set) = sets.iter().find(|set| set.note == VFP) {
            frame.extend(&set.bytes);
        }
        frame.resize(EXTRA + 8 + VFP_BYTES.next_multiple_of(8), 0);
        frame.extend(ENABLED.to_ne_bytes());
        frame.resize(EXTRA + SIZE as usize, 0);
        frame
    }

    fn sets(tid: u32) -> Result<Vec<Set>, Refusal> {
        let pointer = ptrace::thread_pointer(tid)
            .context("thread", format_args!("reading the thread pointer of {tid}"))?;
        let pointer = Set { note: THREAD_POINTER, bytes: pointer.to_ne_bytes().to_vec() };
        Ok([Some(pointer), super::set(tid, VFP, VFP_BYTES)?].into_iter().flatten().collect())
    }

    fn write_sets(tid: u32, sets: &[Set]) -> Result<()> {
        sets.iter().filter(|set| set.note == VFP).try_for_each(|set| super::write_set(tid, set))
    }

    fn restore_inside(batch: &mut Batch, sets: &[Set]) {
        for set in sets.iter().filter(|set| set.note == THREAD_POINTER) {
            let pointer = set.bytes.as_slice().try_into().map_or(0, usize::from_ne_bytes);
            batch.call(SET_TLS, &[pointer as u64]);
            batch.doing("setting the thread pointer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cpu, NO_CALL, Processor, Registers, Regs, Set, THUMB, VFP, VFP_BYTES};

    fn stopped(number: u32, result: i32, state: u32) -> Regs {
        let mut regs = Regs { r: [0; 16], cpsr: 0x10 | state, orig_r0: 7 };
        regs.r[0] = result.cast_unsigned();
        regs.r[7] = number;
        regs.r[15] = 0x1004;
        regs
    }

    #[test]
    fn registers_keep_the_layout_of_the_kernel() {
        let bytes: Vec<u8> = (0..18u32).flat_map(|i| (i + 100).to_ne_bytes()).collect();
        let regs = Regs::from_bytes(&bytes).unwrap();
        assert_eq!((regs.r[15], regs.cpsr, regs.orig_r0), (115, 116, 117));
        assert_eq!(regs.to_bytes(), bytes);
        assert!(Regs::from_bytes(&bytes[4..]).is_none());
    }

    #[test]
    fn a_call_that_no_handler_interrupted_is_issued_again() {
        for (state, ip) in [(0, 0x1000), (THUMB, 0x1002)] {
            let mut regs = stopped(252, -4, state);
            Cpu::rewind(&mut regs, None, false);
            assert_eq!((regs.r[0], regs.r[15], regs.orig_r0), (7, ip, NO_CALL));
        }
    }

    #[test]
    fn what_is_rewound_already_or_ended_by_a_handler_stays() {
        for (number, result, waits) in [(252, -4, true), (3, -4, false), (3, 7, false)] {
            let before = stopped(number, result, 0);
            let mut regs = before.clone();
            Cpu::rewind(&mut regs, None, waits);
            assert_eq!((regs.r, regs.orig_r0), (before.r, NO_CALL), "{number} {result}");
        }
    }

    #[test]
    fn frame_has_the_parts_where_the_kernel_looks() {
        let sets = [Set { note: VFP, bytes: vec![9; VFP_BYTES] }];
        let frame = Cpu::signal_frame(&stopped(252, 1, 0), &sets, 0x0102);
        let word = |at: usize| u32::from_ne_bytes(frame[at..at + 4].try_into().unwrap());
        // pc, cpsr, mask, magic, the first and the last byte of the vector state, fpexc
        assert_eq!((word(128 + 92), word(128 + 96), word(128 + 104)), (0x1004, 0x10, 0x0102));
        assert_eq!((word(360), frame[368], frame[368 + 259], word(632)), (0x5646_5001, 9, 9, 1 << 30));
        assert_eq!(frame.len(), 648);
    }
}
