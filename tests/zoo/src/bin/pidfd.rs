//! Kind `pidfd`: leads to the same process, living, dead or gone.

use zoo::{Outcome, Zoo, child, fd, proc, raw, sys};

fn main() {
    zoo::run(program)
}

fn open(pid: i32, flags: i32) -> Outcome<i32> {
    Ok(raw!(SYS_pidfd_open, pid, flags)? as i32)
}

fn signal(pidfd: i32, signal: i32) -> i32 {
    match raw!(SYS_pidfd_send_signal, pidfd, signal, 0, 0) {
        Ok(_) => 0,
        Err(_) => sys::errno(),
    }
}

fn quick() -> Outcome<i32> {
    let pid = sys!(fork())?;
    if pid == 0 {
        // SAFETY: ends a child.
        unsafe { libc::_exit(5) }
    }
    Ok(pid)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let living = zoo.fork_blocked(|zoo| {
        zoo.arrive();
        // SAFETY: waits to be killed.
        unsafe { libc::pause() };
        Ok(())
    })?;
    let (to_living, own) = (open(living, 0)?, open(std::process::id() as i32, libc::O_NONBLOCK)?);
    let dead = quick()?;
    let to_dead = open(dead, 0)?;
    zoo.check("the zombie is ready", zoo::eventually(5000, || fd::polled(to_dead, libc::POLLIN) != 0));
    let gone = quick()?;
    let to_gone = open(gone, 0)?;
    zoo.expect("a child that is gone", child::wait(gone, 0).words(), "exit 5".to_owned());
    for pidfd in [to_living, own, to_dead, to_gone] {
        zoo.keep(&format!("flags of {pidfd}"), move || fd::flags(pidfd));
        zoo.keep(&format!("pid of {pidfd}"), move || fd::info(pidfd, "Pid"));
        zoo.keep(&format!("readiness of {pidfd}"), move || fd::polled(pidfd, libc::POLLIN).to_string());
    }
    zoo.ready();
    zoo.expect("a signal to oneself", signal(own, 0), 0);
    zoo.expect("a signal to a process that is gone", signal(to_gone, 0), libc::ESRCH);
    zoo.expect("a signal to the living one", signal(to_living, libc::SIGTERM), 0);
    zoo.check("the living one's end", zoo::eventually(5000, || fd::polled(to_living, libc::POLLIN) != 0));
    zoo.expect("its state", proc::stat(&living.to_string(), 3), "Z".to_owned());
    let mut info: libc::siginfo_t = sys::zeroed();
    sys!(waitid(libc::P_PIDFD, to_living as libc::id_t, &raw mut info, libc::WEXITED))?;
    // SAFETY: waitid fills it in.
    zoo.expect("waiting by pidfd", unsafe { (info.si_pid(), info.si_status()) }, (living, libc::SIGTERM));
    sys!(waitid(libc::P_PIDFD, to_dead as libc::id_t, &raw mut info, libc::WEXITED))?;
    // SAFETY: as above.
    zoo.expect("the dead one", unsafe { (info.si_pid(), info.si_status()) }, (dead, 5));
    Ok(())
}
