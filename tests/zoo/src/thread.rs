//! Threads that only are there.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::{Outcome, Zoo, sys, time};

/// A thread that lives as long as the program: its number.
///
/// # Errors
/// When it does not begin.
pub fn waiting(zoo: &Zoo) -> Outcome<i32> {
    let go = zoo.go();
    let number = Arc::new(AtomicI32::new(0));
    let its = Arc::clone(&number);
    std::thread::spawn(move || {
        its.store(sys::gettid(), Ordering::SeqCst);
        crate::wait_for(go.as_ref());
        loop {
            time::nap(1000);
        }
    });
    let begun = crate::eventually(5000, || number.load(Ordering::SeqCst) != 0);
    if begun { Ok(number.load(Ordering::SeqCst)) } else { Err("the thread does not begin".into()) }
}
