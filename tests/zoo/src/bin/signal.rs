//! Kind `signal`: handlers, masks, alternate stacks and pending signals with their data.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use zoo::proc::status;
use zoo::{Outcome, Zoo, raw, sys, timed};

static SEEN: AtomicI32 = AtomicI32::new(0);
static VALUE: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static STACK: AtomicUsize = AtomicUsize::new(0);
static ORDER: AtomicUsize = AtomicUsize::new(0);
static MASK_INSIDE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let local = 0_u8;
    STACK.store((&raw const local) as usize, Ordering::SeqCst);
    // SAFETY: SA_SIGINFO handlers get a siginfo.
    unsafe {
        CODE.store((*info).si_code, Ordering::SeqCst);
        VALUE.store((*info).si_value().sival_ptr as usize, Ordering::SeqCst);
        let mut set: libc::sigset_t = sys::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set);
        MASK_INSIDE.store(libc::sigismember(&raw const set, libc::SIGTTIN) as usize, Ordering::SeqCst);
    }
    ORDER.store(ORDER.load(Ordering::SeqCst) * 100 + signal as usize, Ordering::SeqCst);
    SEEN.fetch_add(1, Ordering::SeqCst);
}

fn main() {
    zoo::run(program)
}

fn catch(signal: i32, flags: i32, masked: &[i32]) -> Outcome {
    let mut action: libc::sigaction = sys::zeroed();
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = flags | libc::SA_SIGINFO;
    for other in masked {
        sys!(sigaddset(&raw mut action.sa_mask, *other))?;
    }
    sys!(sigaction(signal, &raw const action, std::ptr::null_mut()))?;
    Ok(())
}

/// The kernel's own idea of a disposition: handler, flags, restorer, mask.
fn disposition(signal: i32) -> String {
    let mut action = [0_usize; 4 + 64 / usize::BITS as usize];
    match raw!(SYS_rt_sigaction, signal, std::ptr::null::<u8>(), action.as_mut_ptr(), 8) {
        Ok(_) => format!("{action:x?}"),
        Err(problem) => problem.0,
    }
}

fn block(signals: &[i32], how: i32) {
    let mut set: libc::sigset_t = sys::zeroed();
    // SAFETY: a live set.
    unsafe {
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut());
    }
}

const QUEUED: i32 = 40;
const STACKED: i32 = 41;

fn program(zoo: &mut Zoo) -> Outcome {
    let stack = alternate_stack()?;
    catch(libc::SIGUSR1, libc::SA_RESTART, &[libc::SIGTTIN])?;
    catch(libc::SIGUSR2, libc::SA_NODEFER | libc::SA_RESETHAND, &[])?;
    catch(STACKED, libc::SA_ONSTACK, &[libc::SIGTTOU, libc::SIGWINCH])?;
    catch(QUEUED, 0, &[])?;
    catch(libc::SIGCHLD, libc::SA_NOCLDSTOP, &[])?;
    // SAFETY: takes integers.
    unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        libc::signal(libc::SIGQUIT, libc::SIG_IGN);
    }
    for signal in (1..=64).filter(|signal| !matches!(signal, 9 | 19)) {
        zoo.keep(&format!("disposition of signal {signal}"), move || disposition(signal));
    }
    block(&[QUEUED, libc::SIGUSR1, libc::SIGALRM, libc::SIGTERM], libc::SIG_BLOCK);
    pend()?;
    for field in ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"] {
        zoo.keep(field, move || status("self", field));
    }
    zoo.keep("alternate stack", || {
        let mut stack: libc::stack_t = sys::zeroed();
        // SAFETY: reads the current one.
        unsafe { libc::sigaltstack(std::ptr::null(), &raw mut stack) };
        format!("{:p} {} {}", stack.ss_sp, stack.ss_flags, stack.ss_size)
    });
    let suspended = zoo.fork_blocked(suspended)?;
    zoo.ready();

    pending(zoo)?;
    // SAFETY: our own thread.
    unsafe { libc::raise(STACKED) };
    let at = STACK.load(Ordering::SeqCst);
    zoo.check("a handler runs on the alternate stack", (stack..stack + 65536).contains(&at));
    zoo.expect("SIGTTIN is blocked in another handler", MASK_INSIDE.load(Ordering::SeqCst), 0);
    block(&[libc::SIGUSR1], libc::SIG_UNBLOCK);
    // SAFETY: our own thread.
    unsafe { libc::raise(libc::SIGUSR1) };
    zoo.expect("SIGTTIN is blocked in the handler of SIGUSR1", MASK_INSIDE.load(Ordering::SeqCst), 1);
    // SAFETY: our own children.
    unsafe { libc::kill(suspended, libc::SIGUSR2) };
    zoo.reap("a process in sigsuspend", suspended);
    Ok(())
}

fn alternate_stack() -> Outcome<usize> {
    let memory = Box::leak(vec![0_u8; 65536].into_boxed_slice());
    let mut stack: libc::stack_t = sys::zeroed();
    stack.ss_sp = memory.as_mut_ptr().cast();
    stack.ss_size = memory.len();
    sys!(sigaltstack(&raw const stack, std::ptr::null_mut()))?;
    Ok(memory.as_ptr() as usize)
}

/// Three queued values for the process, one for the thread, one plain signal of each sort.
fn pend() -> Outcome {
    // SAFETY: no arguments.
    let pid = unsafe { libc::getpid() };
    for value in [11_usize, 22, 33] {
        let value = libc::sigval { sival_ptr: value as *mut libc::c_void };
        sys!(sigqueue(pid, QUEUED, value))?;
    }
    raw!(SYS_tgkill, pid, sys::gettid(), libc::SIGUSR1)?;
    sys!(kill(pid, libc::SIGTERM))?;
    Ok(())
}

/// Takes the pending signals one by one and looks at their data.
fn pending(zoo: &mut Zoo) -> Outcome {
    let own = std::process::id() as i32;
    for value in [11_usize, 22, 33] {
        let info = take(QUEUED)?;
        // SAFETY: a queued signal has these fields.
        let got = unsafe { (info.si_code, info.si_pid(), info.si_value().sival_ptr as usize) };
        zoo.expect("a queued signal's code, sender and value", got, (libc::SI_QUEUE, own, value));
    }
    let info = take(libc::SIGUSR1)?;
    // SAFETY: a signal of tgkill has a sender.
    zoo.expect("the thread's own signal", (info.si_code, unsafe { info.si_pid() }), (libc::SI_TKILL, own));
    let info = take(libc::SIGTERM)?;
    // SAFETY: a signal of kill has a sender.
    zoo.expect("the process's signal", (info.si_code, unsafe { info.si_pid() }), (libc::SI_USER, own));
    zoo.expect("signals left in the thread", status("self", "SigPnd"), "0".repeat(16));
    Ok(())
}

fn take(signal: i32) -> Outcome<libc::siginfo_t> {
    let mut set: libc::sigset_t = sys::zeroed();
    let mut info: libc::siginfo_t = sys::zeroed();
    let none = zoo::time::time(0);
    sys!(sigaddset(&raw mut set, signal))?;
    // The raw call: glibc's reports SI_TKILL as SI_USER.
    let got = timed!(RT_SIGTIMEDWAIT, &raw const set, &raw mut info, &raw const none, 8);
    got.map_err(|problem| format!("taking signal {signal}: {problem}"))?;
    Ok(info)
}

/// Waits in sigsuspend for SIGUSR2, which is blocked outside of it.
fn suspended(zoo: &mut Zoo) -> Outcome {
    block(&[libc::SIGUSR2, libc::SIGWINCH], libc::SIG_BLOCK);
    let before = status("self", "SigBlk");
    let mut open: libc::sigset_t = sys::zeroed();
    SEEN.store(0, Ordering::SeqCst);
    zoo.arrive();
    // SAFETY: live sets.
    unsafe {
        libc::sigfillset(&raw mut open);
        libc::sigdelset(&raw mut open, libc::SIGUSR2);
        libc::sigsuspend(&raw const open);
    }
    zoo.expect("errno of sigsuspend", sys::errno(), libc::EINTR);
    zoo.expect("handlers run by sigsuspend", SEEN.load(Ordering::SeqCst), 1);
    zoo.expect("the mask after sigsuspend", status("self", "SigBlk"), before);
    Ok(())
}
