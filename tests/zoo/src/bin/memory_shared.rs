//! Kind `sharing`: processes that live on the memory of their parent for good: what one writes or maps the others have;
//! handlers, masks, stacks for signals, user ids and threads are of each, and descriptors of whom they share them with.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};

use zoo::child::{self, Ended, tell, wait_while};
use zoo::{Outcome, Zoo, fd, proc, raw, sys, time};

/// Whose turn it is.
static TURN: AtomicU32 = AtomicU32::new(0);
/// How far the sharer is.
static SAID: AtomicU32 = AtomicU32::new(0);
/// The same for the one that has our descriptors.
static OPENED: AtomicU32 = AtomicU32::new(0);
/// What the parent wrote.
static VALUE: AtomicU32 = AtomicU32::new(0);
/// Bits for what the sharer found wrong.
static WRONG: AtomicU32 = AtomicU32::new(0);
/// The number of the sharer's thread, until the kernel clears it.
static THREAD: AtomicU32 = AtomicU32::new(0);
/// What that thread saw.
static SEEN: AtomicU32 = AtomicU32::new(0);
/// Pages that were mapped after the wait, by the parent and by the sharer.
static PAGES: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
/// Who ran the handler, and where its stack was.
static RAN: AtomicI32 = AtomicI32::new(0);
static STACK: AtomicUsize = AtomicUsize::new(0);

const ALTERNATE: usize = 64 * 1024;
const USER: u32 = 1000;

fn main() {
    zoo::run(program)
}

extern "C" fn handler(_: libc::c_int) {
    let here = 0_u8;
    STACK.store((&raw const here).addr(), Ordering::SeqCst);
    // SAFETY: no arguments, and it does not fail.
    RAN.store(unsafe { libc::syscall(libc::SYS_getpid) } as i32, Ordering::SeqCst);
}

/// Gives a signal the handler, on the alternate stack.
fn handle(signal: i32) -> Outcome<i32> {
    sys::handle(signal, handler, libc::SA_RESTART | libc::SA_ONSTACK)
}

/// Maps a page with this in it.
fn page(value: u32) -> Outcome<usize> {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let page = sys!(mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0))?;
    // SAFETY: a fresh page.
    unsafe { page.cast::<u32>().write_volatile(value) };
    Ok(page.addr())
}

/// What is at the beginning of a page; `other` is put there.
fn replace(page: usize, other: u32) -> u32 {
    let page = std::ptr::with_exposed_provenance::<AtomicU32>(page);
    // SAFETY: a page that was mapped for this, or the program ends here: then something is wrong.
    unsafe { (*page).swap(other, Ordering::SeqCst) }
}

/// The alternate stack that is set.
fn alternate() -> usize {
    let mut stack: libc::stack_t = sys::zeroed();
    // SAFETY: reads the current one.
    unsafe { libc::sigaltstack(std::ptr::null(), &raw mut stack) };
    stack.ss_sp.addr()
}

/// The life of the first sharer. It makes system calls only.
fn live(stack: usize, reader: i32) -> Outcome<i32> {
    let ss_sp = std::ptr::with_exposed_provenance_mut(stack);
    let own = libc::stack_t { ss_sp, ss_flags: 0, ss_size: ALTERNATE };
    sys!(sigaltstack(&raw const own, std::ptr::null_mut()))?;
    let mut set: libc::sigset_t = sys::zeroed();
    sys!(sigaddset(&raw mut set, libc::SIGWINCH))?;
    sys!(sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
    handle(libc::SIGUSR2)?;
    fd::close(reader);
    let thread =
        libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    child::clone(thread | libc::CLONE_SYSVSEM, || {
        THREAD.store(sys::gettid().cast_unsigned(), Ordering::SeqCst);
        let _ = raw!(SYS_set_tid_address, THREAD.as_ptr());
        tell(&SAID, 1);
        wait_while(&TURN, 0);
        SEEN.store(VALUE.load(Ordering::SeqCst), Ordering::SeqCst);
        0
    })?;
    wait_while(&SAID, 0);
    // A sharer of the sharer, with its descriptors.
    let next = child::clone(libc::CLONE_VM | libc::CLONE_FILES | libc::SIGCHLD, || {
        wait_while(&TURN, 0);
        let closed = !fd::is_open(reader);
        let opened = sys!(fcntl(2, libc::F_DUPFD, 78)).unwrap_or(-1);
        if closed && opened == 78 && VALUE.load(Ordering::SeqCst) == 7 { 3 } else { 1 }
    })?;
    // A copy of the memory, which has ended.
    let dead = child::clone(libc::SIGCHLD, || 8)?;
    raw!(SYS_setresuid, USER, USER, USER)?;
    tell(&SAID, 2);
    wait_while(&TURN, 0);

    let mut bit = 1;
    let mut check = |holds: bool| {
        if !holds {
            WRONG.fetch_or(bit, Ordering::SeqCst);
        }
        bit <<= 1;
    };
    check(VALUE.load(Ordering::SeqCst) == 7);
    check(replace(PAGES[0].load(Ordering::SeqCst), 12) == 11);
    PAGES[1].store(page(21)?, Ordering::SeqCst);
    check(alternate() == stack);
    // SAFETY: no arguments.
    check(unsafe { libc::getuid() } == USER);
    let mut looks = 0..10_000;
    check(looks.any(|_| {
        time::nap(2);
        THREAD.load(Ordering::SeqCst) == 0
    }));
    check(SEEN.load(Ordering::SeqCst) == 7);
    check(child::wait(next, 0) == Ended::Status(3 << 8));
    check(fd::is_open(78) && !fd::is_open(77) && !fd::is_open(reader));
    check(child::wait(dead, 0) == Ended::Status(8 << 8));
    tell(&SAID, 3);
    wait_while(&TURN, 1);
    Ok(if replace(PAGES[1].load(Ordering::SeqCst), 0) == 22 { 4 } else { 5 })
}

fn program(zoo: &mut Zoo) -> Outcome {
    let (reader, _) = fd::pipe(libc::O_CLOEXEC)?;
    let stack = Box::leak(vec![0_u8; ALTERNATE].into_boxed_slice()).as_mut_ptr().expose_provenance();
    let said = |word: &AtomicU32, what: u32| zoo::eventually(5000, || word.load(Ordering::SeqCst) == what);
    let sharer = child::clone(libc::CLONE_VM | libc::SIGCHLD, move || live(stack, reader).unwrap_or(6))?;
    zoo.check("the sharer is set up", said(&SAID, 2));
    // One that job control has stopped.
    let halted = child::clone(libc::CLONE_VM | libc::SIGCHLD, || {
        wait_while(&TURN, 0);
        VALUE.load(Ordering::SeqCst).cast_signed()
    })?;
    sys!(kill(halted, libc::SIGSTOP))?;
    zoo.expect("a stop", child::wait(halted, libc::WUNTRACED), Ended::Status(libc::SIGSTOP << 8 | 0x7f));
    // Its group has lost its leader: for a moment one is made by it, without its memory.
    let leader = child::clone(libc::SIGCHLD, || {
        time::nap(20_000);
        0
    })?;
    sys!(setpgid(leader, leader))?;
    sys!(setpgid(halted, leader))?;
    sys!(kill(leader, libc::SIGKILL))?;
    zoo.reap_as("the leader", leader, "signal 9");
    zoo.keep("the group of the stopped one", move || proc::stat(&halted.to_string(), 5));
    zoo.keep("the state of the stopped one", move || proc::stat(&halted.to_string(), 3));
    // One with our descriptors and directories.
    let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_FS | libc::SIGCHLD;
    let fellow = child::clone(flags, || {
        wait_while(&TURN, 0);
        let opened = sys!(fcntl(2, libc::F_DUPFD, 77)).unwrap_or(-1);
        // SAFETY: takes an integer.
        unsafe { libc::umask(0o123) };
        tell(&OPENED, opened.cast_unsigned());
        wait_while(&TURN, 1);
        2
    })?;
    let copy = zoo.fork(|zoo| {
        zoo.arrive();
        zoo.wait();
        time::nap(50);
        zoo.expect("what a copy has", VALUE.load(Ordering::SeqCst), 0);
        Ok(())
    })?;
    zoo::thread::waiting(zoo)?;
    // Whoever gives up rights takes this from all.
    sys::set_prctl(libc::PR_SET_DUMPABLE, 1)?;
    zoo.keep("dumpable", || sys::prctl(libc::PR_GET_DUMPABLE, 0));
    // It ends when it likes.
    zoo.keep("what is shared with the copy", move || child::shared(copy));
    for (name, pid) in [("the sharer", sharer), ("the fellow", fellow)] {
        let who = pid.to_string();
        zoo.keep(&format!("what is shared with {name}"), move || child::shared(pid));
        for field in ["PPid", "Uid", "SigCgt", "SigBlk", "Threads"] {
            let who = who.clone();
            zoo.keep(&format!("{field} of {name}"), move || proc::status(&who, field));
        }
        for file in ["cmdline", "auxv"] {
            let path = format!("/proc/{pid}/{file}");
            zoo.keep(&path.clone(), move || format!("{:?}", std::fs::read(&path)));
        }
        zoo.keep(&format!("program of {name}"), move || proc::link(&format!("/proc/{who}/exe")));
    }
    zoo.keep("our own handlers", || proc::status("self", "SigCgt"));
    zoo.check("both sleep", proc::sleeps(sharer) && proc::sleeps(fellow));
    zoo.ready();

    handle(libc::SIGUSR1)?;
    PAGES[0].store(page(11)?, Ordering::SeqCst);
    VALUE.store(7, Ordering::SeqCst);
    tell(&TURN, 1);
    zoo.check("the sharer answers", said(&SAID, 3));
    zoo.expect("what the sharer found wrong", WRONG.load(Ordering::SeqCst), 0);
    zoo.expect("what it wrote into our page", replace(PAGES[0].load(Ordering::SeqCst), 0), 12);
    if SAID.load(Ordering::SeqCst) == 3 {
        zoo.expect("what is in its page", replace(PAGES[1].load(Ordering::SeqCst), 22), 21);
    }
    zoo.check("the fellow answers", said(&OPENED, 77));
    zoo.check(
        "a descriptor that the fellow opened, and none of the sharer",
        fd::is_open(77) && !fd::is_open(78),
    );
    zoo.check("a descriptor that the sharer closed", fd::is_open(reader));
    zoo.expect("the fellow's umask", proc::status("self", "Umask"), "0123".to_owned());
    let caught = |who: &str| u64::from_str_radix(&proc::status(who, "SigCgt"), 16).unwrap_or(0);
    let has = |who: &str, signal: i32| caught(who) >> (signal - 1) & 1 == 1;
    let who = sharer.to_string();
    zoo.check(
        "handlers of each",
        has("self", libc::SIGUSR1) && !has(&who, libc::SIGUSR1) && has(&who, libc::SIGUSR2),
    );
    sys!(kill(sharer, libc::SIGUSR2))?;
    zoo.check("it runs its handler", zoo::eventually(5000, || RAN.load(Ordering::SeqCst) == sharer));
    zoo.check("on its stack", (stack..stack + ALTERNATE).contains(&STACK.load(Ordering::SeqCst)));
    zoo.expect("its state", proc::stat(&halted.to_string(), 3), "T".to_owned());
    sys!(kill(halted, libc::SIGCONT))?;
    zoo.reap_as("the end of the stopped one", halted, "exit 7");
    tell(&TURN, 2);
    zoo.reap_as("the end of the sharer", sharer, "exit 4");
    zoo.reap_as("the end of the fellow", fellow, "exit 2");
    zoo.reap("a process with a copy", copy);
    Ok(())
}
