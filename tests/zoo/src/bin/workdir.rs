//! Kind `workdir`: working directory, root directory and umask, also after chroot.

use zoo::proc::link;
use zoo::{Outcome, Zoo, fd, sys};

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
    let (reader, writer) = fd::pipe(0)?;
    let jailed = zoo.fork(move |zoo| jailed(zoo, reader))?;
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
    fd::write(writer, b"!")?;
    zoo.reap("a process with another root", jailed);
    std::env::set_current_dir("/")?;
    std::fs::remove_dir_all(&home)?;
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
