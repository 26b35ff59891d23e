//! Kind `creds`: users, groups, capabilities, secure bits and what hangs on them, for processes and threads.

use zoo::proc::{status, text};
use zoo::{Outcome, Zoo, fd, raw, sys};

const FIELDS: [&str; 9] =
    ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"];
const CAP_NET_BIND_SERVICE: u64 = 10;
const CAP_NET_RAW: u64 = 13;
const CAP_SYS_TIME: u64 = 25;
const VERSION_3: u32 = 0x2008_0522;

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    if sys!(geteuid())? != 0 {
        zoo.skip("only root may become others");
    }
    let secret = zoo.path("secret");
    std::fs::write(&secret, b"root's")?;
    sys!(chmod(zoo.cpath("secret")?.as_ptr(), 0o600))?;
    let secret = secret.to_string_lossy().into_owned();
    let children = [
        ("an ordinary user", zoo.fork(move |zoo| ordinary(zoo, &secret))?),
        ("a process with some capabilities", zoo.fork(capable)?),
        ("a user with kept capabilities", zoo.fork(kept)?),
        ("a process that cannot be dumped", zoo.fork(undumpable)?),
        ("a process with a thread of another user", zoo.fork(mixed)?),
    ];
    let (orphaned, report) = orphaned(zoo)?;
    keep_all(zoo, "self");
    zoo.ready();
    for (what, pid) in children {
        zoo.reap(what, pid);
    }
    zoo.reap("the parent of a process with a death signal", orphaned);
    zoo.expect("what its child reports", fd::read_text(report), "signal came".to_owned());
    Ok(())
}

fn keep_all(zoo: &mut Zoo, who: &'static str) {
    for field in FIELDS {
        zoo.keep(field, move || status(who, field));
    }
    let options = [
        ("secure bits", libc::PR_GET_SECUREBITS),
        ("keep capabilities", libc::PR_GET_KEEPCAPS),
        ("dumpable", libc::PR_GET_DUMPABLE),
    ];
    for (what, option) in options {
        zoo.keep(what, move || sys::prctl(option, 0));
    }
    zoo.keep("death signal", || {
        let mut signal = 0_i32;
        // SAFETY: writes an int.
        unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
        signal.to_string()
    });
}

fn prctl(option: i32, value: u64) -> Outcome {
    sys!(prctl(option, value as libc::c_ulong, 0 as libc::c_ulong, 0 as libc::c_ulong, 0 as libc::c_ulong))?;
    Ok(())
}

/// Four different user ids, four different group ids, supplementary groups.
fn become_user() -> Outcome {
    let groups: [libc::gid_t; 4] = [10, 20, 4000, 70_000];
    sys!(setgroups(groups.len(), groups.as_ptr()))?;
    sys!(setresgid(100, 200, 300))?;
    sys!(setresuid(1000, 1001, 1002))?;
    // SAFETY: takes an integer and gives the old one.
    unsafe { libc::setfsuid(1002) };
    Ok(())
}

fn ordinary(zoo: &mut Zoo, secret: &str) -> Outcome {
    become_user()?;
    prctl(libc::PR_SET_DUMPABLE, 1)?;
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGURG as u64)?;
    zoo.expect("users", status("self", "Uid"), "1000\t1001\t1002\t1002".to_owned());
    keep_all(zoo, "self");
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    zoo.check("root's file is closed to a user", text(secret).contains("ermission denied"));
    zoo.check("a user cannot become root", sys!(setuid(0)).is_err());
    zoo.check("a user cannot signal root", sys!(kill(1, 0)).is_err());
    Ok(())
}

/// capset(2): effective, permitted and inheritable as bit sets.
fn set_caps(effective: u64, permitted: u64, inheritable: u64) -> Outcome {
    let header = [VERSION_3, 0];
    let half = |set: u64, word: u32| (set >> (32 * word)) as u32;
    let data = [
        [half(effective, 0), half(permitted, 0), half(inheritable, 0)],
        [half(effective, 1), half(permitted, 1), half(inheritable, 1)],
    ];
    raw!(SYS_capset, header.as_ptr(), data.as_ptr())?;
    Ok(())
}

fn capable(zoo: &mut Zoo) -> Outcome {
    let (bind, net_raw) = (1 << CAP_NET_BIND_SERVICE, 1 << CAP_NET_RAW);
    prctl(libc::PR_CAPBSET_DROP, CAP_SYS_TIME)?;
    // SECBIT_NO_SETUID_FIXUP with its lock, SECBIT_NOROOT.
    prctl(libc::PR_SET_SECUREBITS, 0b1101)?;
    set_caps(bind | (1 << 8), bind | net_raw | (1 << 8), bind | net_raw)?;
    sys!(prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_RAISE,
        CAP_NET_BIND_SERVICE as libc::c_ulong,
        0,
        0
    ))?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    keep_all(zoo, "self");
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    zoo.check("what was dropped stays dropped", sys!(chroot(c"/".as_ptr())).is_err());
    Ok(())
}

/// A server's way: keep capabilities over setuid, with an ambient one.
fn kept(zoo: &mut Zoo) -> Outcome {
    prctl(libc::PR_SET_KEEPCAPS, 1)?;
    become_user()?;
    let bind = 1 << CAP_NET_BIND_SERVICE;
    set_caps(bind, bind, 0)?;
    keep_all(zoo, "self");
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    Ok(())
}

fn undumpable(zoo: &mut Zoo) -> Outcome {
    prctl(libc::PR_SET_DUMPABLE, 0)?;
    keep_all(zoo, "self");
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    Ok(())
}

/// Threads may differ: the raw system call changes one of them only.
fn mixed(zoo: &mut Zoo) -> Outcome {
    let (told, tells) = std::sync::mpsc::channel();
    let go = zoo.go();
    let thread = std::thread::spawn(move || {
        let changed = raw!(SYS_setresuid, 500, 501, 502);
        let mut keep = zoo::Keep::default();
        for field in FIELDS {
            keep.add(field, move || status("thread-self", field));
        }
        let _ = told.send(changed.map(|_| ()));
        zoo::wait_for(go.as_ref());
        keep.verify()
    });
    tells.recv().map_err(|_| "the thread ended")??;
    keep_all(zoo, "self");
    zoo.expect("user of the main thread", status("self", "Uid"), "0\t0\t0\t0".to_owned());
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    zoo.extend(thread.join().map_err(|_| "the thread panicked")?);
    Ok(())
}

extern "C" fn ignore(_: i32) {}

/// A parent that ends after the wait; its child reports the signal it asked for in that case.
fn orphaned(zoo: &mut Zoo) -> Outcome<(i32, i32)> {
    let (reader, writer) = fd::pipe(0)?;
    let parent = zoo.fork(move |zoo| {
        zoo.fork_blocked(move |zoo| {
            let handler = ignore as extern "C" fn(i32);
            sys!(signal(libc::SIGUSR2, handler as libc::sighandler_t)).map(|_: usize| ())?;
            prctl(libc::PR_SET_PDEATHSIG, libc::SIGUSR2 as u64)?;
            zoo.arrive();
            // SAFETY: waits for the signal.
            unsafe { libc::pause() };
            fd::write(writer, b"signal came")
        })?;
        zoo.arrive();
        zoo.wait();
        Ok(())
    })?;
    fd::close(writer);
    Ok((parent, reader))
}
