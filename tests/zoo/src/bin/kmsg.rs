//! Kind `device`: the kernel's log, open for reading and for writing. The position of a reader is not kept: it may
//! see old records again, but it must see what is new.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn open(zoo: &Zoo, flags: i32) -> i32 {
    sys!(open(c"/dev/kmsg".as_ptr(), flags))
        .unwrap_or_else(|problem| zoo.skip(&format!("/dev/kmsg: {problem}")))
}

/// Reads records until there are no more; whether one of them is wanted.
fn seen(log: i32, wanted: &str) -> bool {
    loop {
        match fd::read(log, 8192) {
            Ok(record) if String::from_utf8_lossy(&record).contains(wanted) => return true,
            // Records that were overwritten before they were read are skipped by the kernel.
            Err(_) if sys::errno() == libc::EPIPE => {}
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

fn program(zoo: &mut Zoo) -> Outcome {
    let reader = open(zoo, libc::O_RDONLY | libc::O_NONBLOCK);
    let late = open(zoo, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC);
    let writer = open(zoo, libc::O_WRONLY | libc::O_CLOEXEC);
    let both = open(zoo, libc::O_RDWR | libc::O_NONBLOCK);
    sys!(lseek(late, 0, libc::SEEK_END))?;
    let own = std::process::id();
    // Of the lowest level, which no console shows; a record without a newline could still be continued.
    fd::write(writer, format!("<7>zoo: kmsg {own} before\n").as_bytes())?;
    zoo.check("a record before the wait", seen(reader, &format!("kmsg {own} before")));
    for log in [reader, late, writer, both] {
        zoo.keep(&format!("flags of {log}"), move || fd::flags(log));
        zoo.keep(&format!("name of {log}"), move || zoo::proc::link(&format!("/proc/self/fd/{log}")));
    }
    zoo.ready();
    fd::write(writer, format!("<7>zoo: kmsg {own} after\n").as_bytes())?;
    fd::write(both, format!("<7>zoo: kmsg {own} both\n").as_bytes())?;
    for (what, log) in [("reader", reader), ("reader from the end", late), ("writer that reads", both)] {
        zoo.check(&format!("the {what} is readable"), fd::polled(log, libc::POLLIN) & libc::POLLIN != 0);
        zoo.check(&format!("the {what} sees what is new"), seen(log, &format!("kmsg {own} after")));
        zoo.check(&format!("the {what} reads on"), seen(log, &format!("kmsg {own} both")));
    }
    zoo.check("a writer does not read", fd::read(writer, 1).is_err() && sys::errno() == libc::EBADF);
    Ok(())
}
