//! Kind `thread`: threads keep their ids, names, masks, affinity, TLS and locks, wake from futex waits, and
//! can be joined.

use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};

use zoo::proc::{status, text};
use zoo::{Keep, Outcome, Zoo, proc, raw, sys, timed};

const THREADS: usize = 12;

thread_local! {
    static LOCAL: Cell<usize> = const { Cell::new(0) };
}

fn main() {
    zoo::run(program)
}

#[derive(Default)]
struct Meeting {
    open: Mutex<bool>,
    changed: Condvar,
}

fn program(zoo: &mut Zoo) -> Outcome {
    let meeting = Arc::new(Meeting::default());
    let barrier = Arc::new(Barrier::new(THREADS + 1));
    let waiters: Vec<_> = (0..THREADS)
        .map(|number| {
            let (meeting, barrier) = (meeting.clone(), barrier.clone());
            std::thread::spawn(move || waiter(number, &meeting, &barrier))
        })
        .collect();
    barrier.wait();
    let robust = Robust::start()?;
    let word = Arc::new(AtomicU32::new(0));
    let raw_waiter = {
        let (word, (tells, told)) = (word.clone(), std::sync::mpsc::channel());
        let waiter = std::thread::spawn(move || {
            let _ = tells.send(sys::gettid());
            futex_wait(&word)
        });
        // A thread that is still being set up has another signal mask, and no stack for signals.
        zoo.check("a raw futex wait begins", told.recv().is_ok_and(proc::sleeps));
        waiter
    };
    zoo.keep("the list of threads", tasks);
    zoo.keep("robust list of the main thread", robust_list);
    zoo.ready();

    *meeting.open.lock().map_err(|_| "poisoned")? = true;
    meeting.changed.notify_all();
    for (number, waiter) in waiters.into_iter().enumerate() {
        // pthread_join waits for the word that the kernel clears: set_tid_address must have been kept.
        let problems = waiter.join().map_err(|_| format!("thread {number} panicked"))?;
        zoo.extend(problems);
    }
    word.store(1, Ordering::SeqCst);
    raw!(SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX)?;
    zoo.expect("a raw futex wait", raw_waiter.join().map_err(|_| "a thread panicked")?, "woken".to_owned());
    robust.check(zoo);
    let after = std::thread::spawn(|| 41 + 1).join().map_err(|_| "a new thread panicked")?;
    zoo.expect("a thread made after the wait", after, 42);
    Ok(())
}

fn tasks() -> String {
    let mut names: Vec<String> = std::fs::read_dir("/proc/self/task")
        .map(|dir| dir.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names.join(" ")
}

fn waiter(number: usize, meeting: &Meeting, barrier: &Barrier) -> Vec<String> {
    let tid = sys::gettid();
    LOCAL.set(number + 1000);
    let name = format!("waiter-{number}");
    let problem = settle(number, &name);
    let mut keep = Keep::default();
    keep.add("tid", || sys::gettid().to_string());
    keep.add("pid", || std::process::id().to_string());
    keep.add("comm", move || text(&format!("/proc/self/task/{tid}/comm")));
    for field in ["SigBlk", "Cpus_allowed", "Uid", "CapEff", "NoNewPrivs"] {
        keep.add(field, move || status("thread-self", field));
    }
    keep.add("robust list", robust_list);
    keep.add("clear_child_tid", tid_address);
    keep.add("alternate stack", alternate_stack);
    keep.add("timer slack", || sys::prctl(libc::PR_GET_TIMERSLACK, 0));
    // SAFETY: no pointers.
    keep.add("pthread_self", || format!("{:#x}", unsafe { libc::pthread_self() } as usize));
    barrier.wait();
    let Ok(mut open) = meeting.open.lock() else { return vec!["poisoned".into()] };
    while !*open {
        open = match meeting.changed.wait(open) {
            Ok(open) => open,
            Err(_) => return vec!["poisoned".into()],
        };
    }
    drop(open);
    let mut problems: Vec<String> =
        keep.verify().into_iter().map(|p| format!("thread {number}: {p}")).collect();
    problems.extend(problem);
    if LOCAL.get() != number + 1000 {
        problems.push(format!("thread {number}: its TLS is lost"));
    }
    problems
}

/// A name, a signal mask, an affinity and a slack that differ between the threads.
fn settle(number: usize, name: &str) -> Option<String> {
    let name = std::ffi::CString::new(name).unwrap_or_default();
    let mut set: libc::sigset_t = sys::zeroed();
    let mut cpus: libc::cpu_set_t = sys::zeroed();
    // SAFETY: live structs of the right size.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        libc::prctl(libc::PR_SET_TIMERSLACK, 70_000 + number as libc::c_ulong);
        libc::sigaddset(&raw mut set, 34 + number as i32);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::sched_getaffinity(0, size_of_val(&cpus), &raw mut cpus);
        let allowed: Vec<usize> =
            (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &cpus)).collect();
        let mut mine: libc::cpu_set_t = sys::zeroed();
        libc::CPU_SET(allowed[number % allowed.len()], &mut mine);
        if !number.is_multiple_of(3) && libc::sched_setaffinity(0, size_of_val(&mine), &raw const mine) == -1
        {
            return Some(format!("sched_setaffinity: errno {}", sys::errno()));
        }
    }
    None
}

fn robust_list() -> String {
    let (mut head, mut length) = (0_usize, 0_usize);
    match raw!(SYS_get_robust_list, 0, &raw mut head, &raw mut length) {
        Ok(_) => format!("{head:#x} {length}"),
        Err(problem) => problem.0,
    }
}

fn tid_address() -> String {
    let mut address = 0_usize;
    // SAFETY: PR_GET_TID_ADDRESS (40) writes one pointer.
    match unsafe { libc::prctl(40, &raw mut address) } {
        0 => format!("{address:#x}"),
        _ => std::io::Error::last_os_error().to_string(),
    }
}

fn alternate_stack() -> String {
    let mut stack: libc::stack_t = sys::zeroed();
    // SAFETY: reads the current one.
    unsafe { libc::sigaltstack(std::ptr::null(), &raw mut stack) };
    format!("{:p} {} {}", stack.ss_sp, stack.ss_flags, stack.ss_size)
}

fn futex_wait(word: &AtomicU32) -> String {
    while word.load(Ordering::SeqCst) == 0 {
        let flags = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        if let Err(problem) = timed!(FUTEX, word.as_ptr(), flags, 0, std::ptr::null::<zoo::time::Time>())
            && sys::errno() != libc::EAGAIN
        {
            return problem.0;
        }
    }
    "woken".into()
}

/// A thread that holds a robust mutex and ends without letting go of it: the kernel must mark the mutex.
struct Robust {
    mutex: Arc<RawMutex>,
    end: Arc<AtomicI32>,
    owner: std::thread::JoinHandle<i32>,
}

struct RawMutex(std::cell::UnsafeCell<libc::pthread_mutex_t>);
// SAFETY: a pthread mutex is made for threads.
unsafe impl Sync for RawMutex {}
// SAFETY: it stays where it is, in its Arc.
unsafe impl Send for RawMutex {}

impl Robust {
    fn start() -> Outcome<Robust> {
        let mutex = Arc::new(RawMutex(std::cell::UnsafeCell::new(sys::zeroed())));
        let mut attr: libc::pthread_mutexattr_t = sys::zeroed();
        // SAFETY: initialised in this order, as pthread_mutexattr_setrobust(3) has it.
        unsafe {
            libc::pthread_mutexattr_init(&raw mut attr);
            libc::pthread_mutexattr_setrobust(&raw mut attr, libc::PTHREAD_MUTEX_ROBUST);
            libc::pthread_mutex_init(mutex.0.get(), &raw const attr);
        }
        let end = Arc::new(AtomicI32::new(0));
        let (held, ends) = (mutex.clone(), end.clone());
        let owner = std::thread::spawn(move || {
            // SAFETY: an initialised mutex.
            let got = unsafe { libc::pthread_mutex_lock(held.0.get()) };
            ends.store(1, Ordering::SeqCst);
            while ends.load(Ordering::SeqCst) != 2 {
                zoo::time::nap(5);
            }
            got
        });
        if !zoo::eventually(10_000, || end.load(Ordering::SeqCst) == 1) {
            return Err("the owner of the robust mutex does not come".into());
        }
        Ok(Robust { mutex, end, owner })
    }

    fn check(self, zoo: &mut Zoo) {
        // SAFETY: an initialised mutex.
        zoo.expect(
            "trying a held mutex",
            unsafe { libc::pthread_mutex_trylock(self.mutex.0.get()) },
            libc::EBUSY,
        );
        self.end.store(2, Ordering::SeqCst);
        zoo.expect("the owner's lock", self.owner.join().unwrap_or(-1), 0);
        // SAFETY: as above.
        let got = unsafe { libc::pthread_mutex_lock(self.mutex.0.get()) };
        zoo.expect("locking a robust mutex whose owner is dead", got, libc::EOWNERDEAD);
    }
}
