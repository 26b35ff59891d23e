//! rcsnap boots an embedded Linux board from a picture of itself, taken after its rc scripts had run.

pub mod arch;
pub mod boot;
pub mod capture;
pub mod cli;
pub mod config;
pub mod error;
pub mod file;
pub mod glob;
pub mod image;
pub mod inputs;
pub mod json;
pub mod kernel;
pub mod key;
pub mod log;
pub mod proc;
pub mod restore;
pub mod sorted;
pub mod stage;
pub mod store;
pub mod sys;
pub mod task;
pub mod text;
