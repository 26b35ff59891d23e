//! One thread a register class loads known values, spins, and stores what is there when it is told to stop.
//!
//! The loop is one instruction, `b .`: it needs no register and touches no flag. A signal handler ends it by moving
//! the program counter behind it.

#[path = "pauth_aarch64.rs"]
mod pauth;

use std::arch::{asm, global_asm};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use zoo::sys::prctl;
use zoo::{Outcome, Zoo, proc, sys};

global_asm!(
    ".arch_extension sve",
    ".pushsection .text.zoo_registers, \"ax\", %progbits",
    ".balign 4",
    ".global zoo_general",
    ".type zoo_general, %function",
    "zoo_general:", // (wanted, got, spinning)
    "stp x29, x30, [sp, #-112]!",
    "stp x19, x20, [sp, #16]",
    "stp x21, x22, [sp, #32]",
    "stp x23, x24, [sp, #48]",
    "stp x25, x26, [sp, #64]",
    "stp x27, x28, [sp, #80]",
    "mrs x3, tpidr_el0",
    "stp x1, x3, [sp, #96]",
    "sub sp, sp, #16",
    "ldr x3, [x0, #248]",
    "msr nzcv, x3",
    "mov x4, #1",
    "str x4, [x2]",
    "ldr x3, [x0, #256]",
    "msr tpidr_el0, x3",
    "ldp x2, x3, [x0, #16]",
    "ldp x4, x5, [x0, #32]",
    "ldp x6, x7, [x0, #48]",
    "ldp x8, x9, [x0, #64]",
    "ldp x10, x11, [x0, #80]",
    "ldp x12, x13, [x0, #96]",
    "ldp x14, x15, [x0, #112]",
    "ldp x16, x17, [x0, #128]",
    "ldp x18, x19, [x0, #144]",
    "ldp x20, x21, [x0, #160]",
    "ldp x22, x23, [x0, #176]",
    "ldp x24, x25, [x0, #192]",
    "ldp x26, x27, [x0, #208]",
    "ldp x28, x29, [x0, #224]",
    "ldr x30, [x0, #240]",
    "ldp x0, x1, [x0]",
    ".global zoo_general_spins",
    "zoo_general_spins: b zoo_general_spins",
    "stp x0, x1, [sp]",
    "ldr x0, [sp, #112]",
    "stp x2, x3, [x0, #16]",
    "stp x4, x5, [x0, #32]",
    "stp x6, x7, [x0, #48]",
    "stp x8, x9, [x0, #64]",
    "stp x10, x11, [x0, #80]",
    "stp x12, x13, [x0, #96]",
    "stp x14, x15, [x0, #112]",
    "stp x16, x17, [x0, #128]",
    "stp x18, x19, [x0, #144]",
    "stp x20, x21, [x0, #160]",
    "stp x22, x23, [x0, #176]",
    "stp x24, x25, [x0, #192]",
    "stp x26, x27, [x0, #208]",
    "stp x28, x29, [x0, #224]",
    "ldp x2, x3, [sp]",
    "stp x2, x3, [x0]",
    "mrs x3, nzcv",
    "stp x30, x3, [x0, #240]",
    "mrs x3, tpidr_el0",
    "str x3, [x0, #256]",
    "add sp, sp, #16",
    "ldr x3, [sp, #104]",
    "msr tpidr_el0, x3",
    "ldp x19, x20, [sp, #16]",
    "ldp x21, x22, [sp, #32]",
    "ldp x23, x24, [sp, #48]",
    "ldp x25, x26, [sp, #64]",
    "ldp x27, x28, [sp, #80]",
    "ldp x29, x30, [sp], #112",
    "ret",
    ".macro vectors name, spins, load, store",
    ".balign 4",
    ".global \\name",
    ".type \\name, %function",
    "\\name:", // (wanted, got, spinning)
    "stp d8, d9, [sp, #-64]!",
    "stp d10, d11, [sp, #16]",
    "stp d12, d13, [sp, #32]",
    "stp d14, d15, [sp, #48]",
    "\\load",
    "mov x4, #1",
    "str x4, [x2]",
    ".global \\spins",
    "\\spins: b \\spins",
    "\\store",
    "ldp d10, d11, [sp, #16]",
    "ldp d12, d13, [sp, #32]",
    "ldp d14, d15, [sp, #48]",
    "ldp d8, d9, [sp], #64",
    "ret",
    ".endm",
    ".macro load_simd",
    "mrs x5, fpcr",
    "mrs x6, fpsr",
    "ldr x3, [x0, #512]",
    "ldr x4, [x0, #520]",
    "msr fpcr, x3",
    "msr fpsr, x4",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "ldr q\\n, [x0, #16 * \\n]",
    ".endr",
    ".endm",
    ".macro store_simd",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "str q\\n, [x1, #16 * \\n]",
    ".endr",
    "mrs x3, fpcr",
    "mrs x4, fpsr",
    "str x3, [x1, #512]",
    "str x4, [x1, #520]",
    "msr fpcr, x5",
    "msr fpsr, x6",
    ".endm",
    ".macro load_sve",
    "addvl x3, x0, #16",
    "addvl x3, x3, #16",
    "ldr p0, [x3, #16, mul vl]",
    "wrffr p0.b",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "ldr p\\n, [x3, #\\n, mul vl]",
    ".endr",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "ldr z\\n, [x0, #\\n, mul vl]",
    ".endr",
    ".endm",
    ".macro store_sve",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "str z\\n, [x1, #\\n, mul vl]",
    ".endr",
    "addvl x3, x1, #16",
    "addvl x3, x3, #16",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "str p\\n, [x3, #\\n, mul vl]",
    ".endr",
    "rdffr p0.b",
    "str p0, [x3, #16, mul vl]",
    ".endm",
    "vectors zoo_simd, zoo_simd_spins, load_simd, store_simd",
    "vectors zoo_sve, zoo_sve_spins, load_sve, store_sve",
    // A page of its own, to be guarded: a landing pad for calls, and behind it none.
    ".balign 4096",
    ".global zoo_landing",
    ".type zoo_landing, %function",
    "zoo_landing: hint #34", // bti c
    ".global zoo_no_landing",
    ".type zoo_no_landing, %function",
    "zoo_no_landing: mov w0, #7",
    "ret",
    ".balign 4096",
    ".popsection",
);

type Loop = unsafe extern "C" fn(*const u64, *mut u64, *const AtomicUsize);

unsafe extern "C" {
    fn zoo_general(wanted: *const u64, got: *mut u64, spins: *const AtomicUsize);
    fn zoo_simd(wanted: *const u64, got: *mut u64, spins: *const AtomicUsize);
    fn zoo_sve(wanted: *const u64, got: *mut u64, spins: *const AtomicUsize);
    static zoo_general_spins: u8;
    static zoo_simd_spins: u8;
    static zoo_sve_spins: u8;
    fn zoo_landing() -> i32;
    fn zoo_no_landing() -> i32;
}

/// x0 to x30, flags, thread pointer.
const GENERAL: usize = 33;
/// N and V: no program starts with these.
const FLAGS: u64 = 0x9000_0000;
/// q0 to q31, fpcr, fpsr.
const SIMD: usize = 66;
/// Rounds to zero, flushes to zero.
const FPCR: u64 = 0x01c0_0000;
/// Saturated, and remembers every exception.
const FPSR: u64 = 0x0800_009f;
/// Bytes of the vectors of SVE here: not what a program starts with.
const LENGTH: usize = 32;
/// z0 to z31, p0 to p15 and the first-fault register, in words of 8 bytes; a predicate has half of one.
const SVE: usize = (32 * LENGTH + 17 * LENGTH / 8).div_ceil(8);

// Bits of AT_HWCAP and AT_HWCAP2.
const HWCAP_SVE: u64 = 1 << 22;
const HWCAP2_BTI: u64 = 1 << 17;

// Options of prctl(2).
const SVE_SET_VL: i32 = 50;
const SVE_GET_VL: i32 = 51;
const SET_TAGGED_ADDR: i32 = 55;
const GET_TAGGED_ADDR: i32 = 56;

/// Moves a thread out of its loop. It may run with any thread pointer, so it touches nothing else.
extern "C" fn leave_loop(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the third argument of a handler is the context that it returns to.
    let pc = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.pc };
    let loops = [&raw const zoo_general_spins, &raw const zoo_simd_spins, &raw const zoo_sve_spins];
    if loops.iter().any(|at| *pc == at.addr() as u64) {
        *pc += 4;
    }
}

/// A thread in its loop.
struct Spinner {
    thread: JoinHandle<Vec<String>>,
    tid: &'static AtomicUsize,
    spins: &'static AtomicUsize,
}

/// The whole program.
pub fn program(zoo: &mut Zoo) -> Outcome {
    let mut action: libc::sigaction = sys::zeroed();
    action.sa_sigaction = leave_loop as extern "C" fn(_, _, _) as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    sys!(sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()))?;

    let mut wanted: [u64; GENERAL] = pattern(1);
    wanted[31] = FLAGS;
    let mut spinners = vec![start("general registers", zoo_general, wanted, || Vec::new())];
    let mut wanted: [u64; SIMD] = pattern(2);
    [wanted[64], wanted[65]] = [FPCR, FPSR];
    spinners.push(start("vector registers", zoo_simd, wanted, || Vec::new()));
    if offers(libc::AT_HWCAP, HWCAP_SVE) {
        spinners.push(sve());
    }
    let spin = |s: &Spinner| s.spins.load(Ordering::SeqCst) == 1;
    if !zoo::eventually(10_000, || spinners.iter().all(spin)) {
        return Err("the threads do not spin".into());
    }
    zoo.keep("thread pointer", || format!("{:#x}", thread_pointer()));
    sys::set_prctl(SET_TAGGED_ADDR, 1)?;
    zoo.keep("the mode of tagged addresses", || prctl(GET_TAGGED_ADDR, 0));
    let signers = pauth::program(zoo);
    let guarded = offers(libc::AT_HWCAP2, HWCAP2_BTI);
    if guarded {
        landing(zoo)?;
    }
    zoo.ready();
    for Spinner { thread, tid, .. } in spinners {
        let stops = zoo::eventually(10_000, || {
            sys!(syscall(libc::SYS_tgkill, std::process::id(), tid.load(Ordering::SeqCst), libc::SIGUSR2))
                .ok();
            thread.is_finished()
        });
        zoo.check("a thread leaves its loop", stops);
        if stops {
            zoo.extend(thread.join().map_err(|_| "a thread panicked")?);
        }
    }
    for thread in signers {
        zoo.extend(thread.join().map_err(|_| "a thread panicked")?);
    }
    if guarded {
        enforced(zoo)?;
    }
    Ok(())
}

/// Whether the processor has it, by a word of the auxiliary vector.
fn offers(vector: libc::c_ulong, bit: u64) -> bool {
    // SAFETY: takes an integer.
    unsafe { libc::getauxval(vector) & bit == bit }
}

fn start<const N: usize>(
    what: &'static str,
    spin: Loop,
    wanted: [u64; N],
    more: impl FnOnce() -> Vec<String> + Send + 'static,
) -> Spinner {
    let spins: &'static AtomicUsize = Box::leak(Box::default());
    let tid: &'static AtomicUsize = Box::leak(Box::default());
    let thread = std::thread::spawn(move || {
        tid.store(sys::gettid() as usize, Ordering::SeqCst);
        let mut problems = more();
        let mut got = [0; N];
        // SAFETY: the arrays are as long as what is loaded and stored; the functions follow the C convention.
        unsafe { spin(wanted.as_ptr(), got.as_mut_ptr(), spins) };
        let pairs = got.iter().zip(&wanted).enumerate().filter(|(_, (got, wanted))| got != wanted);
        problems
            .extend(pairs.map(|(i, (got, wanted))| format!("{what}: word {i} is {got:#x}, not {wanted:#x}")));
        if N == SVE && prctl(SVE_GET_VL, 0).parse() != Ok(LENGTH) {
            problems.push(format!("vectors have {} bytes", prctl(SVE_GET_VL, 0)));
        }
        problems
    });
    Spinner { thread, tid, spins }
}

/// Vectors of 32 bytes, predicates and the first-fault register, whose bits are ones and then zeroes.
fn sve() -> Spinner {
    let mut wanted: [u64; SVE] = pattern(3);
    wanted[SVE - 1] = 0x1ff;
    start("SVE", zoo_sve, wanted, || match prctl(SVE_SET_VL, LENGTH as u64).parse::<usize>() {
        Ok(length) if length & 0xffff == LENGTH => Vec::new(),
        _ => vec!["the length of vectors cannot be set".into()],
    })
}

fn pattern<const N: usize>(seed: u64) -> [u64; N] {
    std::array::from_fn(|i| ((seed << 32) | (i as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads the thread register.
    unsafe { asm!("mrs {}, tpidr_el0", out(reg) pointer) };
    pointer
}

/// Guards the page of the landing pad (PROT_BTI).
fn landing(zoo: &mut Zoo) -> Outcome {
    const PROT_BTI: i32 = 0x10;
    let page = zoo_landing as *const () as usize;
    let protection = libc::PROT_READ | libc::PROT_EXEC | PROT_BTI;
    sys!(mprotect(page as *mut libc::c_void, 4096, protection))?;
    zoo.keep("flags of the guarded page", move || proc::vm_flags(page));
    zoo.check("the page is guarded", proc::vm_flags(page).split(' ').any(|flag| flag == "bt"));
    enforced(zoo)
}

/// A call that lands on the pad works; one that lands beside it ends a child.
fn enforced(zoo: &mut Zoo) -> Outcome {
    // SAFETY: a function without arguments. Called through a register, which is what is guarded.
    let call = |at: unsafe extern "C" fn() -> i32| unsafe { std::hint::black_box(at)() };
    zoo.expect("a call of the landing pad", call(zoo_landing), 7);
    let child = sys!(fork())?;
    if child == 0 {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a child that only ends, without a core file.
        unsafe {
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            libc::_exit(call(zoo_no_landing))
        }
    }
    zoo.reap_as("a call beside the landing pad", child, &format!("signal {}", libc::SIGILL));
    Ok(())
}
