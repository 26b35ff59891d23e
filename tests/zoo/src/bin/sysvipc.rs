//! Kind `sysvipc`: segments that are attached, once and several times, by several processes, locked and marked for
//! destruction; queues with messages, and sets of semaphores.

use zoo::proc::mapping;
use zoo::{Outcome, Problem, Zoo, sys};

fn main() {
    zoo::run(program)
}

/// Keys that no other program has.
const KEY: i32 = 0x5a00_0001;
const SIZE: usize = 10_000;

/// The line of an object in a table, without times, the processes of last operations, and what is paged.
fn line(table: &str, id: i32) -> String {
    let (lost, last): (&[usize], usize) = if table == "sem" { (&[], 7) } else { (&[4, 5], 10) };
    let lost: &[usize] = if table == "msg" { &[5, 6] } else { lost };
    let text = zoo::proc::text(&format!("/proc/sysvipc/{table}"));
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.get(1) == Some(&id.to_string().as_str()) {
            let kept = words.iter().enumerate().filter(|(at, _)| *at <= last && !lost.contains(at));
            return kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" ");
        }
    }
    "none".into()
}

fn attach(id: i32, flags: i32) -> Outcome<*mut u8> {
    Ok(sys!(shmat(id, std::ptr::null(), flags))?.cast())
}

fn send(queue: i32, kind: libc::c_long, text: &[u8]) -> Outcome {
    let mut message = kind.to_ne_bytes().to_vec();
    message.extend_from_slice(text);
    sys!(msgsnd(queue, message.as_ptr().cast(), text.len(), libc::IPC_NOWAIT))?;
    Ok(())
}

fn receive(queue: i32, kind: libc::c_long) -> Outcome<(libc::c_long, Vec<u8>)> {
    const WORD: usize = size_of::<libc::c_long>();
    let mut message = vec![0_u8; WORD + 100];
    let got = sys!(msgrcv(queue, message.as_mut_ptr().cast(), 100, kind, libc::IPC_NOWAIT))?;
    let kind = libc::c_long::from_ne_bytes(message[..WORD].try_into().map_err(|_| Problem("short".into()))?);
    Ok((kind, message[WORD..WORD + got as usize].to_vec()))
}

fn value(set: i32, index: i32) -> i32 {
    // SAFETY: this command has no further argument.
    unsafe { libc::semctl(set, index, libc::GETVAL) }
}

fn set(set: i32, index: i32, value: i32) -> Outcome {
    sys!(semctl(set, index, libc::SETVAL, value))?;
    Ok(())
}

fn program(zoo: &mut Zoo) -> Outcome {
    // One before, so that the next has no id that a fresh boot would give it.
    let first = match sys!(shmget(libc::IPC_PRIVATE, 1, libc::IPC_CREAT | 0o600)) {
        Err(_) if sys::errno() == libc::ENOSYS => zoo.skip("no System V IPC"),
        first => first?,
    };
    let big = sys!(shmget(KEY, SIZE, libc::IPC_CREAT | libc::IPC_EXCL | 0o640))?;
    let gone = sys!(shmget(KEY + 1, 4096, libc::IPC_CREAT | libc::IPC_EXCL | 0o600))?;
    sys!(shmctl(first, libc::IPC_RMID, std::ptr::null_mut()))?;
    let at = attach(big, 0)?;
    // What PostgreSQL does: a small one with a key, which says by its number of users whether the owner lives.
    let small = sys!(shmget(KEY + 2, 56, libc::IPC_CREAT | libc::IPC_EXCL | 0o600))?;
    let header = attach(small, 0)?;
    let (doomed, read_only) = (attach(gone, 0)?, attach(gone, libc::SHM_RDONLY)?);
    sys!(shmctl(gone, libc::IPC_RMID, std::ptr::null_mut()))?;
    let mut owner: libc::shmid_ds = sys::zeroed();
    sys!(shmctl(big, libc::IPC_STAT, &raw mut owner))?;
    (owner.shm_perm.uid, owner.shm_perm.gid) = (7, 8);
    sys!(shmctl(big, libc::IPC_SET, &raw mut owner))?;
    sys!(shmctl(big, 11, std::ptr::null_mut()))?;
    // SAFETY: within the segments, here and below.
    unsafe {
        at.write_volatile(b'a');
        at.add(SIZE - 1).write_volatile(b'z');
        header.add(55).write_volatile(b'h');
        doomed.write_volatile(b'd');
        at.add(4096).write_volatile(b'm');
    }
    sys!(mprotect(at.add(4096).cast(), 4096, libc::PROT_READ))?;
    let queue = sys!(msgget(KEY, libc::IPC_CREAT | libc::IPC_EXCL | 0o620))?;
    for (kind, text) in [(3, &b"three"[..]), (1, b"one"), (3, b""), (2, b"two")] {
        send(queue, kind, text)?;
    }
    let semaphores = sys!(semget(KEY, 3, libc::IPC_CREAT | libc::IPC_EXCL | 0o660))?;
    set(semaphores, 0, 5)?;
    set(semaphores, 2, 32767)?;
    let (start, both) = (at as usize, doomed as usize);
    let child = zoo.fork_blocked(move |zoo| {
        zoo.arrive();
        zoo.wait();
        // SAFETY: inherited segments.
        let asked = zoo::eventually(5000, || unsafe {
            (start as *const u8).add(1).read_volatile() == b'?'
                && (both as *const u8).add(1).read_volatile() == b'!'
        });
        zoo.check("the parent writes through both", asked);
        Ok(())
    })?;
    for (table, id) in [("shm", big), ("shm", small), ("shm", gone), ("msg", queue), ("sem", semaphores)] {
        zoo.keep(&format!("{table} {id}"), move || line(table, id));
    }
    let parts = [at as usize, at as usize + 4096, at as usize + 8192, header as usize];
    for (what, at) in ["start", "middle", "end", "small"].iter().zip(parts) {
        zoo.keep(&format!("the mapping of the {what}"), move || mapping(at));
    }
    // Without its name, which has the key that is gone.
    for at in [doomed as usize, read_only as usize] {
        zoo.keep("a mapping of what is marked", move || {
            mapping(at).split_whitespace().take(3).collect::<Vec<_>>().join(" ")
        });
    }
    zoo.ready();
    // SAFETY: as above.
    unsafe {
        let seen = [at, at.add(SIZE - 1), at.add(SIZE), at.add(4096), header.add(55), read_only];
        zoo.expect("contents", seen.map(|at| at.read_volatile()), *b"az\0mhd");
        at.add(1).write_volatile(b'?');
        doomed.add(1).write_volatile(b'!');
        zoo.expect("both mappings are one", read_only.add(1).read_volatile(), b'!');
    }
    zoo.reap("the child that shares them", child);
    zoo.expect("the segment of the key", sys!(shmget(KEY, SIZE, 0)).ok(), Some(big));
    // With one call all of it goes, although a part is protected.
    sys!(shmdt(at.cast()))?;
    zoo.expect("what is left of it", mapping(start + 8192), mapping(1));
    sys!(shmdt(doomed.cast()))?;
    zoo.check("the second mapping keeps what is marked", line("shm", gone) != "none");
    sys!(shmdt(read_only.cast()))?;
    zoo.expect("what was marked", line("shm", gone), "none".into());
    zoo.expect("the oldest message of type 3", receive(queue, 3)?, (3, b"three".to_vec()));
    zoo.expect("the lowest type up to 2", receive(queue, -2)?, (1, b"one".to_vec()));
    zoo.expect("the next", receive(queue, 0)?, (3, Vec::new()));
    zoo.expect("the last", receive(queue, 0)?, (2, b"two".to_vec()));
    zoo.expect("values", [0, 1, 2].map(|index| value(semaphores, index)), [5, 0, 32767]);
    for id in [big, small] {
        sys!(shmctl(id, libc::IPC_RMID, std::ptr::null_mut()))?;
    }
    sys!(msgctl(queue, libc::IPC_RMID, std::ptr::null_mut()))?;
    sys!(semctl(semaphores, 0, libc::IPC_RMID))?;
    Ok(())
}
