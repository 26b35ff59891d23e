//! Kind `eventfd`: counter, semaphore mode and flags, also shared with a child.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn make(count: u64, flags: i32) -> Outcome<i32> {
    let event = sys!(eventfd(0, flags))?;
    if count > 0 {
        fd::write(event, &count.to_ne_bytes())?;
    }
    Ok(event)
}

fn take(event: i32) -> String {
    match fd::read(event, 8) {
        Ok(bytes) => bytes.try_into().map_or("short".into(), |bytes| u64::from_ne_bytes(bytes).to_string()),
        Err(_) => format!("errno {}", sys::errno()),
    }
}

fn program(zoo: &mut Zoo) -> Outcome {
    let counter = make(77, libc::EFD_CLOEXEC)?;
    let semaphore = make(3, libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK)?;
    let lone = make(1, libc::EFD_SEMAPHORE)?;
    let empty = make(0, libc::EFD_NONBLOCK)?;
    let most = make(u64::MAX - 1, libc::EFD_NONBLOCK)?;
    let shared = make(5, 0)?;
    for event in [counter, semaphore, lone, empty, most, shared] {
        zoo.keep(&format!("flags of {event}"), move || fd::flags(event));
        zoo.keep(&format!("count of {event}"), move || fd::info(event, "eventfd-count"));
        zoo.keep(&format!("mode of {event}"), move || fd::info(event, "eventfd-semaphore"));
        zoo.keep(&format!("readiness of {event}"), move || {
            fd::polled(event, libc::POLLIN | libc::POLLOUT).to_string()
        });
    }
    let child = zoo.fork(move |zoo| {
        zoo.arrive();
        zoo.wait();
        // Takes the sum once the parent has added to it.
        zoo::eventually(5000, || fd::info(shared, "eventfd-count").trim() == "c");
        zoo.expect("the shared count", take(shared), "12".to_owned());
        Ok(())
    })?;
    zoo.ready();
    zoo.expect("the counter", take(counter), "77".to_owned());
    for left in ["1", "1", "1", "errno 11"] {
        zoo.expect("one of the semaphore", take(semaphore), left.to_owned());
    }
    fd::write(lone, &2_u64.to_ne_bytes())?;
    zoo.expect("one of a semaphore that held one", take(lone), "1".to_owned());
    zoo.expect("the empty one", take(empty), "errno 11".to_owned());
    zoo.check("the full one takes no more", fd::write(most, &1_u64.to_ne_bytes()).is_err());
    fd::write(shared, &7_u64.to_ne_bytes())?;
    zoo.reap("the child that shares one", child);
    Ok(())
}
