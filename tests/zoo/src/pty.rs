//! Pseudo-terminals.

use crate::{Outcome, sys};

/// A new master; its slave is locked.
///
/// # Errors
/// The errno of the call.
pub fn master() -> Outcome<i32> {
    sys!(open(c"/dev/ptmx".as_ptr(), libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC))
}

/// A new pair: (master, slave, the slave's number).
///
/// # Errors
/// The errno of the calls.
pub fn open() -> Outcome<(i32, i32, u32)> {
    let master = master()?;
    tell(master, libc::TIOCSPTLCK, 0)?;
    Ok((master, slave(master, libc::O_RDWR)?, number(master)?))
}

/// The slave of a master, opened once more by its name.
///
/// # Errors
/// The errno of the calls.
pub fn slave(master: i32, flags: i32) -> Outcome<i32> {
    let name = std::ffi::CString::new(format!("/dev/pts/{}", number(master)?)).map_err(|_| "NUL")?;
    sys!(open(name.as_ptr(), flags | libc::O_NOCTTY))
}

/// The number of a master.
///
/// # Errors
/// The errno of the call.
pub fn number(master: i32) -> Outcome<u32> {
    Ok(ask(master, libc::TIOCGPTN)?.cast_unsigned())
}

/// The number of a slave, by its device.
#[must_use]
pub fn minor(slave: i32) -> u32 {
    let mut stat: libc::stat = sys::zeroed();
    // SAFETY: a live struct.
    unsafe { libc::fstat(slave, &raw mut stat) };
    libc::minor(stat.st_rdev as _) as u32
}

/// An ioctl(2) that writes an int.
///
/// # Errors
/// The errno of the call.
pub fn ask(tty: i32, request: libc::Ioctl) -> Outcome<i32> {
    let mut value = [0_i32; 4];
    sys!(ioctl(tty, request, value.as_mut_ptr()))?;
    Ok(value[0])
}

/// An ioctl(2) that reads an int.
///
/// # Errors
/// The errno of the call.
pub fn tell(tty: i32, request: libc::Ioctl, value: i32) -> Outcome {
    sys!(ioctl(tty, request, &raw const value))?;
    Ok(())
}
