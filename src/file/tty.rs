//! A terminal: the console, a serial line, a virtual terminal.
//!
//! What: an open terminal: its modes and window size; of a serial line DTR, RTS, OUT1, loopback and RS-485; of a
//!   virtual terminal the mode of its keyboard, and text or graphics. The controlling terminal belongs to the session.
//! Reads: TCGETS2, TIOCGLCKTRMIOS, TIOCGWINSZ, TIOCGETD, TIOCGEXCL, TIOCMGET, TIOCGRS485, KDGKBMODE, KDGETMODE,
//!   VT_GETMODE; name and path in sysfs.
//! Rebuilds: by opening the name with O_NOCTTY; everything is set only where it differs, because touching a live
//!   console garbles output.
//! Loses: typed input that nobody has read. What was opened as /dev/tty is opened by the terminal's own name. What
//!   setserial(8) sets (TIOCSSERIAL: `low_latency`, a divisor), a break that is on.
//!   With `reopen = ...`, its line discipline.
//! Refuses: BSD pseudo-terminals; line disciplines other than the usual one, unless it may be opened afresh; a
//!   virtual terminal whose process is asked before a switch (VT_PROCESS).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::place::{self, Place};
use super::{Description, Opener, World, device};
use crate::config::Key;
use crate::error::{Context, Error, Refusal, Result};
use crate::sys::ioctl::{self, Termios};

const KIND: &str = "tty";

crate::section! {
    /// A terminal in the image.
    pub struct State {
        /// Its name.
        pub place: Place,
        /// Its path in sysfs.
        pub sysfs: String,
        /// Modes and size.
        pub settings: Settings,
        /// What [`ioctl::GET_EXTRA`] gives; zeroes for what there is not.
        pub extra: [[u32; 9]; 4],
    }
}

crate::section! {
    /// What every terminal has.
    pub struct Settings {
        /// Input, output, control and local modes.
        pub modes: [u32; 4],
        /// Control characters.
        pub chars: Vec<u8>,
        /// Input and output speed.
        pub speed: [u32; 2],
        /// Modes and characters that are locked, bit by bit.
        pub fixed: Vec<u32>,
        /// Rows, columns, and pixels across and down.
        pub window: [u16; 4],
        /// Whether only root can open it once more.
        pub exclusive: bool,
    }
}

/// Whether a character device is a terminal: it answers to TCGETS2.
#[must_use]
pub fn is_tty(desc: &Description) -> bool {
    ioctl::get(desc.fd.as_fd(), &ioctl::GET_TERMIOS).is_ok()
}

/// The number of a terminal: that of the node, or for /dev/tty of the one that it stood for when it was
/// opened, because the process that opens it again has another controlling terminal, or none.
///
/// # Errors
/// The errno of asking what /dev/tty is.
pub fn number(desc: &Description) -> Result<u64> {
    if device::numbers(desc.stat.rdev) != (5, 0) {
        return Ok(desc.stat.rdev);
    }
    let device = ioctl::get(desc.fd.as_fd(), &ioctl::GET_DEVICE)
        .context(KIND, format_args!("asking what /dev/tty is"))?;
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
    Ok(nix::sys::stat::makedev(major.into(), minor.into()))
}

/// Where to open it again.
fn find(desc: &Description, rdev: u64, world: &World<'_>) -> Result<Place, Refusal> {
    if rdev == desc.stat.rdev {
        return place::find(desc, world);
    }
    let name = place::device_name(rdev, false, world.root);
    let path = name.ok_or_else(|| Error::new(KIND, "asking what /dev/tty is", "sysfs does not know it"))?;
    Ok(Place { path, persistent: false })
}

/// The line discipline.
///
/// # Errors
/// The errno of the call.
pub fn discipline(tty: BorrowedFd<'_>) -> Result<i32> {
    ioctl::get(tty, &ioctl::GET_DISCIPLINE).context(KIND, format_args!("reading the line discipline"))
}

/// Reads modes and size.
///
/// # Errors
/// The errno of the calls.
pub fn settings(tty: BorrowedFd<'_>) -> Result<Settings> {
    let termios = ioctl::get(tty, &ioctl::GET_TERMIOS).context(KIND, format_args!("reading the modes"))?;
    let fixed = ioctl::get(tty, &ioctl::GET_FIXED).unwrap_or_default();
    Ok(Settings {
        modes: termios.modes,
        chars: termios.chars.to_vec(),
        speed: termios.speed,
        fixed: if fixed == NONE_FIXED { Vec::new() } else { fixed.to_vec() },
        window: ioctl::get(tty, &ioctl::GET_WINDOW).unwrap_or_default(),
        exclusive: ioctl::get(tty, &ioctl::GET_EXCLUSIVE).unwrap_or(0) != 0,
    })
}

/// Nothing is locked.
const NONE_FIXED: [u32; 9] = [0; 9];

/// Modes and characters as the kernel takes them.
#[must_use]
pub fn termios(settings: &Settings) -> Termios {
    let mut chars = [0; 19];
    for (to, from) in chars.iter_mut().zip(&settings.chars) {
        *to = *from;
    }
    Termios { modes: settings.modes, line: 0, chars, speed: settings.speed }
}

/// Sets modes and size where they differ.
///
/// # Errors
/// The errno of the calls.
pub fn apply(tty: BorrowedFd<'_>, settings: &Settings) -> Result<(), Errno> {
    let wanted = termios(settings);
    if ioctl::get(tty, &ioctl::GET_TERMIOS)? != wanted {
        ioctl::set(tty, &ioctl::SET_TERMIOS, &wanted)?;
    }
    if ioctl::get(tty, &ioctl::GET_WINDOW).unwrap_or_default() != settings.window {
        ioctl::set(tty, &ioctl::SET_WINDOW, &settings.window)?;
    }
    // Whoever opens it after this is root.
    if settings.exclusive {
        ioctl::value(tty, &ioctl::SET_EXCLUSIVE, 0)?;
    }
    fix(tty, settings)
}

/// Locks the modes that were locked.
///
/// # Errors
/// The errno of the call.
pub fn fix(tty: BorrowedFd<'_>, settings: &Settings) -> Result<(), Errno> {
    let Ok(fixed) = settings.fixed.as_slice().try_into() else { return Ok(()) };
    ioctl::set(tty, &ioctl::SET_FIXED, &fixed)
}

/// Unlocks them for the moment.
///
/// # Errors
/// The errno of the call.
pub fn unfix(tty: BorrowedFd<'_>, settings: &Settings) -> Result<(), Errno> {
    if settings.fixed.is_empty() { Ok(()) } else { ioctl::set(tty, &ioctl::SET_FIXED, &NONE_FIXED) }
}

/// What counts of the first word of each: of modem lines DTR, RTS, OUT1 and loopback, as OUT2 is the driver's.
const EXTRA: [u32; 4] = [!0, 0xa006, !0, !0];

/// Sets what differs. RS-485 first: it takes RTS for its own.
fn set_extra(tty: BorrowedFd<'_>, wanted: &[[u32; 9]; 4]) -> Result<(), Errno> {
    for (at, wanted) in wanted.iter().enumerate() {
        let now = ioctl::get(tty, &ioctl::GET_EXTRA[at]).unwrap_or_default();
        let mut value = *wanted;
        value[0] |= now[0] & !EXTRA[at];
        if value != now {
            ioctl::set_extra(tty, at, &value)?;
        }
    }
    Ok(())
}

/// Reads modes and size.
///
/// # Errors
/// A refusal, as the head of the file says.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    let rdev = number(desc)?;
    // BSD masters and slaves are 2 and 3; those of Unix98 are the kind `pty`.
    if matches!(device::numbers(rdev).0, 2 | 3) {
        return Err(Refusal::new(
            "BSD pseudo-terminals are not carried",
            "start its owner after `rcsnap ready`",
        ));
    }
    let tty = desc.fd.as_fd();
    let place = find(desc, rdev, world)?;
    if discipline(tty)? != 0
        && let Some(remedy) = world.lacks(Key::Reopen, desc, &place.path)
    {
        return Err(Refusal::new("its line discipline has state of its own", remedy));
    }
    if ioctl::get(tty, &ioctl::GET_SWITCH).unwrap_or_default()[0] & 0xff != 0 {
        return Err(Refusal::new("it is in the mode VT_PROCESS", "start its owner after `rcsnap ready`"));
    }
    let mut extra = [[0; 9]; 4];
    for (at, value) in extra.iter_mut().enumerate() {
        *value = ioctl::get(tty, &ioctl::GET_EXTRA[at]).unwrap_or_default();
        value[0] &= EXTRA[at];
    }
    Ok(Box::new(State {
        place,
        sysfs: device::sysfs(rdev, false, world.root),
        settings: settings(tty)?,
        extra,
    }))
}

/// Opens it again.
///
/// # Errors
/// The errno of the calls; another device with the name.
pub fn restore(state: &State, opener: &mut Opener) -> Result<OwnedFd> {
    // A serial line without carrier would wait here; the wait flag is set to what it was at the end.
    let flags = opener.flags() | libc::O_NONBLOCK;
    let fd = place::reopen(&state.place, flags, libc::S_IFCHR, KIND)?;
    device::same(&place::stat(&fd, KIND)?, &state.sysfs, false, &state.place.path)?;
    apply(fd.as_fd(), &state.settings)
        .and_then(|()| set_extra(fd.as_fd(), &state.extra))
        .context(KIND, format_args!("setting the modes of {}", state.place.path))?;
    Ok(fd)
}
