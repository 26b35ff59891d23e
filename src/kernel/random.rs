//! The random generator and its seed: fresh, never replayed.
//!
//! # What
//! The state of the kernel's generator, and the seed file that a script feeds to it.
//! # Reads
//! Nothing.
//! # Rebuilds
//! Nothing: every boot seeds its own kernel. An image that carried a seed would make all boots from it draw
//! the same numbers.
//! # Loses
//! The credit that a seed file gives: the script that feeds and renews it is a rerun (Buildroot: S01seedrng,
//! S20urandom).
//! # Refuses
//! Nothing.

#[cfg(test)]
mod tests {
    use crate::kernel::sysctl::denied;

    #[test]
    fn no_parameter_of_the_generator_is_carried() {
        for name in ["boot_id", "uuid", "entropy_avail", "urandom_min_reseed_secs", "write_wakeup_threshold"]
        {
            assert!(denied(&format!("kernel/random/{name}")), "{name}");
        }
    }
}
