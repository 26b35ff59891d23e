//! Kind `regular`: what is refused by name: a file of /proc of a process that is gone, while another one has its
//! number, and so its name.

use zoo::{Outcome, Zoo, fd, number, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let mut status = -1;
    let second = number::again(
        zoo,
        |pid| {
            let path = std::ffi::CString::new(format!("/proc/{pid}/status")).map_err(|_| "NUL in a path")?;
            status = sys!(open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC))?;
            Ok(status)
        },
        |zoo| {
            zoo.fork(|zoo| {
                zoo.arrive();
                zoo.wait();
                Ok(())
            })
        },
    )?;
    zoo.keep("flags", move || fd::flags(status));
    zoo.ready();
    zoo.check("nothing of its second owner", fd::read(status, 64).is_err() && sys::errno() == libc::ESRCH);
    zoo.reap("the second owner", second.0);
    Ok(())
}
