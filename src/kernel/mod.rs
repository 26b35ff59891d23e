//! State of the kernel that the rc scripts made, one file a kind. No process owns it.
//!
//! Captured as the difference between "before the scripts" and "after the scripts": an absolute picture
//! would freeze the kernel's own defaults and probe results into the image.

use crate::error::{Obstacle, Result};

crate::section! {
    /// What the scripts made.
    pub struct State {
        /// Modules.
        pub module: Vec<String>,
    }
}

/// Files in memory.
pub mod tmpfs {
    crate::section! {
        /// The files.
        pub struct State {
            /// Paths.
            pub files: Vec<String>,
        }
    }
}

/// The kernel before the scripts.
#[derive(Debug)]
pub struct Baseline;

/// Where the kinds read and write.
#[derive(Debug)]
pub struct Root;

/// What the scripts made.
///
/// # Errors
/// An error of reading.
pub fn capture(_: &Baseline, _: &Root, _: &[u32]) -> Result<(State, tmpfs::State, Vec<Obstacle>)> {
    Ok((State { module: Vec::new() }, tmpfs::State { files: Vec::new() }, Vec::new()))
}

/// Checks what the image refers to.
///
/// # Errors
/// What is missing.
pub fn check(_: &State, _: &Root, _: std::time::Instant) -> Result<()> {
    Ok(())
}

/// Makes the state again.
///
/// # Errors
/// The call that failed.
pub fn restore(_: &State, _: &tmpfs::State, _: &Root) -> Result<()> {
    Ok(())
}

/// What must wait until the tasks exist.
///
/// # Errors
/// The call that failed.
pub fn restore_late(_: &State, _: &Root) -> Result<()> {
    Ok(())
}
