//! Kind `exec`: a restored process can start programs, with the signals, limits and descriptors it should have.

use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    if std::env::args().nth(1).as_deref() == Some("--report") {
        report();
    } else {
        zoo::run(program)
    }
}

/// What a program that was just started finds.
fn report() {
    let fds: Vec<String> = (0..64).filter(|n| fd::is_open(*n)).map(|n| n.to_string()).collect();
    println!(
        "umask {} ignored {} blocked {} descriptors {} personality {}",
        zoo::proc::status("self", "Umask"),
        zoo::proc::status("self", "SigIgn"),
        zoo::proc::status("self", "SigBlk"),
        fds.join(","),
        zoo::proc::text("/proc/self/personality").trim()
    );
}

fn start() -> String {
    let started = Command::new("/proc/self/exe").arg("--report").stdin(Stdio::null()).output();
    started.map_or_else(|e| e.to_string(), |out| String::from_utf8_lossy(&out.stdout).into_owned())
}

fn program(zoo: &mut Zoo) -> Outcome {
    // SAFETY: takes an integer.
    unsafe { libc::umask(0o026) };
    let inherited = std::fs::File::open("/dev/null")?;
    sys!(fcntl(inherited.as_raw_fd(), libc::F_SETFD, 0))?;
    let _closed = std::fs::File::open("/dev/null")?;
    zoo.keep("what a started program finds", start);
    let waiting = zoo.fork(|zoo| {
        zoo.arrive();
        zoo.wait();
        // Replaces this process: the restored memory, registers and registrations must not be in its way.
        let args = [c"exec".as_ptr(), c"--report".as_ptr(), std::ptr::null()];
        sys!(execv(c"/proc/self/exe".as_ptr(), args.as_ptr())).map(|_| ())
    })?;
    zoo.ready();
    zoo.check("the report is one", start().starts_with("umask 0026"));
    zoo.reap("a process that becomes another program", waiting);
    let status = Command::new("/bin/true").status();
    if let Ok(status) = status {
        zoo.expect("the status of /bin/true", status.code(), Some(0));
    }
    Ok(())
}
