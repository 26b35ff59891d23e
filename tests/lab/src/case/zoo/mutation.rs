//! Falsified images: one thing of one kind is changed, and the program of that kind must notice.

use std::path::Path;

use anyhow::Result;

/// A way to falsify an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mutation {
    /// What is falsified.
    pub name: &'static str,
    /// The program that must notice.
    pub program: &'static str,
}

const ALL: &[Mutation] = &[];

/// The mutations that a program must notice.
pub fn of(program: &str) -> impl Iterator<Item = Mutation> + '_ {
    ALL.iter().copied().filter(move |mutation| mutation.program == program)
}

/// Writes a falsified copy; false when the image has nothing that could be falsified so.
pub fn falsify(_name: &str, _image: &Path, _copy: &Path) -> Result<bool> {
    Ok(false)
}
