//! Kind `blocked`: a call that sleeps goes on sleeping until what it waits for comes, and then returns it.
//!
//! One child a call. None may end with EINTR, for no handler has run (but where one does run, in the end).

use std::sync::atomic::{AtomicI32, Ordering};

use zoo::blocked::{Blocked, Case, blocked, only, open_mask, pair, recv_into, word};
use zoo::time::Time;
use zoo::{Outcome, Zoo, fd, raw, sys, timed};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let cases: &[Case] = &[
        read_pipe,
        write_pipe,
        poll,
        ppoll,
        select,
        epoll,
        read_eventfd,
        read_signalfd,
        futex,
        wait4,
        waitid,
        sigsuspend,
        sigwait,
        pause,
        accept,
        recv,
        flock,
        fcntl_lock,
    ];
    zoo::blocked::run(zoo, cases, false)
}

fn send(fd: i32) -> impl FnOnce() -> Outcome {
    move || fd::write(fd, b"wake")
}

fn receive(zoo: &mut Zoo, fd: i32) {
    zoo.expect("bytes", fd::read_text(fd), "wake".to_owned());
}

fn read_pipe(zoo: &Zoo) -> Outcome<Blocked> {
    let (reader, writer) = fd::pipe(0)?;
    blocked(
        zoo,
        "read of a pipe",
        move |zoo| {
            receive(zoo, reader);
            Ok(())
        },
        send(writer),
    )
}

fn write_pipe(zoo: &Zoo) -> Outcome<Blocked> {
    let (reader, writer) = fd::pipe(0)?;
    let room = sys!(fcntl(writer, libc::F_GETPIPE_SZ))? as usize;
    fd::write(writer, &vec![b'.'; room])?;
    blocked(
        zoo,
        "write to a full pipe",
        move |_| fd::write(writer, b"more"),
        move || {
            let got = fd::read(reader, room)?.len();
            let rest = fd::read(reader, 65536)?;
            if got + rest.len() == room + 4 || rest.starts_with(b"more") {
                Ok(())
            } else {
                Err(format!("{got} bytes and then {rest:?}").into())
            }
        },
    )
}

fn poll(zoo: &Zoo) -> Outcome<Blocked> {
    let (reader, writer) = fd::pipe(0)?;
    blocked(
        zoo,
        "poll",
        move |zoo| {
            let mut one = libc::pollfd { fd: reader, events: libc::POLLIN, revents: 0 };
            sys!(poll(&raw mut one, 1, -1))?;
            zoo.expect("events", one.revents, libc::POLLIN);
            receive(zoo, reader);
            Ok(())
        },
        send(writer),
    )
}

fn ppoll(zoo: &Zoo) -> Outcome<Blocked> {
    let (reader, writer) = fd::pipe(0)?;
    blocked(
        zoo,
        "ppoll",
        move |zoo| {
            let mut one = libc::pollfd { fd: reader, events: libc::POLLIN, revents: 0 };
            let mask = open_mask();
            zoo.keep("mask", || zoo::proc::status("self", "SigBlk"));
            sys!(ppoll(&raw mut one, 1, std::ptr::null(), &raw const mask))?;
            zoo.verify();
            receive(zoo, reader);
            Ok(())
        },
        send(writer),
    )
}

fn select(zoo: &Zoo) -> Outcome<Blocked> {
    let (reader, writer) = fd::pipe(0)?;
    blocked(
        zoo,
        "select",
        move |zoo| {
            let mut set: libc::fd_set = sys::zeroed();
            // SAFETY: a small descriptor in a live set.
            unsafe { libc::FD_SET(reader, &raw mut set) };
            let none = std::ptr::null_mut::<libc::fd_set>();
            zoo.expect("count", sys!(select(reader + 1, &raw mut set, none, none, std::ptr::null_mut()))?, 1);
            receive(zoo, reader);
            Ok(())
        },
        send(writer),
    )
}

fn epoll(zoo: &Zoo) -> Outcome<Blocked> {
    let (reader, writer) = fd::pipe(0)?;
    blocked(
        zoo,
        "epoll_wait",
        move |zoo| {
            let epoll = sys!(epoll_create1(0))?;
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 77 };
            sys!(epoll_ctl(epoll, libc::EPOLL_CTL_ADD, reader, &raw mut event))?;
            let mut got = libc::epoll_event { events: 0, u64: 0 };
            zoo.expect("count", sys!(epoll_wait(epoll, &raw mut got, 1, -1))?, 1);
            let data = got.u64;
            zoo.expect("data", data, 77);
            receive(zoo, reader);
            Ok(())
        },
        send(writer),
    )
}

fn read_eventfd(zoo: &Zoo) -> Outcome<Blocked> {
    let event = sys!(eventfd(0, 0))?;
    blocked(
        zoo,
        "read of an eventfd",
        move |zoo| {
            zoo.expect("count", fd::read(event, 8)?, 5_u64.to_ne_bytes().to_vec());
            Ok(())
        },
        move || fd::write(event, &5_u64.to_ne_bytes()),
    )
}

fn wake_signal(
    name: &'static str,
    zoo: &Zoo,
    signal: i32,
    sleep: impl FnOnce(&mut Zoo) -> Outcome,
) -> Outcome<Blocked> {
    let mut case = blocked(zoo, name, sleep, || Ok(()))?;
    let pid = case.pid;
    case.wake = Box::new(move || sys!(kill(pid, signal)).map(|_| ()));
    Ok(case)
}

fn read_signalfd(zoo: &Zoo) -> Outcome<Blocked> {
    wake_signal("read of a signalfd", zoo, libc::SIGUSR1, |zoo| {
        let set = only(libc::SIGUSR1);
        let signal = sys!(signalfd(-1, &raw const set, 0))?;
        let got = fd::read(signal, size_of::<libc::signalfd_siginfo>())?;
        zoo.expect("signal", got.first().copied(), Some(libc::SIGUSR1 as u8));
        Ok(())
    })
}

fn futex(zoo: &Zoo) -> Outcome<Blocked> {
    let word = word()?;
    blocked(
        zoo,
        "futex",
        move |zoo| {
            let got = timed!(FUTEX, word, libc::FUTEX_WAIT, 0, std::ptr::null::<Time>());
            // A wait that is issued again after the word has changed says EAGAIN, as it may at any time.
            zoo.check("woken", got.is_ok() || sys::errno() == libc::EAGAIN);
            Ok(())
        },
        move || {
            // SAFETY: a word of our shared page.
            unsafe { std::ptr::write_volatile(word.cast_mut(), 1) };
            raw!(SYS_futex, word, libc::FUTEX_WAKE, i32::MAX)?;
            Ok(())
        },
    )
}

fn wait4(zoo: &Zoo) -> Outcome<Blocked> {
    waiting(zoo, "wait4", |zoo, pid| {
        let mut status = 0;
        let none = std::ptr::null_mut::<libc::rusage>();
        zoo.expect("pid", raw!(SYS_wait4, -1, &raw mut status, 0, none)?, i64::from(pid));
        zoo.expect("status", libc::WEXITSTATUS(status), 4);
        Ok(())
    })
}

fn waitid(zoo: &Zoo) -> Outcome<Blocked> {
    waiting(zoo, "waitid", |zoo, pid| {
        let mut info: libc::siginfo_t = sys::zeroed();
        sys!(waitid(libc::P_PID, pid as libc::id_t, &raw mut info, libc::WEXITED))?;
        // SAFETY: waitid fills these in.
        zoo.expect("pid and status", unsafe { (info.si_pid(), info.si_status()) }, (pid, 4));
        Ok(())
    })
}

fn waiting(zoo: &Zoo, name: &'static str, wait: fn(&mut Zoo, i32) -> Outcome) -> Outcome<Blocked> {
    let (reader, writer) = fd::pipe(0)?;
    blocked(
        zoo,
        name,
        move |zoo| {
            let pid = sys!(fork())?;
            if pid == 0 {
                let _ = fd::read(reader, 1);
                // SAFETY: ends a child.
                unsafe { libc::_exit(4) }
            }
            wait(zoo, pid)
        },
        send(writer),
    )
}

static HANDLED: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(_: i32) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

fn handled(zoo: &mut Zoo, call: impl FnOnce() -> i32) {
    let handler = count as extern "C" fn(i32);
    // SAFETY: a handler that only counts.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    let got = call();
    zoo.expect("result and errno after a handler", (got, sys::errno()), (-1, libc::EINTR));
    zoo.expect("handlers run", HANDLED.load(Ordering::SeqCst), 1);
}

fn sigsuspend(zoo: &Zoo) -> Outcome<Blocked> {
    wake_signal("sigsuspend", zoo, libc::SIGUSR1, |zoo| {
        let mask = open_mask();
        // SAFETY: a live set.
        handled(zoo, || unsafe { libc::sigsuspend(&raw const mask) });
        Ok(())
    })
}

fn pause(zoo: &Zoo) -> Outcome<Blocked> {
    wake_signal("pause", zoo, libc::SIGUSR1, |zoo| {
        // SAFETY: no arguments.
        handled(zoo, || unsafe { libc::pause() });
        Ok(())
    })
}

fn sigwait(zoo: &Zoo) -> Outcome<Blocked> {
    wake_signal("sigtimedwait", zoo, libc::SIGUSR1, |zoo| {
        let set = only(libc::SIGUSR1);
        let (info, time) = (std::ptr::null_mut::<libc::siginfo_t>(), std::ptr::null::<Time>());
        zoo.expect(
            "signal",
            timed!(RT_SIGTIMEDWAIT, &raw const set, info, time, 8)?,
            i64::from(libc::SIGUSR1),
        );
        Ok(())
    })
}

/// A listening unix socket with an abstract name of its own.
fn accept(zoo: &Zoo) -> Outcome<Blocked> {
    let mut name: libc::sockaddr_un = sys::zeroed();
    name.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in name.sun_path[1..].iter_mut().zip(format!("zoo-blocked-{}", std::process::id()).bytes())
    {
        *to = from as libc::c_char;
    }
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    let listener = sys!(socket(libc::AF_UNIX, libc::SOCK_STREAM, 0))?;
    sys!(bind(listener, (&raw const name).cast(), length))?;
    sys!(listen(listener, 4))?;
    blocked(
        zoo,
        "accept",
        move |zoo| {
            let socket = sys!(accept(listener, std::ptr::null_mut(), std::ptr::null_mut()))?;
            receive(zoo, socket);
            Ok(())
        },
        move || {
            let socket = sys!(socket(libc::AF_UNIX, libc::SOCK_STREAM, 0))?;
            sys!(connect(socket, (&raw const name).cast(), length))?;
            fd::write(socket, b"wake")
        },
    )
}

fn recv(zoo: &Zoo) -> Outcome<Blocked> {
    let [ours, theirs] = pair()?;
    blocked(
        zoo,
        "recv",
        move |zoo| {
            zoo.expect("bytes", recv_into(theirs)?, 4);
            Ok(())
        },
        send(ours),
    )
}

fn lock_file(zoo: &Zoo, name: &str) -> Outcome<i32> {
    let path = zoo.cpath(name)?;
    sys!(open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, 0o600))
}

fn flock(zoo: &Zoo) -> Outcome<Blocked> {
    let (ours, theirs) = (lock_file(zoo, "flock")?, lock_file(zoo, "flock")?);
    sys!(flock(ours, libc::LOCK_EX))?;
    blocked(
        zoo,
        "flock",
        move |_| {
            fd::close(ours);
            sys!(flock(theirs, libc::LOCK_EX)).map(|_| ())
        },
        move || sys!(flock(ours, libc::LOCK_UN)).map(|_| ()),
    )
}

fn posix_lock(kind: i32) -> libc::flock {
    let mut lock: libc::flock = sys::zeroed();
    lock.l_type = kind as libc::c_short;
    lock.l_start = 3;
    lock.l_len = 5;
    lock
}

fn fcntl_lock(zoo: &Zoo) -> Outcome<Blocked> {
    let ours = lock_file(zoo, "fcntl")?;
    let (write, unlock) = (posix_lock(libc::F_WRLCK), posix_lock(libc::F_UNLCK));
    sys!(fcntl(ours, libc::F_SETLK, &raw const write))?;
    blocked(
        zoo,
        "fcntl lock",
        move |_| sys!(fcntl(ours, libc::F_SETLKW, &raw const write)).map(|_| ()),
        move || sys!(fcntl(ours, libc::F_SETLK, &raw const unlock)).map(|_| ()),
    )
}
