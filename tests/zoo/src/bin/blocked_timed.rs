//! Kind `blocked`: a call that sleeps with a time-out ends in time.
//!
//! One child a call. It may begin its time anew after a restore (the kernel does not tell how much is left), but
//! it may never end early, and never with EINTR, for no handler has run.

use zoo::blocked::{Blocked, Case, blocked, only, open_mask, pair, recv_into, word};
use zoo::time::{Time, later_ms, monotonic, slack_ms, spec, steady, time, val};
use zoo::{Outcome, Zoo, fd, sys, timed};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let cases: &[Case] = &[
        read_timerfd,
        poll_until,
        ppoll_until,
        select_until,
        epoll_until,
        nanosleep,
        clock_nanosleep,
        futex_until,
        futex_at,
        sigwait_until,
        recv_until,
        read_until,
    ];
    zoo::blocked::run(zoo, cases, true)
}

/// A call that must return after `later_ms`; `call` gives what it returned.
fn timed_out(
    zoo: &Zoo,
    name: &'static str,
    wanted: &'static str,
    call: impl FnOnce() -> Outcome<i64> + 'static,
) -> Outcome<Blocked> {
    blocked(
        zoo,
        name,
        move |zoo| {
            let due = steady() + later_ms() * 1_000_000;
            let got = match call() {
                Ok(value) => value.to_string(),
                Err(_) => std::io::Error::from_raw_os_error(sys::errno()).kind().to_string(),
            };
            // Before anything else: the errno is read above, the clock here.
            zoo.due(name, steady(), due, later_ms() + slack_ms());
            zoo.expect(name, got.as_str(), wanted);
            Ok(())
        },
        || Ok(()),
    )
}

fn poll_until(zoo: &Zoo) -> Outcome<Blocked> {
    timed_out(zoo, "poll", "0", || Ok(sys!(poll(std::ptr::null_mut(), 0, later_ms() as i32))? as i64))
}

fn ppoll_until(zoo: &Zoo) -> Outcome<Blocked> {
    timed_out(zoo, "ppoll", "0", || {
        let (mask, limit) = (open_mask(), spec(later_ms()));
        Ok(sys!(ppoll(std::ptr::null_mut(), 0, &raw const limit, &raw const mask))? as i64)
    })
}

fn select_until(zoo: &Zoo) -> Outcome<Blocked> {
    timed_out(zoo, "select", "0", || {
        let mut limit = val(later_ms());
        let none = std::ptr::null_mut::<libc::fd_set>();
        Ok(sys!(select(0, none, none, none, &raw mut limit))? as i64)
    })
}

fn epoll_until(zoo: &Zoo) -> Outcome<Blocked> {
    timed_out(zoo, "epoll_wait", "0", || {
        let epoll = sys!(epoll_create1(0))?;
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        Ok(sys!(epoll_wait(epoll, &raw mut event, 1, later_ms() as i32))? as i64)
    })
}

fn nanosleep(zoo: &Zoo) -> Outcome<Blocked> {
    timed_out(zoo, "nanosleep", "0", || {
        let limit = spec(later_ms());
        Ok(sys!(nanosleep(&raw const limit, std::ptr::null_mut()))? as i64)
    })
}

fn clock_nanosleep(zoo: &Zoo) -> Outcome<Blocked> {
    timed_out(zoo, "clock_nanosleep", "0", || {
        let limit = time(monotonic() + later_ms() * 1_000_000);
        let none = std::ptr::null_mut::<Time>();
        timed!(CLOCK_NANOSLEEP, libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const limit, none)
    })
}

fn futex_until(zoo: &Zoo) -> Outcome<Blocked> {
    let word = word()?;
    timed_out(zoo, "futex", "timed out", move || {
        let limit = time(later_ms() * 1_000_000);
        timed!(FUTEX, word, libc::FUTEX_WAIT, 0, &raw const limit)
    })
}

fn futex_at(zoo: &Zoo) -> Outcome<Blocked> {
    let word = word()?;
    timed_out(zoo, "absolute futex", "timed out", move || {
        let limit = time(monotonic() + later_ms() * 1_000_000);
        timed!(FUTEX, word, libc::FUTEX_WAIT_BITSET, 0, &raw const limit, 0, u32::MAX)
    })
}

fn sigwait_until(zoo: &Zoo) -> Outcome<Blocked> {
    timed_out(zoo, "sigtimedwait", "operation would block", || {
        let (set, limit) = (only(libc::SIGUSR1), time(later_ms() * 1_000_000));
        let info = std::ptr::null_mut::<libc::siginfo_t>();
        timed!(RT_SIGTIMEDWAIT, &raw const set, info, &raw const limit, 8)
    })
}

fn recv_until(zoo: &Zoo) -> Outcome<Blocked> {
    under_limit(zoo, "recv under SO_RCVTIMEO", recv_into)
}

fn read_until(zoo: &Zoo) -> Outcome<Blocked> {
    under_limit(zoo, "read under SO_RCVTIMEO", |socket| Ok(fd::read(socket, 16)?.len() as i64))
}

fn under_limit(zoo: &Zoo, what: &'static str, get: fn(i32) -> Outcome<i64>) -> Outcome<Blocked> {
    let [_ours, theirs] = pair()?;
    timed_out(zoo, what, "operation would block", move || {
        let limit = val(later_ms());
        let length = size_of::<libc::timeval>() as libc::socklen_t;
        sys!(setsockopt(theirs, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const limit).cast(), length))?;
        get(theirs)
    })
}

fn read_timerfd(zoo: &Zoo) -> Outcome<Blocked> {
    timed_out(zoo, "read of a timerfd", "1", || {
        let timer = sys!(timerfd_create(libc::CLOCK_MONOTONIC, 0))?;
        let new = libc::itimerspec { it_interval: spec(0), it_value: spec(later_ms()) };
        sys!(timerfd_settime(timer, 0, &raw const new, std::ptr::null_mut()))?;
        let count = fd::read(timer, 8)?;
        Ok(i64::from(count.first().copied().unwrap_or(0)))
    })
}
