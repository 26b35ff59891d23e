//! One thread a register class loads known values, spins until the flag is set, and stores what is there.

use std::arch::asm;
use std::arch::is_x86_feature_detected;
use std::sync::atomic::{AtomicU32, Ordering};

use zoo::{Outcome, Zoo, raw};

static STOP: AtomicU32 = AtomicU32::new(0);
static SPINNING: AtomicU32 = AtomicU32::new(0);

/// The whole program.
pub fn program(zoo: &mut Zoo) -> Outcome {
    let mut threads = vec![std::thread::spawn(general), std::thread::spawn(x87), std::thread::spawn(sse)];
    if is_x86_feature_detected!("avx") {
        threads.push(std::thread::spawn(avx));
    }
    if is_x86_feature_detected!("avx512f") {
        threads.push(std::thread::spawn(avx512));
    }
    let gs = 0x0000_1234_5678_9000_u64;
    raw!(SYS_arch_prctl, 0x1001, gs)?;
    let count = threads.len() as u32;
    if !zoo::eventually(10_000, || SPINNING.load(Ordering::SeqCst) == count) {
        return Err("the threads do not spin".into());
    }
    zoo.ready();
    STOP.store(1, Ordering::SeqCst);
    for thread in threads {
        zoo.extend(thread.join().map_err(|_| "a thread panicked")?);
    }
    let mut now = 0_u64;
    raw!(SYS_arch_prctl, 0x1004, &raw mut now)?;
    zoo.expect("gs base", now, gs);
    Ok(())
}

fn differences(what: &str, got: &[u64], wanted: &[u64]) -> Vec<String> {
    let pairs = got.iter().zip(wanted).enumerate().filter(|(_, (got, wanted))| got != wanted);
    pairs.map(|(i, (got, wanted))| format!("{what} word {i} is {got:#x}, not {wanted:#x}")).collect()
}

fn pattern<const N: usize>(seed: u64) -> [u64; N] {
    std::array::from_fn(|i| ((seed << 32) | (i as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The fifteen general registers but the stack pointer, and the direction flag, which no libc code expects set.
fn general() -> Vec<String> {
    let wanted: [u64; 15] = pattern(1);
    let mut got = [0_u64; 16];
    // SAFETY: the compiler's own registers rbx and rbp are saved by hand, all others are declared lost; the
    // block keeps the stack pointer balanced and clears the direction flag.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "push rsi", // where to store, for the end
            "mov rax, [rdi]",
            "mov rbx, [rdi + 8]",
            "mov rcx, [rdi + 16]",
            "mov rdx, [rdi + 24]",
            "mov rsi, [rdi + 32]",
            "mov rbp, [rdi + 48]",
            "mov r8, [rdi + 56]",
            "mov r9, [rdi + 64]",
            "mov r10, [rdi + 72]",
            "mov r11, [rdi + 80]",
            "mov r12, [rdi + 88]",
            "mov r13, [rdi + 96]",
            "mov r14, [rdi + 104]",
            "mov r15, [rdi + 112]",
            "mov rdi, [rdi + 40]",
            "std",
            "lock inc dword ptr [rip + {spinning}]",
            "2: pause",
            "cmp dword ptr [rip + {stop}], 0",
            "je 2b",
            "xchg rsi, [rsp]", // rsi: where to store; the stack: the value of rsi
            "mov [rsi], rax",
            "mov [rsi + 8], rbx",
            "mov [rsi + 16], rcx",
            "mov [rsi + 24], rdx",
            "mov [rsi + 40], rdi",
            "mov [rsi + 48], rbp",
            "mov [rsi + 56], r8",
            "mov [rsi + 64], r9",
            "mov [rsi + 72], r10",
            "mov [rsi + 80], r11",
            "mov [rsi + 88], r12",
            "mov [rsi + 96], r13",
            "mov [rsi + 104], r14",
            "mov [rsi + 112], r15",
            "pushfq",
            "pop rax",
            "mov [rsi + 120], rax",
            "cld",
            "pop rax",
            "mov [rsi + 32], rax",
            "pop rbp",
            "pop rbx",
            spinning = sym SPINNING,
            stop = sym STOP,
            inout("rdi") wanted.as_ptr() => _,
            inout("rsi") got.as_mut_ptr() => _,
            out("rax") _, out("rcx") _, out("rdx") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
    let mut problems = differences("general register", &got, &wanted);
    if got[15] & 0x400 == 0 {
        problems.push("the direction flag is lost".into());
    }
    problems
}

/// The x87 stack and control word.
fn x87() -> Vec<String> {
    let mut image = [0_u16; 14];
    let mut pi = 0_f64;
    let mut e = 0_f64;
    let control: u16 = 0x0a7f; // rounds up, double precision, all exceptions masked
    let value = std::f64::consts::E;
    // SAFETY: loads two values, spins, stores them and leaves the x87 state as a call must find it.
    unsafe {
        asm!(
            "fninit",
            "fldcw word ptr [{control}]",
            "fldpi",
            "fld qword ptr [{value}]",
            "lock inc dword ptr [rip + {spinning}]",
            "2: pause",
            "cmp dword ptr [rip + {stop}], 0",
            "je 2b",
            "fnstenv [{image}]",
            "fstp qword ptr [{e}]",
            "fstp qword ptr [{pi}]",
            "fninit",
            spinning = sym SPINNING,
            stop = sym STOP,
            control = in(reg) &raw const control,
            value = in(reg) &raw const value,
            image = in(reg) image.as_mut_ptr(),
            e = in(reg) &raw mut e,
            pi = in(reg) &raw mut pi,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    let mut problems = Vec::new();
    if (e, image[0]) != (value, control) {
        problems.push(format!("x87 holds {e} with control word {:#x}", image[0]));
    }
    if (pi - std::f64::consts::PI).abs() > 1e-15 {
        problems.push(format!("x87 has {pi} for pi"));
    }
    problems
}

/// All vector registers of one class: load, spin, store.
macro_rules! vectors {
    ($wanted:ident, $got:ident, $move:literal, $name:literal, $width:literal, $($i:literal)*) => {
        // SAFETY: the arrays are as long as the registers; what is changed is declared lost.
        unsafe {
            asm!(
                $(concat!($move, " ", $name, $i, ", [rdi + ", $i, " * ", $width, "]"),)*
                "lock inc dword ptr [rip + {spinning}]",
                "2: pause",
                "cmp dword ptr [rip + {stop}], 0",
                "je 2b",
                $(concat!($move, " [rsi + ", $i, " * ", $width, "], ", $name, $i),)*
                spinning = sym SPINNING,
                stop = sym STOP,
                in("rdi") $wanted.as_ptr(),
                in("rsi") $got.as_mut_ptr(),
                // The upper parts and the registers above 15 are unknown to code compiled for the base CPU.
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            )
        }
    };
}

/// xmm0 to xmm15 and a control word that no program starts with.
fn sse() -> Vec<String> {
    let wanted: [u64; 32] = pattern(2);
    let mut got = [0_u64; 32];
    let mine: u32 = 0x5f80; // rounds up, all exceptions masked
    let (mut before, mut after) = (0_u32, 0_u32);
    // SAFETY: stores and loads 32-bit control words; the first is put back below.
    unsafe {
        asm!("stmxcsr [{0}]", "ldmxcsr [{1}]", in(reg) &raw mut before, in(reg) &raw const mine);
    }
    vectors!(wanted, got, "movdqu", "xmm", "16", 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    // SAFETY: as above.
    unsafe {
        asm!("stmxcsr [{0}]", "ldmxcsr [{1}]", in(reg) &raw mut after, in(reg) &raw const before);
    }
    let mut problems = differences("xmm", &got, &wanted);
    if after & !0x3f != mine {
        problems.push(format!("mxcsr is {after:#x}, not {mine:#x}"));
    }
    problems
}

/// ymm0 to ymm15: the upper halves live in another part of the state than the lower ones.
fn avx() -> Vec<String> {
    let wanted: [u64; 64] = pattern(3);
    let mut got = [0_u64; 64];
    vectors!(wanted, got, "vmovdqu", "ymm", "32", 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    // SAFETY: clears upper halves that no compiled code here uses.
    unsafe { asm!("vzeroupper") };
    differences("ymm", &got, &wanted)
}

/// zmm0 to zmm31 and the mask registers.
fn avx512() -> Vec<String> {
    let wanted: [u64; 256] = pattern(4);
    let mut got = [0_u64; 256];
    let masks: [u64; 7] = std::array::from_fn(|i| 0x1111 * (i as u64 + 1));
    let mut after = [0_u64; 7];
    // SAFETY: only this thread's mask registers change, which no compiled code here uses.
    unsafe {
        asm!(
            "kmovw k1, [{m}]", "kmovw k2, [{m} + 8]", "kmovw k3, [{m} + 16]", "kmovw k4, [{m} + 24]",
            "kmovw k5, [{m} + 32]", "kmovw k6, [{m} + 40]", "kmovw k7, [{m} + 48]",
            m = in(reg) masks.as_ptr(),
        );
    }
    vectors!(wanted, got, "vmovdqu64", "zmm", "64",
        0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
    // SAFETY: stores 16 bits of each into an array of zeros.
    unsafe {
        asm!(
            "kmovw [{m}], k1", "kmovw [{m} + 8], k2", "kmovw [{m} + 16], k3", "kmovw [{m} + 24], k4",
            "kmovw [{m} + 32], k5", "kmovw [{m} + 40], k6", "kmovw [{m} + 48], k7", "vzeroupper",
            m = in(reg) after.as_mut_ptr(),
        );
    }
    let mut problems = differences("zmm", &got, &wanted);
    problems.extend(differences("mask register", &after, &masks));
    problems
}
