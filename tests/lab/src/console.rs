//! The guest's serial console: every line with the host's time, kept in a file as well.
//!
//! A guest's own clock is no measure across a restore, so all timing is by the host, at the moment the
//! end of the line arrived.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// One line without its end.
#[derive(Clone, Debug)]
pub struct Line {
    pub at: Instant,
    pub text: String,
}

#[derive(Default)]
struct Heard {
    lines: Vec<Line>,
    /// begun, not ended: a prompt
    partial: String,
    closed: bool,
}

/// What is waited for, and from where on.
pub struct Console {
    heard: Arc<(Mutex<Heard>, Condvar)>,
    input: ChildStdin,
}

impl Console {
    /// Reads from now on, in a thread of its own, until the guest is gone.
    pub fn new(input: ChildStdin, from: ChildStdout, log: &Path) -> Result<Self> {
        let log = File::create(log).with_context(|| format!("making {}", log.display()))?;
        let heard = Arc::new((Mutex::new(Heard::default()), Condvar::new()));
        let shared = Arc::clone(&heard);
        std::thread::spawn(move || listen(from, log, &shared));
        Ok(Self { heard, input })
    }

    /// How many whole lines there are now: a place to wait from.
    pub fn mark(&self) -> usize {
        self.lock().lines.len()
    }

    /// All lines from a mark on.
    pub fn lines(&self, from: usize) -> Vec<Line> {
        self.lock().lines.get(from..).unwrap_or_default().to_vec()
    }

    /// Waits for a whole line that contains one of `texts`.
    pub fn wait(&self, from: usize, texts: &[&str], limit: Duration) -> Result<Line> {
        self.wait_for(from, texts, limit, false)
    }

    /// Waits for a prompt: a line that need not have ended.
    pub fn prompt(&self, from: usize, texts: &[&str], limit: Duration) -> Result<Line> {
        self.wait_for(from, texts, limit, true)
    }

    fn wait_for(&self, from: usize, texts: &[&str], limit: Duration, partial: bool) -> Result<Line> {
        let end = Instant::now() + limit;
        let mut heard = self.lock();
        loop {
            if let Some(line) = find(&heard, from, texts, partial) {
                return Ok(line);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || heard.closed {
                let why = if heard.closed { "the guest ended" } else { "timed out" };
                bail!("waiting for {texts:?} on the console: {why}; last lines:\n{}", last(&heard, 12));
            }
            let waited = self.heard.1.wait_timeout(heard, left);
            heard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// True when nothing more will come.
    pub fn ended(&self) -> bool {
        self.lock().closed
    }

    /// Types a line.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.input.write_all(format!("{text}\n").as_bytes())?;
        self.input.flush().context("typing on the console")
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(heard: &Heard, from: usize, texts: &[&str], partial: bool) -> Option<Line> {
    let matches = |text: &str| texts.iter().any(|t| text.contains(t));
    if let Some(line) = heard.lines.iter().skip(from).find(|l| matches(&l.text)) {
        return Some(line.clone());
    }
    (partial && matches(&heard.partial)).then(|| Line { at: Instant::now(), text: heard.partial.clone() })
}

fn last(heard: &Heard, count: usize) -> String {
    let lines = &heard.lines;
    let mut text: Vec<&str> =
        lines[lines.len().saturating_sub(count)..].iter().map(|l| l.text.as_str()).collect();
    text.push(&heard.partial);
    text.join("\n")
}

fn listen(mut from: ChildStdout, mut log: File, shared: &(Mutex<Heard>, Condvar)) {
    let begin = Instant::now();
    let mut buffer = [0; 4096];
    loop {
        let count = from.read(&mut buffer).unwrap_or(0);
        let now = Instant::now();
        let mut heard = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        if count == 0 {
            writeln!(log, "{}", heard.partial).ok();
            heard.closed = true;
            shared.1.notify_all();
            return;
        }
        for character in String::from_utf8_lossy(&buffer[..count]).chars() {
            match character {
                '\n' => {
                    let text = std::mem::take(&mut heard.partial);
                    writeln!(log, "[{:9.3}] {text}", (now - begin).as_secs_f64()).ok();
                    heard.lines.push(Line { at: now, text });
                }
                '\r' => {}
                other => heard.partial.push(other),
            }
        }
        shared.1.notify_all();
    }
}
