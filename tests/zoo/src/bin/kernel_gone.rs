//! Kind `regular`: what is refused by name: files and the directory of a process of /proc that is gone, and a file of a
//! thread that has ended.

use zoo::{Outcome, Zoo, child, fd, sys, thread};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let gone = zoo.fork_blocked(|zoo| {
        zoo.arrive();
        // SAFETY: waits to be killed.
        unsafe { libc::pause() };
        Ok(())
    })?;
    let open = |name: &str, flags| {
        let path = std::ffi::CString::new(format!("/proc/{gone}{name}")).map_err(|_| "NUL in a path")?;
        sys!(open(path.as_ptr(), flags))
    };
    let status = open("/status", libc::O_RDONLY)?;
    let score = open("/oom_score_adj", libc::O_WRONLY)?;
    let folder = open("", libc::O_RDONLY | libc::O_DIRECTORY)?;
    sys!(kill(gone, libc::SIGKILL))?;
    zoo.expect("the end of its owner", child::wait(gone, 0).words(), "signal 9".to_owned());
    let ending = thread::ending()?;
    let path = format!("/proc/self/task/{}/comm", ending.number);
    let path = std::ffi::CString::new(path).map_err(|_| "NUL in a path")?;
    let of_thread = sys!(open(path.as_ptr(), libc::O_RDONLY))?;
    ending.end();
    for file in [status, score, folder, of_thread] {
        zoo.keep(&format!("flags of {file}"), move || fd::flags(file));
    }
    zoo.ready();
    zoo.check("nothing to be read of it", fd::read(status, 64).is_err() && sys::errno() == libc::ESRCH);
    zoo.check("nothing to be set", fd::write(score, b"7").is_err() && sys::errno() == libc::ESRCH);
    zoo.check("nothing of the thread", fd::read(of_thread, 64).is_err() && sys::errno() == libc::ESRCH);
    let inside = sys!(openat(folder, c"status".as_ptr(), libc::O_RDONLY)).and_then(|file| fd::read(file, 64));
    zoo.check("nothing in its directory", inside.is_err());
    Ok(())
}
