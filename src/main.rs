//! The one binary: PID 1, or a command.
#![no_main]
#![allow(unsafe_code, reason = "the entry point is a C function; see sys::start")]

use rcsnap::sys::arena::Arena;
use rcsnap::sys::start::Given;
use rcsnap::{boot, cli};

#[global_allocator]
static ARENA: Arena = Arena::new();

rcsnap::entry!(start);

fn start(given: Given) -> u8 {
    let words = given.words();
    // As PID 1 of somebody's pid namespace a command is a command; the kernel's own PID 1 always boots.
    let command = words.get(1).is_some_and(|word| cli::is_command(word)) && boot::early::is_cell();
    if std::process::id() == 1 && !command { boot::run(&given) } else { cli::run(&words) }
}
