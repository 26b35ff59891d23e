//! Children: each sets itself up, arrives, and is judged by its exit status.

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
