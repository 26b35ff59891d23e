//! Kind `cgroup`: hierarchies of version 1 with the settings of their controllers, and a thread that is elsewhere than
//! its process.

use std::path::Path;

use zoo::group::{self, Ground, set, set_if};
use zoo::proc::text;
use zoo::{Outcome, Zoo, sys};

/// Hierarchies by controller, and one with a name.
const HIERARCHIES: [&str; 9] =
    ["name", "cpu", "cpuset", "pids", "devices", "freezer", "blkio", "net_cls", "net_prio"];

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let mut grounds: Vec<(&'static str, Ground)> = Vec::new();
    for option in HIERARCHIES {
        if let Some(ground) = zoo.ground(option) {
            set_up(option, &ground)?;
            grounds.push((option, ground));
        }
    }
    if grounds.is_empty() {
        zoo.skip("no hierarchy of version 1 to make groups in");
    }
    let groups = grounds.clone();
    let child = zoo.fork(move |zoo| {
        groups.iter().try_for_each(|(_, ground)| group::enter(&ground.path.join("a")))?;
        zoo.keep("groups of the child", own("self", &groups));
        zoo.arrive();
        zoo.wait();
        zoo.verify();
        Ok(())
    })?;
    let groups = grounds.clone();
    let threaded = zoo.fork(move |zoo| {
        groups.iter().try_for_each(|(_, ground)| group::enter(&ground.path))?;
        let (told, tells) = std::sync::mpsc::channel();
        let (go, theirs) = (zoo.go(), groups.clone());
        let thread = std::thread::spawn(move || {
            let tid = sys::gettid().to_string();
            let moved = theirs.iter().try_for_each(|(_, ground)| set(&ground.path.join("a"), "tasks", &tid));
            let own = own("thread-self", &theirs);
            let first = own();
            let _ = told.send(moved);
            zoo::wait_for(go.as_ref());
            (first, own())
        });
        tells.recv().map_err(|_| "the thread ended")??;
        zoo.keep("groups of the process", own("self", &groups));
        zoo.arrive();
        zoo.wait();
        zoo.verify();
        let (first, now) = thread.join().map_err(|_| "the thread panicked")?;
        zoo.expect("groups and affinity of the thread", now, first);
        Ok(())
    })?;
    for (option, ground) in &grounds {
        let path = ground.path.clone();
        zoo.keep(option, move || group::portrait(&path));
    }
    zoo.keep("own groups", own("self", &grounds));
    zoo.ready();
    zoo.reap("the child", child);
    zoo.reap("the child with a thread", threaded);
    grounds.iter().try_for_each(|(_, ground)| ground.leave())
}

/// Reads groups and affinity.
fn own(who: &'static str, grounds: &[(&'static str, Ground)]) -> impl Fn() -> String + Send + 'static {
    let options: Vec<&str> = grounds.iter().map(|(option, _)| *option).collect();
    move || group::of(who, &options) + &zoo::proc::status(who, "Cpus_allowed")
}

/// Two groups, with what the controller can be told.
fn set_up(option: &str, ground: &Ground) -> Outcome {
    let (top, a, b) = (&ground.path, ground.make("a")?, ground.make("b")?);
    set(&b, "notify_on_release", "1")?;
    match option {
        "cpu" => {
            set(top, "cpu.shares", "512")?;
            set_if(top, "cpu.cfs_period_us", "90000")?;
            set_if(top, "cpu.cfs_quota_us", "81000")?;
            set(&a, "cpu.shares", "77")?;
            set_if(&a, "cpu.cfs_quota_us", "60000")
        }
        "cpuset" => {
            let said = |file: &str| text(&top.join("..").join(file).to_string_lossy());
            for file in ["cpuset.cpus", "cpuset.mems"] {
                set(top, file, &said(file))?;
                set(&a, file, "0")?;
            }
            set(&a, "cpuset.memory_migrate", "1")?;
            set(&a, "cpuset.sched_load_balance", "0")?;
            set(&b, "cgroup.clone_children", "1")
        }
        "pids" => set(top, "pids.max", "50").and_then(|()| set(&a, "pids.max", "30")),
        "devices" => {
            set(&a, "devices.deny", "a")?;
            for line in ["c 1:3 rwm", "c 1:5 r", "b *:* m"] {
                set(&a, "devices.allow", line)?;
            }
            set(&b, "devices.deny", "a")
        }
        "net_cls" => set(&a, "net_cls.classid", "1048577"),
        "net_prio" => set(&b, "net_prio.ifpriomap", "lo 5"),
        "blkio" => {
            limit_a_disk(&b);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The first disk that can be limited, if there is any.
fn limit_a_disk(group: &Path) {
    for number in std::fs::read_dir("/sys/dev/block").into_iter().flatten().flatten() {
        let line = format!("{} 1048576", number.file_name().to_string_lossy());
        if set(group, "blkio.throttle.read_bps_device", &line).is_ok() {
            return;
        }
    }
}
