//! Kind `namespace`: names of the system and System V IPC of a process's own, of its children, and of one that went
//! home again.

use zoo::{Outcome, Zoo, sys};

fn main() {
    zoo::run(program)
}

const KEY: i32 = 0x5a00_1001;
const BOTH: i32 = libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;

/// Names of the system, and a limit of System V IPC.
fn names() -> String {
    let read = |name: &str| zoo::proc::text(&format!("/proc/sys/kernel/{name}"));
    format!("{}{}{}", read("hostname"), read("domainname"), read("msgmnb"))
}

/// The lines of the tables without times, for our key: elsewhere in the first namespace are others.
fn objects() -> String {
    let mut found = String::new();
    for table in ["shm", "msg", "sem"] {
        for line in zoo::proc::text(&format!("/proc/sysvipc/{table}"))
            .lines()
            .filter(|line| line.trim_start().starts_with(&format!("{KEY} ")))
        {
            found.push_str(&line.split_whitespace().take(4).collect::<Vec<_>>().join(" "));
            found.push(';');
        }
    }
    found
}

fn keep(zoo: &mut Zoo) {
    zoo.keep("names", names);
    zoo.keep("objects", objects);
    for sort in ["uts", "ipc"] {
        zoo.keep(&format!("whether it has the {sort} namespace of its parent"), move || {
            zoo::proc::with_parent(sort)
        });
    }
}

fn set_name(name: &str) -> Outcome {
    sys!(sethostname(name.as_ptr().cast(), name.len()))?;
    Ok(())
}

fn away(zoo: &mut Zoo, of_home: *mut u8) -> Outcome {
    sys!(shmdt(of_home.cast()))?;
    let home = std::os::unix::process::parent_id();
    sys!(unshare(BOTH))?;
    set_name("zoo-away")?;
    sys!(setdomainname(c"zoo.example".as_ptr(), 11))?;
    std::fs::write("/proc/sys/kernel/msgmnb", "20000\n")?;
    let segment = sys!(shmget(KEY, 8192, libc::IPC_CREAT | 0o600))?;
    let at = sys!(shmat(segment, std::ptr::null(), 0))?.cast::<u8>();
    let queue = sys!(msgget(KEY, libc::IPC_CREAT | 0o600))?;
    let message = [&1_usize.to_ne_bytes()[..], b"12345678"].concat();
    sys!(msgsnd(queue, message.as_ptr().cast(), size_of::<usize>(), libc::IPC_NOWAIT))?;
    // SAFETY: within the segment, here and below.
    unsafe { at.write(7) };
    let below = zoo.fork(|zoo| {
        keep(zoo);
        zoo.arrive();
        zoo.wait();
        zoo.verify();
        // SAFETY: the segment is attached here too.
        zoo.expect("what a child sees in the segment", unsafe { at.read() }, 7);
        // SAFETY: see above.
        unsafe { at.add(1).write(9) };
        Ok(())
    })?;
    let back = zoo.fork(move |zoo| {
        use std::os::fd::AsRawFd;
        let (there, door) =
            (std::fs::File::open("/proc/self/ns/uts")?, std::fs::File::open(format!("/proc/{home}/ns/uts"))?);
        sys!(setns(door.as_raw_fd(), 0))?;
        keep(zoo);
        zoo.arrive();
        zoo.wait();
        zoo.verify();
        // Handles lead where they did.
        let before = names();
        sys!(setns(there.as_raw_fd(), libc::CLONE_NEWUTS))?;
        zoo.check("the handle of the other one", names() != before);
        sys!(setns(door.as_raw_fd(), libc::CLONE_NEWUTS))?;
        zoo.expect("the handle of this one", names(), before);
        Ok(())
    })?;
    keep(zoo);
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    zoo.reap("a child there", below);
    zoo.reap("one that went back", back);
    // SAFETY: within the segment.
    zoo.expect("what a child wrote", unsafe { at.add(1).read() }, 9);
    let mut got = [0_u8; 64];
    let length = sys!(msgrcv(queue, got.as_mut_ptr().cast(), 32, 0, libc::IPC_NOWAIT))?;
    zoo.expect("the message's length", length as usize, size_of::<usize>());
    set_name("changed")
}

fn program(zoo: &mut Zoo) -> Outcome {
    set_name("zoo-home")?;
    // The same key and, in all likelihood, the same id as in the other one.
    let segment = match sys!(shmget(KEY, 4096, libc::IPC_CREAT | 0o600)) {
        Err(_) if sys::errno() == libc::ENOSYS => zoo.skip("no System V IPC"),
        segment => segment?,
    };
    let at = sys!(shmat(segment, std::ptr::null(), 0))?.cast::<u8>();
    // SAFETY: within the segment, here and below.
    unsafe { at.write(1) };
    let child = zoo.fork(|zoo| away(zoo, at))?;
    keep(zoo);
    zoo.ready();
    zoo.reap("the child", child);
    // SAFETY: within the segment.
    zoo.expect("the segment at home", unsafe { at.read() }, 1);
    zoo.expect("the name at home", names().starts_with("zoo-home\n"), true);
    sys!(shmctl(segment, libc::IPC_RMID, std::ptr::null_mut()))?;
    Ok(())
}
