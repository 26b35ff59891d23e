//! Kind `registers`: every register keeps its value across the wait, in a loop that makes no system call.

#[cfg(target_arch = "x86_64")]
#[path = "../registers_x86_64.rs"]
mod arch;

#[cfg(target_arch = "arm")]
#[path = "../registers_arm.rs"]
mod arch;

#[cfg(not(any(target_arch = "x86_64", target_arch = "arm")))]
mod arch {
    /// Other architectures have no loop here yet, and say so.
    pub fn program(zoo: &mut zoo::Zoo) -> zoo::Outcome {
        zoo.skip("no register loop for this architecture")
    }
}

fn main() {
    zoo::run(arch::program)
}
