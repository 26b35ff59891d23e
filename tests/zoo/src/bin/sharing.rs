//! Kind `sharing`: what tasks share by clone flags stays shared, and what they do not share stays apart.

use zoo::{Outcome, Zoo, child, fd, sys, time};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let home = zoo.path("home");
    std::fs::create_dir(&home)?;
    let (ask, answer) = (fd::pipe(0)?, fd::pipe(0)?);
    let go = zoo.go();
    // Shares descriptors and directories, but no memory: what it opens and where it goes is seen here.
    let sharer = child::clone(libc::CLONE_FILES | libc::CLONE_FS | libc::SIGCHLD, move || {
        zoo::wait_for(go.as_ref());
        let _ = fd::read(ask.0, 1);
        let opened = sys!(fcntl(2, libc::F_DUPFD, 77)).unwrap_or(-1);
        let moved = sys!(chdir(c"/proc".as_ptr())).is_ok();
        // SAFETY: takes an integer.
        unsafe { libc::umask(0o123) };
        let _ = fd::write(answer.1, b"done");
        let _ = fd::read(ask.0, 1);
        if opened == 77 && moved { 0 } else { 1 }
    })?;
    let own = zoo.fork(move |zoo| {
        zoo.arrive();
        zoo.wait();
        time::nap(50);
        zoo.check("descriptors of a process of its own", !fd::is_open(77));
        zoo.check("its directory", zoo::proc::link("/proc/self/cwd") != "/proc");
        Ok(())
    })?;
    std::env::set_current_dir(&home)?;
    zoo.keep("working directory", || zoo::proc::link("/proc/self/cwd"));
    zoo.keep("the sharer's working directory", move || zoo::proc::link(&format!("/proc/{sharer}/cwd")));
    zoo.keep("what is shared with the sharer", move || child::shared(sharer));
    zoo.keep("what is shared with a child", move || child::shared(own));
    zoo.ready();

    fd::write(ask.1, b"1")?;
    zoo.expect("the sharer", fd::read_text(answer.0), "done".to_owned());
    zoo.check("a descriptor that the sharer opened", fd::is_open(77));
    zoo.expect("where the sharer went", zoo::proc::link("/proc/self/cwd"), "/proc".to_owned());
    zoo.expect("the sharer's umask", zoo::proc::status("self", "Umask"), "0123".to_owned());
    zoo.reap("a process that shares nothing", own);
    fd::close(77);
    fd::write(ask.1, b"2")?;
    zoo.expect("the sharer's end", child::wait(sharer, 0).words(), "exit 0".to_owned());
    Ok(())
}
