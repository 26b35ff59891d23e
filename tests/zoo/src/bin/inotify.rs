//! Kind `inotify`: watches keep their numbers, masks and places; events made later come in.
//!
//! The queue itself cannot be carried, so the program reads it empty before it says READY.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn watch(inotify: i32, path: &std::path::Path, mask: u32) -> Outcome<i32> {
    let name = std::ffi::CString::new(path.to_string_lossy().into_owned()).map_err(|_| "NUL in a path")?;
    sys!(inotify_add_watch(inotify, name.as_ptr(), mask))
}

/// Events in the queue: (watch, mask, name).
fn events(inotify: i32) -> Vec<(i32, u32, String)> {
    let Ok(bytes) = fd::read(inotify, 4096) else { return Vec::new() };
    let word = |at: usize| bytes.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    let mut found = Vec::new();
    let mut at = 0;
    while at + 16 <= bytes.len() {
        let length = word(at + 12) as usize;
        let name =
            String::from_utf8_lossy(&bytes[at + 16..at + 16 + length]).trim_end_matches('\0').to_owned();
        found.push((word(at) as i32, word(at + 4), name));
        at += 16 + length;
    }
    found
}

fn watches(inotify: i32) -> String {
    let all = zoo::proc::text(&format!("/proc/self/fdinfo/{inotify}"));
    let mut lines: Vec<String> = all
        .lines()
        .filter(|line| line.starts_with("inotify"))
        .map(|line| {
            line.split(' ')
                .filter(|word| ["wd:", "mask:", "ignored_mask:"].iter().any(|k| word.starts_with(k)))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    lines.sort();
    lines.join("; ")
}

/// A daemon that has changed its root, and watches what it finds there. Waits by a pipe: the go file has no name.
fn jailed(zoo: &mut Zoo, reader: i32) -> Outcome {
    std::fs::create_dir_all(zoo.path("jail/sub"))?;
    let name = zoo.cpath("jail")?;
    sys!(chroot(name.as_ptr()))?;
    std::env::set_current_dir("/")?;
    let inotify = sys!(inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC))?;
    let folder = watch(inotify, std::path::Path::new("/sub"), libc::IN_CREATE)?;
    zoo.arrive();
    fd::read(reader, 1)?;
    std::fs::write("/sub/new", b"1")?;
    zoo.expect("an event in the jail", events(inotify), vec![(folder, libc::IN_CREATE, "new".into())]);
    Ok(())
}

fn program(zoo: &mut Zoo) -> Outcome {
    let (reader, writer) = fd::pipe(libc::O_CLOEXEC)?;
    let jail = zoo.fork(move |zoo| jailed(zoo, reader))?;
    let dir = zoo.path("watched");
    std::fs::create_dir(&dir)?;
    std::fs::write(dir.join("file"), b"1")?;
    let inotify = sys!(inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC))?;
    let gone = watch(inotify, &std::env::temp_dir(), libc::IN_OPEN)?;
    let file = watch(inotify, &dir.join("file"), libc::IN_MODIFY | libc::IN_ATTRIB)?;
    let folder = watch(inotify, &dir, libc::IN_CREATE | libc::IN_DELETE | libc::IN_MOVED_TO)?;
    sys!(inotify_rm_watch(inotify, gone))?;
    let empty = sys!(inotify_init1(libc::IN_NONBLOCK))?;
    events(inotify);
    for fd in [inotify, empty] {
        zoo.keep(&format!("flags of {fd}"), move || fd::flags(fd));
        zoo.keep(&format!("watches of {fd}"), move || watches(fd));
    }
    zoo.ready();
    zoo.expect("events from the restore itself", events(inotify), vec![]);
    std::fs::write(dir.join("new"), b"2")?;
    zoo.expect("an event of the directory", events(inotify), vec![(folder, libc::IN_CREATE, "new".into())]);
    let target =
        std::ffi::CString::new(dir.join("file").to_string_lossy().into_owned()).map_err(|_| "NUL")?;
    let opened = sys!(open(target.as_ptr(), libc::O_WRONLY))?;
    fd::write(opened, b"3")?;
    fd::close(opened);
    zoo.expect("an event of the file", events(inotify), vec![(file, libc::IN_MODIFY, String::new())]);
    std::fs::remove_file(dir.join("new"))?;
    zoo.expect("a deletion", events(inotify), vec![(folder, libc::IN_DELETE, "new".into())]);
    let next = watch(inotify, &std::env::temp_dir(), libc::IN_OPEN)?;
    zoo.expect("the number of the next watch", next, folder + 1);
    fd::write(writer, b"!")?;
    zoo.reap("the child with another root", jail);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
