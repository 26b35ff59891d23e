//! Kind `tmpfs`: files on hugetlbfs, which are mapped and never written: mounted where all see it, and in a mount
//! namespace of a program's own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zoo::sys::{peek, poke};
use zoo::{Outcome, Zoo, fd, huge, mount, proc, sys};

fn main() {
    zoo::run(program)
}

/// Pages that the pool must have free, for this program and the copy of its child.
const POOL: u64 = 16;
/// Of these, what parent and child share until one of them writes, and have apart after a restore.
const COPIED: u64 = 3;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// A file with a page that nobody touched, a page of words and a page of zeros, mapped as both sorts.
struct File {
    path: PathBuf,
    open: i32,
    size: usize,
    shared: usize,
    private: usize,
}

impl File {
    fn make(zoo: &Zoo, name: &str, size: usize) -> Outcome<File> {
        let folder = zoo.path(name);
        fs::create_dir_all(&folder)?;
        mount::mount(Path::new("none"), &folder, Some("hugetlbfs"), 0)?;
        let path = folder.join("file");
        let name = mount::text(&path)?;
        let open = sys!(open(name.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, 0o640))?;
        sys!(ftruncate(open, (3 * size).cast_signed() as libc::off_t))?;
        sys!(lseek(open, 77, libc::SEEK_SET))?;
        let map = |flags| sys!(mmap(std::ptr::null_mut(), 3 * size, RW, flags, open, 0));
        let (shared, private) = (map(libc::MAP_SHARED)? as usize, map(libc::MAP_PRIVATE)? as usize);
        poke(shared + size + 4096, 7);
        poke(shared + 2 * size, 0);
        poke(private + size, 8);
        // Another name, and a file that nobody has open.
        fs::hard_link(&path, folder.join("other"))?;
        fs::write(folder.join("empty"), "")?;
        Ok(File { path, open, size, shared, private })
    }

    fn keep(&self, zoo: &mut Zoo) {
        for at in [self.shared, self.private] {
            zoo.keep(&format!("mapping at {at:x}"), move || proc::mapping(at));
            zoo.keep(&format!("flags at {at:x}"), move || proc::vm_flags(at));
        }
        let (open, folder) = (self.open, self.path.parent().unwrap_or(Path::new("/")).to_path_buf());
        zoo.keep(&format!("flags of {open}"), move || fd::flags(open));
        zoo.keep(&format!("name of {open}"), move || proc::link(&format!("/proc/self/fd/{open}")));
        zoo.keep(&format!("files in {}", folder.display()), move || {
            let one = |name| match fs::metadata(folder.join(name)) {
                Ok(m) => format!("{name} {} {} {:o} {}", m.size(), m.blocks(), m.mode(), m.nlink()),
                Err(error) => error.to_string(),
            };
            ["file", "other", "empty"].map(one).join(", ")
        });
    }

    fn check(&self, zoo: &mut Zoo) {
        let words = |at: usize| [at, at + self.size + 4096, at + self.size, at + 3 * self.size - 8].map(peek);
        zoo.expect("words of a file on hugetlbfs", words(self.shared), [0, 7, 0, 0]);
        zoo.expect("words of its copy", words(self.private), [0, 7, 8, 0]);
        poke(self.shared, 9);
        zoo.expect("a word of the file in its copy", peek(self.private), 9);
        let mut bytes = [0_u8; 8];
        // SAFETY: room for the bytes.
        let n = unsafe { libc::pread(self.open, bytes.as_mut_ptr().cast(), 8, 0) };
        zoo.expect("a word that is read", (n, u64::from_ne_bytes(bytes)), (8, 9));
    }
}

/// The file that all see, and the child with another one.
fn files(zoo: &mut Zoo, size: usize) -> Outcome<(File, i32)> {
    let here = File::make(zoo, "common", size)?;
    here.keep(zoo);
    let child = zoo.fork(move |zoo| {
        mount::private()?;
        let own = File::make(zoo, "own", size)?;
        own.keep(zoo);
        zoo.arrive();
        zoo.wait();
        zoo.verify();
        own.check(zoo);
        Ok(())
    })?;
    Ok((here, child))
}

fn program(zoo: &mut Zoo) -> Outcome {
    let size = huge::size(zoo);
    if !proc::text("/proc/filesystems").lines().any(|line| line.ends_with("\thugetlbfs")) {
        zoo.skip("no hugetlbfs");
    }
    let (here, child) = huge::with_pool(zoo, size, (POOL, COPIED), |zoo| files(zoo, size))?;
    zoo.ready();
    here.check(zoo);
    zoo.reap("the child with a file system of its own", child);
    Ok(())
}
