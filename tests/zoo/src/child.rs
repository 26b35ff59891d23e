//! Children: each sets itself up, arrives, and is judged by its exit status.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::time::{self, Time};
use crate::{Outcome, Problem, Zoo, fd, proc, sys};

impl Zoo {
    /// Forks a child that runs `program` and returns when the child has called [`Zoo::arrive`].
    ///
    /// # Errors
    /// When there is no child, or it ended before it arrived.
    pub fn fork(&self, program: impl FnOnce(&mut Zoo) -> Outcome) -> Outcome<i32> {
        let (reader, writer) = fd::pipe(libc::O_CLOEXEC)?;
        let pid = sys!(fork())?;
        if pid == 0 {
            fd::close(reader);
            let (go, dir) = (self.go.clone(), self.dir.clone());
            let mut zoo =
                Zoo { go, dir, problems: Vec::new(), keep: crate::Keep::default(), gate: Some(writer) };
            let outcome = program(&mut zoo);
            zoo.leave(outcome);
        }
        fd::close(writer);
        let arrived = fd::read(reader, 1)?.len();
        // It closes its end after it has told; its own children may hold the end too, so there is no end of file.
        let end = |process: String, fd: i32| std::fs::read_link(format!("/proc/{process}/fd/{fd}")).ok();
        let ours = end("self".into(), reader);
        crate::eventually(10_000, || end(pid.to_string(), writer) != ours);
        fd::close(reader);
        if arrived == 1 { Ok(pid) } else { Err(format!("child {pid} ended before it was set up").into()) }
    }

    /// A child that is about to call something that blocks: returns when it sleeps in it.
    ///
    /// # Errors
    /// When there is no child, or it does not come to sleep.
    pub fn fork_blocked(&self, program: impl FnOnce(&mut Zoo) -> Outcome) -> Outcome<i32> {
        let pid = self.fork(program)?;
        if proc::sleeps(pid) { Ok(pid) } else { Err(format!("child {pid} does not sleep").into()) }
    }

    /// A process in a group, or in a session too, whose leader has ended: (the number of the leader, the process). It
    /// runs `program` with the leader's number, and comes to us: we are a subreaper (PR_SET_CHILD_SUBREAPER).
    ///
    /// # Errors
    /// When one of the two is not there.
    pub fn left_behind(
        &mut self,
        session: bool,
        program: impl FnOnce(&mut Zoo, i32) -> Outcome,
    ) -> Outcome<(i32, i32)> {
        let (reader, writer) = fd::pipe(0)?;
        let leader = self.fork(move |zoo| {
            if session {
                sys!(setsid())?;
            } else {
                sys!(setpgid(0, 0))?;
            }
            let leader = std::process::id() as i32;
            let member = zoo.fork(move |zoo| {
                fd::close(reader);
                fd::close(writer);
                zoo.arrive();
                zoo.wait();
                program(zoo, leader)
            })?;
            fd::write(writer, &member.to_ne_bytes())?;
            zoo.arrive();
            Ok(())
        })?;
        let bytes = fd::read(reader, 4)?;
        fd::close(reader);
        fd::close(writer);
        self.reap("the leader that is gone", leader);
        let member = i32::from_ne_bytes(bytes.try_into().map_err(|_| "no number of the member")?);
        let own = std::process::id().to_string();
        let ours = crate::eventually(5000, || proc::stat(&member.to_string(), 4) == own);
        self.check("the one that is left is ours", ours);
        Ok((leader, member))
    }

    /// Tells the parent that this child is set up.
    pub fn arrive(&mut self) {
        if let Some(gate) = self.gate.take() {
            let told = fd::write(gate, b"!");
            fd::close(gate);
            if let Err(Problem(problem)) = told {
                self.problem(problem);
            }
        }
    }

    /// The end of a child: its problems go to the log, its status to the parent.
    fn leave(self, outcome: Outcome) -> ! {
        let mut problems = self.problems;
        problems.extend(outcome.err().map(|problem| problem.0));
        for problem in &problems {
            sys::note(problem);
        }
        // SAFETY: ends the process; a child of fork must not run the parent's exit handlers.
        unsafe { libc::_exit(i32::from(!problems.is_empty())) }
    }

    /// Waits for a child and expects this wait status of it.
    pub fn reap_as(&mut self, what: &str, pid: i32, wanted: &str) {
        let mut got = Ended::Not;
        crate::eventually(20_000, || {
            got = wait(pid, libc::WNOHANG);
            !matches!(got, Ended::Not)
        });
        if matches!(got, Ended::Not) {
            let state = proc::stat(&pid.to_string(), 3);
            self.problem(format!("{what} (pid {pid}) does not end, state {state}"));
            // SAFETY: our own child.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            wait(pid, 0);
            return;
        }
        self.expect(what, got.words(), wanted.to_owned());
    }

    /// Waits for a child and expects it to have found nothing wrong.
    pub fn reap(&mut self, what: &str, pid: i32) {
        self.reap_as(what, pid, "exit 0");
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It has not.
    Not,
    /// wait(2)'s status.
    Status(i32),
    /// wait(2) said this errno.
    Errno(i32),
}

impl Ended {
    /// `exit 0`, `signal 9`, `running`.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Ended::Not => "running".into(),
            Ended::Status(status) if libc::WIFEXITED(status) => format!("exit {}", libc::WEXITSTATUS(status)),
            Ended::Status(status) if libc::WIFSIGNALED(status) => {
                format!("signal {}", libc::WTERMSIG(status))
            }
            Ended::Status(status) => format!("status {status:#x}"),
            Ended::Errno(errno) => format!("errno {errno}"),
        }
    }
}

/// waitpid(2), again on EINTR.
pub fn wait(pid: i32, flags: i32) -> Ended {
    loop {
        let mut status = 0;
        // SAFETY: `status` is an int.
        match unsafe { libc::waitpid(pid, &raw mut status, flags) } {
            0 => return Ended::Not,
            -1 if sys::errno() == libc::EINTR => {}
            -1 => return Ended::Errno(sys::errno()),
            _ => return Ended::Status(status),
        }
    }
}

/// A task made by clone(2) with these flags, on a stack of its own; it ends with what the function gives.
/// With CLONE_VM it has the errno and the allocator of its maker, so it makes system calls and no more.
///
/// # Errors
/// When there is none.
pub fn clone<F: FnOnce() -> i32>(flags: i32, program: F) -> Outcome<i32> {
    extern "C" fn enter<F: FnOnce() -> i32>(program: *mut libc::c_void) -> i32 {
        // SAFETY: it was put there below, and is taken once.
        unsafe { program.cast::<F>().read()() }
    }
    const STACK: usize = 256 * 1024;
    let (prot, map) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let stack = sys!(mmap(std::ptr::null_mut(), STACK, prot, map, -1, 0))?;
    let top = stack.wrapping_byte_add(STACK - size_of::<F>().next_multiple_of(64));
    // SAFETY: the last bytes of the stack, which nobody uses yet.
    unsafe { top.cast::<F>().write(program) };
    sys!(clone(enter::<F>, top, flags, top))
}

/// What this process shares with another one: kcmp(2) for memory, descriptors, directories and handlers.
#[must_use]
pub fn shared(pid: i32) -> String {
    let same = |kind: i32| {
        // SAFETY: integers only.
        unsafe { libc::syscall(libc::SYS_kcmp, std::process::id() as i32, pid, kind, 0, 0) == 0 }
    };
    format!("memory {} files {} fs {} handlers {}", same(1), same(2), same(3), same(4))
}

/// Sleeps while a word of shared memory is `old` (futex(2), private to the memory). Allocates nothing.
pub fn wait_while(word: &AtomicU32, old: u32) {
    let (call, none) = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, std::ptr::null::<Time>());
    while word.load(Ordering::SeqCst) == old {
        // SAFETY: the word lives.
        unsafe { libc::syscall(time::FUTEX, word.as_ptr(), call, old, none) };
    }
}

/// Changes a word and wakes all that sleep on it.
pub fn tell(word: &AtomicU32, new: u32) {
    word.store(new, Ordering::SeqCst);
    let call = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word lives.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), call, i32::MAX) };
}
