//! Kind `vdso`: the kernel's own page of code stays where it was and still gives the time without a system call.

use zoo::seccomp::{ALLOW, ERRNO};
use zoo::time::{CLOCK_GETTIME, Time, clock, from_time};
use zoo::{Outcome, Zoo, sys, timed};

fn main() {
    zoo::run(program)
}

const CLOCKS: [(&str, libc::clockid_t); 5] = [
    ("CLOCK_MONOTONIC", libc::CLOCK_MONOTONIC),
    ("CLOCK_REALTIME", libc::CLOCK_REALTIME),
    ("CLOCK_BOOTTIME", libc::CLOCK_BOOTTIME),
    ("CLOCK_MONOTONIC_COARSE", libc::CLOCK_MONOTONIC_COARSE),
    ("CLOCK_REALTIME_COARSE", libc::CLOCK_REALTIME_COARSE),
];

fn program(zoo: &mut Zoo) -> Outcome {
    // SAFETY: takes an integer.
    zoo.keep("AT_SYSINFO_EHDR", || format!("{:#x}", unsafe { libc::getauxval(33) }));
    for name in ["[vdso]", "[vvar]", "[vvar_vclock]", "[sigpage]"] {
        zoo.keep(name, move || {
            let all = zoo::proc::text("/proc/self/maps");
            let lines = all.lines().filter(|line| line.ends_with(name)).map(zoo::proc::short);
            lines.collect::<Vec<_>>().join(", ")
        });
    }
    let readable = without_calls(zoo)?;
    agree(zoo, "before");
    zoo.ready();
    agree(zoo, "after");
    std::thread::spawn(|| clock(libc::CLOCK_MONOTONIC)).join().map_err(|_| "a thread panicked")?;
    let now = without_calls(zoo)?;
    zoo.expect("clocks that need no system call", now, readable);
    // SAFETY: a live struct.
    zoo.check("gettimeofday", unsafe {
        let mut now: libc::timeval = sys::zeroed();
        libc::gettimeofday(&raw mut now, std::ptr::null_mut()) == 0 && now.tv_sec > 1_000_000
    });
    // SAFETY: no arguments.
    zoo.check("getcpu", unsafe { libc::sched_getcpu() } >= 0);
    Ok(())
}

/// The code in the page and the system call tell the same time.
fn agree(zoo: &mut Zoo, when: &str) {
    for (name, id) in CLOCKS {
        let mut last = String::new();
        // A few tries: the machine may do something else between the two readings.
        let same = (0..20).any(|_| {
            let (fast, slow) = (clock(id), by_call(id));
            last = format!("{fast} and {slow}");
            (slow - fast).abs() < 20_000_000
        });
        zoo.check(&format!("{name} agrees with the system call {when} the wait ({last})"), same);
    }
}

fn by_call(id: libc::clockid_t) -> i64 {
    let mut now: Time = [0; 2];
    let _ = timed!(CLOCK_GETTIME, id, now.as_mut_ptr());
    from_time(now)
}

/// Which clocks a process can read that is forbidden to make the system call.
fn without_calls(zoo: &Zoo) -> Outcome<String> {
    let (reader, writer) = zoo::fd::pipe(0)?;
    let child = zoo.fork(move |zoo| {
        zoo.arrive();
        zoo::seccomp::install(&[libc::SYS_clock_gettime, CLOCK_GETTIME], ERRNO | 95, ALLOW)?;
        let readable: Vec<&str> = CLOCKS
            .iter()
            .filter(|(_, id)| {
                let mut now: libc::timespec = sys::zeroed();
                // SAFETY: a live struct.
                unsafe { libc::clock_gettime(*id, &raw mut now) == 0 }
            })
            .map(|(name, _)| *name)
            .collect();
        zoo::fd::write(writer, readable.join(" ").as_bytes())
    })?;
    zoo::fd::close(writer);
    let text = zoo::fd::read_text(reader);
    zoo::fd::close(reader);
    let _ = zoo::child::wait(child, 0);
    Ok(text)
}
