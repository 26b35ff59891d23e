//! System calls inside another process: the one mechanism of capture and restore.
//!
//! A [`Batch`] is a list of calls with the data they point to. It is written to an area of the target, run
//! by the loop of `src/arch` at native speed, and ends in one ptrace stop. A call per stop would cost four
//! context switches each. Only the calls that set the area up and take it away are made one by one, at an
//! instruction for system calls borrowed from the target (its own last call, its vdso, or its program).

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::arch::{self, Cpu, Loop, Processor, Registers, Regs, Set};
use crate::error::{Context, Error, Result};
use crate::proc::smaps::{self, Mapping};
use crate::sys::abi::Number;
use crate::sys::fs;
use crate::sys::ptrace::{self, Status};
use crate::sys::vm;
pub use crate::task::batch::{AREA, Batch};
use crate::task::batch::{CALL, CALLS, DATA, FRAME, LAST_RESORT, call, mmap};

const KIND: &str = "remote";
/// Every signal but SIGTRAP, which ends a batch.
const ALL_BUT_TRAP: u64 = !(1 << (libc::SIGTRAP - 1));

/// A stop that nothing here leads to.
fn unexpected(doing: std::fmt::Arguments<'_>, stop: Option<(u32, i32)>) -> Error {
    let status = stop.map_or(0, |(_, status)| status);
    Error::new(KIND, doing.to_string(), format!("unexpected stop {status:x}"))
}

/// Makes one call in a stopped task at the instruction `insn`. The task's registers are lost.
fn borrowed(tid: u32, regs: &Regs, insn: u64, number: Number, args: &[u64; 6]) -> Result<i64> {
    let doing = format_args!("calling {number} in {tid}");
    let mut regs = regs.clone();
    Cpu::set_call(&mut regs, insn, number, args);
    ptrace::set_regs(tid, &regs).context(KIND, doing)?;
    for _ in ["entry", "exit"] {
        ptrace::to_syscall(tid).context(KIND, doing)?;
        match ptrace::wait(tid.cast_signed(), 0).context(KIND, doing)? {
            Some((_, status)) if ptrace::decode(status) == Status::Syscall => {}
            other => return Err(unexpected(doing, other)),
        }
    }
    let regs = ptrace::regs(tid).context(KIND, doing)?;
    Ok(Cpu::call_result(&regs))
}

fn succeed(result: i64, doing: &'static str) -> Result<u64> {
    match result {
        -4095..=-1 => Err(Error::os(KIND, doing, Errno::from_raw(i32::try_from(-result).unwrap_or(0)))),
        value => Ok(value.cast_unsigned()),
    }
}

/// An area inside a process, ready for batches of any of its threads.
#[derive(Debug)]
pub struct Area {
    base: u64,
    tgid: u32,
    insn: u64,
    /// Stack pointer for the call of last resort.
    stack: u64,
}

impl Area {
    /// An area that is already in the target because it was mapped before it was forked.
    #[must_use]
    pub fn inherited(base: u64, tgid: u32) -> Area {
        Area { base, tgid, insn: 0, stack: 0 }
    }

    /// Address of the area.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Maps an area into a stopped process, at `wanted` or wherever there is room (0). The task's signal
    /// mask is set to let SIGTRAP through and nothing else; the caller puts mask and registers back.
    ///
    /// # Errors
    /// The process has no `syscall` instruction to borrow, or no room.
    pub fn inject(tid: u32, tgid: u32, regs: &Regs, wanted: u64) -> Result<Area> {
        ptrace::set_sigmask(tid, ALL_BUT_TRAP).context(KIND, format_args!("blocking signals of {tid}"))?;
        let insn = find_insn(tgid, regs)?;
        let place = if wanted == 0 { 0 } else { libc::MAP_FIXED_NOREPLACE };
        let flags = u64::from((libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | place).cast_unsigned());
        let rx = u64::from((libc::PROT_READ | libc::PROT_EXEC).cast_unsigned());
        let rw = u64::from((libc::PROT_READ | libc::PROT_WRITE).cast_unsigned());
        let (number, args) = mmap([wanted, AREA, rx, flags, u64::MAX, 0]);
        let base = borrowed(tid, regs, insn, number, &args)?;
        let base = succeed(base, "mapping an area")?;
        let open = borrowed(tid, regs, insn, libc::SYS_mprotect, &[base + CALLS, AREA - CALLS, rw, 0, 0, 0])?;
        succeed(open, "opening the area for writing")?;
        let area = Area { base, tgid, insn, stack: 0 };
        area.write_code()?;
        Ok(area)
    }

    /// Puts the batch loop into the first page. Through /proc/PID/mem, which does the cache maintenance that
    /// process_vm_writev does not.
    fn write_code(&self) -> Result<()> {
        let path = format!("/proc/{}/mem", self.tgid);
        let mem = fs::open(&path, OFlag::O_WRONLY).context(KIND, format_args!("opening {path}"))?;
        vm::write_forced(&mem, self.base, arch::blob()).context(KIND, format_args!("writing {path}"))
    }

    /// Prepares an area of our own at `base`, for the puppets that will be forked from us.
    ///
    /// # Errors
    /// The address is in use.
    pub fn prepare(base: u64) -> Result<()> {
        let doing = format_args!("mapping an area at {base:#x}");
        vm::map_area(base, CALLS, libc::PROT_READ | libc::PROT_EXEC).context(KIND, doing)?;
        vm::map_area(base + CALLS, AREA - CALLS, libc::PROT_READ | libc::PROT_WRITE).context(KIND, doing)?;
        Area::inherited(base, std::process::id()).write_code()
    }

    /// Runs a batch in thread `tid` and reads the results back. New children that it makes are attached and
    /// stopped; the caller waits for each.
    ///
    /// # Errors
    /// The errno of the first call that failed and must not, or the task died.
    pub fn run(&self, tid: u32, batch: &mut Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let doing = format_args!("running a batch in {tid}");
        let (first, end) = self.start(tid, batch)?;
        self.to_end(tid)?;
        vm::read_words(self.tgid, first, batch.calls.as_flattened_mut()).context(KIND, doing)?;
        let stopped = Cpu::batch_position(&ptrace::regs(tid).context(KIND, doing)?);
        if stopped != end {
            return Err(self.failed(tid, batch, stopped.wrapping_sub(first) / CALL as u64));
        }
        vm::read(self.tgid, self.base + DATA, &mut batch.data).context(KIND, doing)
    }

    /// Writes a batch and sets the registers for it. Returns the addresses of its calls.
    fn start(&self, tid: u32, batch: &Batch) -> Result<(u64, u64)> {
        let doing = format_args!("writing a batch into {tid}");
        let first = self.base + CALLS;
        let end = first + (CALL * batch.calls.len()) as u64;
        if batch.base != self.base || !batch.fits(0, 0) {
            return Err(Error::new(KIND, doing.to_string(), "it does not fit the area"));
        }
        vm::write_words(self.tgid, first, batch.calls.as_flattened()).context(KIND, doing)?;
        vm::write(self.tgid, self.base + DATA, &batch.data).context(KIND, doing)?;
        let mut regs = ptrace::regs(tid).context(KIND, doing)?;
        let last_resort = self.base + LAST_RESORT;
        let run = Loop { code: self.base, first, end, tgid: self.tgid, tid, last_resort, stack: self.stack };
        Cpu::set_batch(&mut regs, &run);
        ptrace::set_regs(tid, &regs).context(KIND, doing)?;
        Ok((first, end))
    }

    fn failed(&self, tid: u32, batch: &Batch, index: u64) -> Error {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let what = batch.what.get(index).copied().filter(|w| !w.is_empty());
        let call = batch.calls.get(index).copied().unwrap_or_default();
        let (number, args) = (call[0], call[1..7].iter().map(|arg| format!(" {arg:x}")).collect::<String>());
        let errno = batch.outcome(index).err().unwrap_or(Errno::EIO);
        match what {
            Some(what) => Error::os(KIND, format!("{what} in {tid} (call {number},{args})"), errno),
            None => Error::os(KIND, format!("call {number} in {tid} with{args}"), errno),
        }
    }

    /// Lets the task run to the SIGTRAP that ends the batch.
    fn to_end(&self, tid: u32) -> Result<()> {
        let doing = format_args!("waiting for a batch in {tid}");
        ptrace::cont(tid, 0).context(KIND, doing)?;
        loop {
            let Some((_, status)) = ptrace::wait(tid.cast_signed(), 0).context(KIND, doing)? else {
                continue;
            };
            match ptrace::decode(status) {
                Status::Signal(libc::SIGTRAP) => return Ok(()),
                Status::NewChild | Status::Interrupted | Status::GroupStop(_) => {
                    ptrace::cont(tid, 0).context(KIND, doing)?
                }
                other => {
                    let ip = ptrace::regs(tid).map_or(0, |r| r.ip().wrapping_sub(self.base));
                    return Err(Error::new(
                        KIND,
                        doing.to_string(),
                        format!("stopped by {other} at area+{ip:#x}"),
                    ));
                }
            }
        }
    }

    /// Starts a batch that the task does not survive. The caller waits for its end.
    ///
    /// # Errors
    /// The batch cannot be written.
    pub fn run_to_death(&self, tid: u32, batch: &Batch) -> Result<()> {
        self.start(tid, batch)?;
        ptrace::cont(tid, 0).context(KIND, format_args!("ending {tid}"))
    }

    /// Sets the call that the loop makes when its tracer is gone.
    ///
    /// # Errors
    /// The area cannot be written.
    pub fn last_resort(&self, number: Number, args: &[u64]) -> Result<()> {
        vm::write_words(self.tgid, self.base + LAST_RESORT, &call(number, args))
            .context(KIND, format_args!("writing the last resort of {}", self.tgid))
    }

    /// Lets a live process go on where it was, should its tracer die inside a batch: the last resort is
    /// rt_sigreturn(2). This saves PID 1, which ignores the untraced SIGTRAP; another process ends by it.
    /// `regs` are rewound: ready to run.
    ///
    /// # Errors
    /// The area cannot be written.
    pub fn go_on(&mut self, regs: &Regs, sets: &[Set], mask: u64) -> Result<()> {
        let frame = self.base + FRAME;
        vm::write(self.tgid, frame, &Cpu::signal_frame(regs, sets, mask))
            .context(KIND, format_args!("writing the last resort of {}", self.tgid))?;
        self.stack = frame + Cpu::FRAME_STACK;
        self.last_resort(libc::SYS_rt_sigreturn, &[])
    }

    /// Takes the area out of a process that goes on. The caller then sets registers and mask, at a stop where
    /// the kernel restarts a system call if it means to.
    ///
    /// # Errors
    /// The process died.
    pub fn eject(self, tid: u32, regs: &Regs) -> Result<()> {
        self.unmap(tid, regs, self.insn)
    }

    /// Unmaps the area from below itself: the task stops behind that munmap(2), where there is no code any
    /// more, and the caller gives it its final registers.
    ///
    /// # Errors
    /// The process died.
    pub fn vanish(&self, tid: u32) -> Result<()> {
        let doing = format_args!("unmapping the area of {tid}");
        let regs = ptrace::regs(tid).context(KIND, doing)?;
        let insn = self.base + insn_offset()?;
        self.unmap(tid, &regs, insn)
    }

    /// At the exit from a system call a register of arm and arm64 is the tracer's to read and not to write, and
    /// nothing is restarted behind it. So the task is stopped once more, before it runs.
    fn unmap(&self, tid: u32, regs: &Regs, insn: u64) -> Result<()> {
        let doing = format_args!("stopping {tid} behind its area");
        let gone = borrowed(tid, regs, insn, libc::SYS_munmap, &[self.base, AREA, 0, 0, 0, 0])?;
        succeed(gone, "unmapping the area")?;
        ptrace::interrupt(tid).context(KIND, doing)?;
        ptrace::cont(tid, 0).context(KIND, doing)?;
        match ptrace::wait(tid.cast_signed(), 0).context(KIND, doing)? {
            Some((_, status))
                if matches!(ptrace::decode(status), Status::Interrupted | Status::GroupStop(_)) =>
            {
                Ok(())
            }
            other => Err(unexpected(doing, other)),
        }
    }
}

/// A batch that is run whenever it is full, and at the end.
#[derive(Debug)]
pub struct Script<'a> {
    area: &'a Area,
    tid: u32,
    /// The calls that were not made yet.
    pub batch: Batch,
}

impl<'a> Script<'a> {
    /// An empty script for a thread.
    #[must_use]
    pub fn new(area: &'a Area, tid: u32) -> Script<'a> {
        Script { area, tid, batch: Batch::new(area.base()) }
    }

    /// Makes sure that so many calls and bytes of data fit; runs what is there if they do not.
    ///
    /// # Errors
    /// As [`Area::run`].
    pub fn ensure(&mut self, calls: usize, data: usize) -> Result<()> {
        if self.batch.fits(calls, data) { Ok(()) } else { self.flush() }
    }

    /// Runs what is there.
    ///
    /// # Errors
    /// As [`Area::run`].
    pub fn flush(&mut self) -> Result<()> {
        self.area.run(self.tid, &mut self.batch)?;
        self.batch.clear();
        Ok(())
    }
}

/// The first instruction for system calls in some code that begins at a page.
fn search(code: &[u8]) -> Option<u64> {
    let starts = (0..code.len()).step_by(Cpu::CALL_ALIGN);
    starts.filter(|at| code[*at..].starts_with(Cpu::CALL_INSN)).map(|at| at as u64).next()
}

/// Where the batch loop itself has its first one.
fn insn_offset() -> Result<u64> {
    search(arch::blob()).ok_or_else(|| Error::new(KIND, "searching the batch loop", "it has no system call"))
}

/// An instruction for system calls that a process already has: the one it is stopped behind, one in its vdso,
/// or one in another mapping with code.
fn find_insn(pid: u32, regs: &Regs) -> Result<u64> {
    let mut bytes = [0u8; Cpu::CALL_INSN.len()];
    if let Some(behind) = Cpu::call_behind(regs)
        && vm::read(pid, behind, &mut bytes).is_ok()
        && bytes == Cpu::CALL_INSN
    {
        return Ok(behind);
    }
    let path = format!("/proc/{pid}/maps");
    let maps = fs::text(&path).context(KIND, format_args!("reading {path}"))?;
    let code = |map: &&Mapping| map.prot & 4 != 0 && map.name != "[vsyscall]" && map.name != "[vectors]";
    let maps = smaps::parse(&maps);
    let (vdso, other): (Vec<_>, Vec<_>) = maps.iter().filter(code).partition(|map| map.name == "[vdso]");
    for map in vdso.into_iter().chain(other) {
        let mut code = vec![0; usize::try_from(map.end - map.start).unwrap_or(0)];
        // Code of a device cannot be read.
        if vm::read(pid, map.start, &mut code).is_err() {
            continue;
        }
        // Where the task itself is about to make a call, the kernel may take ours for that one.
        let own = usize::try_from(regs.ip().wrapping_sub(map.start)).ok();
        if let Some(call) = own.and_then(|at| code.get_mut(at..at.saturating_add(Cpu::CALL_INSN.len()))) {
            call.fill(0);
        }
        if let Some(at) = search(&code) {
            return Ok(map.start + at);
        }
    }
    Err(Error::new(KIND, format!("searching {pid} for a system call instruction"), "there is none"))
}

#[cfg(test)]
mod tests {
    use super::{Area, Batch};
    use crate::arch::{Cpu, Processor, Registers};
    use crate::sys::{clone, ptrace};

    #[test]
    fn a_task_goes_on_when_its_tracer_leaves_inside_a_batch() {
        let child = clone::puppet_anywhere().unwrap();
        let pause = format!("{} ", libc::SYS_ppoll);
        let call = || std::fs::read_to_string(format!("/proc/{child}/syscall")).unwrap_or_default();
        let pauses = || {
            (0..400).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(5));
                call().starts_with(&pause)
            })
        };
        assert!(pauses());
        ptrace::seize(child, ptrace::FOLLOW).unwrap();
        ptrace::interrupt(child).unwrap();
        ptrace::wait(child.cast_signed(), 0).unwrap();
        let (regs, mask) = (ptrace::regs(child).unwrap(), ptrace::sigmask(child).unwrap());
        let mut area = Area::inject(child, child, &regs, 0).unwrap();
        // As PID 1 does, it ignores the signal that ends the batch.
        let mut batch = Batch::new(area.base());
        let ignore = batch.bytes(&[1u64, 0, 0, 0].map(u64::to_ne_bytes).concat());
        batch.call(libc::SYS_rt_sigaction, &[5, ignore, 0, 8]);
        area.run(child, &mut batch).unwrap();
        let mut rewound = regs.clone();
        Cpu::rewind(&mut rewound, None, false);
        let behind = rewound.ip() + Cpu::CALL_INSN.len() as u64;
        area.go_on(&rewound, &Cpu::sets(child).unwrap(), mask).unwrap();
        let mut batch = Batch::new(area.base());
        batch.call(libc::SYS_getpid, &[]);
        area.start(child, &batch).unwrap();
        ptrace::detach(child, 0).unwrap();
        let again = pauses();
        let where_to = call();
        clone::kill(child).unwrap();
        ptrace::wait(child.cast_signed(), 0).unwrap();
        assert!(again && where_to.trim_end().ends_with(&format!("{behind:#x}")), "{where_to}");
    }

    #[test]
    fn a_batch_runs_in_another_process_and_stops_at_the_first_failure() {
        let child = clone::puppet_anywhere().unwrap();
        ptrace::seize(child, ptrace::FOLLOW | ptrace::EXITKILL).unwrap();
        ptrace::interrupt(child).unwrap();
        ptrace::wait(child.cast_signed(), 0).unwrap();
        let regs = ptrace::regs(child).unwrap();
        let area = Area::inject(child, child, &regs, 0).unwrap();
        let mut batch = Batch::new(area.base());
        let room = batch.room(16);
        let pid = batch.call(libc::SYS_getpid, &[]);
        batch.call(libc::SYS_getresuid, &[room, room + 4, room + 8]);
        let bad = batch.try_call(libc::SYS_close, &[999]);
        area.run(child, &mut batch).unwrap();
        assert_eq!(batch.result(pid), i64::from(child));
        assert_eq!(batch.outcome(bad), Err(nix::errno::Errno::EBADF));

        let mut batch = Batch::new(area.base());
        batch.call(libc::SYS_close, &[999]);
        batch.doing("closing nothing");
        let never = batch.call(libc::SYS_getpid, &[]);
        let error = area.run(child, &mut batch).unwrap_err();
        assert_eq!(error.errno(), Some(nix::errno::Errno::EBADF));
        assert_eq!(batch.result(never), 0);
        area.eject(child, &regs).unwrap();
        clone::kill(child).unwrap();
        ptrace::wait(child.cast_signed(), 0).unwrap();
    }
}
