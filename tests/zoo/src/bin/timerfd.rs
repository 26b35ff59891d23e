//! Kind `timerfd`: clocks, expiries, intervals, unread ticks and flags.

use zoo::time::{clock, later_ms, monotonic, nano_spec, nanos, pace, slack_ms, spec, steady};
use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn make(
    clock: i32,
    flags: i32,
    value: libc::timespec,
    interval: libc::timespec,
    create: i32,
) -> Outcome<i32> {
    let timer = sys!(timerfd_create(clock, create))?;
    let new = libc::itimerspec { it_interval: interval, it_value: value };
    sys!(timerfd_settime(timer, flags, &raw const new, std::ptr::null_mut()))?;
    Ok(timer)
}

fn get(timer: i32) -> Outcome<(i64, i64)> {
    let mut now: libc::itimerspec = sys::zeroed();
    sys!(timerfd_gettime(timer, &raw mut now))?;
    Ok((nanos(&now.it_value), nanos(&now.it_interval)))
}

fn ticks(timer: i32) -> Outcome<u64> {
    let bytes = fd::read(timer, 8)?;
    Ok(u64::from_ne_bytes(bytes.try_into().map_err(|_| "a short read")?))
}

const CANCEL_ON_SET: i32 = 2;

fn program(zoo: &mut Zoo) -> Outcome {
    let zero = spec(0);
    let start = steady();
    let due = start + later_ms() * 1_000_000;
    let relative = make(libc::CLOCK_MONOTONIC, 0, spec(later_ms()), zero, libc::TFD_CLOEXEC)?;
    let absolute = make(
        libc::CLOCK_MONOTONIC,
        libc::TFD_TIMER_ABSTIME,
        nano_spec(monotonic() + later_ms() * 1_000_000),
        zero,
        0,
    )?;
    let boot_due = clock(libc::CLOCK_BOOTTIME) + later_ms() * 1_000_000;
    let boot = make(libc::CLOCK_BOOTTIME, libc::TFD_TIMER_ABSTIME, nano_spec(boot_due), zero, 0)?;
    let wall_due = clock(libc::CLOCK_REALTIME) + later_ms() * 1_000_000;
    let wall_flags = libc::TFD_TIMER_ABSTIME | CANCEL_ON_SET;
    let wall = make(libc::CLOCK_REALTIME, wall_flags, nano_spec(wall_due), zero, 0)?;
    let from = steady();
    let interval = make(libc::CLOCK_MONOTONIC, 0, spec(200), spec(100), libc::TFD_NONBLOCK)?;
    let to = steady();
    let unread = make(libc::CLOCK_MONOTONIC, 0, spec(1), zero, 0)?;
    let idle = make(libc::CLOCK_MONOTONIC, 0, zero, zero, libc::TFD_NONBLOCK)?;
    let far = [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME];
    let far = far.map(|clock| make(clock, 0, spec(1_000_000), spec(5000), 0));
    let [far_wall, far_steady, far_boot] = far;
    let far = [far_wall?, far_steady?, far_boot?];
    let armed = steady();
    // One that has fired and goes on only when somebody reads it.
    let periodic = make(libc::CLOCK_MONOTONIC, 0, spec(1), spec(20_000 * pace()), 0)?;
    for timer in [relative, absolute, boot, wall, interval, unread, idle, far[0], periodic] {
        zoo.keep(&format!("flags of {timer}"), move || fd::flags(timer));
        for field in ["clockid", "it_interval"] {
            zoo.keep(&format!("{field} of {timer}"), move || fd::info(timer, field));
        }
    }
    // Only here do the flags say more than the time that is left: whether it follows a clock that is set.
    zoo.keep("settime flags", move || fd::info(wall, "settime flags"));
    zoo.check("a tick is unread", zoo::eventually(5000, || fd::polled(unread, libc::POLLIN) != 0));
    zoo.ready();

    zoo.expect("unread ticks", ticks(unread)?, 1);
    zoo.check("an unarmed timer has no ticks", ticks(idle).is_err());
    for timer in far {
        let before = steady() - armed;
        let (left, every) = get(timer)?;
        zoo.counts(
            &format!("the far timer {timer}"),
            1_000_000 * 1_000_000 - left,
            before..=steady() - start,
        );
        zoo.expect("its interval", every, 5_000_000_000);
    }
    zoo.expect("ticks of a timer that waits for a reader", ticks(periodic)?, 1);
    zoo.check("it goes on", get(periodic)?.0 > 0);
    // A slow machine may hold us up anywhere, so both ends are what they can be at the least and at the most.
    let after = |since| (steady() - since) / 1_000_000 / 100 - 1;
    let least = after(to);
    zoo::eventually(5000, || fd::polled(interval, libc::POLLIN) != 0);
    let count = ticks(interval)? as i64;
    let most = after(from) + 1;
    // Where clocks cannot be moved, a timer stands still while the system is captured and restored.
    let least = if zoo::time::has_namespace() { least - 3 } else { 1 };
    zoo.check(
        &format!("ticks of an interval timer ({count}, at least {least} and at most {most})"),
        (least..=most).contains(&count),
    );
    for (what, timer) in [("relative", relative), ("absolute", absolute), ("boot clock", boot)] {
        zoo.expect(&format!("ticks of the {what} timer"), ticks(timer)?, 1);
        zoo.due(&format!("the {what} timer"), steady(), due, slack_ms());
    }
    zoo.expect("ticks of the wall clock timer", ticks(wall)?, 1);
    zoo.check("the wall clock timer is not early", clock(libc::CLOCK_REALTIME) >= wall_due);
    Ok(())
}
