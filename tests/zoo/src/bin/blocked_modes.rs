//! Kind `blocked`: a call that sleeps goes on, whether it was made from ARM or from Thumb code.
//!
//! One child a class of restart and instruction set. Every register but the result must come through. The forms
//! with 32-bit times are used, as glibc's programs do.

#[cfg(target_arch = "arm")]
#[path = "../blocked_arm.rs"]
mod arch;

#[cfg(not(target_arch = "arm"))]
mod arch {
    /// Nothing that `blocked` would not show.
    pub fn program(zoo: &mut zoo::Zoo) -> zoo::Outcome {
        zoo.skip("this processor has one instruction set")
    }
}

fn main() {
    zoo::run(arch::program)
}
