//! A quiet moment for the capture: no thread runs or waits for a disk, none has used the processor of late.
//!
//! The last script starts daemons that still read their configuration when it is done. A capture in the middle
//! of that works, but the image then repeats that work on every boot, and each boot ends it at another moment.

use crate::sorted::Listed;
use std::time::{Duration, Instant};

use crate::sorted;
use crate::sys::fs;
use crate::text;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(30);

/// What a task was seen doing: its number, and the processor time it had used, in ticks.
type Seen = Vec<(u32, u64)>;

/// Waits until two looks at all tasks agree, or the time is over. Tells whether it is quiet.
#[must_use]
pub fn wait(limit: Duration) -> bool {
    let start = Instant::now();
    let own = std::process::id();
    let mut before = None;
    loop {
        let now = look(own);
        if now.is_some() && now == before {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        before = now;
        std::thread::sleep(INTERVAL);
    }
}

/// All tasks but ourselves and those of the kernel; `None` when one of them is busy right now.
fn look(own: u32) -> Option<Seen> {
    let mut seen = Vec::new();
    for pid in numbers("/proc").into_iter().filter(|pid| *pid != own) {
        let Some(leader) = read(pid, pid) else { continue };
        if leader.kernel {
            continue;
        }
        for tid in numbers(&format!("/proc/{pid}/task")) {
            let Some(task) = read(pid, tid) else { continue };
            if matches!(task.state, 'R' | 'D') {
                return None;
            }
            seen.push((tid, task.ticks));
        }
    }
    sorted::sort(&mut seen);
    Some(seen)
}

/// The names in a folder that are numbers; none if it is gone.
fn numbers(folder: &str) -> Vec<u32> {
    fs::numbers(folder).unwrap_or_default()
}

fn read(pid: u32, tid: u32) -> Option<Task> {
    parse(&fs::text(format!("/proc/{pid}/task/{tid}/stat")).ok()?)
}

struct Task {
    state: char,
    kernel: bool,
    ticks: u64,
}

/// PF_KTHREAD of <linux/sched.h>.
const PF_KTHREAD: u64 = 0x0020_0000;

/// State, flags, utime and stime: fields 3, 9, 14 and 15 of proc_pid_stat(5).
fn parse(stat: &str) -> Option<Task> {
    let (_, tail) = text::split_last(stat, ')')?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().list();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Task {
        state: fields.first()?.chars().next()?,
        kernel: number(9)? & PF_KTHREAD != 0,
        ticks: number(14)? + number(15)?,
    })
}

#[cfg(test)]
mod tests {
    use super::{look, numbers, parse, read};

    #[test]
    fn threads_are_looked_at_too() {
        let own = std::process::id();
        let (send, receive) = std::sync::mpsc::channel();
        let end = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let until = end.clone();
        let busy = std::thread::spawn(move || {
            send.send(nix::unistd::gettid().as_raw().cast_unsigned()).unwrap();
            while !until.load(std::sync::atomic::Ordering::Relaxed) {}
        });
        let tid = receive.recv().unwrap();
        assert_ne!(tid, own);
        assert!(numbers("/proc/self/task").contains(&tid));
        let task = read(own, tid).unwrap();
        assert!(task.state == 'R' && !task.kernel);
        assert!(look(0).is_none(), "this thread, or that one");
        end.store(true, std::sync::atomic::Ordering::Relaxed);
        busy.join().unwrap();
    }

    #[test]
    fn busy_tasks_and_kernel_threads_are_told_apart() {
        let task = parse("7 (a) b) R 1 7 7 0 -1 4194304 1 0 0 0 12 30 0 0 20 0 1 0 5").unwrap();
        assert!(task.state == 'R' && !task.kernel && task.ticks == 42);
        let thread = parse("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 5").unwrap();
        assert!(thread.kernel);
        assert!(parse("nonsense").is_none());
    }
}
