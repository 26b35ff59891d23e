//! What is tried, one file a case.

pub mod cell;
pub mod zoo;
