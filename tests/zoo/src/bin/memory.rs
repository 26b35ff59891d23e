//! Kind `memory`: every sort of mapping keeps its place, protection, flags and contents.

use zoo::proc::{mapping, smaps, vm_flags};
use zoo::sys::{peek, poke};
use zoo::{Outcome, Zoo, fd, raw, sys};

const PAGE: usize = 4096;
/// The page of the locked area that cannot be accessed.
const LOCKED: usize = 7;

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let areas = vec![private()?, no_access()?, code()?, copy_on_write(zoo)?, locked()?];
    let shared = shared()?;
    let down = grows_down()?;
    let wiped = wipe_on_fork()?;
    let sparse = sparse()?;
    let droppable = droppable()?;
    let guard = guard()?;
    let brk = brk()?;
    advised(zoo)?;
    for area in areas.iter().chain([&down, &wiped, &sparse]) {
        let at = area.at;
        zoo.keep(&format!("mapping of {}", area.what), move || mapping(at));
        zoo.keep(&format!("flags of {}", area.what), move || vm_flags(at));
    }
    let none = areas[4].at + LOCKED * PAGE;
    zoo.keep("flags of locked memory without access", move || vm_flags(none));
    zoo.check("memory without access is locked", vm_flags(none).split(' ').any(|flag| flag == "lo"));
    for name in ["[vdso]", "[vvar]", "[stack]"] {
        zoo.keep(name, move || named(name));
    }
    zoo.keep("/proc/self/stat memory layout", || {
        (26..=28).chain(45..=51).map(|field| zoo::proc::stat("self", field)).collect::<Vec<_>>().join(" ")
    });
    let child = zoo.fork(move |zoo| {
        zoo.arrive();
        zoo.wait();
        answer(zoo, shared);
        Ok(())
    })?;
    zoo.ready();
    for area in &areas {
        area.check(zoo);
    }
    ask(zoo, "shared anonymous memory", shared);
    zoo.reap("the child that shares memory", child);
    check_grows_down(zoo, &down);
    check_wiped(zoo, &wiped)?;
    sparse.check(zoo);
    let resident: u64 = smaps(sparse.at, "Rss").trim_end_matches(" kB").parse().unwrap_or(u64::MAX);
    zoo.check(&format!("a sparse area stays sparse ({resident} kB)"), resident < 1024);
    if let Some(at) = droppable {
        zoo.check("the droppable area is still droppable", vm_flags(at).split(' ').any(|flag| flag == "dp"));
        poke(at, 1);
    }
    if let Some(at) = guard {
        zoo.check("memory with a guard is locked", vm_flags(at).split(' ').any(|flag| flag == "lo"));
        zoo.expect("reading a guard page", readable(at + PAGE), false);
        zoo.expect("reading beside a guard page", readable(at), true);
    }
    check_brk(zoo, brk)
}

/// A stretch of memory with known words at known pages.
struct Area {
    what: &'static str,
    at: usize,
    pages: Vec<usize>,
    hidden: bool,
}

impl Area {
    fn fill(&self) {
        for page in &self.pages {
            for word in 0..PAGE / 8 {
                poke(self.at + page * PAGE + word * 8, self.word(*page, word));
            }
        }
    }

    fn word(&self, page: usize, word: usize) -> u64 {
        ((self.at + page * PAGE + word * 8) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn check(&self, zoo: &mut Zoo) {
        if self.hidden {
            zoo.expect(&format!("reading {}", self.what), readable(self.at), false);
            protect(self.at, 4 * PAGE, libc::PROT_READ);
        }
        for page in &self.pages {
            let same =
                (0..PAGE / 8).all(|word| peek(self.at + page * PAGE + word * 8) == self.word(*page, word));
            zoo.check(&format!("page {page} of {} keeps its contents", self.what), same);
        }
        let last = self.pages.last().map_or(0, |last| last + 1);
        let gap = (0..last).find(|page| !self.pages.contains(page));
        if let Some(gap) = gap {
            zoo.expect(&format!("an untouched page of {}", self.what), peek(self.at + gap * PAGE), 0);
        }
    }
}

fn map(pages: usize, protection: i32, flags: i32, fd: i32) -> Outcome<usize> {
    Ok(sys!(mmap(std::ptr::null_mut(), pages * PAGE, protection, flags, fd, 0))? as usize)
}

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

fn private() -> Outcome<Area> {
    let at = map(64, RW, PRIVATE, -1)?;
    let area = Area { what: "a read-only private area", at, pages: vec![0, 1, 2, 7, 31, 63], hidden: false };
    area.fill();
    protect(at, 64 * PAGE, libc::PROT_READ);
    Ok(area)
}

fn no_access() -> Outcome<Area> {
    let at = map(4, RW, PRIVATE, -1)?;
    let area = Area { what: "a PROT_NONE area", at, pages: vec![0, 1, 3], hidden: true };
    area.fill();
    protect(at, 4 * PAGE, libc::PROT_NONE);
    Ok(area)
}

fn code() -> Outcome<Area> {
    let at = map(4, RW, PRIVATE, -1)?;
    let area = Area { what: "an executable area", at, pages: vec![1, 2], hidden: false };
    area.fill();
    protect(at, 4 * PAGE, libc::PROT_READ | libc::PROT_EXEC);
    Ok(area)
}

/// Four pages of a file, one of them written to: page 0 is still the file's, page 1 is ours.
fn copy_on_write(zoo: &Zoo) -> Outcome<Area> {
    let path = zoo.path("cow");
    std::fs::write(&path, vec![0_u8; 4 * PAGE])?;
    let name = zoo.cpath("cow")?;
    let fd = sys!(open(name.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC))?;
    let at = map(4, RW, libc::MAP_PRIVATE, fd)?;
    fd::close(fd);
    let area = Area { what: "a written private file mapping", at, pages: vec![1, 3], hidden: false };
    area.fill();
    Ok(area)
}

fn locked() -> Outcome<Area> {
    let at = map(8, RW, PRIVATE, -1)?;
    let area = Area { what: "a locked area", at, pages: vec![0, 5], hidden: false };
    area.fill();
    // The last page as mlockall(2) meets the guard of a stack: locked, and nothing can be in it (ENOMEM).
    sys!(mprotect((at + LOCKED * PAGE) as *mut libc::c_void, PAGE, libc::PROT_NONE))?;
    let _ = sys!(mlock(at as *const libc::c_void, 8 * PAGE));
    Ok(area)
}

fn sparse() -> Outcome<Area> {
    let at = map(16384, RW, PRIVATE | libc::MAP_NORESERVE, -1)?;
    let area = Area { what: "a sparse area", at, pages: vec![0, 8000, 16383], hidden: false };
    // SAFETY: the area was just mapped; huge pages would make "sparse" a question of luck.
    unsafe { libc::madvise(at as *mut libc::c_void, 16384 * PAGE, libc::MADV_NOHUGEPAGE) };
    area.fill();
    Ok(area)
}

fn shared() -> Outcome<usize> {
    let at = map(4, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)?;
    poke(at + 2 * PAGE, 0x5eed);
    Ok(at)
}

/// The parent's half of a talk through shared memory.
fn ask(zoo: &mut Zoo, what: &str, at: usize) {
    zoo.expect(&format!("a word in {what}"), peek(at + 2 * PAGE), 0x5eed);
    poke(at, 17);
    let answered = zoo::eventually(10_000, || peek(at + PAGE) == 17 + 1);
    zoo.check(&format!("the child answers through {what}"), answered);
}

fn answer(zoo: &mut Zoo, at: usize) {
    let asked = zoo::eventually(10_000, || peek(at) == 17);
    zoo.check("the parent asks through shared memory", asked);
    poke(at + PAGE, 18);
}

/// A stack that grows when it is touched below its start; memory below is kept free for it.
fn grows_down() -> Outcome<Area> {
    const GAP: usize = 256;
    let hole = map(1024, libc::PROT_NONE, PRIVATE, -1)?;
    let top = hole + 1020 * PAGE;
    // Other mappings stay out of the gap that the kernel keeps below a stack. What lies below that has no access,
    // so that the stack may still grow towards it.
    sys!(munmap((top - GAP * PAGE) as *mut libc::c_void, (GAP + 4) * PAGE))?;
    let top = top as *mut libc::c_void;
    let flags = PRIVATE | libc::MAP_GROWSDOWN | libc::MAP_FIXED;
    let at = sys!(mmap(top, 2 * PAGE, RW, flags, -1, 0))? as usize;
    let area = Area { what: "a stack that grows", at, pages: vec![0, 1], hidden: false };
    area.fill();
    Ok(area)
}

fn check_grows_down(zoo: &mut Zoo, area: &Area) {
    area.check(zoo);
    let below = area.at - 8;
    let child = zoo.fork(move |zoo| {
        zoo.arrive();
        poke(below, 1);
        Ok(())
    });
    match child {
        Ok(child) => zoo.reap("touching below a stack that grows", child),
        Err(problem) => zoo.problem(problem.0),
    }
}

fn wipe_on_fork() -> Outcome<Area> {
    let at = map(2, RW, PRIVATE, -1)?;
    sys!(madvise(at as *mut libc::c_void, 2 * PAGE, libc::MADV_WIPEONFORK))?;
    let area = Area { what: "a wipe-on-fork area", at, pages: vec![0, 1], hidden: false };
    area.fill();
    Ok(area)
}

/// The contents are whole, or gone on purpose: a restore wipes them as a fork does, so that generators of random
/// numbers begin anew (program `rng` looks closer). A child sees zeros in any case.
fn check_wiped(zoo: &mut Zoo, area: &Area) -> Outcome {
    if peek(area.at) == 0 {
        let wiped = (0..2 * PAGE / 8).all(|word| peek(area.at + word * 8) == 0);
        zoo.check("a wipe-on-fork area is whole or wiped", wiped);
        area.fill();
    }
    area.check(zoo);
    let at = area.at;
    let child = zoo.fork(move |zoo| {
        zoo.arrive();
        zoo.expect("wipe-on-fork memory in a child", peek(at), 0);
        Ok(())
    })?;
    zoo.reap("a child with wipe-on-fork memory", child);
    Ok(())
}

/// MAP_DROPPABLE, where the kernel has it: contents may be gone at any time, the area may not.
fn droppable() -> Outcome<Option<usize>> {
    let Ok(at) = map(2, RW, 0x08 | libc::MAP_ANONYMOUS, -1) else { return Ok(None) };
    poke(at, 7);
    Ok(Some(at))
}

/// A guard page without a mapping of its own, where the kernel has it.
fn guard() -> Outcome<Option<usize>> {
    let at = map(3, RW, PRIVATE, -1)?;
    poke(at, 1);
    poke(at + PAGE, 1);
    poke(at + 2 * PAGE, 1);
    let installed = raw!(SYS_madvise, at + PAGE, PAGE, 102);
    // As mlockall(2) does; what is behind the guard cannot be in memory (ENOMEM).
    let _ = sys!(mlock(at as *const libc::c_void, 3 * PAGE));
    Ok(installed.is_ok().then_some(at))
}

/// Advice that shows in VmFlags: each on its own area.
fn advised(zoo: &mut Zoo) -> Outcome {
    let advice = [
        ("sequential", libc::MADV_SEQUENTIAL),
        ("random", libc::MADV_RANDOM),
        ("no dump", libc::MADV_DONTDUMP),
        ("no fork", libc::MADV_DONTFORK),
        ("huge pages", libc::MADV_HUGEPAGE),
        ("no huge pages", libc::MADV_NOHUGEPAGE),
        ("mergeable", libc::MADV_MERGEABLE),
    ];
    for (what, value) in advice {
        let at = map(16, RW, PRIVATE, -1)?;
        protect(at + 15 * PAGE, PAGE, libc::PROT_NONE); // keeps neighbours from merging
        // SAFETY: the area was just mapped. A kernel without huge pages or merging has no such flag to keep.
        if unsafe { libc::madvise(at as *mut libc::c_void, 15 * PAGE, value) } == 0 {
            poke(at, 1);
            zoo.keep(&format!("flags of an area with advice `{what}`"), move || vm_flags(at));
        }
    }
    Ok(())
}

/// The break: (where it is, where a word lies below it).
fn brk() -> Outcome<(usize, usize)> {
    let before = raw!(SYS_brk, 0)? as usize;
    let end = raw!(SYS_brk, before + 3 * PAGE + 123)? as usize;
    poke((end - PAGE) & !7, 0xb7c);
    Ok((end, (end - PAGE) & !7))
}

fn check_brk(zoo: &mut Zoo, (end, word): (usize, usize)) -> Outcome {
    // The allocator may have moved it up since, never down.
    zoo.check("the break is where it was", raw!(SYS_brk, 0)? as usize >= end);
    zoo.expect("a word below the break", peek(word), 0xb7c);
    let now = raw!(SYS_brk, 0)? as usize;
    zoo.expect("moving the break", raw!(SYS_brk, now + 2 * PAGE)? as usize, now + 2 * PAGE);
    Ok(())
}

fn named(name: &str) -> String {
    let all = zoo::proc::text("/proc/self/maps");
    let lines = all.lines().filter(|line| line.ends_with(name)).map(zoo::proc::short);
    lines.collect::<Vec<_>>().join(", ")
}

fn protect(at: usize, length: usize, protection: i32) {
    // SAFETY: our own areas; a wrong one shows as a failed check.
    unsafe { libc::mprotect(at as *mut libc::c_void, length, protection) };
}

/// Whether the kernel can read there: no signal needed to find out.
fn readable(at: usize) -> bool {
    let Ok((reader, writer)) = fd::pipe(0) else { return false };
    // SAFETY: the kernel checks the address.
    let n = unsafe { libc::write(writer, at as *const libc::c_void, 8) };
    fd::close(reader);
    fd::close(writer);
    n == 8
}
