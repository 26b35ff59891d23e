//! Kind `fifo`: named pipes with contents, one-sided and both-sided, and one whose name is gone.

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
    let path = make(zoo, "fifo")?;
    let reader = sys!(open(path.as_ptr(), libc::O_RDONLY | libc::O_NONBLOCK))?;
    let writer = sys!(open(path.as_ptr(), libc::O_WRONLY))?;
    fd::write(writer, b"in the fifo")?;
    let lonely = make(zoo, "lonely")?;
    let only = sys!(open(lonely.as_ptr(), libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC))?;
    let both_path = make(zoo, "both")?;
    let both = sys!(open(both_path.as_ptr(), libc::O_RDWR))?;
    fd::write(both, b"mine")?;
    let gone_path = make(zoo, "gone")?;
    let gone = sys!(open(gone_path.as_ptr(), libc::O_RDWR))?;
    sys!(unlink(gone_path.as_ptr()))?;
    fd::write(gone, b"nameless")?;
    for end in [reader, writer, only, both, gone] {
        zoo.keep(&format!("flags of {end}"), move || fd::flags(end));
        zoo.keep(&format!("name of {end}"), move || zoo::proc::link(&format!("/proc/self/fd/{end}")));
    }
    zoo.ready();
    zoo.expect("contents", fd::read_text(reader), "in the fifo".to_owned());
    fd::write(writer, b"more")?;
    zoo.expect("contents written later", fd::read_text(reader), "more".to_owned());
    zoo.expect("a fifo without writers", fd::read_text(only), String::new());
    let late = sys!(open(lonely.as_ptr(), libc::O_WRONLY | libc::O_NONBLOCK))?;
    fd::write(late, b"late")?;
    zoo.expect("a writer that comes later", fd::read_text(only), "late".to_owned());
    zoo.expect("a fifo open for both", fd::read_text(both), "mine".to_owned());
    zoo.expect("a fifo without a name", fd::read_text(gone), "nameless".to_owned());
    Ok(())
}
