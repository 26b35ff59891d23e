//! Kind `cgroup`: groups of version 2 with their settings, a threaded domain, an empty group, and who is where.

use zoo::group::{self, Ground, set, set_if};
use zoo::proc::text;
use zoo::{Outcome, Zoo, sys};

/// What the child in `limited` has touched.
const TOUCHED: usize = 12 << 20;

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let Some(ground) = zoo.ground("cgroup2") else { zoo.skip("no hierarchy of version 2 to make groups in") };
    let own = ground.make("own")?;
    let limited = ground.make("limited")?;
    let empty = ground.make("empty")?;
    set(&limited, "cgroup.max.depth", "7")?;
    set(&limited, "cgroup.max.descendants", "9")?;
    set(&empty, "cgroup.max.descendants", "3")?;
    let counts = controllers(&ground)?;
    if ground.mounted && !counts {
        sys::note("no controllers");
    }
    let threads = ground.make("threads")?;
    let one = ground.make("threads/one")?;
    let two = ground.make("threads/one/two")?;
    set(&one, "cgroup.type", "threaded")?;
    set(&two, "cgroup.type", "threaded")?;
    if counts {
        set(&threads, "cgroup.subtree_control", "+cpu +pids")?;
        set(&one, "cgroup.subtree_control", "+pids")?;
        set(&one, "cpu.weight", "55")?;
        set(&one, "pids.max", "17")?;
        set(&two, "pids.max", "11")?;
    }
    // Delegated, as cgroup-v2.rst says.
    for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
        std::os::unix::fs::chown(limited.join(file), Some(1000), Some(1001))?;
    }
    std::fs::set_permissions(&empty, std::os::unix::fs::PermissionsExt::from_mode(0o2770))?;

    let there = limited.clone();
    let child = zoo.fork(move |zoo| {
        group::enter(&there)?;
        let touched = vec![7_u8; TOUCHED];
        zoo.keep("group of the child", || group::of("self", &["cgroup2"]));
        zoo.keep("affinity of the child", || zoo::proc::status("self", "Cpus_allowed"));
        zoo.arrive();
        zoo.wait();
        zoo.verify();
        let current = text(&format!("{}/memory.current", there.display()));
        let current = current.trim().parse().unwrap_or(usize::MAX);
        zoo.check("memory of the child is counted in its group", current >= touched.len());
        Ok(())
    })?;
    let threaded = zoo.fork(move |zoo| {
        group::enter(&threads)?;
        let (told, tells) = std::sync::mpsc::channel();
        let go = zoo.go();
        let thread = std::thread::spawn(move || {
            let _ = told.send(set(&one, "cgroup.threads", &sys::gettid().to_string()));
            zoo::wait_for(go.as_ref());
            group::of("thread-self", &["cgroup2"])
        });
        tells.recv().map_err(|_| "the thread ended")??;
        zoo.keep("group of the process", || group::of("self", &["cgroup2"]));
        zoo.arrive();
        zoo.wait();
        zoo.verify();
        let said = thread.join().map_err(|_| "the thread panicked")?;
        zoo.check("the thread is in the group of threads", said.contains("/threads/one\n"));
        Ok(())
    })?;
    group::enter(&own)?;
    let path = ground.path.clone();
    zoo.keep("groups", move || group::portrait(&path));
    zoo.keep("own group", || group::of("self", &["cgroup2"]));
    zoo.ready();
    let late = zoo.fork(|zoo| {
        zoo.arrive();
        zoo.check(
            "a child is born in the group of its parent",
            group::of("self", &["cgroup2"]).contains("/own\n"),
        );
        Ok(())
    })?;
    zoo.reap("the late child", late);
    zoo.reap("the child", child);
    zoo.reap("the child with threads", threaded);
    ground.leave()
}

/// Turns controllers on and sets limits, where the hierarchy is ours alone: the root is not ours to change elsewhere.
fn controllers(ground: &Ground) -> Outcome<bool> {
    if !ground.mounted {
        return Ok(false);
    }
    let root = ground.path.join("..");
    let there = text(&format!("{}/cgroup.controllers", root.display()));
    let wanted = ["cpu", "cpuset", "io", "memory", "pids"];
    if wanted[..1].iter().chain(&wanted[3..]).any(|name| !there.split_whitespace().any(|word| word == *name))
    {
        return Ok(false);
    }
    for name in wanted.into_iter().filter(|name| there.split_whitespace().any(|word| word == *name)) {
        set(&root, "cgroup.subtree_control", &format!("+{name}"))?;
        set(&ground.path, "cgroup.subtree_control", &format!("+{name}"))?;
    }
    let (limited, empty) = (ground.path.join("limited"), ground.path.join("empty"));
    set(&limited, "cpu.weight", "33")?;
    set_if(&limited, "cpu.max", "90000 110000")?;
    set_if(&limited, "cpuset.cpus", "0")?;
    set_if(&limited, "cpuset.mems", "0")?;
    set(&limited, "memory.high", "200M")?;
    set(&limited, "memory.max", "220M")?;
    set(&limited, "memory.low", "1M")?;
    set(&limited, "memory.oom.group", "1")?;
    set(&limited, "pids.max", "40")?;
    set_if(&empty, "cpu.idle", "1")?;
    set_if(&empty, "memory.swap.max", "0")?;
    // The first disk that can be limited, if there is any.
    for number in std::fs::read_dir("/sys/dev/block").into_iter().flatten().flatten() {
        let number = number.file_name().to_string_lossy().into_owned();
        if set_if(&empty, "io.max", &format!("{number} wbps=1048576")).is_ok() {
            break;
        }
    }
    Ok(true)
}
