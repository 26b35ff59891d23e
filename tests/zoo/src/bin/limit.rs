//! Kind `limit`: every resource limit, soft and hard, and a descriptor above the limit that came later.

use zoo::{Outcome, Zoo, sys};

fn main() {
    zoo::run(program)
}

const MIB: u64 = 1 << 20;

/// (number, soft, hard): each different from what a process starts with.
const LIMITS: [(u32, u64, u64); 16] = [
    (0, 1000, 2000),               // CPU
    (1, 64 * MIB, 128 * MIB),      // FSIZE
    (2, 4096 * MIB, 8192 * MIB),   // DATA
    (3, 4 * MIB, 6 * MIB),         // STACK
    (4, 0, 3 * MIB),               // CORE
    (5, 77 * MIB, 78 * MIB),       // RSS
    (6, 3000, 3001),               // NPROC
    (7, 200, 300),                 // NOFILE
    (8, 65536, 131_072),           // MEMLOCK
    (9, 16384 * MIB, 32768 * MIB), // AS
    (10, 11, 22),                  // LOCKS
    (11, 2000, 2500),              // SIGPENDING
    (12, 100_000, 200_000),        // MSGQUEUE
    (13, 0, 0),                    // NICE
    (14, 0, 0),                    // RTPRIO
    (15, 1_000_000, 2_000_000),    // RTTIME
];

fn read(resource: u32) -> Outcome<(u64, u64)> {
    let mut now: libc::rlimit64 = sys::zeroed();
    sys!(prlimit64(0, resource as _, std::ptr::null(), &raw mut now))?;
    Ok((now.rlim_cur, now.rlim_max))
}

fn program(zoo: &mut Zoo) -> Outcome {
    let high = sys!(fcntl(2, libc::F_DUPFD, 280))?;
    zoo.expect("a high descriptor", high, 280);
    for (resource, soft, hard) in LIMITS {
        let (_, most) = read(resource)?;
        let new = libc::rlimit64 { rlim_cur: soft.min(most), rlim_max: hard.min(most) };
        sys!(prlimit64(0, resource as _, &raw const new, std::ptr::null_mut()))?;
        zoo.keep(&format!("limit {resource}"), move || match read(resource) {
            Ok((soft, hard)) => format!("{soft} {hard}"),
            Err(problem) => problem.0,
        });
    }
    zoo.keep("/proc/self/limits", || zoo::proc::text("/proc/self/limits"));
    zoo.ready();
    zoo.check("the descriptor above the limit is open", zoo::fd::is_open(high));
    zoo.check("no new descriptor above the limit", sys!(fcntl(2, libc::F_DUPFD, 250)).is_err());
    zoo.check("a limit above the hard one is a matter for root", {
        let new = libc::rlimit64 { rlim_cur: 200, rlim_max: 300 };
        sys!(prlimit64(0, libc::RLIMIT_NOFILE, &raw const new, std::ptr::null_mut())).is_ok()
    });
    let child = zoo.fork(|zoo| {
        zoo.arrive();
        zoo.expect("an inherited limit", read(7)?, (200, 300));
        Ok(())
    })?;
    zoo.reap("a child with inherited limits", child);
    Ok(())
}
