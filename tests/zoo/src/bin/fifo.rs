//! Kind `fifo`: named pipes with contents, with both ends in one process.

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
    let writer = sys!(open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
    fd::write(writer, b"in the fifo")?;
    let both_path = make(zoo, "both")?;
    let both = sys!(open(both_path.as_ptr(), libc::O_RDWR))?;
    fd::write(both, b"mine")?;
    for end in [reader, writer, both] {
        zoo.keep(&format!("flags of {end}"), move || fd::flags(end));
        zoo.keep(&format!("name of {end}"), move || zoo::proc::link(&format!("/proc/self/fd/{end}")));
    }
    zoo.ready();
    zoo.expect("contents", fd::read_text(reader), "in the fifo".to_owned());
    fd::write(writer, b"more")?;
    zoo.expect("contents written later", fd::read_text(reader), "more".to_owned());
    zoo.expect("a fifo open for both", fd::read_text(both), "mine".to_owned());
    let late = sys!(open(path.as_ptr(), libc::O_WRONLY | libc::O_NONBLOCK))?;
    fd::write(late, b"late")?;
    zoo.expect("a writer that comes later", fd::read_text(reader), "late".to_owned());
    fd::close(late);
    fd::close(writer);
    zoo.expect("the end of the last writer", fd::read_text(reader), String::new());
    Ok(())
}
