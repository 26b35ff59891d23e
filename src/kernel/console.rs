//! The console: its log level, keyboard and font.
//!
//! # What
//! What dmesg(1) -n, loadkeys(1) and setfont(1) set.
//! # Reads
//! The log level is the parameter kernel.printk.
//! # Rebuilds
//! The log level, by `sysctl`.
//! # Loses
//! Keyboard tables and fonts of virtual terminals, which have no process and no file: a board that sets them
//! lists the script as a rerun.
//! # Refuses
//! Nothing.

#[cfg(test)]
mod tests {
    use crate::kernel::sysctl::{Phase, phase};

    #[test]
    fn log_level_is_set_with_the_early_parameters() {
        assert_eq!(phase("kernel/printk"), Phase::Early);
    }
}
