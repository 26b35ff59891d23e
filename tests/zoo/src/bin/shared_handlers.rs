//! Kind `sharing`: a process that has the signal handlers of its parent, and its memory, without being a thread of it:
//! what one sets the other has, and masks, stacks and descriptors are of each.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use zoo::child::{self, tell, wait_while};
use zoo::{Outcome, Zoo, fd, proc, sys};

fn main() {
    zoo::run(program)
}

/// Whose turn it is.
static TURN: AtomicU32 = AtomicU32::new(0);
/// How far the sharer is.
static SAID: AtomicU32 = AtomicU32::new(0);
/// Who ran the handler last.
static RAN: AtomicI32 = AtomicI32::new(0);

extern "C" fn handler(_: libc::c_int) {
    // SAFETY: no arguments, and it does not fail.
    RAN.store(unsafe { libc::syscall(libc::SYS_getpid) } as i32, Ordering::SeqCst);
}

/// Gives a signal the handler.
fn handle(signal: i32) -> bool {
    sys::handle(signal, handler, libc::SA_RESTART).is_ok()
}

/// The life of the sharer.
fn live(writer: i32) -> i32 {
    fd::close(writer);
    let mut set: libc::sigset_t = sys::zeroed();
    // SAFETY: a live set.
    unsafe {
        libc::sigaddset(&raw mut set, libc::SIGWINCH);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    let early = handle(libc::SIGUSR2);
    tell(&SAID, 1);
    wait_while(&TURN, 0);
    let late = handle(libc::SIGHUP);
    tell(&SAID, 2);
    wait_while(&TURN, 1);
    if early && late && !fd::is_open(writer) { 4 } else { 5 }
}

fn program(zoo: &mut Zoo) -> Outcome {
    let (_, writer) = fd::pipe(libc::O_CLOEXEC)?;
    let flags = libc::CLONE_VM | libc::CLONE_SIGHAND | libc::SIGCHLD;
    let sharer = child::clone(flags, move || live(writer))?;
    zoo.check("the sharer is set up", zoo::eventually(5000, || SAID.load(Ordering::SeqCst) == 1));
    zoo.check("the sharer sleeps", proc::sleeps(sharer));
    zoo.keep("parent of the sharer", move || proc::stat(&sharer.to_string(), 4));
    zoo.keep("what is shared", move || child::shared(sharer));
    for field in ["SigCgt", "SigIgn", "SigBlk"] {
        zoo.keep(&format!("its {field}"), move || proc::status(&sharer.to_string(), field));
    }
    zoo.keep("our SigBlk", || proc::status("self", "SigBlk"));
    zoo.ready();

    let ran = |by: i32| {
        let ran = zoo::eventually(5000, || RAN.load(Ordering::SeqCst) == by);
        RAN.store(0, Ordering::SeqCst);
        ran
    };
    sys!(kill(std::process::id() as i32, libc::SIGUSR2))?;
    zoo.check("we run a handler that it set before", ran(std::process::id() as i32));
    zoo.check("we set a handler", handle(libc::SIGUSR1));
    sys!(kill(sharer, libc::SIGUSR1))?;
    zoo.check("it runs ours", ran(sharer));
    tell(&TURN, 1);
    zoo.check("it sets one", zoo::eventually(5000, || SAID.load(Ordering::SeqCst) == 2));
    sys!(kill(std::process::id() as i32, libc::SIGHUP))?;
    zoo.check("we run its", ran(std::process::id() as i32));
    let handlers = |who: &str| proc::status(who, "SigCgt");
    zoo.expect("the handlers of both", handlers(&sharer.to_string()), handlers("self"));
    zoo.check("our descriptors", fd::is_open(writer));
    tell(&TURN, 2);
    zoo.reap_as("the end of the sharer", sharer, "exit 4");
    Ok(())
}
