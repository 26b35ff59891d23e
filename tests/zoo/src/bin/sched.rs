//! Kind `sched`: policy, priority, affinity and the small knobs of /proc/PID and prctl.

use zoo::proc::{status, text};
use zoo::{Outcome, Zoo, raw, sys};

fn main() {
    zoo::run(program)
}

/// struct sched_attr as of Linux 3.14, the size every kernel knows.
#[repr(C)]
#[derive(Default, Debug, Clone, Copy)]
struct Attr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const RESET_ON_FORK: u64 = 1;

fn program(zoo: &mut Zoo) -> Outcome {
    let mut children = Vec::new();
    let attr = |policy: i32, flags, nice, priority| Attr {
        size: size_of::<Attr>() as u32,
        policy: policy as u32,
        flags,
        nice,
        priority,
        ..Attr::default()
    };
    let wanted = [
        ("a batch process", attr(libc::SCHED_BATCH, RESET_ON_FORK, 7, 0)),
        ("an idle process", attr(libc::SCHED_IDLE, 0, 3, 0)),
        ("a process with a negative nice value", attr(libc::SCHED_OTHER, 0, -5, 0)),
        ("a round-robin process", attr(libc::SCHED_RR, RESET_ON_FORK, 0, 5)),
        ("a first-in first-out process", attr(libc::SCHED_FIFO, 0, 0, 11)),
        (
            "a process with deadlines",
            Attr {
                runtime: 2_000_000,
                deadline: 30_000_000,
                period: 40_000_000,
                ..attr(libc::SCHED_DEADLINE, 0, 0, 0)
            },
        ),
    ];
    for (what, attr) in wanted {
        children.push((what, zoo.fork(move |zoo| member(zoo, &attr))?));
    }
    knobs(zoo)?;
    zoo.ready();
    for (what, pid) in children {
        zoo.reap(what, pid);
    }
    Ok(())
}

fn scheduling() -> String {
    let mut attr = Attr::default();
    match raw!(SYS_sched_getattr, 0, &raw mut attr, size_of::<Attr>(), 0) {
        // The time slice is the kernel's own default where nobody set it; it is part of what is compared.
        Ok(_) => format!("{attr:?}"),
        Err(problem) => problem.0,
    }
}

fn member(zoo: &mut Zoo, attr: &Attr) -> Outcome {
    if let Err(problem) = raw!(SYS_sched_setattr, 0, attr as *const Attr, 0) {
        // A kernel with real-time groups gives a group no real time at first: nothing to carry then.
        sys::note(&format!("policy {}: {problem}", attr.policy));
    }
    zoo.keep("scheduling", scheduling);
    zoo.keep("nice", || zoo::proc::stat("self", 19));
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    Ok(())
}

fn knobs(zoo: &mut Zoo) -> Outcome {
    let mut cpus: libc::cpu_set_t = sys::zeroed();
    sys!(sched_getaffinity(0, size_of_val(&cpus), &raw mut cpus))?;
    let last = (0..1024).rev().find(|cpu| {
        // SAFETY: within the set.
        unsafe { libc::CPU_ISSET(*cpu, &cpus) }
    });
    let mut one: libc::cpu_set_t = sys::zeroed();
    // SAFETY: within the set.
    unsafe { libc::CPU_SET(last.unwrap_or(0), &mut one) };
    sys!(sched_setaffinity(0, size_of_val(&one), &raw const one))?;
    let best_effort_6 = (2 << 13) | 6;
    raw!(SYS_ioprio_set, 1, 0, best_effort_6)?;
    sys!(prctl(libc::PR_SET_TIMERSLACK, 123_456 as libc::c_ulong))?;
    sys::set_prctl(libc::PR_SET_THP_DISABLE, 1)?;
    sys!(personality(0x004_0000))?; // ADDR_NO_RANDOMIZE: inherited by what it starts later
    std::fs::write("/proc/self/oom_score_adj", "321")?;
    std::fs::write("/proc/self/coredump_filter", "0x7b")?;
    for file in ["oom_score_adj", "coredump_filter", "timerslack_ns", "personality"] {
        zoo.keep(file, move || text(&format!("/proc/self/{file}")));
    }
    let thread = zoo::thread::waiting(zoo)?;
    zoo.keep("a thread's personality", move || text(&format!("/proc/self/task/{thread}/personality")));
    zoo.keep("affinity", || status("self", "Cpus_allowed_list"));
    zoo.keep("huge pages", || status("self", "THP_enabled"));
    zoo.keep("I/O priority", || raw!(SYS_ioprio_get, 1, 0).map_or_else(|p| p.0, |value| value.to_string()));
    zoo.keep("timer slack", || sys::prctl(libc::PR_GET_TIMERSLACK, 0));
    zoo.expect("timer slack", sys::prctl(libc::PR_GET_TIMERSLACK, 0), "123456".to_owned());
    Ok(())
}
