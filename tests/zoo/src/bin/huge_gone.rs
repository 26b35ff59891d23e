//! Kind `memory`: what is refused by name: huge pages of a deleted file on hugetlbfs, and of a segment of System V.

use std::path::Path;

use zoo::{Outcome, Zoo, fd, huge, mount, proc, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let size = huge::size(zoo);
    let folder = zoo.path("huge");
    std::fs::create_dir_all(&folder)?;
    mount::mount(Path::new("none"), &folder, Some("hugetlbfs"), 0)?;
    let name = mount::text(&folder.join("file"))?;
    let file = sys!(open(name.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600))?;
    sys!(ftruncate(file, size.cast_signed() as libc::off_t))?;
    // Nothing of it is touched: there may be no pages.
    let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
    let at = sys!(mmap(std::ptr::null_mut(), size, libc::PROT_READ, flags, file, 0))? as usize;
    fd::close(file);
    std::fs::remove_file(folder.join("file"))?;
    zoo.keep("a deleted file on hugetlbfs", move || proc::mapping(at));
    let huge = libc::IPC_CREAT | 0o600 | libc::SHM_HUGETLB | libc::SHM_NORESERVE;
    if let Ok(id) = sys!(shmget(libc::IPC_PRIVATE, size, huge)) {
        let at = sys!(shmat(id, std::ptr::null(), 0))? as usize;
        sys!(shmctl(id, libc::IPC_RMID, std::ptr::null_mut()))?;
        zoo.keep("a segment of huge pages", move || proc::mapping(at));
    }
    zoo.ready();
    Ok(())
}
