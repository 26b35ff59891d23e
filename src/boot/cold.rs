//! The cold side: which program is the real init, and how it gets what rcsnap was given.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::cmdline::Cmdline;
use super::early::Early;
use crate::error::{Context, Error, Result};
use crate::log;
use crate::sorted::Listed;
use crate::sys;
use crate::sys::start::Given;
use crate::sys::stat::stat;

/// Where the kernel looks for init, in its order (init/main.c), after what the command line names.
const CANDIDATES: [&str; 4] = ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"];

/// The real init: `rcsnap.init=`, an `init=` that is not rcsnap, the configured one, else the first candidate
/// that is there. rcsnap itself is never the real init, under whatever name.
///
/// # Errors
/// Nothing of it is there.
pub fn real_init(line: &Cmdline, configured: Option<&str>) -> Result<PathBuf> {
    let own = stat("/proc/self/exe").map(|found| (found.dev, found.ino)).ok();
    let named = [line.get("rcsnap.init"), line.get("init"), configured];
    named
        .into_iter()
        .flatten()
        .chain(CANDIDATES)
        .find(|path| is_program(Path::new(path), own))
        .map(PathBuf::from)
        .ok_or_else(|| Error::new("cold", "looking for the real init", "none of its names is there"))
}

/// Whether it can be executed and is not this very file. Two copies of rcsnap are told apart from a real init
/// by their name: `init=/sbin/rcsnap` behind an initramfs that holds another copy.
fn is_program(path: &Path, own: Option<(u64, u64)>) -> bool {
    let Ok(found) = stat(path) else { return false };
    // Without /proc there is no looking behind a link.
    let real = sys::fs::real(path).unwrap_or_else(|_| path.to_owned());
    found.is_file()
        && found.mode & 0o111 != 0
        && own != Some((found.dev, found.ino))
        && sys::path::name(&real) != b"rcsnap"
}

/// The arguments of the real init: its own name, then ours. In a cell the words that speak to rcsnap stand
/// among the arguments and end here.
#[must_use]
pub fn arguments(init: &Path, given: &Given, cell: bool) -> Vec<CString> {
    let name = CString::new(init.as_os_str().as_bytes()).unwrap_or_default();
    let rest =
        given.args.iter().skip(1).filter(|arg| !cell || !arg.as_bytes().starts_with(b"rcsnap")).cloned();
    [name].into_iter().chain(rest).list()
}

/// Becomes the real init. What rcsnap mounted is gone before, signals are as at the start.
///
/// # Errors
/// Only when the program cannot be executed.
pub fn exec(init: &Path, given: &Given, early: &mut Early) -> Result<Infallible> {
    log!(Debug, "init: {}", init.to_string_lossy());
    let args = arguments(init, given, early.cell);
    early.close();
    sys::signal::clean_slate();
    let path = CString::new(init.as_os_str().as_bytes()).unwrap_or_default();
    sys::process::exec(&path, &args, &given.env)
        .context("cold", format_args!("executing {}", init.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::{arguments, is_program};
    use crate::sys::start::Given;
    use std::path::Path;

    #[test]
    fn arguments_pass_on_behind_the_new_name() {
        let args =
            ["/sbin/rcsnap", "rcsnap=refresh", "3"].map(|a| std::ffi::CString::new(a).unwrap()).to_vec();
        let given = Given { args, env: Vec::new() };
        let text = |cell| {
            let args = arguments(Path::new("/sbin/init"), &given, cell);
            args.iter().map(|a| a.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(text(false), ["/sbin/init", "rcsnap=refresh", "3"]);
        assert_eq!(text(true), ["/sbin/init", "3"]);
    }

    #[test]
    fn a_program_is_executable_and_not_ourselves() {
        use std::os::unix::fs::MetadataExt;
        let own = std::fs::metadata("/bin/sh").unwrap();
        assert!(is_program(Path::new("/bin/sh"), None));
        assert!(!is_program(Path::new("/bin/sh"), Some((own.dev(), own.ino()))));
        assert!(!is_program(Path::new("/etc/passwd"), None));
        assert!(!is_program(Path::new("/nonexistent"), None));
    }
}
