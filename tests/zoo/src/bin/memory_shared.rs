//! Kind `sharing`: a process that lives on the memory of its parent for good, and one that has the descriptors of its
//! sibling.

use std::sync::atomic::{AtomicI32, Ordering};

use zoo::{Outcome, Zoo, child, fd, proc, raw, time};

static SEEN: AtomicI32 = AtomicI32::new(0);

fn main() {
    zoo::run(program)
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
        SEEN.store(1, Ordering::SeqCst);
        4
    }
    let argument = std::ptr::without_provenance_mut(reader as usize);
    let flags = libc::CLONE_VM | libc::SIGCHLD;
    let sharer = zoo::sys!(clone(live, top as *mut libc::c_void, flags, argument))?;
    let brother = zoo.fork(|zoo| {
        let (flags, none) = ((libc::CLONE_FILES | libc::CLONE_PARENT) as usize, 0_usize);
        if raw!(SYS_clone, flags, none, none, none, none)? == 0 {
            zoo.wait();
            // SAFETY: ends the process without the exit handlers of the one that it was copied from.
            unsafe { libc::_exit(5) };
        }
        zoo.arrive();
        zoo.wait();
        time::nap(20);
        Ok(())
    })?;
    zoo.keep("state of the sharer", move || proc::stat(&sharer.to_string(), 4));
    zoo.ready();
    fd::write(writer, b"!")?;
    zoo.expect("the end of the sharer", child::wait(sharer, 0).words(), "exit 4".to_owned());
    zoo.expect("what it wrote", SEEN.load(Ordering::SeqCst), 1);
    zoo.reap("a process with the descriptors of its brother", brother);
    zoo.expect("the end of the brother", child::wait(-1, libc::__WALL).words(), "exit 5".to_owned());
    Ok(())
}
