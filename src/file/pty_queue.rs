//! What is on its way between the ends of a pseudo-terminal.
//!
//! The kernel shows none of it without giving it away. It is taken out, and put back as it was: output by the slave
//! with its processing turned off, input by the master in a mode in which nothing is special but the end of a line
//! and the three characters that this needs itself: one ends a line that has no newline, two stop the output and
//! start it again, which tells that everything before them has arrived.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;

use crate::sys::ioctl::{self, Termios};
use crate::sys::ptrace::Sys;
use crate::sys::{descriptor, fs};

crate::section! {
    /// What has not been read at either end.
    pub struct Queue {
        /// Input that the slave would read a line at a time.
        pub lines: Vec<Vec<u8>>,
        /// Input after these: a line that is not complete, or without lines everything.
        pub rest: Vec<u8>,
        /// Output that the master has not read.
        pub output: Vec<u8>,
    }
}

/// How long to wait for the kernel to move bytes from one end to the other, in milliseconds.
const PATIENCE: u32 = 2000;

/// Whether input is made of lines.
fn has_lines(modes: &Termios) -> bool {
    modes.modes[3] & (libc::ICANON | libc::EXTPROC) == libc::ICANON
}

/// Modes in which bytes pass unchanged.
fn plain(modes: &Termios) -> Termios {
    let mut chars = [0; 19];
    chars[libc::VMIN] = 1;
    Termios { modes: [0, 0, modes.modes[2], 0], chars, ..*modes }
}

/// The next bytes, if there are any. The slave's description does not wait, and the master's is asked before.
fn next(fd: BorrowedFd<'_>) -> Sys<Option<Vec<u8>>> {
    let mut bytes = vec![0; 4096];
    match nix::unistd::read(fd, &mut bytes) {
        Ok(count) => {
            bytes.truncate(count);
            Ok(Some(bytes))
        }
        Err(Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Takes everything out. The terminal is left with other modes, until [`put`].
///
/// # Errors
/// The errno of the calls; what was taken before is in the queue.
pub fn take(master: BorrowedFd<'_>, slave: BorrowedFd<'_>, modes: &Termios, queue: &mut Queue) -> Sys<()> {
    while descriptor::ready(master, libc::POLLIN)? & libc::POLLIN != 0 {
        let Some(bytes) = next(master)?.filter(|bytes| !bytes.is_empty()) else { break };
        queue.output.extend_from_slice(&bytes);
    }
    if has_lines(modes) {
        while let Some(line) = next(slave)? {
            queue.lines.push(line);
        }
    }
    ioctl::set(master, &ioctl::SET_TERMIOS, &plain(modes))?;
    while let Some(bytes) = next(slave)?.filter(|bytes| !bytes.is_empty()) {
        queue.rest.extend_from_slice(&bytes);
    }
    Ok(())
}

/// Puts everything in, and sets the modes.
///
/// # Errors
/// The errno of the calls; ENOBUFS if it is more than the terminal holds.
pub fn put(master: BorrowedFd<'_>, slave: BorrowedFd<'_>, modes: &Termios, queue: &Queue) -> Sys<()> {
    let filled = fill(master, slave, modes, queue);
    ioctl::set(master, &ioctl::SET_TERMIOS, modes)?;
    filled
}

fn fill(master: BorrowedFd<'_>, slave: BorrowedFd<'_>, modes: &Termios, queue: &Queue) -> Sys<()> {
    let mut way = plain(modes);
    if has_lines(modes) {
        way.modes[3] = libc::ICANON;
    }
    ioctl::set(master, &ioctl::SET_TERMIOS, &way)?;
    let mut output = queue.output.as_slice();
    let mut left = PATIENCE;
    while !output.is_empty() {
        match nix::unistd::write(slave, output) {
            Ok(count) => output = output.get(count..).unwrap_or_default(),
            // What is under way has not arrived, and takes the room.
            Err(Errno::EAGAIN) => pause(&mut left)?,
            Err(errno) => return Err(errno),
        }
    }
    if queue.lines.is_empty() && queue.rest.is_empty() {
        return Ok(());
    }
    let is_in = |byte: &u8| queue.rest.contains(byte) || queue.lines.iter().any(|line| line.contains(byte));
    let mut spare = (1..=u8::MAX).filter(|byte| *byte != b'\n' && !is_in(byte));
    let (Some(end), Some(stop), Some(start)) = (spare.next(), spare.next(), spare.next()) else {
        return Err(Errno::ENOBUFS);
    };
    way.modes[0] = libc::IXON;
    way.chars[libc::VEOF] = end;
    way.chars[libc::VSTOP] = stop;
    way.chars[libc::VSTART] = start;
    ioctl::set(master, &ioctl::SET_TERMIOS, &way)?;
    for line in &queue.lines {
        fs::write_all(master, line)?;
        if line.last() != Some(&b'\n') {
            fs::write_all(master, &[end])?;
        }
    }
    fs::write_all(master, &queue.rest)?;
    for (byte, wanted) in [(stop, 0), (start, libc::POLLOUT)] {
        fs::write_all(master, &[byte])?;
        let mut left = PATIENCE;
        while descriptor::ready(slave, libc::POLLOUT)? & libc::POLLOUT != wanted {
            pause(&mut left)?;
        }
    }
    Ok(())
}

/// Waits a little, until that was often enough.
///
/// # Errors
/// It was.
pub fn pause(left: &mut u32) -> Sys<()> {
    *left = left.checked_sub(1).ok_or(Errno::ENOBUFS)?;
    std::thread::sleep(Duration::from_millis(1));
    Ok(())
}
