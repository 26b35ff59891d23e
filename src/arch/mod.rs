//! One file a processor architecture, all with the same names.
//!
//! The contract: `ARCH` (number in the image header), `Regs` (general registers as PTRACE_GETREGSET gives
//! them), `SYSCALL_INSN`, `blob`, `Loop`, `set_batch`, `batch_position`, `set_call`, `call_result`, `rewind`,
//! `needs_restart`, `signal_frame`, `FLOAT_NOTE`, `FLOAT_MAX`, `TASK_TOP`, `place_vdso`.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::{
    ARCH, FLOAT_MAX, FLOAT_NOTE, Loop, Regs, SYSCALL_INSN, TASK_TOP, batch_position, blob, call_result,
    needs_restart, place_vdso, rewind, set_batch, set_call, signal_frame,
};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("rcsnap has no src/arch file for this processor: see src/arch/mod.rs");
