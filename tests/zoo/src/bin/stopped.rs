//! Kind `tree`: processes that a job-control signal has stopped stay stopped until they are continued, and their parent
//! knows of it what it knew.

use std::sync::atomic::{AtomicI32, Ordering};

use zoo::child::{Ended, wait};
use zoo::{Outcome, Zoo, fd, proc, sys};

static CONTINUED: AtomicI32 = AtomicI32::new(0);

extern "C" fn handler(_: i32) {
    CONTINUED.fetch_add(1, Ordering::SeqCst);
}

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let mut set: libc::sigset_t = sys::zeroed();
    // SAFETY: a live set.
    unsafe {
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    // Whoever goes on waits for a byte, so that this can be seen before its end.
    let (leave, let_go) = fd::pipe(libc::O_CLOEXEC)?;
    let fresh = stopped(zoo, libc::SIGSTOP, false, leave)?;
    let known = stopped(zoo, libc::SIGTSTP, true, leave)?;
    zoo.expect("the stop that is known", wait(known, libc::WUNTRACED), stop(libc::SIGTSTP));
    let (threads, gate) = threads(zoo, leave)?;
    zoo.expect("the stop of threads", wait(threads, libc::WUNTRACED), stop(libc::SIGSTOP));
    // SAFETY: a live set; the signals of what came so far.
    unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &sys::zeroed()) };
    zoo.keep("pending signals", || proc::status("self", "ShdPnd"));
    for pid in [fresh, known, threads] {
        zoo.keep(&format!("state of {pid}"), move || proc::stat(&pid.to_string(), 3));
    }
    zoo.ready();

    zoo.expect("news of a stop", wait(fresh, libc::WUNTRACED | libc::WNOHANG), stop(libc::SIGSTOP));
    for pid in [fresh, known, threads] {
        zoo.expect("no more news", wait(pid, libc::WUNTRACED | libc::WCONTINUED | libc::WNOHANG), Ended::Not);
    }
    zoo::time::nap(50);
    zoo.expect("what a stopped process does", fd::polled(gate, libc::POLLIN), 0);
    for pid in [fresh, known, threads] {
        sys!(kill(pid, libc::SIGCONT))?;
        zoo.expect("news that it goes on", wait(pid, libc::WCONTINUED), Ended::Status(0xffff));
        fd::write(let_go, b"x")?;
        zoo.reap("a stopped process", pid);
    }
    zoo.expect("what it does then", fd::read_text(gate), "on".to_owned());
    Ok(())
}

/// The status of a stopped process.
fn stop(signal: i32) -> Ended {
    Ended::Status(signal << 8 | 0x7f)
}

/// A child that a signal has stopped: in a call of its own, or with a handler that ends the call.
fn stopped(zoo: &mut Zoo, signal: i32, handled: bool, leave: i32) -> Outcome<i32> {
    let pid = zoo.fork(|zoo| {
        if handled {
            // SAFETY: a handler that only counts.
            unsafe { libc::signal(libc::SIGCONT, handler as *const () as usize) };
        }
        // A group whose members have no parent in another group of the session cannot be stopped from the keyboard.
        sys!(setpgid(0, 0))?;
        zoo.arrive();
        // SAFETY: our own process.
        unsafe { libc::raise(signal) };
        if handled {
            zoo.check("the handler runs", zoo::eventually(5000, || CONTINUED.load(Ordering::SeqCst) == 1));
        }
        fd::read(leave, 1)?;
        Ok(())
    })?;
    stops(pid)
}

/// A child with two threads, stopped from outside in the middle of their calls. A byte tells that it goes on.
fn threads(zoo: &mut Zoo, leave: i32) -> Outcome<(i32, i32)> {
    let (reader, writer) = fd::pipe(libc::O_CLOEXEC)?;
    let pid = zoo.fork(|zoo| {
        fd::close(reader);
        sys::handle(libc::SIGCONT, handler, 0)?;
        let go = zoo.go();
        let thread = std::thread::spawn(move || {
            // Not the one that handles signals.
            let mut all: libc::sigset_t = sys::zeroed();
            // SAFETY: a live set.
            unsafe {
                libc::sigfillset(&raw mut all);
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
            }
            zoo::wait_for(go.as_ref());
            fd::write(writer, b"on").is_ok()
        });
        zoo.arrive();
        if cfg!(target_arch = "x86_64") {
            // SAFETY: no arguments.
            let ended = unsafe { libc::pause() };
            zoo.expect("pause(2) after the stop", (ended, sys::errno()), (-1, libc::EINTR));
        } else {
            // There the kernel has forgotten that the handler would end a call.
            zoo.wait();
        }
        zoo.check("the thread goes on", thread.join().unwrap_or(false));
        fd::read(leave, 1)?;
        Ok(())
    })?;
    fd::close(writer);
    if !proc::sleeps(pid) {
        return Err("the child does not sleep".into());
    }
    sys!(kill(pid, libc::SIGSTOP))?;
    Ok((stops(pid)?, reader))
}

fn stops(pid: i32) -> Outcome<i32> {
    let stops = zoo::eventually(5000, || proc::stat(&pid.to_string(), 3) == "T");
    if stops { Ok(pid) } else { Err("the child does not stop".into()) }
}
