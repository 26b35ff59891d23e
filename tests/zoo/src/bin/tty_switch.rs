//! Kind `tty`: a virtual terminal whose process is asked before a switch. Which process that is only it can say.

use zoo::{Outcome, Zoo, sys};

/// `VT_GETMODE`, `VT_SETMODE`, and `struct vt_mode` with `VT_PROCESS` and SIGUSR1 (linux/vt.h).
const GET: u32 = 0x5601;
const SET: u32 = 0x5602;
const PROCESS: [u16; 4] = [1, 10, 10, 0];

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK;
    // What others may be looking at is left alone: only on boards, which have a second serial line.
    let mut lines = 0;
    let alone = sys!(open(c"/dev/ttyS1".as_ptr(), flags | libc::O_CLOEXEC))
        .is_ok_and(|line| sys!(ioctl(line, libc::TIOCMGET as _, &raw mut lines)).is_ok());
    if !alone {
        zoo.skip("no board with virtual terminals");
    }
    let screen = sys!(open(c"/dev/tty41".as_ptr(), flags))?;
    sys!(ioctl(screen, SET as _, PROCESS.as_ptr()))?;
    zoo.keep("mode", move || {
        let mut mode = [0_u16; 4];
        let read = sys!(ioctl(screen, GET as _, mode.as_mut_ptr())).is_ok();
        format!("{read} {mode:?}")
    });
    zoo.ready();
    Ok(())
}
