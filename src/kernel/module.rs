//! Modules that the scripts loaded.
//!
//! # What
//! Modules that are loaded after the scripts and were not before, by the scripts or on their account.
//! # Reads
//! /proc/modules, whose order is that of loading; /sys/module/NAME/parameters; modules.dep.
//! # Rebuilds
//! Loads the same files in the same order by finit_module(2), with the parameters as they read.
//! # Loses
//! Parameters that cannot be read in sysfs.
//! # Refuses
//! A module without a file, a compressed one on a kernel that cannot unpack it, and removed modules.

use super::root::Root;
use crate::error::{Context, Obstacle, Refusal, Result};
use crate::proc::modules;
use crate::section;
use crate::sys::fs;
use crate::sys::module::load;
use crate::sys::stat::stat;
use crate::text;

section! {
    #[derive(Default)]
    /// Modules in the order of loading.
    pub struct State {
        /// Each module.
        pub list: Vec<Module>,
    }
}

section! {
    /// One module.
    pub struct Module {
        /// Its name.
        pub name: String,
        /// Its file, from the root of the system.
        pub path: String,
        /// Its parameters: `name=value ...`.
        pub parameters: String,
    }
}

/// The names of the loaded modules, the first one loaded first; none on a kernel without modules.
#[must_use]
pub fn baseline(root: &Root) -> Vec<String> {
    modules::loaded(&root.proc.read("modules").unwrap_or_default())
}

/// The modules that were not there before.
#[must_use]
pub fn capture(before: &[String], root: &Root) -> (State, Vec<Obstacle>) {
    let now = baseline(root);
    let (mut state, mut obstacles) = (State::default(), Vec::new());
    let dir = format!("/lib/modules/{}", root.proc.line("sys/kernel/osrelease"));
    let list = fs::text(root.path(&format!("{dir}/modules.dep"))).unwrap_or_default();
    let mut refuse = |name: &str, reason: String, remedy: &'static str| {
        obstacles.push(Obstacle::kernel("module", format!("module {name}"), Refusal::new(reason, remedy)));
    };
    for name in before.iter().filter(|name| !now.contains(name)) {
        refuse(
            name,
            "it was there before the scripts and was removed".into(),
            "do not load it in the initramfs",
        );
    }
    for name in now.into_iter().filter(|name| !before.contains(name)) {
        let Some(path) = modules::file(&list, &name) else {
            refuse(&name, format!("it has no file in {dir}/modules.dep"), "run depmod");
            continue;
        };
        let compressed = !path.ends_with(".ko");
        if compressed && !root.sys.exists("module/compression") {
            refuse(&name, format!("this kernel cannot unpack {path}"), "unpack the modules and run depmod");
            continue;
        }
        let path = if path.starts_with('/') { path } else { format!("{dir}/{path}") };
        state.list.push(Module { parameters: parameters(&name, root), name, path });
    }
    (state, obstacles)
}

/// The parameters of a module as finit_module(2) takes them. `(null)` is a string that was never set.
fn parameters(name: &str, root: &Root) -> String {
    let dir = format!("module/{name}/parameters");
    let mut found = Vec::new();
    for entry in root.sys.names(&dir).unwrap_or_default() {
        let value = root.sys.line(&format!("{dir}/{}", entry.name));
        if value.is_empty() || text::has(&value, "(null)") || value.contains(['"', '\n']) {
            continue;
        }
        let quote = if value.contains(' ') { "\"" } else { "" };
        found.push(format!("{}={quote}{value}{quote}", entry.name));
    }
    text::joined(&mut found.iter().map(String::as_str), " ")
}

/// Checks that the files are there.
///
/// # Errors
/// A file that is not.
pub fn check(state: &State, root: &Root) -> Result<()> {
    for module in &state.list {
        stat(root.path(&module.path)).context("module", format_args!("looking at {}", module.path))?;
    }
    Ok(())
}

/// Loads the modules in their order. One that is there already was loaded on account of another.
///
/// # Errors
/// The errno of opening or loading one.
pub fn restore(state: &State, root: &Root) -> Result<()> {
    let loaded = baseline(root);
    for module in state.list.iter().filter(|module| !loaded.contains(&module.name)) {
        load(&root.path(&module.path), &module.parameters)
            .context("module", format_args!("loading {}", module.name))?;
    }
    Ok(())
}
