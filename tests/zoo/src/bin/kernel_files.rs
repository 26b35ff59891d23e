//! Kind `regular`: files that the kernel makes up (proc(5), sysfs(5)): half read, open for writing, of oneself,
//! of a child and of a zombie.

use std::sync::atomic::{AtomicU64, Ordering};

use zoo::{Outcome, Zoo, fd, proc, sys};

fn main() {
    zoo::run(program)
}

static LOOKED_AT: AtomicU64 = AtomicU64::new(0x0123_4567_89ab_cdef);

fn open(path: &str, flags: i32) -> Outcome<i32> {
    let path = std::ffi::CString::new(path).map_err(|_| "NUL in a path")?;
    sys!(open(path.as_ptr(), flags))
}

/// A file that was read up to `count` bytes, and what must come next.
fn half(path: &str, count: usize) -> Outcome<(i32, Vec<u8>)> {
    let all = std::fs::read(path)?;
    let file = open(path, libc::O_RDONLY)?;
    let head = fd::read(file, count)?;
    let rest = all.strip_prefix(head.as_slice()).ok_or(format!("half of {path} is another text"))?;
    Ok((file, rest.to_vec()))
}

fn rest(file: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(more) = fd::read(file, 65536)
        && !more.is_empty()
    {
        bytes.extend(more);
    }
    bytes
}

fn whole(file: i32) -> String {
    String::from_utf8_lossy(&rest(file)).into_owned()
}

fn program(zoo: &mut Zoo) -> Outcome {
    sys!(unshare(libc::CLONE_NEWUTS))?;
    let host = b"half-read-host";
    sys!(sethostname(host.as_ptr().cast(), host.len()))?;
    let mut halves = Vec::new();
    for (path, count) in [
        ("/proc/sys/kernel/hostname", 5),
        ("/proc/version", 9),
        ("/proc/self/limits", 100),
        ("/proc/self/cmdline", 3),
        ("/proc/self/auxv", 16),
        ("/sys/devices/virtual/mem/null/uevent", 6),
    ] {
        halves.push((path, half(path, count)?));
    }
    let maps = open("/proc/self/maps", libc::O_RDONLY)?;
    let first = fd::read(maps, 40)?;
    let memory = open("/proc/self/mem", libc::O_RDWR | libc::O_CLOEXEC)?;
    let place = (&raw const LOOKED_AT) as usize;
    sys!(lseek(memory, place as libc::off_t, libc::SEEK_SET))?;
    let of_thread = open("/proc/thread-self/comm", libc::O_RDONLY)?;
    let comm = open("/proc/self/comm", libc::O_WRONLY)?;
    let score = open("/proc/self/oom_score_adj", libc::O_RDWR)?;
    let host = open("/proc/sys/kernel/hostname", libc::O_WRONLY | libc::O_CLOEXEC)?;
    let domain = open("/proc/sys/kernel/domainname", libc::O_RDWR)?;
    let child = zoo.fork(|zoo| {
        zoo.arrive();
        zoo.wait();
        zoo.check(
            "the child's score",
            zoo::eventually(5000, || proc::text("/proc/self/oom_score_adj") == "77\n"),
        );
        Ok(())
    })?;
    let of_child = open(&format!("/proc/{child}"), libc::O_RDONLY | libc::O_DIRECTORY)?;
    let status = open(&format!("/proc/{child}/status"), libc::O_RDONLY)?;
    let looked_up = open(&format!("/proc/{child}/stat"), libc::O_PATH)?;
    let childs_score = open(&format!("/proc/{child}/oom_score_adj"), libc::O_WRONLY)?;
    let zombie = sys!(fork())?;
    if zombie == 0 {
        // SAFETY: ends a child.
        unsafe { libc::_exit(3) }
    }
    zoo.check("the zombie", zoo::eventually(5000, || proc::stat(&zombie.to_string(), 3) == "Z"));
    let of_zombie = open(&format!("/proc/{zombie}/stat"), libc::O_RDONLY)?;
    let mut files: Vec<i32> = halves.iter().map(|(_, (file, _))| *file).collect();
    files.extend([maps, memory, of_thread, comm, score, host, domain]);
    files.extend([of_child, status, looked_up, childs_score, of_zombie]);
    for file in files {
        zoo.keep(&format!("flags and offset of {file}"), move || fd::flags(file));
        zoo.keep(&format!("name of {file}"), move || proc::link(&format!("/proc/self/fd/{file}")));
    }
    zoo.keep("host name", || proc::text("/proc/sys/kernel/hostname"));
    zoo.ready();

    for (path, (file, wanted)) in halves {
        zoo.expect(&format!("the rest of {path}"), rest(file), wanted);
    }
    let first = String::from_utf8_lossy(&first).into_owned();
    zoo.check("the mappings, read in two pieces", mappings(&(first + &whole(maps))));
    read_memory(zoo, memory)?;
    fd::write(comm, b"by-its-file")?;
    zoo.expect("the leader's name", whole(of_thread), "by-its-file\n".into());
    zoo.expect("one's own name", proc::text("/proc/self/comm"), "by-its-file\n".into());
    fd::write(score, b"55")?;
    zoo.expect("one's own score", proc::text("/proc/self/oom_score_adj"), "55\n".into());
    fd::write(host, b"another-host")?;
    zoo.expect("the new host name", proc::text("/proc/sys/kernel/hostname"), "another-host\n".into());
    fd::write(domain, b"another.domain")?;
    zoo.expect("the new domain", proc::text("/proc/sys/kernel/domainname"), "another.domain\n".into());
    let pid = format!("\nPid:\t{child}\n");
    zoo.check("the child's status", whole(status).contains(&pid));
    let again = sys!(openat(of_child, c"status".as_ptr(), libc::O_RDONLY))?;
    zoo.check("its status by its directory", whole(again).contains(&pid));
    let again = open(&format!("/proc/self/fd/{looked_up}"), libc::O_RDONLY)?;
    zoo.check("its line by the place", whole(again).starts_with(&format!("{child} (")));
    let state = whole(of_zombie);
    zoo.check("the zombie's line", state.starts_with(&format!("{zombie} (")) && state.contains(") Z "));
    fd::write(childs_score, b"77")?;
    zoo.reap("the child", child);
    zoo.reap_as("the zombie", zombie, "exit 3");
    zoo.check("a status of nobody", whole(status).is_empty());
    Ok(())
}

/// Whether every line of it is one of a mapping, in their order.
fn mappings(text: &str) -> bool {
    let starts: Vec<_> = text.lines().map(|line| proc::range(line).map(|(start, _)| start)).collect();
    starts.len() > 4 && starts.iter().all(Option::is_some) && starts.is_sorted()
}

/// What is read and written at the place where the file stands is the memory of this process.
fn read_memory(zoo: &mut Zoo, memory: i32) -> Outcome {
    LOOKED_AT.store(0x1122_3344_5566_7788, Ordering::SeqCst);
    let bytes = fd::read(memory, 8)?;
    zoo.expect("one's own memory", bytes, 0x1122_3344_5566_7788_u64.to_ne_bytes().to_vec());
    sys!(lseek(memory, -8, libc::SEEK_CUR))?;
    fd::write(memory, &7_u64.to_ne_bytes())?;
    zoo.expect("what was written to it", LOOKED_AT.load(Ordering::SeqCst), 7);
    Ok(())
}
