//! Kind `pidfd`: handles of threads (PIDFD_THREAD, Linux 6.9): of one that does not lead its process, of a leader and of
//! one that has ended, and an epoll that watches one.

use zoo::{Outcome, Zoo, fd, raw, sys, thread};

fn main() {
    zoo::run(program)
}

fn open(zoo: &Zoo, thread: i32) -> i32 {
    match raw!(SYS_pidfd_open, thread, libc::O_EXCL) {
        Ok(handle) => handle as i32,
        Err(problem) => zoo.skip(&problem.0),
    }
}

fn signal(handle: i32, signal: i32) -> i32 {
    match raw!(SYS_pidfd_send_signal, handle, signal, 0, 0) {
        Ok(_) => 0,
        Err(_) => sys::errno(),
    }
}

fn program(zoo: &mut Zoo) -> Outcome {
    thread::hear(libc::SIGUSR1)?;
    let (other, one, ended) = (thread::waiting(zoo)?, thread::ending()?, thread::ending()?);
    let handles = [one.number, sys::gettid(), other, ended.number].map(|thread| open(zoo, thread));
    let [to_one, to_leader, to_other, to_ended] = handles;
    ended.end();
    zoo.check("one has ended", zoo::eventually(5000, || fd::info(to_ended, "Pid") == "-1"));
    let epoll = sys!(epoll_create1(libc::EPOLL_CLOEXEC))?;
    let mut watch = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 77 };
    sys!(epoll_ctl(epoll, libc::EPOLL_CTL_ADD, to_one, &raw mut watch))?;
    for handle in handles {
        zoo.keep(&format!("whose {handle} is"), move || fd::info(handle, "Pid"));
        zoo.keep(&format!("flags of {handle}"), move || fd::flags(handle));
        zoo.keep(&format!("readiness of {handle}"), move || fd::polled(handle, libc::POLLIN).to_string());
    }
    zoo.ready();
    for (handle, number) in [(to_one, one.number), (to_leader, sys::gettid()), (to_other, other)] {
        let heard_by = thread::heard_by(5000, || {
            zoo.expect("a signal by its handle", signal(handle, libc::SIGUSR1), 0);
            Ok(())
        })?;
        zoo.expect("the thread that hears it", heard_by, number);
    }
    zoo.expect("a signal to the one that has ended", signal(to_ended, 0), libc::ESRCH);
    zoo.expect("an event before its end", sys!(epoll_wait(epoll, &raw mut watch, 1, 0))?, 0);
    one.end();
    zoo.expect("an event after its end", sys!(epoll_wait(epoll, &raw mut watch, 1, 5000))?, 1);
    zoo.expect("its data", watch.u64, 77);
    Ok(())
}
