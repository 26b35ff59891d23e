//! Kind `registers`: every register keeps its value across the wait, in a loop that makes no system call. The loops
//! run at the lowest priority: others want the processor too.

#[cfg(target_arch = "x86_64")]
#[path = "../registers_x86_64.rs"]
mod arch;

#[cfg(target_arch = "arm")]
#[path = "../registers_arm.rs"]
mod arch;

#[cfg(target_arch = "aarch64")]
#[path = "../registers_aarch64.rs"]
mod arch;

fn main() {
    zoo::run(|zoo| {
        zoo::sys!(setpriority(libc::PRIO_PROCESS, 0, 19))?;
        arch::program(zoo)
    })
}
