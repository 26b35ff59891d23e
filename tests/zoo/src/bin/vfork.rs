//! Kind `tree`: a parent that waits in vfork while its child lives on its memory.

use zoo::proc::stat;
use zoo::{Outcome, Zoo, child, fd, raw, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let parent = vfork(zoo)?;
    zoo.ready();
    zoo.reap("the vfork parent", parent);
    Ok(())
}

/// A parent that waits in vfork for its child to end. The child naps on the parent's memory.
fn vfork(zoo: &mut Zoo) -> Outcome<i32> {
    let go = zoo.go();
    let (reader, writer) = fd::pipe(0)?;
    let parent = zoo.fork(move |zoo| {
        zoo.arrive();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let child = clone_on_new_stack(flags, move || {
            let pid = raw!(SYS_getpid).map_or(0, |pid| pid as i32);
            let _ = fd::write(writer, &pid.to_ne_bytes());
            fd::close(writer);
            zoo::wait_for(go.as_ref());
            6
        })?;
        zoo.expect("the end of a vfork child", child::wait(child, 0).words(), "exit 6".to_owned());
        Ok(())
    })?;
    fd::close(writer);
    let bytes = fd::read(reader, 4)?;
    fd::close(reader);
    let child = i32::from_ne_bytes(bytes.try_into().map_err(|_| "no pid of the vfork child")?);
    let waits = zoo::eventually(if zoo.go().is_some() { 2000 } else { 0 }, || {
        stat(&child.to_string(), 4) == parent.to_string() && stat(&parent.to_string(), 3) == "D"
    });
    // With nothing to wait for, the child has ended by now.
    if waits || zoo.go().is_none() { Ok(parent) } else { Err("the parent does not wait in vfork".into()) }
}

/// clone(2) through libc, with a stack of its own.
fn clone_on_new_stack(flags: i32, program: impl FnOnce() -> i32) -> Outcome<i32> {
    extern "C" fn enter<F: FnOnce() -> i32>(program: *mut libc::c_void) -> i32 {
        // SAFETY: the Option that the caller keeps alive; it is taken once.
        let program = unsafe { (*program.cast::<Option<F>>()).take() };
        program.map_or(1, |program| program())
    }
    fn entry<F: FnOnce() -> i32>(_: &Option<F>) -> extern "C" fn(*mut libc::c_void) -> i32 {
        enter::<F>
    }
    let mut stack = vec![0_u8; 256 * 1024];
    let mut program = Some(program);
    let entry = entry(&program);
    let top = (stack.as_mut_ptr() as usize + stack.len()) & !63;
    sys!(clone(entry, top as *mut libc::c_void, flags, (&raw mut program).cast()))
}
