//! Kind `memory`: what is refused by name: huge pages of hugetlbfs (MAP_HUGETLB of mmap(2)).

use zoo::{Outcome, Zoo, proc, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let (rw, huge) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB);
    let size = proc::text("/proc/meminfo");
    let size = size.lines().find_map(|line| line.strip_prefix("Hugepagesize:")?.split_whitespace().next());
    let Some(size) = size.and_then(|size| size.parse::<usize>().ok()) else { zoo.skip("no huge pages") };
    let size = size * 1024;
    let map = |flags| sys!(mmap(std::ptr::null_mut(), size, rw, huge | flags, -1, 0));
    // Where none are set aside, a mapping without any is a mapping too; it must not be touched.
    let (at, full) = match map(0) {
        Ok(at) => (at.cast::<u8>(), true),
        Err(_) => match map(libc::MAP_NORESERVE) {
            Ok(at) => (at.cast::<u8>(), false),
            Err(problem) => zoo.skip(&problem.0),
        },
    };
    if full {
        // SAFETY: within the mapping.
        unsafe { at.add(size - 1).write_volatile(9) };
    }
    let address = at as usize;
    zoo.keep("mapping", move || proc::mapping(address));
    zoo.keep("flags", move || proc::vm_flags(address));
    zoo.keep("size of its pages", move || proc::smaps(address, "KernelPageSize"));
    zoo.ready();
    if full {
        // SAFETY: as above.
        zoo.expect("its contents", unsafe { at.add(size - 1).read_volatile() }, 9);
    }
    Ok(())
}
