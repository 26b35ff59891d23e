//! aarch64: registers, the batch loop, restart of system calls, register sets.
//!
//! Registers of the loop: x19 the next call, x20 the end of the list, x21 tgid, x22 tid, x23 the call of last
//! resort, x24 a stack pointer for it. A system call changes x0 alone, and drops what SVE adds to the vectors.
//!
//! The kernel rewinds an interrupted call before the stop (arch/arm64/kernel/signal.c, do_signal): x0 is the first
//! argument again and pc stands on the `svc`, so registers are stored as they are. Three things follow.
//! - A call that ended in EINTR has lost its first argument, which is in no register set. /proc/TID/syscall shows
//!   it as long as the task sleeps.
//! - What the kernel does with a call that has a time-out left (x8 becomes restart_syscall) it does only if it
//!   finds its own pc again behind that same stop. Behind another stop we set x8 ourselves.
//! - For the same reason no call is injected at that pc.
//!
//! The loop has no landing pad and signs no pointer: its page is mapped without PROT_BTI, PSTATE.BTYPE is 0 when
//! it begins, and pointer-authentication keys are written while it does not run.
#![allow(unsafe_code, reason = "the batch loop is assembly")]

use crate::sorted::Listed;
use std::arch::global_asm;

use super::{EINTR, Loop, Processor, QUIET, Registers, Set, set, write_set};
use crate::error::{Refusal, Result};
use crate::proc::syscall::Call;
use crate::sys::abi::{Number, bytes};
use crate::task::batch::Batch;

// Notes of <linux/elf.h>.
const FPSIMD: u32 = 2;
const TLS: u32 = 0x401;
const SVE: u32 = 0x405;
const PACA_KEYS: u32 = 0x407;
const PACG_KEYS: u32 = 0x408;
const TAGGED_ADDR: u32 = 0x409;
const PAC_ENABLED: u32 = 0x40a;
const STREAMING: u32 = 0x40b;
const ZA: u32 = 0x40c;
const FPMR: u32 = 0x40e;
const POE: u32 = 0x40f;
const GCS: u32 = 0x410;

/// What is carried, in the order in which it is written: the vector length goes with the vectors of SVE, which
/// are those of FPSIMD too.
const CARRIED: [u32; 9] = [FPSIMD, SVE, TLS, FPMR, POE, TAGGED_ADDR, PACA_KEYS, PACG_KEYS, PAC_ENABLED];
/// Room for the largest set: SVE with vectors of 256 bytes has less than 9 KiB.
const ROOM: usize = 16 * 1024;
/// struct user_sve_header and struct user_za_header.
const HEADER: usize = 16;

crate::section! {
    /// struct user_pt_regs of <asm/ptrace.h>: what NT_PRSTATUS holds.
    pub struct Regs {
        /// x0 to x30.
        pub x: [u64; 31],
        /// sp.
        pub sp: u64,
        /// pc.
        pub pc: u64,
        /// The processor's flags.
        pub pstate: u64,
    }
}

impl Registers for Regs {
    fn from_bytes(bytes: &[u8]) -> Option<Regs> {
        let (words, rest) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_ne_bytes(*word)).list();
        let (x, [sp, pc, pstate]) = words.split_first_chunk::<31>()? else { return None };
        rest.is_empty().then_some(Regs { x: *x, sp: *sp, pc: *pc, pstate: *pstate })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut all = bytes(&self.x);
        all.extend(bytes(&[self.sp, self.pc, self.pstate]));
        all
    }

    fn ip(&self) -> u64 {
        self.pc
    }

    fn set_ip(&mut self, ip: u64) {
        self.pc = ip;
    }
}

global_asm!(
    ".pushsection .rodata.rcsnap_blob, \"a\"",
    ".balign 16",
    ".global rcsnap_blob_start",
    ".global rcsnap_blob_end",
    "rcsnap_blob_start:",
    "2: cmp x19, x20", // every call done?
    "b.hs 4f",
    "ldr x8, [x19]",
    "and x8, x8, #0x7fffffffffffffff", // without the "may fail" bit
    "ldp x0, x1, [x19, #8]",
    "ldp x2, x3, [x19, #24]",
    "ldp x4, x5, [x19, #40]",
    "svc #0",
    "str x0, [x19, #56]",
    "cmn x0, #4095", // carries for -4095 to -1
    "b.lo 3f",
    "ldrb w9, [x19, #7]", // an error: allowed for this call?
    "tbz w9, #7, 4f",
    "3: add x19, x19, #64",
    "b 2b",
    "4: mov x8, #131", // tgkill(x21, x22, SIGTRAP): the one stop
    "mov x0, x21",
    "mov x1, x22",
    "mov x2, #5",
    "svc #0",
    "mov sp, x24", // nobody traces us any more
    "ldr x8, [x23]",
    "ldp x0, x1, [x23, #8]",
    "ldp x2, x3, [x23, #24]",
    "svc #0",
    "b 4b",
    "rcsnap_blob_end:",
    ".popsection",
);

/// Whether the kernel has rewound the call that the task slept in.
fn is_rewound(regs: &Regs, call: &Call) -> bool {
    stood_in(regs, call) && regs.pc.wrapping_add(4) == call.ip && regs.x[0] == call.args[0]
}

/// Whether the call that the task slept in has ended in EINTR.
fn is_interrupted(regs: &Regs, call: &Call) -> bool {
    stood_in(regs, call) && regs.pc == call.ip && regs.x[0].cast_signed() == EINTR
}

/// Number, further arguments and stack are those of the call.
fn stood_in(regs: &Regs, call: &Call) -> bool {
    regs.x[8].cast_signed() == call.number && regs.x[1..6] == call.args[1..6] && regs.sp == call.sp
}

/// Calls that note what is left of their time (ERESTART_RESTARTBLOCK).
fn keeps_time(call: &Call) -> bool {
    /// FUTEX_WAIT and FUTEX_WAIT_BITSET of futex(2), without FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME.
    const WAITS: [u64; 2] = [0, 9];
    const COMMAND: u64 = 0x7f;
    match call.number {
        libc::SYS_nanosleep => true,
        libc::SYS_clock_nanosleep => call.args[1] & libc::TIMER_ABSTIME as u64 == 0,
        libc::SYS_futex => WAITS.contains(&(call.args[1] & COMMAND)) && call.args[3] != 0,
        _ => false,
    }
}

/// Calls that a handler ends in EINTR, whatever its flags say (ERESTARTNOHAND and ERESTART_RESTARTBLOCK).
fn ends_by_handler(call: &Call) -> bool {
    const CALLS: [Number; 5] = [
        libc::SYS_ppoll,
        libc::SYS_pselect6,
        libc::SYS_rt_sigsuspend,
        libc::SYS_clock_nanosleep,
        libc::SYS_msgrcv,
    ];
    CALLS.contains(&call.number) || keeps_time(call)
}

fn end_in_eintr(regs: &mut Regs, call: &Call) {
    regs.x[0] = EINTR.cast_unsigned();
    regs.pc = call.ip;
}

/// What both ways of going on have in common.
fn settle(regs: &mut Regs, call: &Call, signal_waits: bool) {
    if is_interrupted(regs, call) && QUIET.contains(&call.number) && !signal_waits {
        regs.x[0] = call.args[0];
        regs.pc = regs.pc.wrapping_sub(4);
    } else if is_rewound(regs, call) && signal_waits && ends_by_handler(call) {
        end_in_eintr(regs, call);
    }
}

/// The processor of this file.
#[derive(Debug)]
pub struct Cpu;

impl Processor for Cpu {
    const ARCH: u16 = 183;
    const CALL_INSN: &'static [u8] = &0xd400_0001_u32.to_le_bytes();
    const CALL_ALIGN: usize = 4;
    const MMAP: (Number, u64) = (libc::SYS_mmap, 1);
    const FORGETS_ARGUMENT: bool = true;
    const SPOILED: &'static [u32] = &[SVE];
    const FRAME_STACK: u64 = 0;

    fn call_behind(_: &Regs) -> Option<u64> {
        None
    }

    fn set_call(regs: &mut Regs, insn: u64, number: Number, args: &[u64; 6]) {
        regs.pc = insn;
        regs.x[8] = number.cast_unsigned();
        regs.x[..6].copy_from_slice(args);
        regs.pstate = 0;
    }

    fn call_result(regs: &Regs) -> i64 {
        regs.x[0].cast_signed()
    }

    fn set_batch(regs: &mut Regs, run: &Loop) {
        regs.pc = run.code;
        let own = [run.first, run.end, u64::from(run.tgid), u64::from(run.tid), run.last_resort, run.stack];
        regs.x[19..25].copy_from_slice(&own);
        regs.sp = run.last_resort;
        regs.pstate = 0;
    }

    fn batch_position(regs: &Regs) -> u64 {
        regs.x[19]
    }

    fn rewind(regs: &mut Regs, asleep: Option<&Call>, signal_waits: bool) {
        let Some(call) = asleep else { return };
        settle(regs, call, signal_waits);
        // Interrupted twice: the number is lost.
        if call.number == libc::SYS_restart_syscall && is_rewound(regs, call) {
            end_in_eintr(regs, call);
        }
    }

    fn resume(regs: &mut Regs, asleep: Option<&Call>, signal_waits: bool) {
        let Some(call) = asleep else { return };
        settle(regs, call, signal_waits);
        if is_rewound(regs, call) && keeps_time(call) {
            regs.x[8] = libc::SYS_restart_syscall.cast_unsigned();
        }
    }

    /// struct rt_sigframe of arch/arm64/kernel/signal.c: siginfo_t, struct ucontext, and the record of the
    /// vectors, without which the kernel takes no frame.
    fn signal_frame(regs: &Regs, sets: &[Set], mask: u64) -> Vec<u8> {
        const SIGINFO: usize = 128;
        // uc_flags, uc_link, uc_stack (too small to be accepted: the present one stays), uc_sigmask.
        const HEAD: [u64; 5] = [0, 0, 0, 0, 1];
        // The rest of a sigset_t of 1024 bits, and padding up to 16.
        const MASK: usize = 1024 / 8 - 8 + 8;
        const FPSIMD_MAGIC: u32 = 0x4650_8001;
        const VECTORS: usize = 512;
        let mut frame = vec![0; SIGINFO];
        let mut words = |words: &[u64]| frame.extend(bytes(words));
        words(&HEAD);
        words(&[mask]);
        words(&[0; MASK / 8]);
        words(&[0]); // fault_address
        words(&regs.x);
        words(&[regs.sp, regs.pc, regs.pstate]);
        words(&[0]); // records begin at a multiple of 16
        let empty = [0; VECTORS + 8];
        let vectors = sets.iter().find(|set| set.note == FPSIMD).map(|set| set.bytes.as_slice());
        let vectors = vectors.and_then(|bytes| bytes.get(..VECTORS + 8)).unwrap_or(&empty);
        let (vectors, controls) = vectors.split_at(VECTORS);
        let size = 16 + VECTORS as u32;
        frame.extend(bytes(&[u64::from(FPSIMD_MAGIC) | u64::from(size) << 32]));
        frame.extend(controls); // fpsr, fpcr
        frame.extend(vectors);
        frame.extend([0; 16]); // no further record
        frame
    }

    fn sets(tid: u32) -> Result<Vec<Set>, Refusal> {
        let none = "none in this version";
        if set(tid, STREAMING, ROOM)?.is_some_and(|set| flags(&set) & REGS_SVE != 0) {
            return Err(Refusal::new("it is in the streaming mode of SME", none));
        }
        if set(tid, ZA, HEADER * 2)?.is_some_and(|set| set.bytes.len() > HEADER) {
            return Err(Refusal::new("it uses the array of SME (ZA)", none));
        }
        if set(tid, GCS, 24)?.is_some_and(|set| set.bytes.iter().take(8).any(|byte| *byte != 0)) {
            return Err(Refusal::new("it has a guarded control stack", "turn it off (GLIBC_TUNABLES)"));
        }
        let mut sets = Vec::new();
        for note in CARRIED {
            sets.extend(set(tid, note, ROOM)?);
        }
        if signs_pointers() && !sets.iter().any(|set| set.note == PACA_KEYS) {
            let remedy = "use a kernel with CONFIG_CHECKPOINT_RESTORE, or boot with arm64.nopauth";
            return Err(Refusal::new("the kernel does not show its pointer authentication keys", remedy));
        }
        Ok(sets)
    }

    fn write_sets(tid: u32, sets: &[Set]) -> Result<()> {
        sets.iter().try_for_each(|set| write_set(tid, set))
    }

    fn restore_inside(_: &mut Batch, _: &[Set]) {}
}

/// SVE_PT_REGS_SVE: the registers of this vector extension are in use.
const REGS_SVE: u16 = 1;

/// The flags of struct user_sve_header: two sizes, two vector lengths, flags.
fn flags(set: &Set) -> u16 {
    set.bytes.get(12..14).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

/// Whether programs on this processor may sign pointers with keys of their own (HWCAP_PACA).
fn signs_pointers() -> bool {
    const HWCAP_PACA: u64 = 1 << 30;
    // SAFETY: a plain number in, a plain number out.
    unsafe { libc::getauxval(libc::AT_HWCAP) & HWCAP_PACA != 0 }
}

#[cfg(test)]
mod tests {
    use super::{Cpu, FPSIMD, Processor, Registers, Regs, Set};
    use crate::proc::syscall::Call;

    const SVC: u64 = 0x40_1000;

    fn asleep(number: i64, args: [u64; 6]) -> Call {
        Call { number, args, sp: 0x7fff_0000, ip: SVC + 4 }
    }

    /// As the kernel leaves them for a call that it has rewound.
    fn rewound(call: &Call) -> Regs {
        let mut regs = Regs { x: [7; 31], sp: call.sp, pc: SVC, pstate: 0 };
        regs.x[..6].copy_from_slice(&call.args);
        regs.x[8] = call.number.cast_unsigned();
        regs
    }

    /// As it leaves them for one that ended in EINTR.
    fn interrupted(call: &Call) -> Regs {
        let mut regs = rewound(call);
        (regs.x[0], regs.pc) = ((-4i64).cast_unsigned(), call.ip);
        regs
    }

    #[test]
    fn registers_keep_the_layout_of_the_kernel() {
        let bytes: Vec<u8> = (100..134u64).flat_map(u64::to_ne_bytes).collect();
        let regs = Regs::from_bytes(&bytes).unwrap();
        assert_eq!((regs.x[30], regs.sp, regs.pc, regs.pstate), (130, 131, 132, 133));
        assert_eq!(regs.to_bytes(), bytes);
        assert!(Regs::from_bytes(&bytes[..72]).is_none());
    }

    #[test]
    fn what_the_kernel_has_rewound_is_stored_as_it_is() {
        for number in [63, 260, 101, 73] {
            let call = asleep(number, [3, 4, 0, 0, 0, 0]);
            let mut regs = rewound(&call);
            Cpu::rewind(&mut regs, Some(&call), false);
            assert_eq!(regs, rewound(&call));
            Cpu::rewind(&mut regs, None, false);
            assert_eq!(regs, rewound(&call));
        }
    }

    #[test]
    fn a_call_that_no_handler_interrupted_gets_its_argument_back() {
        let call = asleep(libc::SYS_epoll_pwait, [5, 0x1000, 1, 77, 0, 8]);
        for go_on in [Cpu::rewind, Cpu::resume] {
            let mut regs = interrupted(&call);
            go_on(&mut regs, Some(&call), false);
            assert_eq!(regs, rewound(&call));
            let mut regs = interrupted(&call);
            go_on(&mut regs, Some(&call), true);
            assert_eq!(regs, interrupted(&call));
            // Another call, or the same from elsewhere, or one that does not end so by itself.
            for other in [
                asleep(libc::SYS_epoll_pwait, [5, 0x1000, 1, 78, 0, 8]),
                asleep(libc::SYS_recvfrom, call.args),
                Call { sp: 0x7fff_0010, ..call.clone() },
                Call { ip: SVC + 8, ..call.clone() },
            ] {
                let mut regs = interrupted(&call);
                go_on(&mut regs, Some(&other), false);
                assert_eq!(regs, interrupted(&call));
            }
            let read = asleep(libc::SYS_read, [5, 0x1000, 1, 0, 0, 0]);
            let mut regs = interrupted(&read);
            go_on(&mut regs, Some(&read), false);
            assert_eq!(regs, interrupted(&read));
        }
    }

    #[test]
    fn what_is_left_of_a_time_is_the_live_tasks() {
        let call = asleep(libc::SYS_nanosleep, [0x1000, 0, 0, 0, 0, 0]);
        let mut regs = rewound(&call);
        Cpu::resume(&mut regs, Some(&call), false);
        assert_eq!((regs.x[8], regs.pc), (128, SVC));
        let absolute = asleep(libc::SYS_clock_nanosleep, [1, 1, 0x1000, 0, 0, 0]);
        let mut regs = rewound(&absolute);
        Cpu::resume(&mut regs, Some(&absolute), false);
        assert_eq!(regs, rewound(&absolute));
        // A second stop finds restart_syscall: it goes on here, and cannot elsewhere.
        let again = asleep(128, call.args);
        let mut regs = rewound(&again);
        Cpu::resume(&mut regs, Some(&again), false);
        assert_eq!(regs, rewound(&again));
        Cpu::rewind(&mut regs, Some(&again), false);
        assert_eq!(regs, interrupted(&again));
    }

    #[test]
    fn a_signal_frame_has_registers_and_vectors() {
        let call = asleep(101, [1; 6]);
        let vectors = Set { note: FPSIMD, bytes: (0..528u32).map(|i| i as u8).collect() };
        let frame = Cpu::signal_frame(&rewound(&call), &[vectors], 0x55);
        let word = |at: usize| u64::from_ne_bytes(frame[at..at + 8].try_into().unwrap());
        // Offsets of struct rt_sigframe: uc_sigmask, regs[8], pc, __reserved.
        assert_eq!((word(168), word(312 + 64), word(312 + 256)), (0x55, 101, SVC));
        // The record of the vectors: head, fpsr and fpcr, which come last in the register set, then the vectors.
        assert_eq!((word(592), word(600), word(616)), (0x0210_4650_8001, word(608), 0x0f0e_0d0c_0b0a_0908));
        assert_eq!(frame.len(), 1136);
    }
}
