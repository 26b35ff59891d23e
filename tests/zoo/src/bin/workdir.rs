//! Kind `workdir`: working directory, root directory and umask, also deleted, changed, and per thread.

use zoo::proc::link;
use zoo::{Outcome, Zoo, fd, raw, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let home = zoo.path("home");
    std::fs::create_dir(&home)?;
    std::fs::write(home.join("here"), b"here")?;
    std::env::set_current_dir(&home)?;
    // SAFETY: takes an integer.
    unsafe { libc::umask(0o137) };
    let deleted = zoo.fork(deleted)?;
    let (reader, writer) = fd::pipe(0)?;
    let jailed = zoo.fork(move |zoo| jailed(zoo, reader))?;
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
    zoo.keep("root", || link("/proc/self/root"));
    zoo.keep("umask", || zoo::proc::status("self", "Umask"));
    zoo.expect("umask", zoo::proc::status("self", "Umask"), "0137".to_owned());
    zoo.ready();

    zoo.expect("a file by its relative name", zoo::proc::text("here"), "here".to_owned());
    let made = sys!(open(c"made".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o777))?;
    let mut stat: libc::stat = sys::zeroed();
    sys!(fstat(made, &raw mut stat))?;
    zoo.expect("permissions of a new file", stat.st_mode & 0o777, 0o640);
    let place = thread.join().map_err(|_| "the thread panicked")?;
    zoo.expect("cwd and umask of the thread", place, "/proc 0011".to_owned());
    zoo.reap("a process in a deleted directory", deleted);
    fd::write(writer, b"!")?;
    zoo.reap("a process with another root", jailed);
    std::env::set_current_dir("/")?;
    std::fs::remove_dir_all(&home)?;
    Ok(())
}

fn deleted(zoo: &mut Zoo) -> Outcome {
    let gone = zoo.path("gone");
    std::fs::create_dir(&gone)?;
    std::env::set_current_dir(&gone)?;
    std::fs::remove_dir(&gone)?;
    zoo.keep("deleted cwd", || link("/proc/self/cwd"));
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    zoo.check("nothing can be made in a deleted directory", sys!(mkdir(c"x".as_ptr(), 0o700)).is_err());
    zoo.check("a deleted directory has no name", std::env::current_dir().is_err());
    Ok(())
}

/// Waits by a pipe: the go file has no name in there.
fn jailed(zoo: &mut Zoo, reader: i32) -> Outcome {
    let jail = zoo.path("jail");
    std::fs::create_dir(&jail)?;
    std::fs::write(jail.join("inside"), b"inside")?;
    std::fs::create_dir(jail.join("sub"))?;
    let name = zoo.cpath("jail")?;
    sys!(chroot(name.as_ptr()))?;
    std::env::set_current_dir("/sub")?;
    zoo.arrive();
    fd::read(reader, 1)?;
    zoo.expect("a file of the jail", zoo::proc::text("/inside"), "inside".to_owned());
    zoo.expect("the same from below", zoo::proc::text("../../../inside"), "inside".to_owned());
    zoo.check("nothing outside", !sys::exists(c"/proc/self") && !sys::exists(c"/../dev/null"));
    zoo.expect("cwd", std::env::current_dir()?.to_string_lossy().into_owned(), "/sub".to_owned());
    Ok(())
}
