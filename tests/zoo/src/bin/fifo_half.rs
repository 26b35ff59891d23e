//! Kind `fifo`, the odd ones: with readers only, and with a name that is gone.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn make(zoo: &Zoo, name: &str) -> Outcome<std::ffi::CString> {
    let path = zoo.cpath(name)?;
    sys!(mkfifo(path.as_ptr(), 0o640))?;
    Ok(path)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let lonely = make(zoo, "lonely")?;
    let only = sys!(open(lonely.as_ptr(), libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC))?;
    let gone_path = make(zoo, "gone")?;
    let gone = sys!(open(gone_path.as_ptr(), libc::O_RDWR))?;
    sys!(unlink(gone_path.as_ptr()))?;
    fd::write(gone, b"nameless")?;
    for end in [only, gone] {
        zoo.keep(&format!("flags of {end}"), move || fd::flags(end));
        zoo.keep(&format!("name of {end}"), move || zoo::proc::link(&format!("/proc/self/fd/{end}")));
    }
    zoo.ready();
    zoo.expect("a fifo without writers", fd::read_text(only), String::new());
    let late = sys!(open(lonely.as_ptr(), libc::O_WRONLY | libc::O_NONBLOCK))?;
    fd::write(late, b"late")?;
    zoo.expect("a writer that comes later", fd::read_text(only), "late".to_owned());
    zoo.expect("a fifo without a name", fd::read_text(gone), "nameless".to_owned());
    Ok(())
}
