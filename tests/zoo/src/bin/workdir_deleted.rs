//! Kind `workdir`: a working directory that was deleted.

use zoo::proc::link;
use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let gone = zoo.path("gone");
    std::fs::create_dir(&gone)?;
    std::env::set_current_dir(&gone)?;
    std::fs::remove_dir(&gone)?;
    // It stands in a deleted root, and in a deleted directory that is in no root.
    let jailed = zoo.fork(jailed)?;
    zoo.keep("permissions", permissions);
    zoo.keep("deleted cwd", || link("/proc/self/cwd"));
    zoo.ready();
    zoo.check("nothing can be made in a deleted directory", sys!(mkdir(c"x".as_ptr(), 0o700)).is_err());
    zoo.check("a deleted directory has no name", std::env::current_dir().is_err());
    zoo.reap("a process whose root was deleted", jailed);
    Ok(())
}

fn permissions() -> String {
    let mut stat: libc::stat = sys::zeroed();
    let found = sys!(stat(c".".as_ptr(), &raw mut stat)).map(|_| ());
    format!("{found:?} {:o} {}:{} links {}", stat.st_mode, stat.st_uid, stat.st_gid, stat.st_nlink)
}

fn jailed(zoo: &mut Zoo) -> Outcome {
    let jail = zoo.cpath("jail")?;
    sys!(mkdir(jail.as_ptr(), 0o751))?;
    let home = sys!(open(c".".as_ptr(), libc::O_PATH))?;
    sys!(chdir(jail.as_ptr()))?;
    sys!(rmdir(jail.as_ptr()))?;
    let (reader, writer) = fd::pipe(0)?;
    let child = zoo.fork(move |zoo| {
        sys!(chroot(c".".as_ptr()))?;
        sys!(fchdir(home))?;
        fd::close(home);
        fd::close(writer);
        zoo.arrive();
        // By a pipe: the go file has no name in there.
        fd::read(reader, 1)?;
        zoo.check("nothing can be made in a deleted root", sys!(mkdir(c"/x".as_ptr(), 0o700)).is_err());
        let mut stat: libc::stat = sys::zeroed();
        sys!(stat(c"/".as_ptr(), &raw mut stat))?;
        zoo.expect("permissions of the root", stat.st_mode & 0o777, 0o751);
        zoo.expect("permissions outside of it", permissions().contains("40755"), true);
        Ok(())
    })?;
    fd::close(home);
    zoo.arrive();
    zoo.wait();
    fd::write(writer, b"!")?;
    zoo.reap("a process in a deleted root", child);
    Ok(())
}
