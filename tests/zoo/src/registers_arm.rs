//! One thread a register class loads known values, spins, and stores what is there when it is told to stop.
//!
//! The loop is one instruction, `ldr pc, [sp]`: it needs no register and touches no flag. It ends when somebody
//! writes the address of what follows into the word on the stack.

use std::arch::global_asm;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use zoo::{Outcome, Zoo};

/// Where a thread spins, and where it goes on.
#[repr(C)]
#[derive(Default)]
struct Control {
    slot: AtomicPtr<usize>,
    exit: AtomicUsize,
}

global_asm!(
    ".macro general name, state, label, bit",
    ".balign 4",
    "\\state",
    ".global \\name",
    ".type \\name, %function",
    "\\label",
    "\\name:",
    "push {{r4-r11, lr}}",
    "sub sp, sp, #16",
    "str r1, [sp, #4]",
    "mrc p15, 0, r3, c13, c0, 3",
    "str r3, [sp, #12]", // the thread pointer, for the end
    "mov r4, r0",
    "ldr r0, [r4, #60]",
    "mov r7, #0x000f0000",
    "add r7, r7, #5",
    "svc #0", // set_tls
    "mov r0, r4",
    "adr.w r3, 3f",
    "add r3, r3, #\\bit",
    "str r3, [r2, #4]",
    "adr.w r3, 2f",
    "add r3, r3, #\\bit",
    "str r3, [sp]",
    "ldr r3, [r0, #56]",
    "msr APSR_nzcvqg, r3",
    "mov r3, sp",
    "str r3, [r2]", // spins from now on
    "ldr lr, [r0, #52]",
    "ldm.w r0, {{r0-r12}}",
    ".balign 4",
    "2: ldr.w pc, [sp]",
    ".balign 4",
    "3: str r0, [sp, #8]",
    "ldr r0, [sp, #4]",
    "add.w r0, r0, #4",
    "stm.w r0, {{r1-r12}}",
    "str lr, [r0, #48]",
    "mrs r1, APSR",
    "str r1, [r0, #52]",
    "mrc p15, 0, r1, c13, c0, 3",
    "str r1, [r0, #56]",
    "ldr r1, [sp, #8]",
    "str r1, [r0, #-4]",
    "ldr r0, [sp, #12]",
    "mov r7, #0x000f0000",
    "add r7, r7, #5",
    "svc #0",
    "add sp, sp, #16",
    "pop {{r4-r11, pc}}",
    ".endm",
    ".pushsection .text.zoo_registers, \"ax\", %progbits",
    ".syntax unified",
    ".fpu neon",
    "general zoo_general_arm, .arm, .arm, 0",
    "general zoo_general_thumb, .thumb, .thumb_func, 1",
    ".arm",
    ".balign 4",
    ".global zoo_vectors",
    ".type zoo_vectors, %function",
    "zoo_vectors:",
    "push {{r4-r11, lr}}",
    "vpush {{d8-d15}}",
    "sub sp, sp, #8",
    "adr r3, 3f",
    "str r3, [r2, #4]",
    "adr r3, 2f",
    "str r3, [sp]",
    "vmrs r4, fpscr",
    "ldr r3, [r0, #256]",
    "vmsr fpscr, r3",
    "vldmia r0!, {{d0-d15}}",
    "vldmia r0, {{d16-d31}}",
    "str sp, [r2]",
    "2: ldr pc, [sp]",
    "3: vstmia r1!, {{d0-d15}}",
    "vstmia r1, {{d16-d31}}",
    "vmrs r3, fpscr",
    "str r3, [r1, #128]",
    "vmsr fpscr, r4",
    "add sp, sp, #8",
    "vpop {{d8-d15}}",
    "pop {{r4-r11, pc}}",
    ".popsection",
);

type Loop = unsafe extern "C" fn(*const u32, *mut u32, *const Control);

unsafe extern "C" {
    fn zoo_general_arm(wanted: *const u32, got: *mut u32, control: *const Control);
    fn zoo_general_thumb(wanted: *const u32, got: *mut u32, control: *const Control);
    fn zoo_vectors(wanted: *const u32, got: *mut u32, control: *const Control);
}

/// r0 to r12, lr, flags, thread pointer.
const GENERAL: usize = 16;
/// d0 to d31 and fpscr.
const VECTORS: usize = 65;
/// N, C, Q and two of the four GE flags: no program starts with these.
const FLAGS: u32 = 0xa805_0000;
/// All of them.
const ALL_FLAGS: u32 = 0xf80f_0000;
/// Rounds to zero, flushes, has flags N and C and saturation, and remembers every exception.
const MODES: u32 = 0xabc0_009f;

/// The whole program.
pub fn program(zoo: &mut Zoo) -> Outcome {
    const NEON_AND_32: libc::c_ulong = 1 << 12 | 1 << 19;
    let mut wanted: [u32; GENERAL] = pattern(1);
    wanted[14] = FLAGS;
    let mut threads = vec![start("ARM code", zoo_general_arm, wanted, ALL_FLAGS)];
    let mut wanted: [u32; GENERAL] = pattern(2);
    wanted[14] = FLAGS ^ 0xf000_0000;
    threads.push(start("Thumb code", zoo_general_thumb, wanted, ALL_FLAGS));
    // SAFETY: takes an integer.
    if unsafe { libc::getauxval(libc::AT_HWCAP) } & NEON_AND_32 == NEON_AND_32 {
        let mut wanted: [u32; VECTORS] = pattern(3);
        wanted[64] = MODES;
        threads.push(start("vectors", zoo_vectors, wanted, u32::MAX));
    }
    let spin = |t: &(_, &'static Control)| !t.1.slot.load(Ordering::SeqCst).is_null();
    if !zoo::eventually(10_000, || threads.iter().all(spin)) {
        return Err("the threads do not spin".into());
    }
    zoo.keep("thread pointer", || format!("{:#x}", thread_pointer()));
    zoo.ready();
    for (thread, control) in threads {
        // SAFETY: the thread spins on this word of its stack until it is written.
        unsafe {
            let slot = control.slot.load(Ordering::SeqCst);
            slot.write_volatile(control.exit.load(Ordering::SeqCst));
        }
        zoo.extend(thread.join().map_err(|_| "a thread panicked")?);
    }
    Ok(())
}

fn start<const N: usize>(
    what: &'static str,
    spin: Loop,
    wanted: [u32; N],
    flags: u32,
) -> (std::thread::JoinHandle<Vec<String>>, &'static Control) {
    let control: &'static Control = Box::leak(Box::default());
    let thread = std::thread::spawn(move || {
        let mut got = [0; N];
        // SAFETY: the arrays are as long as what is loaded and stored; the functions follow the C convention.
        unsafe { spin(wanted.as_ptr(), got.as_mut_ptr(), control) };
        if N == GENERAL {
            got[14] &= flags;
        }
        let pairs = got.iter().zip(&wanted).enumerate().filter(|(_, (got, wanted))| got != wanted);
        pairs.map(|(i, (got, wanted))| format!("{what}: word {i} is {got:#x}, not {wanted:#x}")).collect()
    });
    (thread, control)
}

fn pattern<const N: usize>(seed: u32) -> [u32; N] {
    std::array::from_fn(|i| ((seed << 16) | (i as u32 + 1)).wrapping_mul(0x9e37_79b9))
}

fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads the thread register.
    unsafe { std::arch::asm!("mrc p15, 0, {}, c13, c0, 3", out(reg) pointer) };
    pointer
}
