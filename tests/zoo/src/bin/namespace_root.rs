//! Kind `namespace`: a sandbox: another root in memory, with parts of the old one bound into it.

use std::path::Path;

use zoo::mount::{mount, private};
use zoo::{Outcome, Zoo, sys};

fn main() {
    zoo::run(program)
}

/// The table without numbers.
fn table() -> String {
    let of = |line: &str| line.split(' ').skip(3).collect::<Vec<_>>().join(" ");
    zoo::proc::text("/proc/thread-self/mountinfo").lines().map(of).collect::<Vec<_>>().join("\n")
}

fn away(zoo: &mut Zoo, base: &Path, folder: &Path) -> Outcome {
    private()?;
    mount(Path::new("sandbox"), base, Some("tmpfs"), libc::MS_NODEV)?;
    for name in ["proc", "etc", "tmp"] {
        std::fs::create_dir(base.join(name))?;
    }
    mount(Path::new("proc"), &base.join("proc"), Some("proc"), 0)?;
    mount(Path::new("/etc"), &base.join("etc"), None, libc::MS_BIND)?;
    mount(Path::new("none"), &base.join("etc"), None, libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY)?;
    // Where the word to go on comes from.
    let inside = base.join(folder.strip_prefix("/").unwrap_or(folder));
    std::fs::create_dir_all(&inside)?;
    mount(folder, &inside, None, libc::MS_BIND)?;
    std::fs::write(base.join("tmp/note"), "from before")?;
    std::env::set_current_dir(base)?;
    let dot = c".";
    sys!(syscall(libc::SYS_pivot_root, dot.as_ptr(), dot.as_ptr()))?;
    sys!(umount2(dot.as_ptr(), libc::MNT_DETACH))?;
    std::env::set_current_dir("/tmp")?;
    mount(
        Path::new("none"),
        Path::new("/"),
        None,
        libc::MS_BIND | libc::MS_REMOUNT | libc::MS_NODEV | libc::MS_NOEXEC,
    )?;
    zoo.keep("the table", table);
    zoo.keep("the root", || {
        let names = std::fs::read_dir("/")
            .map(|list| list.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>());
        let mut names = names.unwrap_or_default();
        names.sort();
        format!("{names:?} {} {}", zoo::proc::link("/proc/self/cwd"), zoo::proc::link("/proc/self/root"))
    });
    zoo.keep("whether it is where its parent is", || zoo::proc::with_parent("mnt"));
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    zoo.expect("a file in memory", std::fs::read_to_string("note")?, "from before".into());
    std::fs::write("/tmp/new", "")?;
    zoo.check("a relative name", Path::new("new").exists());
    zoo.check("what is read-only", std::fs::write("/etc/zoo", "").is_err());
    Ok(())
}

fn program(zoo: &mut Zoo) -> Outcome {
    let base = zoo.path("base");
    std::fs::create_dir_all(&base)?;
    let folder = base.parent().unwrap_or(Path::new("/")).to_path_buf();
    let there = base.clone();
    let child = zoo.fork(move |zoo| away(zoo, &there, &folder))?;
    zoo.keep("the table at home", table);
    zoo.ready();
    zoo.reap("the child", child);
    zoo.check("home has none of it", std::fs::read_dir(&base)?.next().is_none());
    std::fs::remove_dir(&base)?;
    Ok(())
}
