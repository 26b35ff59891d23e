//! Keys of pointer authentication: they are in no register that a program can read, so what they make of a pointer
//! is compared.

use std::arch::asm;
use std::thread::JoinHandle;

use zoo::Zoo;
use zoo::sys::prctl;

use super::offers;

const HWCAP_PACA: u64 = 1 << 30;
const HWCAP_PACG: u64 = 1 << 31;
const PAC_RESET_KEYS: i32 = 54;
const PAC_SET_ENABLED_KEYS: i32 = 60;
const PAC_GET_ENABLED_KEYS: i32 = 61;
/// The second key for instructions.
const KEY_IB: usize = 2;

/// Where the processor signs pointers: the threads to wait for.
pub fn program(zoo: &mut Zoo) -> Vec<JoinHandle<Vec<String>>> {
    let mut signers = Vec::new();
    if offers(libc::AT_HWCAP, HWCAP_PACA) {
        zoo.keep("signed pointers", signed);
        zoo.check("pointers are signed", signed() != unsigned());
        zoo.keep("enabled keys", || prctl(PAC_GET_ENABLED_KEYS, 0));
        signers = [signer(zoo, false), signer(zoo, true)].into();
    }
    if offers(libc::AT_HWCAP, HWCAP_PACG) {
        zoo.keep("a generic signature", || format!("{:#x}", generic()));
    }
    signers
}

/// An address that could be one, and what it is signed with.
const POINTER: u64 = 0x0000_1234_5678_9abc;
const MODIFIER: u64 = 0xfeed;

/// A pointer as each of the four keys signs it.
fn signed() -> String {
    let [mut ia, mut ib, mut da, mut db] = [POINTER; 4];
    // SAFETY: computes on registers.
    unsafe {
        asm!(
            ".arch_extension pauth",
            "pacia {0}, {4}", "pacib {1}, {4}", "pacda {2}, {4}", "pacdb {3}, {4}",
            inout(reg) ia, inout(reg) ib, inout(reg) da, inout(reg) db, in(reg) MODIFIER,
        );
    }
    format!("{ia:#x} {ib:#x} {da:#x} {db:#x}")
}

fn unsigned() -> String {
    [POINTER; 4].map(|pointer| format!("{pointer:#x}")).join(" ")
}

fn generic() -> u64 {
    let signature: u64;
    // SAFETY: computes on registers.
    unsafe {
        asm!(".arch_extension pauth", "pacga {}, {}, {}", out(reg) signature, in(reg) POINTER, in(reg) MODIFIER);
    }
    signature
}

/// A thread with keys of its own; with `without`, one of them turned off.
fn signer(zoo: &Zoo, without: bool) -> JoinHandle<Vec<String>> {
    let (go, (told, tells)) = (zoo.go(), std::sync::mpsc::channel());
    let main = signed();
    let thread = std::thread::spawn(move || {
        let mut problems = Vec::new();
        // SAFETY: options that take integers; nothing above on this stack has signed its return address.
        let set = unsafe {
            libc::prctl(PAC_RESET_KEYS, 0_usize, 0_usize, 0_usize, 0_usize) == 0
                && (!without || libc::prctl(PAC_SET_ENABLED_KEYS, KEY_IB, 0_usize, 0_usize, 0_usize) == 0)
        };
        let before = (signed(), prctl(PAC_GET_ENABLED_KEYS, 0));
        if !set || before.0 == main {
            problems.push("a thread gets no keys of its own".into());
        }
        let _ = told.send(());
        zoo::wait_for(go.as_ref());
        let after = (signed(), prctl(PAC_GET_ENABLED_KEYS, 0));
        if after != before {
            problems.push(format!("keys of a thread: {before:?} has become {after:?}"));
        }
        problems
    });
    let _ = tells.recv();
    thread
}
