//! Kind `sharing`: what is refused by name: a process that has the signal handlers of its parent, and its memory,
//! without being a thread of it.

use std::sync::atomic::{AtomicI32, Ordering};

use zoo::{Outcome, Zoo, child, fd, proc, sys};

fn main() {
    zoo::run(program)
}

/// Who ran the handler last.
static RAN: AtomicI32 = AtomicI32::new(0);

extern "C" fn handler(_: libc::c_int) {
    // SAFETY: no arguments, and it does not fail.
    RAN.store(unsafe { libc::syscall(libc::SYS_getpid) } as i32, Ordering::SeqCst);
}

fn program(zoo: &mut Zoo) -> Outcome {
    let (reader, writer) = fd::pipe(libc::O_CLOEXEC)?;
    let stack = Box::leak(vec![0_u8; 64 * 1024].into_boxed_slice());
    let top = (stack.as_mut_ptr() as usize + stack.len()) & !63;
    // It has the errno and the allocator of its parent, so it makes one call that does not fail.
    extern "C" fn live(reader: *mut libc::c_void) -> i32 {
        let mut byte = 0_u8;
        // SAFETY: room for a byte.
        while unsafe { libc::syscall(libc::SYS_read, reader, &raw mut byte, 1_usize) } != 1 {}
        4
    }
    let argument = std::ptr::without_provenance_mut(reader as usize);
    let flags = libc::CLONE_VM | libc::CLONE_SIGHAND | libc::SIGCHLD;
    let sharer = zoo::sys!(clone(live, top as *mut libc::c_void, flags, argument))?;
    zoo.check("the sharer sleeps", proc::sleeps(sharer));
    zoo.keep("parent of the sharer", move || proc::stat(&sharer.to_string(), 4));
    zoo.keep("its handlers", move || proc::status(&sharer.to_string(), "SigCgt"));
    zoo.ready();
    let mut action: libc::sigaction = sys::zeroed();
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    sys!(sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()))?;
    let handlers = |who: &str| proc::status(who, "SigCgt");
    zoo.expect("the handlers of both", handlers(&sharer.to_string()), handlers("self"));
    sys!(kill(sharer, libc::SIGUSR1))?;
    zoo.check("it runs its parent's", zoo::eventually(5000, || RAN.load(Ordering::SeqCst) == sharer));
    fd::write(writer, b"!")?;
    zoo.expect("the end of the sharer", child::wait(sharer, 0).words(), "exit 4".to_owned());
    Ok(())
}
