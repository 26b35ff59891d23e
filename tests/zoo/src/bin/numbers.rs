//! Kind `tree`: numbers that had another owner before, and numbers that live on as those of groups and sessions. What
//! is born after the wait gets none of them.

use zoo::number::{again, next, quick};
use zoo::{Outcome, Zoo, child, fd, proc, raw, sys};

fn main() {
    zoo::run(program)
}

/// A handle of a process.
fn handle(pid: i32) -> Outcome<i32> {
    Ok(raw!(SYS_pidfd_open, pid, 0)? as i32)
}

/// What ps would show of a process: its parent, group and session.
fn place(pid: i32) -> String {
    (4..=6).map(|field| proc::stat(&pid.to_string(), field)).collect::<Vec<_>>().join(" ")
}

/// Lives until the go, in a group of its own if it is to lead one.
fn living(zoo: &mut Zoo, leads: bool) -> Outcome<i32> {
    zoo.fork(move |zoo| {
        if leads {
            sys!(setpgid(0, 0))?;
        }
        zoo.keep("its own number", || std::process::id().to_string());
        zoo.arrive();
        zoo.wait();
        zoo.verify();
        Ok(())
    })
}

fn program(zoo: &mut Zoo) -> Outcome {
    sys::set_prctl(libc::PR_SET_CHILD_SUBREAPER, 1)?;
    let (first, to_first) = again(zoo, handle, |zoo| living(zoo, false))?;
    let (leader, to_leader) = again(zoo, handle, |zoo| living(zoo, true))?;
    let (zombie, to_zombie) = again(zoo, handle, |_| quick())?;
    zoo.check("the zombie", zoo::eventually(5000, || proc::stat(&zombie.to_string(), 3) == "Z"));
    let (group, member) = zoo.left_behind(false, |_, _| Ok(()))?;
    let (session, daemon) = zoo.left_behind(true, |_, _| Ok(()))?;
    let now = handle(first)?;
    for pid in [first, leader, zombie, member, daemon] {
        zoo.keep(&format!("parent, group and session of {pid}"), move || place(pid));
    }
    for handle in [to_first, to_leader, to_zombie, now] {
        zoo.keep(&format!("owner of {handle}"), move || fd::info(handle, "Pid"));
    }
    for handle in [to_first, to_leader, to_zombie] {
        zoo.keep(&format!("readiness of {handle}"), move || fd::polled(handle, libc::POLLIN).to_string());
    }
    let groups = [group, session];
    zoo.keep("numbers of groups only", move || {
        format!("{:?}", groups.map(|pid| proc::stat(&pid.to_string(), 3)))
    });
    zoo.ready();

    let taken = [first, leader, zombie, group, member, session, daemon, std::process::id() as i32];
    for number in taken {
        next(number)?;
        let mut born = Vec::new();
        for _ in 0..3 {
            born.push(quick()?);
        }
        for pid in born {
            zoo.check(&format!("{pid} is free"), !taken.contains(&pid));
            zoo.expect("the end of what was born", child::wait(pid, 0).words(), "exit 5".to_owned());
        }
    }
    let signalled = raw!(SYS_pidfd_send_signal, to_first, 0, 0, 0);
    zoo.check("the first owner is gone", signalled.is_err() && sys::errno() == libc::ESRCH);
    raw!(SYS_pidfd_send_signal, now, 0, 0, 0)?;
    // SAFETY: integers only.
    zoo.expect("a signal to a group without its leader", unsafe { libc::kill(-group, 0) }, 0);
    for pid in [first, leader, member, daemon] {
        zoo.reap("a process with a number that was used", pid);
    }
    zoo.reap_as("the zombie", zombie, "exit 5");
    // SAFETY: as above.
    let emptied = unsafe { libc::kill(-session, 0) } == -1 && sys::errno() == libc::ESRCH;
    zoo.check("the group of the session is empty", emptied);
    Ok(())
}
