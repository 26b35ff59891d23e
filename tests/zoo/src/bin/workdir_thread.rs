//! Kind `workdir`: a thread with directories and a umask of its own.

use zoo::proc::{link, status};
use zoo::{Outcome, Zoo, raw, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let (told, tells) = std::sync::mpsc::channel();
    let go = zoo.go();
    let thread = std::thread::spawn(move || {
        // A thread with a directory and a umask of its own: chdir of one does not move the other.
        let changed = raw!(SYS_unshare, libc::CLONE_FS).and_then(|_| sys!(chdir(c"/proc".as_ptr())));
        // SAFETY: takes an integer.
        unsafe { libc::umask(0o011) };
        let _ = told.send(changed.map(|_| ()));
        zoo::wait_for(go.as_ref());
        format!("{} {}", link("/proc/thread-self/cwd"), zoo::proc::status("thread-self", "Umask"))
    });
    tells.recv().map_err(|_| "the thread ended")??;
    zoo.keep("cwd", || link("/proc/self/cwd"));
    zoo.keep("umask", || status("self", "Umask"));
    zoo.ready();
    let place = thread.join().map_err(|_| "the thread panicked")?;
    zoo.expect("cwd and umask of the thread", place, "/proc 0011".to_owned());
    Ok(())
}
