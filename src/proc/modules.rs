//! /proc/modules (proc_modules(5)) and modules.dep(5).

use crate::sorted::Listed;
use crate::text;

/// The names of loaded modules, the first one loaded first: the kernel puts each new one in front.
#[must_use]
pub fn loaded(text: &str) -> Vec<String> {
    let mut names: Vec<String> =
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).list();
    names.reverse();
    names
}

/// The path of a module in modules.dep: relative to its directory, or absolute.
#[must_use]
pub fn file(dep: &str, name: &str) -> Option<String> {
    dep.lines()
        .filter_map(|line| line.split(':').next())
        .find(|path| module_name(path) == name)
        .map(str::to_owned)
}

/// The name of the module in a file: up to the first dot, with `_` for `-`.
fn module_name(path: &str) -> String {
    let file = text::file_name(path);
    text::replaced(file.split('.').next().unwrap_or(file), "-", "_")
}

#[cfg(test)]
mod tests {
    use super::{file, loaded};

    #[test]
    fn order_is_that_of_loading() {
        let text = "8021q 40960 0 - Live 0x0000000000000000\ngarp 16384 1 8021q, Live 0x0000000000000000\n";
        assert_eq!(loaded(text), ["garp", "8021q"]);
        assert!(loaded("").is_empty());
    }

    #[test]
    fn file_is_found_by_its_module_name() {
        let dep = "kernel/net/8021q/8021q.ko: kernel/net/802/garp.ko\nkernel/a/virtio-rng.ko.xz:\n";
        assert_eq!(file(dep, "8021q").as_deref(), Some("kernel/net/8021q/8021q.ko"));
        assert_eq!(file(dep, "virtio_rng").as_deref(), Some("kernel/a/virtio-rng.ko.xz"));
        assert_eq!(file(dep, "garp"), None);
    }
}
