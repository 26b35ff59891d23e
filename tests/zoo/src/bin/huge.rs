//! Kind `memory`: huge pages of hugetlbfs (MAP_HUGETLB of mmap(2), MFD_HUGETLB of memfd_create(2)): contents, pages
//! that nobody touched, protection, advice, sharing, copies on write, seals, and the pool that they come from.

use std::path::Path;

use zoo::sys::{peek, poke};
use zoo::{Outcome, Zoo, fd, huge, proc, sys};

fn main() {
    zoo::run(program)
}

/// Pages that the pool must have free for this program and for the copies of its child.
const POOL: u64 = 32;
/// Of these, what parent and child share until one of them writes, and have apart after a restore.
const COPIED: u64 = 9;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const ANONYMOUS: i32 = libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;

/// A stretch of huge pages, some of them with words of their own.
#[derive(Clone, Copy)]
struct Area {
    what: &'static str,
    at: usize,
    size: usize,
    pages: usize,
    touched: &'static [usize],
}

impl Area {
    fn map(
        (what, size, pages): (&'static str, usize, usize),
        flags: i32,
        file: i32,
        touched: &'static [usize],
    ) -> Outcome<Area> {
        let exact = if file < 0 { ANONYMOUS | size.trailing_zeros().cast_signed() << 26 } else { 0 };
        let at = sys!(mmap(std::ptr::null_mut(), pages * size, RW, flags | exact, file, 0))? as usize;
        let area = Area { what, at, size, pages, touched };
        touched.iter().for_each(|page| area.words(*page).for_each(|at| poke(at, word(at))));
        Ok(area)
    }

    /// Words at the start, in the middle and at the end of a page.
    fn words(self, page: usize) -> impl Iterator<Item = usize> {
        [0, 8 * 4096, self.size / 2 + 4088, self.size - 8].into_iter().map(move |at| self.page(page) + at)
    }

    fn page(self, page: usize) -> usize {
        self.at + page * self.size
    }

    fn keep(self, zoo: &mut Zoo) {
        for page in 0..self.pages {
            let at = self.page(page);
            // A mapping of its own that was cut up becomes several, each with the offset 0.
            zoo.keep(&format!("mapping of page {page} of {}", self.what), move || {
                proc::mapping(at).split_whitespace().take(2).collect::<Vec<_>>().join(" ")
            });
            zoo.keep(&format!("flags of page {page} of {}", self.what), move || proc::vm_flags(at));
            zoo.keep(&format!("size of page {page} of {}", self.what), move || {
                proc::smaps(at, "KernelPageSize")
            });
        }
    }

    /// Which pages are there. Of what is shared the kernel tells only which were touched since they were mapped.
    fn keep_present(self, zoo: &mut Zoo) {
        zoo.keep(&format!("pages of {}", self.what), move || {
            let mut small = vec![9_u8; self.pages * self.size / 4096];
            let done =
                sys!(mincore(self.at as *mut libc::c_void, self.pages * self.size, small.as_mut_ptr()));
            format!(
                "{} {:?}",
                done.is_ok(),
                small.chunks(self.size / 4096).map(|page| page[0]).collect::<Vec<_>>()
            )
        });
    }

    fn check(self, zoo: &mut Zoo) {
        for page in 0..self.pages {
            let touched = self.touched.contains(&page);
            let holds = |at| peek(at) == if touched { word(at) } else { 0 };
            zoo.check(
                &format!("page {page} of {} keeps its contents", self.what),
                self.words(page).all(holds),
            );
        }
    }
}

/// What an address holds by our hand.
fn word(at: usize) -> u64 {
    (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// Size and blocks of a file: how many of its pages are there.
fn blocks(path: &str) -> String {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path)
        .map_or_else(|e| e.to_string(), |m| format!("{} {} {:o}", m.size(), m.blocks(), m.mode()))
}

fn protect(at: usize, length: usize, protection: i32) -> Outcome {
    sys!(mprotect(at as *mut libc::c_void, length, protection)).map(drop)
}

fn advise(at: usize, length: usize, advice: i32) -> Outcome {
    sys!(madvise(at as *mut libc::c_void, length, advice)).map(drop)
}

/// Private areas: with contents, read only, out of reach, locked, without a reserve.
fn private(zoo: &mut Zoo, size: usize) -> Outcome<[Area; 4]> {
    let mine = Area::map(("a private area", size, 4), libc::MAP_PRIVATE, -1, &[0, 2, 3])?;
    advise(mine.page(2), size, libc::MADV_DONTDUMP)?;
    advise(mine.page(1), size, libc::MADV_SEQUENTIAL)?;
    protect(mine.page(3), size, libc::PROT_READ)?;
    let hidden = Area::map(("an area out of reach", size, 1), libc::MAP_PRIVATE, -1, &[0])?;
    protect(hidden.at, size, libc::PROT_NONE)?;
    let locked = Area::map(("a locked area", size, 2), libc::MAP_PRIVATE, -1, &[])?;
    sys!(mlock(locked.at as *const libc::c_void, size))?;
    let loose =
        Area::map(("an area without a reserve", size, 2), libc::MAP_PRIVATE | libc::MAP_NORESERVE, -1, &[1])?;
    for area in [mine, hidden, locked, loose] {
        area.keep(zoo);
        area.keep_present(zoo);
    }
    Ok([mine, hidden, locked, loose])
}

/// A memfd: open with seals and an offset, mapped as both sorts.
fn memory_file(zoo: &mut Zoo, size: usize) -> Outcome<(i32, Area, Area)> {
    let bits = size.trailing_zeros() << 26;
    let file = sys!(memfd_create(c"zoo huge".as_ptr(), libc::MFD_HUGETLB | libc::MFD_ALLOW_SEALING | bits))?;
    sys!(ftruncate(file, (3 * size).cast_signed() as libc::off_t))?;
    sys!(lseek(file, 123, libc::SEEK_SET))?;
    let shared = Area::map(("a memfd", size, 3), libc::MAP_SHARED, file, &[0, 1])?;
    let own = Area::map(("a copy of a memfd", size, 2), libc::MAP_PRIVATE, file, &[1])?;
    poke(own.page(1), 0);
    sys!(fcntl(file, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW))?;
    shared.keep(zoo);
    own.keep(zoo);
    own.keep_present(zoo);
    zoo.keep("flags of a memfd", move || fd::flags(file));
    zoo.keep("name of a memfd", move || proc::link(&format!("/proc/self/fd/{file}")));
    zoo.keep("seals of a memfd", move || format!("{:?}", sys!(fcntl(file, libc::F_GET_SEALS)).ok()));
    zoo.keep("blocks of a memfd", move || blocks(&format!("/proc/self/fd/{file}")));
    zoo.keep("sizes of a memfd", move || {
        let mut found: libc::statfs = sys::zeroed();
        // SAFETY: a live struct.
        unsafe { libc::fstatfs(file, &raw mut found) };
        format!("{:x} {}", found.f_type, found.f_bsize)
    });
    Ok((file, shared, own))
}

/// Shared areas: anonymous, and a memfd that nobody has open.
fn shared(zoo: &mut Zoo, size: usize) -> Outcome<[Area; 2]> {
    let anonymous = Area::map(("a shared area", size, 3), libc::MAP_SHARED, -1, &[1])?;
    let file = sys!(memfd_create(c"closed".as_ptr(), libc::MFD_HUGETLB | libc::MFD_CLOEXEC))?;
    sys!(ftruncate(file, (2 * size).cast_signed() as libc::off_t))?;
    let closed = Area::map(("a closed memfd", size, 2), libc::MAP_SHARED, file, &[0])?;
    // There, and all zero.
    poke(closed.page(1), 0);
    fd::close(file);
    for area in [anonymous, closed] {
        area.keep(zoo);
        let (start, end) = (area.at, area.at + area.pages * size);
        zoo.keep(&format!("name and blocks of {}", area.what), move || {
            let path = format!("/proc/self/map_files/{start:x}-{end:x}");
            format!("{} {}", proc::link(&path), blocks(&path))
        });
    }
    Ok([anonymous, closed])
}

/// Another size than the default, where there is a small one: 64 KiB on arm64.
fn other(zoo: &mut Zoo, default: usize) -> Outcome<Option<Area>> {
    let folder = Path::new("/sys/kernel/mm/hugepages");
    let Ok(all) = std::fs::read_dir(folder) else { return Ok(None) };
    let sizes = all.flatten().filter_map(|entry| {
        let kib =
            entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<usize>();
        kib.ok().map(|kib| kib * 1024)
    });
    let Some(size) = sizes.filter(|size| *size < default).min() else { return Ok(None) };
    let area = huge::with_pool(zoo, size, (8, 4), |_| {
        Area::map(("an area of another size", size, 4), libc::MAP_PRIVATE, -1, &[1, 3])
    })?;
    area.keep(zoo);
    area.keep_present(zoo);
    Ok(Some(area))
}

/// Everything of the default size.
#[derive(Clone, Copy)]
struct All {
    private: [Area; 4],
    file: i32,
    mapped: Area,
    own: Area,
    shared: [Area; 2],
    /// The child that has it too.
    child: i32,
    /// The pages of the pool.
    pool: u64,
}

fn all(zoo: &mut Zoo, size: usize) -> Outcome<All> {
    let private = private(zoo, size)?;
    let (file, mapped, own) = memory_file(zoo, size)?;
    let shared = shared(zoo, size)?;
    let ([mine, ..], [anonymous, _]) = (private, shared);
    let child = zoo.fork(move |zoo| {
        poke(mine.page(2), 7);
        zoo.arrive();
        zoo.wait();
        zoo.expect("a copy on write in the child", peek(mine.page(2)), 7);
        zoo.expect("a page from before the fork", peek(mine.page(0)), word(mine.page(0)));
        poke(mine.page(0), 8);
        let asked = zoo::eventually(10_000, || peek(anonymous.page(1) + 64) == 17);
        zoo.check("the parent asks through shared memory", asked);
        poke(mapped.page(2), 18);
        Ok(())
    })?;
    Ok(All { private, file, mapped, own, shared, child, pool: huge::number(size, "nr") })
}

fn program(zoo: &mut Zoo) -> Outcome {
    let size = huge::size(zoo);
    let other = other(zoo, size)?;
    let all = huge::with_pool(zoo, size, (POOL, COPIED), |zoo| all(zoo, size))?;
    let (mine, hidden, own, mapped) = (all.private[0], all.private[1], all.own, all.mapped);
    zoo.ready();
    protect(hidden.at, size, libc::PROT_READ)?;
    let areas = all.private.into_iter().chain(all.shared).chain([mapped]).chain(other);
    areas.for_each(|area| area.check(zoo));
    zoo.expect("an offset", sys!(lseek(all.file, 0, libc::SEEK_CUR))?, 123);
    zoo.expect("a page of the memfd in its copy", peek(own.page(0)), word(mapped.page(0)));
    zoo.expect("a zero of the copy", peek(own.page(1)), 0);
    zoo.expect("a word of the copy", peek(own.page(1) + size - 8), word(own.page(1) + size - 8));
    poke(mapped.page(0), 33);
    zoo.expect("what the memfd has now, in its copy", peek(own.page(0)), 33);
    zoo.check("a seal holds", sys!(ftruncate(all.file, 0)).is_err());
    poke(all.shared[0].page(1) + 64, 17);
    let answered = zoo::eventually(10_000, || peek(mapped.page(2)) == 18);
    zoo.check("the child answers through a memfd", answered);
    zoo.reap("the child that shares huge pages", all.child);
    zoo.expect("a page that the child wrote to", peek(mine.page(0)), word(mine.page(0)));
    // Others may have asked for more.
    zoo.check("the pool is as large as it was", huge::number(size, "nr") >= all.pool);
    Ok(())
}
