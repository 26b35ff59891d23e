//! Kind `seccomp`: filters are still there, in their order, for processes and single threads; strict mode too.

use std::sync::atomic::{AtomicI32, Ordering};

use zoo::proc::status;
use zoo::seccomp::{ALLOW, KILL, TRAP, deny, deny_all, install};
use zoo::{Outcome, Zoo, fd, raw, sys};

static TRAPPED: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_trap(_: i32) {
    TRAPPED.fetch_add(1, Ordering::SeqCst);
}

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let stacked = zoo.fork(stacked)?;
    let trapped = zoo.fork(trapped)?;
    let narrow = zoo.fork(narrow)?;
    let threaded = zoo.fork(threaded)?;
    let synced = zoo.fork(synced)?;
    let (ask, asked) = fd::pipe(0)?;
    let (answered, answer) = fd::pipe(0)?;
    let strict = zoo.fork_blocked(move |zoo| strict(zoo, ask, answer))?;
    zoo.keep("mode of the strict process", move || status(&strict.to_string(), "Seccomp"));
    zoo.keep("own mode", || status("self", "Seccomp"));
    zoo.ready();
    zoo.reap("a process with two filters", stacked);
    zoo.reap("a process with a trapping filter", trapped);
    zoo.reap_as("a process that may do next to nothing", narrow, "signal 31");
    zoo.reap("a process with a filter on one thread", threaded);
    zoo.reap("a process whose threads have one filter", synced);
    fd::write(asked, b"?")?;
    zoo.expect("the strict process's answer", fd::read(answered, 1)?, b"!".to_vec());
    zoo.reap_as("a strict process", strict, "signal 9");
    Ok(())
}

fn keep(zoo: &mut Zoo) {
    for field in ["Seccomp", "Seccomp_filters", "NoNewPrivs"] {
        zoo.keep(field, move || status("thread-self", field));
    }
}

/// getpriority fails with this errno, or not at all.
fn denied() -> i32 {
    match raw!(SYS_getpriority, 0, 0) {
        Ok(_) => 0,
        Err(_) => sys::errno(),
    }
}

/// The newest filter decides between two errnos: the order matters.
fn stacked(zoo: &mut Zoo) -> Outcome {
    deny(libc::SYS_getpriority, 95)?;
    deny(libc::SYS_getpriority, 99)?;
    let before = denied();
    keep(zoo);
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    zoo.expect("errno of a denied call", denied(), before);
    let child = zoo.fork(move |zoo| {
        zoo.arrive();
        zoo.expect("errno of a denied call in a child", denied(), before);
        Ok(())
    })?;
    zoo.reap("a child under the filters", child);
    Ok(())
}

fn trapped(zoo: &mut Zoo) -> Outcome {
    let handler = on_trap as extern "C" fn(i32);
    sys!(signal(libc::SIGSYS, handler as libc::sighandler_t))?;
    install(&[libc::SYS_getpriority], TRAP, ALLOW)?;
    keep(zoo);
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    let _ = denied();
    zoo.expect("traps", TRAPPED.load(Ordering::SeqCst), 1);
    Ok(())
}

/// What waiting and ending take.
const WAITING: [libc::c_long; if cfg!(target_arch = "aarch64") { 8 } else { 9 }] = [
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    zoo::time::CLOCK_NANOSLEEP,
    libc::SYS_faccessat,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    #[cfg(not(target_arch = "aarch64"))]
    libc::SYS_access,
];

/// A filter that kills for all that a restore does (mmap, prctl, ...): it must come last and not be in the way.
fn narrow(zoo: &mut Zoo) -> Outcome {
    zoo.arrive();
    install(&WAITING, ALLOW, KILL)?;
    zoo.wait();
    let _ = denied(); // the end: killed by SIGSYS
    Ok(())
}

fn threaded(zoo: &mut Zoo) -> Outcome {
    let (told, tells) = std::sync::mpsc::channel();
    let go = zoo.go();
    let thread = std::thread::spawn(move || {
        let _ = told.send(deny(libc::SYS_getpriority, 98));
        zoo::wait_for(go.as_ref());
        (denied(), status("thread-self", "Seccomp"))
    });
    tells.recv().map_err(|_| "the thread ended")??;
    keep(zoo);
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    zoo.expect("errno in the main thread", denied(), 0);
    zoo.expect(
        "errno in the thread",
        thread.join().map_err(|_| "the thread panicked")?,
        (98, "2".to_owned()),
    );
    Ok(())
}

/// A filter that a thread inherited is still the same one: only then may another be given to all at once.
fn synced(zoo: &mut Zoo) -> Outcome {
    deny(libc::SYS_getpriority, 97)?;
    let go = zoo.go();
    let thread = std::thread::spawn(move || zoo::wait_for(go.as_ref()));
    zoo.arrive();
    zoo.wait();
    deny_all(libc::SYS_getpriority, 96)?;
    zoo.expect("errno of a denied call", denied(), 96);
    thread.join().map_err(|_| "the thread panicked")?;
    Ok(())
}

/// Strict mode: read, write, exit and sigreturn; the end of a Rust process needs more, so it dies of it.
fn strict(zoo: &mut Zoo, ask: i32, answer: i32) -> Outcome {
    zoo.arrive();
    sys::set_prctl(libc::PR_SET_SECCOMP, 1)?;
    let mut byte = 0_u8;
    // SAFETY: one byte.
    unsafe {
        libc::read(ask, (&raw mut byte).cast(), 1);
        libc::write(answer, b"!".as_ptr().cast(), 1);
    }
    Ok(())
}
