//! Kind `timer`: timers of a process fire when they are due and not before, and clocks go on.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use zoo::time::{
    Time, clock, from_time, has_namespace, later_ms, monotonic, pace, slack_ms, steady, time, val,
};
use zoo::{Outcome, Zoo, raw, sys, timed};

/// A millisecond in nanoseconds.
const MS: i64 = 1_000_000;
/// What the silent timers are set to.
const FAR: i64 = 1_000_000 * MS;
/// Processor time that the timers on CPU clocks wait for: more than it takes to come there.
const USED: i64 = 600 * MS;

static REAL: AtomicI64 = AtomicI64::new(0);
static TIMES: [AtomicI64; 6] = [const { AtomicI64::new(0) }; 6];
static TICKS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_alarm(_: i32) {
    let _ = REAL.compare_exchange(0, steady(), Ordering::SeqCst, Ordering::SeqCst);
}

extern "C" fn on_timer(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: a POSIX timer's signal carries our value.
    let index = unsafe { (*info).si_value().sival_ptr as usize };
    if index == 3 {
        TICKS.fetch_add(1, Ordering::SeqCst);
    }
    let _ = TIMES[index % 6].compare_exchange(0, steady(), Ordering::SeqCst, Ordering::SeqCst);
}

fn main() {
    zoo::run(program)
}

fn catch(signal: i32, handler: usize, flags: i32) -> Outcome {
    let mut action: libc::sigaction = sys::zeroed();
    action.sa_sigaction = handler;
    // What is overdue fires at once, and a capture may come upon a handler: it leaves the mask as it is.
    action.sa_flags = flags | libc::SA_RESTART | libc::SA_NODEFER;
    sys!(sigaction(signal, &raw const action, std::ptr::null_mut()))?;
    Ok(())
}

fn create(clock: libc::clockid_t, notify: i32, index: usize) -> Outcome<i32> {
    let mut event: libc::sigevent = sys::zeroed();
    event.sigev_notify = notify;
    event.sigev_signo = 42;
    event.sigev_value = libc::sigval { sival_ptr: index as *mut libc::c_void };
    if notify == libc::SIGEV_THREAD_ID {
        event.sigev_notify_thread_id = sys::gettid();
    }
    let mut id = -1_i32;
    raw!(SYS_timer_create, clock, &raw mut event, &raw mut id)?;
    Ok(id)
}

fn arm(id: i32, flags: i32, value: i64, interval: i64) -> Outcome {
    let new = [time(interval), time(value)];
    timed!(TIMER_SETTIME, id, flags, new.as_ptr(), std::ptr::null_mut::<Time>())?;
    Ok(())
}

/// Interval and what is left, in nanoseconds.
fn remaining(id: i32) -> Outcome<[i64; 2]> {
    let mut now: [Time; 2] = [[0; 2]; 2];
    timed!(TIMER_GETTIME, id, now.as_mut_ptr())?;
    Ok(now.map(from_time))
}

fn program(zoo: &mut Zoo) -> Outcome {
    catch(libc::SIGALRM, on_alarm as *const () as usize, 0)?;
    catch(42, on_timer as *const () as usize, libc::SA_SIGINFO)?;
    // Ids need not be dense: a gap must stay a gap.
    let gap = create(libc::CLOCK_MONOTONIC, libc::SIGEV_NONE, 0)?;
    let relative = create(libc::CLOCK_MONOTONIC, libc::SIGEV_SIGNAL, 0)?;
    let absolute = create(libc::CLOCK_BOOTTIME, libc::SIGEV_THREAD_ID, 1)?;
    let wall = create(libc::CLOCK_REALTIME, libc::SIGEV_SIGNAL, 2)?;
    let ticking = create(libc::CLOCK_MONOTONIC, libc::SIGEV_SIGNAL, 3)?;
    let silent = create(libc::CLOCK_MONOTONIC, libc::SIGEV_NONE, 0)?;
    let disarmed = create(libc::CLOCK_REALTIME, libc::SIGEV_SIGNAL, 0)?;
    // Not on the way of the others: they need the processor, not time.
    let process = create(libc::CLOCK_PROCESS_CPUTIME_ID, libc::SIGEV_SIGNAL, 4)?;
    let thread = create(libc::CLOCK_THREAD_CPUTIME_ID, libc::SIGEV_SIGNAL, 5)?;
    // The CPU clocks of this very process and thread by their numbers (clock_getcpuclockid(3)).
    let named = [2, 6].map(|sort| create(!sys::gettid() << 3 | sort, libc::SIGEV_NONE, 0));
    let far = [libc::CLOCK_BOOTTIME, libc::CLOCK_REALTIME].map(|clock| create(clock, libc::SIGEV_NONE, 0));
    raw!(SYS_timer_delete, gap)?;

    let (start, monotonic_before) = (steady(), monotonic());
    let due = start + later_ms() * 1_000_000;
    let interval = libc::itimerval { it_interval: val(700), it_value: val(later_ms()) };
    sys!(setitimer(libc::ITIMER_REAL, &raw const interval, std::ptr::null_mut()))?;
    let virtual_timer = libc::itimerval { it_interval: val(0), it_value: val(100_000) };
    sys!(setitimer(libc::ITIMER_VIRTUAL, &raw const virtual_timer, std::ptr::null_mut()))?;
    // Stopped, and its interval still shows.
    let stopped = libc::itimerval { it_interval: val(7000), it_value: val(0) };
    sys!(setitimer(libc::ITIMER_PROF, &raw const stopped, std::ptr::null_mut()))?;
    arm(relative, 0, later_ms() * MS, 0)?;
    let boot = clock(libc::CLOCK_BOOTTIME) + later_ms() * 1_000_000;
    arm(absolute, libc::TIMER_ABSTIME, boot, 0)?;
    let wall_due = clock(libc::CLOCK_REALTIME) + later_ms() * 1_000_000;
    arm(wall, libc::TIMER_ABSTIME, wall_due, 0)?;
    arm(ticking, 0, 100 * MS, 100 * MS)?;
    let [boot_far, wall_far] = far;
    let far = [silent, boot_far?, wall_far?];
    for timer in far {
        arm(timer, 0, FAR, 7000 * MS)?;
    }
    let armed = steady();
    arm(process, 0, USED, USED)?;
    arm(thread, 0, USED, 0)?;
    let [own_process, own_thread] = named;
    let named = [own_process?, own_thread?];
    for timer in named {
        arm(timer, 0, 100_000_000 * MS, 5 * MS)?;
    }

    zoo.keep("ids and targets of the timers", timers);
    let boot_before = clock(libc::CLOCK_BOOTTIME);
    let raw_before = clock(libc::CLOCK_MONOTONIC_RAW);
    let wall_before = clock(libc::CLOCK_REALTIME);
    zoo.ready();

    // Without time namespaces these begin anew with a boot.
    if has_namespace() {
        let now = monotonic();
        zoo.check("CLOCK_MONOTONIC does not go back", now >= monotonic_before);
        zoo.check("CLOCK_MONOTONIC does not leap", now - monotonic_before < 60_000_000_000 * pace());
        zoo.check("CLOCK_BOOTTIME does not go back", clock(libc::CLOCK_BOOTTIME) >= boot_before);
        zoo.check("CLOCK_MONOTONIC_RAW does not go back", clock(libc::CLOCK_MONOTONIC_RAW) >= raw_before);
    }
    zoo.check("CLOCK_REALTIME does not go back", clock(libc::CLOCK_REALTIME) >= wall_before);
    countdowns(zoo, &far, disarmed, start..=armed)?;
    used(zoo, named)?;
    let ticks = TICKS.load(Ordering::SeqCst);
    zoo::time::sleep_until(monotonic() + 1_000_000_000);
    let more = TICKS.load(Ordering::SeqCst) - ticks;
    zoo.check(&format!("an interval timer goes on ({more} of about 10 ticks)"), (3..=40).contains(&more));
    fired(zoo, start, due, wall_due);
    zoo.expect("the id of the next timer", create(libc::CLOCK_MONOTONIC, libc::SIGEV_NONE, 0)?, far[2] + 1);
    Ok(())
}

/// What has not fired yet still counts down from what it was set to.
fn countdowns(zoo: &mut Zoo, far: &[i32], disarmed: i32, start: RangeInclusive<i64>) -> Outcome {
    for timer in far {
        let before = steady() - start.end();
        let [interval, left] = remaining(*timer)?;
        zoo.counts(&format!("the silent timer {timer}"), FAR - left, before..=steady() - start.start());
        zoo.expect("the interval of a silent timer", interval, 7_000_000_000);
    }
    zoo.expect("the value of a disarmed timer", remaining(disarmed)?[1], 0);
    let mut left: libc::itimerval = sys::zeroed();
    sys!(getitimer(libc::ITIMER_VIRTUAL, &raw mut left))?;
    zoo.check("the virtual timer is armed", (90..=100).contains(&left.it_value.tv_sec));
    sys!(getitimer(libc::ITIMER_PROF, &raw mut left))?;
    zoo.expect("the value of the stopped timer", (left.it_value.tv_sec, left.it_value.tv_usec), (0, 0));
    zoo.expect("the interval of the stopped timer", left.it_interval.tv_sec, 7);
    sys!(getitimer(libc::ITIMER_REAL, &raw mut left))?;
    zoo.expect("the interval of the real timer", left.it_interval.tv_usec as i64, 700_000);
    Ok(())
}

/// Timers on CPU clocks fire when that much of the processor was used, and not before.
fn used(zoo: &mut Zoo, named: [i32; 2]) -> Outcome {
    let fired = || [4, 5].map(|index| TIMES[index].load(Ordering::SeqCst) != 0);
    // A slow board waits for so long that looking for the go file takes as much.
    if pace() == 1 {
        zoo.expect("timers on CPU clocks that have fired", fired(), [false, false]);
    }
    for timer in named {
        let [interval, left] = remaining(timer)?;
        zoo.expect("the interval of a named CPU timer", interval, 5 * MS);
        zoo.check("what is left of it", (90_000_000 * MS..=100_000_000 * MS).contains(&left));
    }
    let start = clock(libc::CLOCK_PROCESS_CPUTIME_ID);
    while clock(libc::CLOCK_PROCESS_CPUTIME_ID) - start < 2 * USED && fired() != [true, true] {
        std::hint::spin_loop();
    }
    zoo.expect("the same when their time was used", fired(), [true, true]);
    Ok(())
}

/// Each one-shot timer fired once it was due.
fn fired(zoo: &mut Zoo, start: i64, due: i64, wall_due: i64) {
    let all =
        || REAL.load(Ordering::SeqCst) != 0 && TIMES[..4].iter().all(|time| time.load(Ordering::SeqCst) != 0);
    zoo.check("every timer fires", zoo::eventually(15_000, all));
    let time = |index: usize| TIMES[index].load(Ordering::SeqCst);
    zoo.due("a relative POSIX timer", time(0), due, slack_ms());
    zoo.due("an absolute POSIX timer", time(1), due, slack_ms());
    // The wall clock goes on while the image lies on the shelf, so this one may come earlier on CLOCK_MONOTONIC.
    zoo.check("a wall clock timer fires", time(2) > start);
    zoo.check("not before its wall time", clock(libc::CLOCK_REALTIME) >= wall_due);
    let alarm = REAL.load(Ordering::SeqCst);
    zoo.due("the real timer", alarm, due, slack_ms());
}

/// Ids, signals, values, notification and clocks, as /proc has them, in the order of the ids.
fn timers() -> String {
    let all = zoo::proc::text("/proc/self/timers");
    let mut blocks: Vec<String> =
        all.split("ID: ").skip(1).map(|block| block.trim().replace('\n', " ")).collect();
    blocks.sort();
    blocks.join("; ")
}
