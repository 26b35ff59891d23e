//! Kind `regular`: offsets, flags, sharing by dup and fork, files renamed or linked, O_PATH, owners of SIGIO.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;

fn open(zoo: &Zoo, name: &str, flags: i32) -> Outcome<i32> {
    let path = zoo.cpath(name)?;
    sys!(open(path.as_ptr(), flags | libc::O_CREAT, 0o644))
}

fn seek(fd: i32, to: i64) -> Outcome<i64> {
    Ok(sys!(lseek(fd, to as libc::off_t, libc::SEEK_SET))? as i64)
}

fn program(zoo: &mut Zoo) -> Outcome {
    std::fs::write(zoo.path("text"), b"0123456789")?;
    let reader = open(zoo, "text", libc::O_RDONLY | libc::O_CLOEXEC)?;
    seek(reader, 3)?;
    let duplicate = sys!(dup(reader))?;
    let other = open(zoo, "text", libc::O_RDONLY)?;
    seek(other, 8)?;
    let log = open(zoo, "log", libc::O_WRONLY | libc::O_APPEND)?;
    fd::write(log, b"before;")?;
    let both = open(zoo, "both", libc::O_RDWR | libc::O_NONBLOCK | libc::O_TRUNC)?;
    fd::write(both, b"abcdef")?;
    seek(both, 2)?;
    let beyond = open(zoo, "beyond", libc::O_RDWR)?;
    seek(beyond, 1 << 33)?;
    let path_only = open(zoo, "text", libc::O_PATH)?;
    let exclusive = open(zoo, "exclusive", libc::O_RDWR | libc::O_EXCL)?;
    std::fs::rename(zoo.path("exclusive"), zoo.path("renamed"))?;
    let null = sys!(open(c"/dev/null".as_ptr(), libc::O_RDWR))?;
    let status = sys!(open(c"/proc/self/status".as_ptr(), libc::O_RDONLY))?;
    let own = std::process::id() as i32;
    sys!(fcntl(both, libc::F_SETOWN, own))?;
    sys!(fcntl(both, F_SETSIG, libc::SIGURG))?;
    for file in [reader, duplicate, other, log, both, beyond, path_only, exclusive, null, status] {
        zoo.keep(&format!("flags and offset of {file}"), move || fd::flags(file));
        zoo.keep(&format!("name of {file}"), move || zoo::proc::link(&format!("/proc/self/fd/{file}")));
    }
    zoo.keep("owner", move || format!("{:?}", sys!(fcntl(both, libc::F_GETOWN)).ok()));
    zoo.keep("signal", move || format!("{:?}", sys!(fcntl(both, F_GETSIG)).ok()));
    zoo.keep("list of descriptors", descriptors);
    let child = zoo.fork(move |zoo| {
        zoo.arrive();
        zoo.wait();
        let moved = zoo::eventually(5000, || fd::flags(reader).ends_with("offset 5"));
        zoo.check("the parent moves the offset of a shared description", moved);
        zoo.expect("the child reads on", fd::read(reader, 2)?, b"56".to_vec());
        Ok(())
    })?;
    zoo.ready();

    zoo.expect("reading on", fd::read(reader, 1)?, b"3".to_vec());
    zoo.expect("reading on through the duplicate", fd::read(duplicate, 1)?, b"4".to_vec());
    zoo.expect("a description of its own", fd::read_text(other), "89".to_owned());
    zoo.reap("the child that shares an offset", child);
    zoo.expect("after the child", fd::read_text(duplicate), "789".to_owned());
    fd::write(log, b"after")?;
    zoo.expect("an appended file", std::fs::read_to_string(zoo.path("log"))?, "before;after".to_owned());
    fd::write(both, b"XY")?;
    zoo.expect("a written file", std::fs::read_to_string(zoo.path("both"))?, "abXYef".to_owned());
    fd::write(exclusive, b"renamed")?;
    zoo.expect("a renamed file", std::fs::read_to_string(zoo.path("renamed"))?, "renamed".to_owned());
    zoo.check("O_PATH gives no reading", fd::read(path_only, 1).is_err());
    zoo.check("reading one's status", fd::read_text(status).starts_with("Name:"));
    Ok(())
}

fn descriptors() -> String {
    let mut numbers: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .map(|dir| {
            dir.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect()
        })
        .unwrap_or_default();
    numbers.sort_unstable();
    numbers.pop(); // the directory itself
    format!("{numbers:?}")
}
