//! What every zoo program shares: the protocol, and small helpers to look at oneself.
//!
//! A program sets the objects of its kind up, prints `READY`, waits until the file named by its first argument
//! exists, checks everything that a user of the kind can observe, prints `PASS` or `FAIL: <what>` and exits
//! with 0 or 1. Between `READY` and the file it may be captured and restored, any number of times, or not at
//! all: it cannot know. The wait is a poll with a short nanosleep, so that it adds no object to the picture.
//! Scratch files go into the directory of that file. The three standard descriptors are the outside; nothing
//! else may lead there.
//!
//! A kind that this kernel does not have ends in `SKIP: <why>` and status 77, before `READY`.

use std::ffi::CString;
use std::fmt::Debug;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub mod blocked;
pub mod child;
pub mod fd;
pub mod group;
pub mod huge;
pub mod keep;
pub mod mount;
pub mod nameless;
pub mod net;
pub mod number;
pub mod proc;
pub mod pty;
pub mod seccomp;
pub mod sys;
pub mod thread;
pub mod time;

pub use keep::Keep;
pub use sys::Problem;

/// What a step of a program gives.
pub type Outcome<T = ()> = Result<T, Problem>;

/// The exit status that says "not applicable here".
pub const SKIPPED: i32 = 77;

/// A program's view of the protocol.
pub struct Zoo {
    go: Option<CString>,
    dir: PathBuf,
    problems: Vec<String>,
    keep: Keep,
    gate: Option<i32>,
}

/// Runs a program: the whole of its `main`.
pub fn run(program: fn(&mut Zoo) -> Outcome) -> ! {
    let go = std::env::args_os().nth(1);
    let dir = match go.as_deref().map(Path::new).and_then(Path::parent) {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
        _ => std::env::temp_dir(),
    };
    let go = go.and_then(|go| CString::new(go.as_bytes()).ok());
    let mut zoo = Zoo { go, dir, problems: Vec::new(), keep: Keep::default(), gate: None };
    let outcome = program(&mut zoo);
    std::process::exit(zoo.verdict(outcome))
}

impl Zoo {
    /// Says READY, waits for the go and looks again at everything in [`Zoo::keep`].
    pub fn ready(&mut self) {
        sys::say("READY\n");
        self.wait();
        self.verify();
    }

    /// Waits for the go without a word: what children and threads do.
    pub fn wait(&self) {
        wait_for(self.go.as_ref());
    }

    /// The file that a thread of its own can wait for with [`wait_for`].
    #[must_use]
    pub fn go(&self) -> Option<CString> {
        self.go.clone()
    }

    /// Looks again at everything in [`Zoo::keep`].
    pub fn verify(&mut self) {
        let found = self.keep.verify();
        self.problems.extend(found);
    }

    /// Something observable that must read the same after the wait.
    pub fn keep(&mut self, what: &str, read: impl Fn() -> String + Send + 'static) {
        self.keep.add(what, read);
    }

    /// A name for a scratch file of this program.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{}.{}.{name}", env_name(), std::process::id()))
    }

    /// The same as a C string.
    ///
    /// # Errors
    /// When the directory's name has a NUL in it, which no file name has.
    pub fn cpath(&self, name: &str) -> Outcome<CString> {
        CString::new(self.path(name).as_os_str().as_bytes()).map_err(|_| Problem("NUL in a path".into()))
    }

    /// Records a problem unless the two are equal.
    pub fn expect<T: PartialEq + Debug>(&mut self, what: &str, got: T, wanted: T) {
        if got != wanted {
            self.problems.push(format!("{what} is {got:?}, not {wanted:?}"));
        }
    }

    /// Records a problem unless `holds`.
    pub fn check(&mut self, what: &str, holds: bool) {
        if !holds {
            self.problems.push(format!("not so: {what}"));
        }
    }

    /// Records a problem unless `wanted <= got <= wanted + tolerance`, on [`time::steady`]: nothing is due early.
    /// Where a clock cannot be moved, absolute deadlines come late by the uptime at the capture, and the wall clock,
    /// which a board reads in whole seconds, goes on while the image lies on the shelf.
    pub fn due(&mut self, what: &str, got: i64, wanted: i64, tolerance_ms: i64) {
        let late = (got - wanted) / 1_000_000;
        let (early_ms, shelf_ms) = if time::has_namespace() { (0, 0) } else { (1000, 60_000 * time::pace()) };
        if late < -early_ms || got < wanted && early_ms == 0 || late > tolerance_ms + shelf_ms {
            self.problems.push(format!("{what} came {late} ms after it was due"));
        }
    }

    /// Records a problem unless a timer has counted down by `gone` while `elapsed` nanoseconds, between these two,
    /// went by on [`time::steady`]. Where the clock cannot be moved, it goes on for the time on the shelf too.
    pub fn counts(&mut self, what: &str, gone: i64, elapsed: std::ops::RangeInclusive<i64>) {
        let (early, late) = match time::has_namespace() {
            true => (0, 20_000_000 * time::pace()),
            false => (1_500_000_000, i64::MAX / 2),
        };
        if gone < elapsed.start() - late || gone > elapsed.end() + early {
            self.problems.push(format!("{what} counted {gone} ns while {elapsed:?} went by"));
        }
    }

    /// Records a problem.
    pub fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(what.into());
    }

    /// Problems that a thread found.
    pub fn extend(&mut self, problems: Vec<String>) {
        self.problems.extend(problems);
    }

    /// Ends the program as not applicable.
    pub fn skip(&self, why: &str) -> ! {
        sys::say(&format!("SKIP: {why}\n"));
        std::process::exit(SKIPPED)
    }

    fn verdict(mut self, outcome: Outcome) -> i32 {
        if let Err(Problem(problem)) = outcome {
            self.problems.push(problem);
        }
        if self.problems.is_empty() {
            sys::say("PASS\n");
            return 0;
        }
        sys::say(&format!("FAIL: {}\n", self.problems.join("; ")));
        1
    }
}

/// Polls for the go file; with none there is nothing to wait for. Less often where everything is slow: a hundred
/// tasks do it there at the same time.
pub fn wait_for(go: Option<&CString>) {
    if let Some(go) = go {
        while !sys::exists(go) {
            time::nap(5 + 25 * (time::pace() - 1));
        }
    }
}

/// Polls `holds` until it is so or the time is over: so much at the pace of a quiet machine.
pub fn eventually(limit_ms: u64, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    let limit_ms = limit_ms * time::pace().cast_unsigned();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() > Duration::from_millis(limit_ms) {
            return false;
        }
        time::nap(5);
    }
}

/// The program's own name, which is its kind.
#[must_use]
pub fn env_name() -> String {
    std::env::args_os()
        .next()
        .and_then(|arg| Path::new(&arg).file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "zoo".into())
}
