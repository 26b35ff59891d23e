//! Kind `regular`: files of threads in /proc (proc_pid_task(5)): by its process, by its own number, of a child's thread.

use zoo::{Outcome, Zoo, fd, proc, sys, thread};

fn main() {
    zoo::run(program)
}

fn open(path: String, flags: i32) -> Outcome<i32> {
    let path = std::ffi::CString::new(path).map_err(|_| "NUL in a path")?;
    sys!(open(path.as_ptr(), flags))
}

/// The further threads of a process.
fn others(pid: i32) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/task"))
        .map(|dir| dir.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    found.retain(|tid| *tid != pid.to_string());
    found
}

fn program(zoo: &mut Zoo) -> Outcome {
    let child = zoo.fork_blocked(|zoo| {
        let thread = thread::waiting(zoo)?;
        std::fs::write(format!("/proc/self/task/{thread}/comm"), "childs-thread")?;
        zoo.arrive();
        // SAFETY: waits to be killed.
        unsafe { libc::pause() };
        Ok(())
    })?;
    let own = std::process::id() as i32;
    let first = thread::waiting(zoo)?;
    let second = thread::waiting(zoo)?;
    let comm = open(format!("/proc/self/task/{first}/comm"), libc::O_RDWR)?;
    let folder = open(format!("/proc/self/task/{first}"), libc::O_RDONLY | libc::O_DIRECTORY)?;
    let half = open(format!("/proc/self/task/{second}/limits"), libc::O_RDONLY)?;
    let all = std::fs::read(format!("/proc/self/task/{second}/limits"))?;
    let head = fd::read(half, 100)?;
    let place = open(format!("/proc/self/task/{second}/stat"), libc::O_PATH)?;
    let by_number = open(format!("/proc/{second}/comm"), libc::O_WRONLY)?;
    let descriptors = open(format!("/proc/self/task/{second}/fd"), libc::O_RDONLY | libc::O_DIRECTORY)?;
    let of_leader = open(format!("/proc/self/task/{own}/status"), libc::O_RDONLY)?;
    let childs = others(child).pop().ok_or("the child's thread is not there")?;
    let of_child = open(format!("/proc/{child}/task/{childs}/comm"), libc::O_RDONLY)?;
    for file in [comm, folder, half, place, by_number, descriptors, of_leader, of_child] {
        zoo.keep(&format!("flags and offset of {file}"), move || fd::flags(file));
        zoo.keep(&format!("name of {file}"), move || proc::link(&format!("/proc/self/fd/{file}")));
    }
    zoo.ready();
    zoo.expect("the rest of its limits", fd::read_text(half).into_bytes(), all[head.len()..].to_vec());
    fd::write(comm, b"renamed")?;
    let again = sys!(openat(folder, c"comm".as_ptr(), libc::O_RDONLY))?;
    zoo.expect("a thread's name", fd::read_text(again), "renamed\n".to_owned());
    let again = open(format!("/proc/self/fd/{place}"), libc::O_RDONLY)?;
    zoo.check("a thread's line by the place", fd::read_text(again).starts_with(&format!("{second} (")));
    fd::write(by_number, b"by-number")?;
    let name = proc::text(&format!("/proc/self/task/{second}/comm"));
    zoo.expect("a name by the thread's own number", name, "by-number\n".to_owned());
    let standard = sys!(faccessat(descriptors, c"0".as_ptr(), libc::F_OK, libc::AT_SYMLINK_NOFOLLOW)).is_ok();
    zoo.check("its descriptors", standard);
    zoo.check("the leader's status", fd::read_text(of_leader).contains(&format!("\nPid:\t{own}\n")));
    zoo.expect("the name of the child's thread", fd::read_text(of_child), "childs-thread\n".to_owned());
    sys!(kill(child, libc::SIGKILL))?;
    zoo.reap_as("the child", child, "signal 9");
    Ok(())
}
