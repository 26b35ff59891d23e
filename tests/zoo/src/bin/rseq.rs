//! Kind `rseq`: restartable sequences stay registered, for every thread, and the kernel keeps them up to date.

use std::sync::mpsc;

use zoo::{Outcome, Zoo, sys};

/// rseq(2); libc has no name for it everywhere.
#[cfg(not(target_arch = "arm"))]
const RSEQ: libc::c_long = libc::SYS_rseq;
#[cfg(target_arch = "arm")]
const RSEQ: libc::c_long = 398;

/// What glibc registers: an instruction that nobody means to run.
const SIGNATURE: u32 = match () {
    () if cfg!(target_arch = "aarch64") => 0xd428_bc00,
    () if cfg!(target_arch = "arm") => 0xe7f5_def3,
    () => 0x5305_3053,
};

fn main() {
    zoo::run(program)
}

/// struct rseq as of its first version: 32 bytes, aligned to 32.
#[repr(C, align(32))]
struct Area([u32; 8]);

/// An area of this thread, registered here (musl) or by libc before (glibc).
struct Registered {
    at: *const u32,
    size: usize,
}

impl Registered {
    fn find() -> Outcome<Registered> {
        // SAFETY: these symbols are integers, where the C library has them.
        unsafe {
            let offset = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()).cast::<isize>();
            let size = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_size".as_ptr()).cast::<u32>();
            if !offset.is_null() && !size.is_null() && *size > 0 {
                let at = (thread_pointer() + *offset) as *const u32;
                return Ok(Registered { at, size: (*size as usize).max(32) });
            }
        }
        let at = Box::leak(Box::new(Area([0; 8]))).0.as_ptr();
        sys!(syscall(RSEQ, at, 32, 0, SIGNATURE))?;
        Ok(Registered { at, size: 32 })
    }

    /// The CPU that the kernel has written there.
    fn cpu(&self) -> u32 {
        // SAFETY: the second word of a live area: cpu_id.
        unsafe { std::ptr::read_volatile(self.at.add(1)) }
    }

    /// The errno of registering the same again: EBUSY if it is registered, and nothing else.
    fn again(&self) -> i32 {
        match sys!(syscall(RSEQ, self.at, self.size, 0, SIGNATURE)) {
            Ok(_) => 0,
            Err(_) => sys::errno(),
        }
    }

    /// Problems with the kernel's upkeep: the thread is moved to each CPU and looks.
    fn check(&self, who: &str) -> Vec<String> {
        let mut problems = Vec::new();
        if self.again() != libc::EBUSY {
            problems.push(format!("{who}: errno of a second registration is {}", self.again()));
        }
        let mut all: libc::cpu_set_t = sys::zeroed();
        // SAFETY: live sets.
        unsafe { libc::sched_getaffinity(0, size_of_val(&all), &raw mut all) };
        for cpu in 0..64_usize {
            let mut one: libc::cpu_set_t = sys::zeroed();
            // SAFETY: as above.
            let moved = unsafe {
                libc::CPU_SET(cpu, &mut one);
                libc::CPU_ISSET(cpu, &all)
                    && libc::sched_setaffinity(0, size_of_val(&one), &raw const one) == 0
            };
            if moved && self.cpu() != cpu as u32 {
                problems.push(format!("{who}: cpu_id is {} on CPU {cpu}", self.cpu()));
            }
        }
        // SAFETY: as above.
        unsafe { libc::sched_setaffinity(0, size_of_val(&all), &raw const all) };
        problems
    }
}

#[cfg(target_arch = "x86_64")]
fn thread_pointer() -> isize {
    let pointer: isize;
    // SAFETY: the first word of the thread block points to itself.
    unsafe { std::arch::asm!("mov {}, fs:0", out(reg) pointer) };
    pointer
}

#[cfg(target_arch = "aarch64")]
fn thread_pointer() -> isize {
    let pointer: isize;
    // SAFETY: reads the thread register.
    unsafe { std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer) };
    pointer
}

#[cfg(target_arch = "arm")]
fn thread_pointer() -> isize {
    let pointer: isize;
    // SAFETY: reads the thread register.
    unsafe { std::arch::asm!("mrc p15, 0, {}, c13, c0, 3", out(reg) pointer) };
    pointer
}

fn program(zoo: &mut Zoo) -> Outcome {
    let own = match Registered::find() {
        Ok(own) => own,
        Err(problem) if sys::errno() == libc::ENOSYS => zoo.skip(&problem.0),
        Err(problem) => return Err(problem),
    };
    let (told, tells) = mpsc::channel();
    let threads: Vec<_> = (0..3)
        .map(|number| {
            let (told, go) = (told.clone(), zoo.go());
            std::thread::spawn(move || {
                let own = Registered::find();
                let _ = told.send(());
                zoo::wait_for(go.as_ref());
                own.map_or_else(|p| vec![p.0], |own| own.check(&format!("thread {number}")))
            })
        })
        .collect();
    for _ in &threads {
        tells.recv().map_err(|_| "a thread ended")?;
    }
    zoo.expect("errno of a second registration before the wait", own.again(), libc::EBUSY);
    zoo.ready();
    zoo.extend(own.check("the main thread"));
    for thread in threads {
        zoo.extend(thread.join().map_err(|_| "a thread panicked")?);
    }
    Ok(())
}
