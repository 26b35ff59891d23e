//! finit_module(2).
#![allow(unsafe_code, reason = "nix has no flag for compressed modules")]

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::sys::fs;
use crate::sys::ptrace::Sys;

/// MODULE_INIT_COMPRESSED_FILE (5.17): the kernel decompresses .xz, .gz and .zst itself.
const COMPRESSED: i32 = 4;

/// Loads a module file with its parameters. One that is already loaded is fine.
///
/// # Errors
/// ENOENT, ENOEXEC, EPERM, what the module's own init says.
pub fn load(path: &Path, parameters: &str) -> Sys<()> {
    let file = fs::open(path, OFlag::O_RDONLY)?;
    let parameters = CString::new(parameters).map_err(|_| Errno::EINVAL)?;
    let flags = if path.as_os_str().as_bytes().ends_with(b".ko") { 0 } else { COMPRESSED };
    // SAFETY: a descriptor that lives over the call, a string with its end, a number.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), flags) };
    match Errno::result(result) {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}
