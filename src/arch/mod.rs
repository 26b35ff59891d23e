//! One file a processor architecture, all with the same names.
//!
//! The contract: `ARCH` (number in the image header), `Regs` (general registers as PTRACE_GETREGSET gives
//! them), `SYSCALL_INSN`, `blob`, `set_call`, `call_result`, `set_batch`, `batch_position`, `rewind`,
//! `FLOAT_NOTE`, `FLOAT_MAX`, `TASK_TOP`, `vdso_calls`. docs/porting.md lists what a new one must provide.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::{
    ARCH, FLOAT_MAX, FLOAT_NOTE, Loop, Regs, SYSCALL_INSN, TASK_TOP, batch_position, blob, call_result,
    needs_restart, place_vdso, rewind, set_batch, set_call, stack_pointer, trim_float,
};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("rcsnap has no src/arch file for this processor: see docs/porting.md");
