//! Kind `tree`: parents, sessions, process groups, orphans and zombies keep their shape and numbers.

use zoo::proc::stat;
use zoo::{Outcome, Zoo, child, sys, time};

fn main() {
    zoo::run(program)
}

/// What ps would show of a task: pid, parent, group, session.
fn place(pid: i32) -> String {
    (4..=6).map(|field| stat(&pid.to_string(), field)).collect::<Vec<_>>().join(" ")
}

fn program(zoo: &mut Zoo) -> Outcome {
    sys::set_prctl(libc::PR_SET_CHILD_SUBREAPER, 1)?;
    let family = family(zoo)?;
    let leader = zoo.fork(session_leader)?;
    let joined = joined_group(zoo)?;
    let orphan = orphan(zoo)?;
    let dead = [zombie(7, 0)?, zombie(0, libc::SIGKILL)?, zombie(0, libc::SIGUSR1)?];
    let group_zombie = zombie_leader(zoo)?;

    let own = std::process::id() as i32;
    zoo.keep("own pid and name", move || format!("{own} {}", std::process::id()));
    // The parent, group and session of the root are the caller's business; its pid is not.
    for pid in [family, leader, joined, orphan, group_zombie.0, group_zombie.1] {
        zoo.keep(&format!("parent, group and session of {pid}"), move || place(pid));
    }
    for pid in dead {
        zoo.keep(&format!("state of zombie {pid}"), move || stat(&pid.to_string(), 3) + " " + &place(pid));
    }
    zoo.keep("children", move || {
        let all = zoo::proc::text(&format!("/proc/{own}/task/{own}/children"));
        let mut children: Vec<&str> = all.split_whitespace().collect();
        children.sort_unstable();
        children.join(" ")
    });
    zoo.keep("subreaper", || {
        let mut value = 0_i32;
        // SAFETY: PR_GET_CHILD_SUBREAPER writes an int.
        unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut value) };
        value.to_string()
    });
    zoo.ready();

    zoo.reap("the child with a grandchild", family);
    zoo.reap("the session leader", leader);
    zoo.reap("the member of a child's group", joined);
    zoo.reap("the orphan, reparented to this subreaper", orphan);
    zoo.reap_as("the zombie that exited", dead[0], "exit 7");
    zoo.reap_as("the zombie that was killed", dead[1], "signal 9");
    zoo.reap_as("the zombie of SIGUSR1", dead[2], "signal 10");
    zoo.reap_as("the dead group leader", group_zombie.0, "exit 3");
    zoo.reap("the member of a dead leader's group", group_zombie.1);
    zoo.expect("a wait with nobody left", child::wait(-1, 0).words(), format!("errno {}", libc::ECHILD));
    new_orphan(zoo)
}

/// A child with a child, which checks its own parent and reaps its own child.
fn family(zoo: &mut Zoo) -> Outcome<i32> {
    zoo.fork(|zoo| {
        let grandchild = zoo.fork(|zoo| {
            zoo.keep("getppid of the grandchild", parent);
            zoo.arrive();
            zoo.wait();
            zoo.verify();
            Ok(())
        })?;
        zoo.keep("getppid of the child", parent);
        zoo.keep("getpid of the child", || std::process::id().to_string());
        zoo.arrive();
        zoo.wait();
        zoo.verify();
        zoo.reap("the grandchild", grandchild);
        Ok(())
    })
}

fn parent() -> String {
    // SAFETY: no arguments.
    unsafe { libc::getppid() }.to_string()
}

/// A session of its own with two groups in it.
fn session_leader(zoo: &mut Zoo) -> Outcome {
    sys!(setsid())?;
    let member = zoo.fork(|zoo| {
        sys!(setpgid(0, 0))?;
        zoo.keep("session of a member", session);
        zoo.arrive();
        zoo.wait();
        zoo.verify();
        Ok(())
    })?;
    zoo.keep("session of a leader", session);
    zoo.keep("a member's place", move || place(member));
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    zoo.reap("the member of another group of the session", member);
    Ok(())
}

fn session() -> String {
    // SAFETY: no pointers.
    unsafe { format!("{} {}", libc::getsid(0), libc::getpgid(0)) }
}

/// A child in the group of another child, whose leader lives.
fn joined_group(zoo: &mut Zoo) -> Outcome<i32> {
    zoo.fork(|zoo| {
        sys!(setpgid(0, 0))?;
        let group = std::process::id() as i32;
        let member = zoo.fork(move |zoo| {
            zoo.expect("the inherited group", session().ends_with(&format!(" {group}")), true);
            zoo.arrive();
            zoo.wait();
            zoo.expect("the group after the wait", session().ends_with(&format!(" {group}")), true);
            Ok(())
        })?;
        zoo.arrive();
        zoo.wait();
        zoo.reap("the member of its group", member);
        Ok(())
    })
}

/// The double fork of every daemon: the session's leader is dead, its number lives on as session and group.
fn orphan(zoo: &mut Zoo) -> Outcome<i32> {
    let (_, daemon) = zoo.left_behind(true, |zoo, leader| {
        zoo.expect("the session of a dead leader", session(), format!("{leader} {leader}"));
        let me = std::process::id().to_string();
        zoo.expect("session in stat", stat(&me, 6), leader.to_string());
        Ok(())
    })?;
    Ok(daemon)
}

/// A dead child that nobody has waited for yet.
fn zombie(code: i32, signal: i32) -> Outcome<i32> {
    let pid = sys!(fork())?;
    if pid == 0 {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a child that only ends.
        unsafe {
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            if signal != 0 {
                libc::signal(signal, libc::SIG_DFL);
                libc::kill(libc::getpid(), signal);
            }
            libc::_exit(code)
        }
    }
    if zoo::eventually(5000, || stat(&pid.to_string(), 3) == "Z") { Ok(pid) } else { Err("no zombie".into()) }
}

/// A dead, unreaped leader of a group with a living member: (leader, member).
fn zombie_leader(zoo: &mut Zoo) -> Outcome<(i32, i32)> {
    let pid = sys!(fork())?;
    if pid == 0 {
        // SAFETY: a child that only makes a group and ends when it is told to.
        unsafe {
            libc::setpgid(0, 0);
            libc::raise(libc::SIGSTOP);
            libc::_exit(3)
        }
    }
    if !zoo::eventually(5000, || stat(&pid.to_string(), 3) == "T") {
        return Err("the group leader does not stop".into());
    }
    let member = zoo.fork(move |zoo| {
        sys!(setpgid(0, pid))?;
        zoo.arrive();
        zoo.wait();
        zoo.check("the group of a zombie", session().ends_with(&format!(" {pid}")));
        Ok(())
    })?;
    sys!(kill(pid, libc::SIGCONT))?;
    let dead = zoo::eventually(5000, || stat(&pid.to_string(), 3) == "Z");
    if dead { Ok((pid, member)) } else { Err("the group leader does not end".into()) }
}

/// After the wait, an orphan still comes to this subreaper.
fn new_orphan(zoo: &mut Zoo) -> Outcome {
    let middle = zoo.fork(|zoo| {
        zoo.fork(|zoo| {
            zoo.arrive();
            time::nap(100);
            Ok(())
        })?;
        zoo.arrive();
        Ok(())
    })?;
    zoo.reap("a child that leaves an orphan", middle);
    zoo.expect("the new orphan's end", child::wait(-1, 0).words(), "exit 0".to_owned());
    Ok(())
}
