//! Kind `tty`: the console, open twice. Nothing is written to it and nothing of it is changed: others use it too.

use zoo::{Outcome, Zoo, fd, proc, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let open = |zoo: &Zoo, flags| {
        sys!(open(c"/dev/console".as_ptr(), flags | libc::O_NOCTTY))
            .unwrap_or_else(|problem| zoo.skip(&format!("/dev/console: {problem}")))
    };
    let both = open(zoo, libc::O_RDWR | libc::O_CLOEXEC);
    let writer = open(zoo, libc::O_WRONLY | libc::O_NONBLOCK);
    for terminal in [both, writer] {
        zoo.keep(&format!("flags of {terminal}"), move || fd::flags(terminal));
        zoo.keep(&format!("name of {terminal}"), move || proc::link(&format!("/proc/self/fd/{terminal}")));
        // Not which: whoever logs in there sets them.
        zoo.keep(&format!("whether {terminal} has modes"), move || {
            let mut modes: libc::termios = sys::zeroed();
            sys!(tcgetattr(terminal, &raw mut modes)).is_ok().to_string()
        });
        zoo.keep(&format!("whether {terminal} has a window"), move || {
            let mut window: libc::winsize = sys::zeroed();
            sys!(ioctl(terminal, libc::TIOCGWINSZ, &raw mut window)).is_ok().to_string()
        });
    }
    zoo.keep("controlling terminal", || proc::stat("self", 7));
    zoo.ready();
    zoo.check("a console that is open for writing only", fd::read(writer, 1).is_err());
    zoo.expect("why", sys::errno(), libc::EBADF);
    Ok(())
}
