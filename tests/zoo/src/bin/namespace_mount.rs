//! Kind `namespace`: a mount table of a process's own: files in memory that nobody else sees, a directory bound over
//! another, one that became read-only, and one that was unmounted; open and mapped files and a socket with three
//! names in there.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use zoo::mount::{mount, private, text};
use zoo::{Outcome, Zoo, sys};

fn main() {
    zoo::run(program)
}

/// The table, as far as it has to do with this program.
fn table(word: &str) -> String {
    let of = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let tail = words.iter().position(|word| *word == "-").unwrap_or(words.len());
        format!("{} {} {} {}", words[3], words[4], words[5], words[tail..].join(" "))
    };
    let text = zoo::proc::text("/proc/thread-self/mountinfo");
    let mine = text.lines().filter(|line| line.contains(word));
    mine.map(of).collect::<Vec<_>>().join("\n")
}

fn away(zoo: &mut Zoo, base: &Path) -> Outcome {
    private()?;
    let (memory, bound, still, gone) =
        (base.join("memory"), base.join("bound"), base.join("still"), base.join("gone"));
    mount(Path::new("zoo"), &memory, Some("tmpfs"), libc::MS_NOSUID)?;
    std::fs::create_dir(memory.join("folder"))?;
    std::fs::set_permissions(memory.join("folder"), std::fs::Permissions::from_mode(0o751))?;
    std::fs::write(memory.join("folder/kept"), "what only the child has")?;
    mount(&memory.join("folder"), &bound, None, libc::MS_BIND)?;
    mount(&still, &still, None, libc::MS_BIND)?;
    mount(Path::new("none"), &still, None, libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY)?;
    let name = text(&gone)?;
    sys!(umount2(name.as_ptr(), 0))?;
    let mut file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(memory.join("open"))?;
    file.write_all(b"0123456789")?;
    file.seek(SeekFrom::Start(4))?;
    let size = 4096;
    let mapped = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(memory.join("mapped"))?;
    mapped.set_len(size as u64)?;
    let at = {
        use std::os::fd::AsRawFd;
        let (flags, protection) = (libc::MAP_SHARED, libc::PROT_READ | libc::PROT_WRITE);
        sys!(mmap(std::ptr::null_mut(), size, protection, flags, mapped.as_raw_fd(), 0))?.cast::<u8>()
    };
    drop(mapped);
    // SAFETY: within the mapping, here and below.
    unsafe { at.write(5) };
    let listener = UnixListener::bind(memory.join("socket"))?;
    std::fs::set_permissions(memory.join("socket"), std::fs::Permissions::from_mode(0o612))?;
    // Before and after the one that it was bound to; and one that nobody bound any more.
    std::fs::hard_link(memory.join("socket"), memory.join("another"))?;
    std::fs::hard_link(memory.join("socket"), memory.join("third"))?;
    drop(UnixListener::bind(memory.join("left"))?);
    std::fs::hard_link(memory.join("left"), memory.join("left too"))?;
    std::env::set_current_dir(memory.join("folder"))?;
    let word = base.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    zoo.keep("the table", move || table(&word));
    zoo.keep("the directory", || zoo::proc::link("/proc/self/cwd"));
    let (socket, folder) = (memory.join("socket"), memory.join("folder"));
    zoo.keep("modes", move || {
        let mode = |path: &Path| std::fs::metadata(path).map(|m| m.permissions().mode()).unwrap_or(0);
        format!("{:o} {:o}", mode(&socket), mode(&folder))
    });
    zoo.keep("whether it is where its parent is", || zoo::proc::with_parent("mnt"));
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    let mut rest = String::new();
    file.read_to_string(&mut rest)?;
    zoo.expect("an open file", rest, "456789".to_owned());
    zoo.expect(
        "a file by its bound name",
        std::fs::read_to_string(bound.join("kept"))?,
        "what only the child has".into(),
    );
    std::fs::write("new", "through the working directory")?;
    zoo.check("they are one directory", bound.join("new").exists());
    // SAFETY: within the mapping.
    unsafe { at.add(1).write(6) };
    zoo.expect("a mapped file", std::fs::read(memory.join("mapped"))?[..2].to_vec(), vec![5, 6]);
    zoo.check("what is read-only", std::fs::write(still.join("new"), "").is_err());
    zoo.check("what was unmounted", !gone.join("there").exists());
    for name in ["socket", "another", "third"] {
        let mut client = UnixStream::connect(memory.join(name))?;
        let (mut server, _) = listener.accept()?;
        client.write_all(b"hello")?;
        let mut got = [0; 5];
        server.read_exact(&mut got)?;
        zoo.expect("a socket's name", &got, b"hello");
    }
    use std::os::unix::fs::MetadataExt;
    let links = |name: &str| std::fs::symlink_metadata(memory.join(name)).map(|meta| meta.nlink());
    zoo.expect("how many names they have", (links("third")?, links("left")?, links("left too")?), (3, 2, 2));
    // Nothing of it is on the way of those who clean up.
    Ok(())
}

fn program(zoo: &mut Zoo) -> Outcome {
    let base = zoo.path("base");
    for name in ["memory", "bound", "still", "gone"] {
        std::fs::create_dir_all(base.join(name))?;
    }
    let gone = base.join("gone");
    mount(Path::new("zoo"), &gone, Some("tmpfs"), 0)?;
    std::fs::write(gone.join("there"), "")?;
    let there = base.clone();
    let child = zoo.fork(move |zoo| away(zoo, &there))?;
    let word = base.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    zoo.keep("the table at home", move || table(&word));
    zoo.ready();
    zoo.reap("the child", child);
    zoo.check("home has none of it", std::fs::read_dir(base.join("memory"))?.next().is_none());
    zoo.check("what is read-only only there", std::fs::write(base.join("still/new"), "").is_ok());
    zoo.check("what is unmounted only there", gone.join("there").exists());
    let name = text(&gone)?;
    sys!(umount2(name.as_ptr(), libc::MNT_DETACH))?;
    std::fs::remove_dir_all(&base)?;
    Ok(())
}
