//! Watches for changes of files (inotify(7)).
//!
//! What: every watch: its number, its mask, and the file behind it.
//! Reads: fdinfo lines `inotify wd: ino: sdev: mask: fhandle-...`; the file by open_by_handle_at(2), or, on
//!   file systems without handles, by a look through the usual places for the inode number.
//! Rebuilds: inotify_add_watch(2) with the next number set first (INOTIFY_IOC_SETNEXTWD, 4.15 with
//!   CONFIG_CHECKPOINT_RESTORE); without that, watches are added and removed until the number comes.
//! Loses: events that nobody has read, and whatever happened between capture and restore: they cannot be
//!   put back. The highest number given so far, if that watch is gone.
//! Refuses: a watch whose file cannot be found, or is deleted but still open.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::stat::makedev;

use super::{Description, Opener, Stat, World, place};
use crate::error::{Context, Error, Refusal, Result};
use crate::sorted::{self, Listed};
use crate::sys::stat::lstat;
use crate::sys::{anonymous, descriptor, fs, ioctl};
use crate::text;

const KIND: &str = "inotify";
/// IN_ALL_EVENTS | IN_UNMOUNT | IN_Q_OVERFLOW... are the kernel's; a caller may ask for these.
const ASKED: u32 = 0x0000_0fff | IN_EXCL_UNLINK | IN_ONESHOT;
const IN_EXCL_UNLINK: u32 = 1 << 26;
const IN_ONESHOT: u32 = 1 << 31;
const IN_DONT_FOLLOW: u32 = 1 << 25;
/// How many numbers are tried without INOTIFY_IOC_SETNEXTWD.
const PATIENCE: u32 = 4096;
/// How many files are looked at where there are no handles.
const LIMIT: usize = 20_000;

crate::section! {
    /// One watch.
    pub struct Watch {
        /// Its number.
        pub number: i32,
        /// What it asks for.
        pub mask: u32,
        /// The path of the file.
        pub path: String,
    }
}

crate::section! {
    /// An inotify in the image.
    pub struct State {
        /// Its watches, by number.
        pub watches: Vec<Watch>,
    }
}

/// A line of fdinfo.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    number: i32,
    inode: u64,
    device: u64,
    mask: u32,
    kind: i32,
    handle: Vec<u8>,
}

/// `inotify wd:1 ino:3c4a7 sdev:fe00000 mask:fff ignored_mask:0 fhandle-bytes:8 fhandle-type:1
/// f_handle:a7c4030000000000`. The number is hexadecimal too.
fn line(text: &str) -> Option<Line> {
    let value = |name: &str| text.split_ascii_whitespace().find_map(|word| word.strip_prefix(name));
    let hex = |name: &str| u64::from_str_radix(value(name)?, 16).ok();
    // The kernel's own encoding: 12 bits of major above 20 bits of minor.
    let device = hex("sdev:")?;
    let digits = value("f_handle:").unwrap_or("");
    let handle = (0..digits.len() / 2)
        .map_while(|i| u64::from_str_radix(digits.get(2 * i..2 * i + 2)?, 16).ok()?.try_into().ok());
    Some(Line {
        number: hex("wd:")?.try_into().ok()?,
        inode: hex("ino:")?,
        device: makedev(device >> 20, device & 0xf_ffff),
        mask: u32::try_from(hex("mask:")?).ok()?,
        kind: hex("fhandle-type:").and_then(|kind| i32::try_from(kind).ok()).unwrap_or(0),
        handle: handle.list(),
    })
}

/// Reads the watches and finds their files.
///
/// # Errors
/// A refusal if a file cannot be found.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    let mut watches = Vec::new();
    for text in desc.info.rest.iter().filter(|text| text.starts_with("inotify ")) {
        let line =
            line(text).ok_or_else(|| Error::new(KIND, "reading the watches", format!("odd line {text}")))?;
        let path = path(&line, world).ok_or_else(|| {
            let reason =
                format!("the file of its watch {} (inode {:x}) cannot be found", line.number, line.inode);
            Refusal::new(reason, "start its owner after `rcsnap ready`, or add it to rerun")
        })?;
        watches.push(Watch { number: line.number, mask: line.mask & ASKED, path });
    }
    sorted::sort_by_key(&mut watches, |watch| watch.number);
    if ioctl::get(desc.fd.as_fd(), &ioctl::UNREAD).unwrap_or(0) > 0 {
        crate::log!(Warning, "inotify: events that nobody has read are not carried");
    }
    Ok(Box::new(State { watches }))
}

/// The path of a watched file: by its handle on any mount of its file system, or by looking for it.
fn path(line: &Line, world: &World<'_>) -> Option<String> {
    // Not the holder's own list: with a root of its own it sees no mount that its root lies in.
    let info = fs::text("/proc/thread-self/mountinfo").unwrap_or_default();
    let wanted = format!("{}:{}", nix::sys::stat::major(line.device), nix::sys::stat::minor(line.device));
    // Fields: id, parent, major:minor, root, mount point.
    let mounts: Vec<&str> = info
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.nth(2)? == wanted).then(|| words.nth(1)).flatten()
        })
        .list();
    let found = mounts.iter().find_map(|mount| by_handle(line, mount, world));
    found.or_else(|| {
        let mut left = LIMIT;
        mounts.iter().find_map(|mount| search(line, mount, world, 6, &mut left))
    })
}

fn is(line: &Line, path: &str, world: &World<'_>) -> bool {
    lstat(world.inside(path)).is_ok_and(|found| same(line, &found))
}

fn same(line: &Line, found: &Stat) -> bool {
    (found.dev, found.ino) == (line.device, line.inode)
}

fn by_handle(line: &Line, mount: &str, world: &World<'_>) -> Option<String> {
    if line.handle.is_empty() {
        return None;
    }
    let mount = place::open(&world.inside(mount), libc::O_RDONLY | libc::O_DIRECTORY, KIND).ok()?;
    let file = descriptor::open_by_handle(mount.as_fd(), line.kind, &line.handle).ok()?;
    let link = fs::link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let path = link.to_str()?.to_owned();
    is(line, &path, world).then_some(path)
}

/// Looks for an inode number below a directory, without leaving its file system.
fn search(line: &Line, dir: &str, world: &World<'_>, depth: u32, left: &mut usize) -> Option<String> {
    if is(line, dir, world) {
        return Some(dir.to_owned());
    }
    if depth == 0 {
        return None;
    }
    let mut below = Vec::new();
    for name in fs::names(world.inside(dir)).ok()? {
        *left = left.checked_sub(1)?;
        let path = format!("{}/{}", text::without_end(dir, "/"), name.to_str()?);
        let Ok(stat) = lstat(world.inside(&path)) else { continue };
        if same(line, &stat) {
            return Some(path);
        }
        if stat.dev == line.device && stat.format() == libc::S_IFDIR {
            below.push(path);
        }
    }
    below.iter().find_map(|dir| search(line, dir, world, depth - 1, left))
}

/// Makes it with all its watches. Runs last, so that the restore's own doings are not reported.
///
/// # Errors
/// The errno of the calls.
pub fn restore(state: &State, _opener: &mut Opener) -> Result<OwnedFd> {
    let fd = anonymous::inotify().context(KIND, format_args!("making one"))?;
    for watch in &state.watches {
        let doing = format_args!("watching {}", watch.path);
        let path = CString::new(watch.path.as_str())
            .map_err(|_| Error::new(KIND, doing.to_string(), "its name has a NUL"))?;
        let set = ioctl::value(fd.as_fd(), &ioctl::SET_NEXT_WATCH, watch.number).is_ok();
        add(&fd, watch, &path, set).context(KIND, doing)?;
    }
    // Adding and removing has left events behind, and only those.
    let mut events = [0; 4096];
    while nix::unistd::read(&fd, &mut events).is_ok_and(|count| count > 0) {}
    Ok(fd)
}

fn add(fd: &OwnedFd, watch: &Watch, path: &std::ffi::CStr, set: bool) -> nix::Result<()> {
    for _ in 0..PATIENCE {
        let number = anonymous::inotify_add(fd.as_fd(), path, watch.mask | IN_DONT_FOLLOW)?;
        if number == watch.number {
            return Ok(());
        }
        // Two names of one file share a watch, and then the number is an earlier one.
        if set || number > watch.number {
            return Err(nix::errno::Errno::EEXIST);
        }
        anonymous::inotify_remove(fd.as_fd(), number)?;
    }
    Err(nix::errno::Errno::ERANGE)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::fd::AsFd;

    use super::{IN_ONESHOT, line};
    use crate::file::State;
    use crate::file::testing::{directory, refused, states};
    use crate::sys::anonymous::{inotify, inotify_add, inotify_remove};

    #[test]
    fn line_is_read() {
        let text = "inotify wd:b ino:3c4a7 sdev:fe00000 mask:800afce ignored_mask:0 fhandle-bytes:8 \
                    fhandle-type:1 f_handle:a7c4030000000000";
        let line = line(text).unwrap();
        assert_eq!((line.number, line.inode, line.mask), (11, 0x3c4a7, 0x0800_afce));
        assert_eq!(line.device, nix::sys::stat::makedev(254, 0));
        assert_eq!(line.handle, [0xa7, 0xc4, 3, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn watches_keep_their_numbers_with_gaps() {
        let memory = format!("/dev/shm/rcsnap-inotify-{}", std::process::id());
        let dirs = [directory(), directory(), memory];
        let fd = inotify().unwrap();
        let mut events = [0; 1000];
        for dir in &dirs {
            std::fs::create_dir_all(dir).unwrap();
            let path = CString::new(dir.as_str()).unwrap();
            // A number is used up each time.
            let spent = inotify_add(fd.as_fd(), &path, 1).unwrap();
            inotify_remove(fd.as_fd(), spent).unwrap();
            inotify_add(fd.as_fd(), &path, 0x100 | IN_ONESHOT).unwrap();
        }
        nix::unistd::read(&fd, &mut events).unwrap();
        let found = states(&[&fd]);
        assert_eq!(found.before, found.after);
        let State::Inotify(state) = &found.before[0] else { panic!() };
        let seen: Vec<_> = state.watches.iter().map(|watch| (watch.number, watch.path.clone())).collect();
        assert_eq!(seen, [(2, dirs[0].clone()), (4, dirs[1].clone()), (6, dirs[2].clone())]);
        assert!(nix::unistd::read(&found.open[0], &mut events).is_err());
        std::fs::write(format!("{}/new", dirs[1]), "").unwrap();
        let count = nix::unistd::read(&found.open[0], &mut events).unwrap();
        assert!(count > 16);
        assert_eq!(i32::from_ne_bytes(events[..4].try_into().unwrap()), 4);
        for dir in dirs {
            std::fs::remove_dir_all(dir).unwrap();
        }
    }

    #[test]
    fn watch_of_a_deleted_file_is_refused() {
        let dir = directory();
        let path = format!("{dir}/file");
        let open = std::fs::File::create(&path).unwrap();
        let fd = inotify().unwrap();
        inotify_add(fd.as_fd(), &CString::new(path.as_str()).unwrap(), 2).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        assert!(refused(&[&fd]).reason.contains("cannot be found"));
        drop(open);
    }
}
