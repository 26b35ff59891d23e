//! A terminal: the console, a serial line, a virtual terminal.
//!
//! What: an open terminal: its modes and window size. The controlling terminal belongs to the session.
//! Reads: TCGETS2, TIOCGWINSZ, TIOCGETD, TIOCGEXCL; name and path in sysfs.
//! Rebuilds: by opening the name with O_NOCTTY; modes and window size are set only where they differ,
//!   because touching a live console garbles output.
//! Loses: typed input that nobody has read. What was opened as /dev/tty is opened by the terminal's own name.
//! Refuses: pseudo-terminals; line disciplines other than the usual one; an exclusive terminal.

use std::os::fd::{AsFd, OwnedFd};

use super::place::{self, Place};
use super::{Description, Opener, World, device};
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
        /// Input, output, control and local modes.
        pub modes: [u32; 4],
        /// Control characters.
        pub chars: Vec<u8>,
        /// Input and output speed.
        pub speed: [u32; 2],
        /// Rows, columns, and pixels across and down.
        pub window: [u16; 4],
    }
}

/// Whether a character device is a terminal: it answers to TCGETS2.
#[must_use]
pub fn is_tty(desc: &Description) -> bool {
    ioctl::get(desc.fd.as_fd(), &ioctl::GET_TERMIOS).is_ok()
}

/// The number of the terminal: that of the node, or for /dev/tty of the one that it stood for when it was
/// opened, because the process that opens it again has another controlling terminal, or none.
fn number(desc: &Description) -> Result<u64> {
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
    let name = place::device_name(rdev, false, world);
    let path = name.ok_or_else(|| Error::new(KIND, "asking what /dev/tty is", "sysfs does not know it"))?;
    Ok(Place { path, persistent: false })
}

/// Reads modes and size.
///
/// # Errors
/// A refusal, as the head of the file says.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    let rdev = number(desc)?;
    let (major, minor) = device::numbers(rdev);
    // Unix98 slaves are 136 to 143, the master is 5:2, BSD masters and slaves are 2 and 3.
    if (136..=143).contains(&major) || (major, minor) == (5, 2) || major == 2 || major == 3 {
        return Err(Refusal::new("pseudo-terminals are not carried", "start its owner after `rcsnap ready`"));
    }
    let tty = desc.fd.as_fd();
    let termios = ioctl::get(tty, &ioctl::GET_TERMIOS).context(KIND, format_args!("reading the modes"))?;
    let window = ioctl::get(tty, &ioctl::GET_WINDOW).unwrap_or_default();
    if ioctl::get(tty, &ioctl::GET_DISCIPLINE).context(KIND, format_args!("reading the line discipline"))?
        != 0
    {
        return Err(Refusal::new(
            "its line discipline has state of its own",
            "start its owner after `rcsnap ready`",
        ));
    }
    if ioctl::get(tty, &ioctl::GET_EXCLUSIVE).unwrap_or(0) != 0 {
        return Err(Refusal::new("it is open exclusively", "start its owner after `rcsnap ready`"));
    }
    Ok(Box::new(State {
        place: find(desc, rdev, world)?,
        sysfs: device::sysfs(rdev, false, world.root),
        modes: termios.modes,
        chars: termios.chars.to_vec(),
        speed: termios.speed,
        window,
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
    let mut chars = [0; 19];
    for (to, from) in chars.iter_mut().zip(&state.chars) {
        *to = *from;
    }
    let wanted = Termios { modes: state.modes, line: 0, chars, speed: state.speed };
    let doing = format_args!("setting the modes of {}", state.place.path);
    if ioctl::get(fd.as_fd(), &ioctl::GET_TERMIOS).context(KIND, doing)? != wanted {
        ioctl::set(fd.as_fd(), &ioctl::SET_TERMIOS, &wanted).context(KIND, doing)?;
    }
    if ioctl::get(fd.as_fd(), &ioctl::GET_WINDOW).unwrap_or_default() != state.window {
        ioctl::set(fd.as_fd(), &ioctl::SET_WINDOW, &state.window).context(KIND, doing)?;
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use crate::file::testing::refused;

    #[test]
    fn pseudo_terminal_is_refused() {
        let Ok(fd) = crate::file::place::open("/dev/ptmx", libc::O_RDWR, "tty") else { return };
        assert!(refused(&[&fd]).reason.contains("pseudo-terminals"));
    }
}
