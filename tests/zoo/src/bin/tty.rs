//! Kind `tty`: a serial line that nobody else has, and a virtual terminal: what ioctl(2) sets beside the modes.
//!
//! The first serial line is the console, of boards and of the machine: it is left alone.

use zoo::{Outcome, Zoo, fd, sys};

/// `KDGKBMODE`, `KDSKBMODE`, `KDGETMODE` and `KDSETMODE` (linux/kd.h).
const GET_KEYBOARD: u32 = 0x4b44;
const SET_KEYBOARD: u32 = 0x4b45;
const GET_SCREEN: u32 = 0x4b3b;
const SET_SCREEN: u32 = 0x4b3a;
/// `K_MEDIUMRAW` and `KD_GRAPHICS`: neither is what a terminal begins with.
const MEDIUM: i32 = 2;
const GRAPHICS: i32 = 1;
/// `TIOCM_RTS`, `TIOCM_OUT1` and `TIOCM_LOOP`, without `TIOCM_DTR`, which comes with the open.
const LINES: i32 = 0x4 | 0x2000 | 0x8000;
/// These, and `TIOCM_DTR`.
const ALL: i32 = LINES | 0x2;

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK;
    let line = sys!(open(c"/dev/ttyS1".as_ptr(), flags))
        .unwrap_or_else(|problem| zoo.skip(&format!("no second serial line: {problem}")));
    let fresh = lines(line).unwrap_or_else(|| zoo.skip("the second serial line has no hardware"));
    zoo.expect("the lines that an open sets", fresh & ALL, 0x2 | 0x4);
    let wanted = LINES;
    sys!(ioctl(line, libc::TIOCMSET as _, &raw const wanted))?;
    zoo.expect("the lines", lines(line).map(|now| now & ALL), Some(LINES));
    zoo.keep("lines", move || format!("{:?}", lines(line).map(|now| now & ALL)));
    zoo.keep("flags", move || fd::flags(line));

    // High enough that nobody logs in there.
    let screen = sys!(open(c"/dev/tty40".as_ptr(), flags))?;
    sys!(ioctl(screen, SET_KEYBOARD as _, libc::c_long::from(MEDIUM)))?;
    sys!(ioctl(screen, SET_SCREEN as _, libc::c_long::from(GRAPHICS)))?;
    let read = move |request: u32| {
        let mut value = -1;
        sys!(ioctl(screen, request as _, &raw mut value)).map(|_| value).ok()
    };
    zoo.expect("the keyboard", read(GET_KEYBOARD), Some(MEDIUM));
    zoo.expect("the screen", read(GET_SCREEN), Some(GRAPHICS));
    zoo.keep("keyboard", move || format!("{:?}", read(GET_KEYBOARD)));
    zoo.keep("screen", move || format!("{:?}", read(GET_SCREEN)));
    zoo.ready();
    Ok(())
}

/// The modem lines.
fn lines(line: i32) -> Option<i32> {
    let mut value = 0;
    sys!(ioctl(line, libc::TIOCMGET as _, &raw mut value)).ok()?;
    Some(value)
}
