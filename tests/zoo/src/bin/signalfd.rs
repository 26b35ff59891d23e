//! Kind `signalfd`: its mask and flags, and signals that wait in it.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn set(signals: &[i32]) -> libc::sigset_t {
    let mut set: libc::sigset_t = sys::zeroed();
    for signal in signals {
        // SAFETY: a live set.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

fn take(signal: i32) -> Outcome<libc::signalfd_siginfo> {
    let mut info: libc::signalfd_siginfo = sys::zeroed();
    sys!(read(signal, (&raw mut info).cast(), size_of_val(&info)))?;
    Ok(info)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let all = set(&[libc::SIGUSR1, libc::SIGUSR2, 45, 64, libc::SIGCHLD]);
    sys!(sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut()))?;
    let (one, two) = (set(&[libc::SIGUSR1, 45]), set(&[libc::SIGUSR2, 64, libc::SIGCHLD]));
    let blocking = sys!(signalfd(-1, &raw const one, libc::SFD_CLOEXEC))?;
    let polling = sys!(signalfd(-1, &raw const two, libc::SFD_NONBLOCK))?;
    for signal in [blocking, polling] {
        zoo.keep(&format!("flags of {signal}"), move || fd::flags(signal));
        zoo.keep(&format!("mask of {signal}"), move || fd::info(signal, "sigmask"));
    }
    let own = std::process::id();
    sys!(sigqueue(own as i32, 45, libc::sigval { sival_ptr: 1234 as *mut libc::c_void }))?;
    sys!(kill(own as i32, libc::SIGUSR1))?;
    zoo.keep("readiness", move || fd::polled(blocking, libc::POLLIN).to_string());
    let child = zoo.fork(|zoo| {
        zoo.arrive();
        zoo.wait();
        Ok(())
    })?;
    zoo.ready();
    let first = take(blocking)?;
    zoo.expect(
        "the signal with the lower number",
        (first.ssi_signo, first.ssi_pid),
        (libc::SIGUSR1 as u32, own),
    );
    let second = take(blocking)?;
    zoo.expect(
        "the queued signal",
        (second.ssi_signo, second.ssi_ptr, second.ssi_code),
        (45, 1234, libc::SI_QUEUE),
    );
    zoo.check("SIGCHLD comes", zoo::eventually(10_000, || fd::polled(polling, libc::POLLIN) != 0));
    let third = take(polling)?;
    zoo.expect("the child's end", (third.ssi_signo, third.ssi_pid), (libc::SIGCHLD as u32, child as u32));
    zoo.check("nothing more", take(polling).is_err());
    sys!(kill(own as i32, 64))?;
    zoo.expect("a signal sent after the wait", take(polling)?.ssi_signo, 64);
    zoo.reap("the child", child);
    Ok(())
}
