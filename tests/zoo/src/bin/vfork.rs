//! Kind `tree`: a parent that waits in vfork while its child lives on its memory.

use zoo::proc::stat;
use zoo::{Outcome, Zoo, child, fd, raw};

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
        let child = child::clone(flags, move || {
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
