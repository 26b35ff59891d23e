//! Threads that only are there, and which of them gets a signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::JoinHandle;

use crate::{Outcome, Zoo, sys, time};

/// A thread that lives as long as the program: its number.
///
/// # Errors
/// When it does not begin.
pub fn waiting(zoo: &Zoo) -> Outcome<i32> {
    let go = zoo.go();
    let begun = begin(move |_| {
        crate::wait_for(go.as_ref());
        loop {
            time::nap(1000);
        }
    })?;
    Ok(begun.number)
}

/// A thread that lives until it is told to end.
pub struct Ends {
    /// Its number.
    pub number: i32,
    told: Arc<AtomicI32>,
    thread: JoinHandle<()>,
}

/// A thread that lives until it is told to end.
///
/// # Errors
/// When it does not begin.
pub fn ending() -> Outcome<Ends> {
    begin(|told| {
        while told.load(Ordering::SeqCst) != 0 {
            time::nap(5);
        }
    })
}

impl Ends {
    /// Ends it.
    pub fn end(self) {
        self.told.store(0, Ordering::SeqCst);
        let _ = self.thread.join();
        crate::eventually(5000, || !std::path::Path::new(&format!("/proc/{}", self.number)).exists());
    }
}

fn begin(work: impl FnOnce(&AtomicI32) + Send + 'static) -> Outcome<Ends> {
    let told = Arc::new(AtomicI32::new(0));
    let its = Arc::clone(&told);
    let thread = std::thread::spawn(move || {
        its.store(sys::gettid(), Ordering::SeqCst);
        work(&its);
    });
    let begun = crate::eventually(5000, || told.load(Ordering::SeqCst) != 0);
    if begun {
        Ok(Ends { number: told.load(Ordering::SeqCst), told, thread })
    } else {
        Err("the thread does not begin".into())
    }
}

/// The thread that has run the handler of [`hear`].
static HEARD_BY: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_signal(_: i32) {
    HEARD_BY.store(sys::gettid(), Ordering::SeqCst);
}

/// Lets every thread say that it gets this signal ([`heard_by`]).
///
/// # Errors
/// The errno of signal(2).
pub fn hear(signal: i32) -> Outcome {
    let handler = on_signal as extern "C" fn(i32);
    sys!(signal(signal, handler as libc::sighandler_t))?;
    Ok(())
}

/// Does something, and says which thread gets the signal of it within so many milliseconds; 0 for none.
///
/// # Errors
/// Those of what it does.
pub fn heard_by(limit_ms: u64, cause: impl FnOnce() -> Outcome) -> Outcome<i32> {
    HEARD_BY.store(0, Ordering::SeqCst);
    cause()?;
    crate::eventually(limit_ms, || HEARD_BY.load(Ordering::SeqCst) != 0);
    Ok(HEARD_BY.load(Ordering::SeqCst))
}
