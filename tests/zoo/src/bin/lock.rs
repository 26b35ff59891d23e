//! Kind `lock`: flock, POSIX and open-file-description locks, as others see them.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn open(zoo: &Zoo) -> Outcome<i32> {
    let path = zoo.cpath("locked")?;
    sys!(open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, 0o600))
}

fn region(kind: i32, start: i64, length: i64) -> libc::flock {
    let mut lock: libc::flock = sys::zeroed();
    lock.l_type = kind as libc::c_short;
    lock.l_start = start as libc::off_t;
    lock.l_len = length as libc::off_t;
    lock
}

/// Who stands in the way of a write lock of one byte there: `free`, or the owner and the sort of the lock.
fn owner(file: i32, at: i64) -> String {
    let mut lock = region(libc::F_WRLCK, at, 1);
    match sys!(fcntl(file, libc::F_GETLK, &raw mut lock)) {
        Ok(_) if i32::from(lock.l_type) == libc::F_UNLCK => "free".into(),
        Ok(_) => format!("{} {} from {} for {}", lock.l_pid, lock.l_type, lock.l_start, lock.l_len),
        Err(problem) => problem.0,
    }
}

fn program(zoo: &mut Zoo) -> Outcome {
    let file = open(zoo)?;
    fd::write(file, &[b'.'; 1000])?;
    let write = region(libc::F_WRLCK, 10, 10);
    let read = region(libc::F_RDLCK, 30, 5);
    let rest = region(libc::F_WRLCK, 500, 0);
    let described = open(zoo)?;
    let own = region(libc::F_WRLCK, 100, 50);
    sys!(fcntl(file, libc::F_SETLK, &raw const write))?;
    sys!(fcntl(file, libc::F_SETLK, &raw const read))?;
    sys!(fcntl(file, libc::F_SETLK, &raw const rest))?;
    sys!(fcntl(described, libc::F_OFD_SETLK, &raw const own))?;
    let flocked = open(zoo)?;
    sys!(flock(flocked, libc::LOCK_EX))?;
    // The child's own POSIX lock, and its view of ours: a lock is never in the way of its owner.
    let (wait, tell) = fd::pipe(libc::O_CLOEXEC)?;
    let child = zoo.fork(move |zoo| {
        let mine = region(libc::F_WRLCK, 200, 7);
        sys!(fcntl(file, libc::F_SETLK, &raw const mine))?;
        for at in [9, 10, 19, 20, 30, 34, 35, 100, 149, 200, 499, 500, 100_000] {
            zoo.keep(&format!("owner of byte {at} as a child sees it"), move || owner(file, at));
        }
        zoo.arrive();
        // Not by the go file: its lock must be there while the parent looks.
        fd::read(wait, 1)?;
        zoo.verify();
        Ok(())
    })?;
    for at in [10, 100, 199, 200, 206, 207] {
        zoo.keep(&format!("owner of byte {at}"), move || owner(file, at));
    }
    for (what, fd) in [("POSIX", file), ("OFD", described), ("flock", flocked)] {
        zoo.keep(&format!("number of {what} locks in fdinfo"), move || {
            let all = zoo::proc::text(&format!("/proc/self/fdinfo/{fd}"));
            all.lines().filter(|line| line.starts_with("lock:")).count().to_string()
        });
    }
    let other = open(zoo)?;
    zoo.keep("flock as another description sees it", move || {
        fd::outcome_of(sys!(flock(other, libc::LOCK_SH | libc::LOCK_NB)))
    });
    zoo.ready();
    fd::write(tell, b"!")?;
    zoo.reap("the child with its own lock", child);
    zoo.expect("the lock of a dead process", owner(file, 200), "free".to_owned());
    sys!(flock(flocked, libc::LOCK_UN))?;
    sys!(flock(other, libc::LOCK_EX | libc::LOCK_NB))?;
    fd::close(described);
    zoo.expect("a description's lock after its close", owner(file, 100), "free".to_owned());
    Ok(())
}
