//! Whole files, links and directories. Their errors are plain numbers, where those of `std::fs` own memory that
//! every caller must free, and a directory is read without a stream of the C library.
#![allow(unsafe_code, reason = "getdents64 and readlinkat fill a buffer")]

use crate::sorted::Listed;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::libc::off_t;
use nix::sys::stat::Mode;
use nix::sys::uio::{pread, pwrite};

use crate::sorted;
use crate::sys::ptrace::Sys;

/// Opens a file; it is closed at execve(2). What is created gets the permissions that the umask leaves of 0666.
///
/// # Errors
/// The errno of open(2).
pub fn open(path: impl AsRef<Path>, flags: OFlag) -> Sys<OwnedFd> {
    super::path::open(path.as_ref(), flags, Mode::from_bits_retain(0o666))
}

/// The content of a file.
///
/// # Errors
/// The errno of open(2) or read(2).
pub fn read(path: impl AsRef<Path>) -> Sys<Vec<u8>> {
    read_of(path.as_ref())
}

#[inline(never)]
fn read_of(path: &Path) -> Sys<Vec<u8>> {
    read_to_end(open(path, OFlag::O_RDONLY)?.as_fd())
}

/// What is left to be read.
///
/// # Errors
/// The errno of read(2).
pub fn read_to_end(fd: BorrowedFd<'_>) -> Sys<Vec<u8>> {
    let (mut bytes, mut len) = (vec![0; 4096], 0);
    loop {
        match nix::unistd::read(fd, &mut bytes[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        if len == bytes.len() {
            bytes.resize(2 * len, 0);
        }
    }
    bytes.truncate(len);
    // Many files are read, and memory is never freed: see sys::arena.
    bytes.shrink_to_fit();
    Ok(bytes)
}

/// The content of a file as text.
///
/// # Errors
/// The errno of open(2) or read(2), and EILSEQ if it is not UTF-8.
pub fn text(path: impl AsRef<Path>) -> Sys<String> {
    text_of(path.as_ref())
}

#[inline(never)]
fn text_of(path: &Path) -> Sys<String> {
    String::from_utf8(read(path)?).map_err(|_| Errno::EILSEQ)
}

/// The text of a file below /proc/PID.
///
/// # Errors
/// As [`text`].
pub fn of_task(pid: u32, name: &str) -> Sys<String> {
    text(format!("/proc/{pid}/{name}"))
}

/// What /proc/sys/kernel says of the kernel: `osrelease` and `version`, as uname(2) does.
///
/// # Errors
/// As [`text`].
pub fn kernel(what: &str) -> Sys<String> {
    text(format!("/proc/sys/kernel/{what}")).map(|text| text.trim_ascii_end().to_owned())
}

/// Makes a file, or one that is there anew, and writes it.
///
/// # Errors
/// The errno of open(2) or write(2).
pub fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Sys<()> {
    write_to(path.as_ref(), bytes.as_ref())
}

#[inline(never)]
fn write_to(path: &Path, bytes: &[u8]) -> Sys<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC)?;
    write_all(file.as_fd(), bytes)
}

/// Writes all of it, with one write(2) where the kernel takes it at once.
///
/// # Errors
/// The errno of write(2).
pub fn write_all(fd: BorrowedFd<'_>, bytes: &[u8]) -> Sys<()> {
    whole(bytes.len(), &mut |done| nix::unistd::write(fd, &bytes[done..]))
}

/// Fills the buffer with what is at an offset.
///
/// # Errors
/// The errno of pread(2), EIO if the file ends before.
pub fn read_at(fd: impl AsFd, offset: u64, buffer: &mut [u8]) -> Sys<()> {
    read_from(fd.as_fd(), offset, buffer)
}

#[inline(never)]
fn read_from(fd: BorrowedFd<'_>, offset: u64, buffer: &mut [u8]) -> Sys<()> {
    whole(buffer.len(), &mut |done| pread(fd, &mut buffer[done..], place(offset, done)?))
}

/// Writes all bytes at an offset; what is on hugetlbfs is mapped for that.
///
/// # Errors
/// The errno of pwrite(2) or mmap(2).
pub fn write_at(fd: impl AsFd, offset: u64, bytes: &[u8]) -> Sys<()> {
    write_to_place(fd.as_fd(), offset, bytes)
}

#[inline(never)]
fn write_to_place(fd: BorrowedFd<'_>, offset: u64, bytes: &[u8]) -> Sys<()> {
    match whole(bytes.len(), &mut |done| pwrite(fd, &bytes[done..], place(offset, done)?)) {
        Err(Errno::EINVAL) => super::vm::write_mapped(fd, offset, bytes),
        done => done,
    }
}

fn place(offset: u64, done: usize) -> Sys<off_t> {
    offset.checked_add(done as u64).and_then(|at| at.try_into().ok()).ok_or(Errno::EOVERFLOW)
}

/// Goes on until `len` bytes were moved: `step` is told how many were, and says how many more. EIO when no more come.
pub(super) fn whole(len: usize, step: &mut dyn FnMut(usize) -> Sys<usize>) -> Sys<()> {
    let mut done = 0;
    while done < len {
        match step(done) {
            Ok(0) => return Err(Errno::EIO),
            Ok(count) => done += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The text of a symbolic link.
///
/// # Errors
/// The errno of readlink(2).
pub fn link(path: impl AsRef<Path>) -> Sys<PathBuf> {
    link_of(path.as_ref())
}

fn link_of(path: &Path) -> Sys<PathBuf> {
    link_in(AT_FDCWD, path)
}

/// The text of a symbolic link below an open directory.
///
/// # Errors
/// The errno of readlinkat(2).
#[inline(never)]
pub fn link_in(directory: BorrowedFd<'_>, path: &Path) -> Sys<PathBuf> {
    let path = super::path::text(path)?;
    let mut text = [0_u8; 4096];
    let (directory, place) = (directory.as_raw_fd(), text.as_mut_ptr());
    // SAFETY: a string with its end; the kernel writes no more than the length of the buffer.
    let len = unsafe { libc::syscall(libc::SYS_readlinkat, directory, path.as_ptr(), place, text.len()) };
    let len = super::descriptor::check(len)?.unsigned_abs() as usize;
    Ok(OsStr::from_bytes(text.get(..len).unwrap_or_default()).into())
}

/// The text of a symbolic link. What is not UTF-8 is replaced.
///
/// # Errors
/// The errno of readlink(2).
pub fn link_text(path: impl AsRef<Path>) -> Sys<String> {
    link(path).map(|text| text.to_string_lossy().into_owned())
}

/// The absolute path of a file, without symbolic links. Needs /proc.
///
/// # Errors
/// The errno of open(2), also of /proc.
pub fn real(path: impl AsRef<Path>) -> Sys<PathBuf> {
    real_of(path.as_ref())
}

#[inline(never)]
fn real_of(path: &Path) -> Sys<PathBuf> {
    let file = open(path, OFlag::O_PATH)?;
    link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The file name.
    pub name: OsString,
    /// Whether it is a directory, and not a link to one.
    pub dir: bool,
}

/// The names in an open directory, sorted, from where it stands.
///
/// # Errors
/// The errno of getdents64(2).
pub fn names_in(directory: BorrowedFd<'_>) -> Sys<Vec<Name>> {
    let (mut names, mut buffer) = (Vec::new(), [0_u8; 8 * 1024]);
    loop {
        // SAFETY: the kernel writes no more than the length of the buffer.
        let len = unsafe {
            libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
        };
        let len = super::descriptor::check(len)?.unsigned_abs() as usize;
        let mut rest = buffer.get(..len).unwrap_or_default();
        // struct linux_dirent64: inode, offset, length of the record, type, name with its end.
        while let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, low, high, kind, tail @ ..] = rest {
            let name = tail.split(|byte| *byte == 0).next().unwrap_or_default();
            if name != b"." && name != b".." {
                names.push(Name { name: OsStr::from_bytes(name).to_owned(), dir: *kind == libc::DT_DIR });
            }
            rest = rest.get(usize::from(u16::from_ne_bytes([*low, *high])).max(1)..).unwrap_or_default();
        }
        if len == 0 {
            sorted::sort_by(&mut names, |a, b| a.name.cmp(&b.name));
            return Ok(names);
        }
    }
}

/// The names in a directory, sorted, and which of them are directories.
///
/// # Errors
/// The errno of open(2) or getdents64(2).
pub fn entries(directory: impl AsRef<Path>) -> Sys<Vec<Name>> {
    entries_of(directory.as_ref())
}

#[inline(never)]
fn entries_of(directory: &Path) -> Sys<Vec<Name>> {
    names_in(open(directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?.as_fd())
}

/// The names in a directory, sorted.
///
/// # Errors
/// The errno of open(2) or getdents64(2).
pub fn names(directory: impl AsRef<Path>) -> Sys<Vec<OsString>> {
    entries(directory).map(names_of)
}

fn names_of(names: Vec<Name>) -> Vec<OsString> {
    names.into_iter().map(|name| name.name).list()
}

/// The names in a directory that are numbers, sorted: processes, threads, descriptors.
///
/// # Errors
/// The errno of open(2) or getdents64(2).
pub fn numbers(directory: impl AsRef<Path>) -> Sys<Vec<u32>> {
    Ok(numbers_of(&entries(directory)?))
}

fn numbers_of(names: &[Name]) -> Vec<u32> {
    let mut found: Vec<u32> =
        names.iter().filter_map(|name| name.name.to_str().and_then(|name| name.parse().ok())).list();
    sorted::sort(&mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::{link, names, numbers, read, real, text, write};
    use nix::errno::Errno;

    #[test]
    fn files_are_read_as_by_std() {
        for path in ["/proc/self/mountinfo", "/etc/passwd", "/proc/version"] {
            assert_eq!(read(path).unwrap(), std::fs::read(path).unwrap());
        }
        let own = std::env::current_exe().unwrap();
        assert!(read(&own).unwrap() == std::fs::read(&own).unwrap());
        assert_eq!(text(&own), Err(Errno::EILSEQ));
        assert_eq!(text("/nonexistent"), Err(Errno::ENOENT));
    }

    #[test]
    fn a_file_is_written_anew() {
        let path = std::env::temp_dir().join(format!("rcsnap-fs-{}", std::process::id()));
        write(&path, "a longer text").unwrap();
        write(&path, "text").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"text");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn directories_are_listed_as_by_std() {
        for path in ["/", "/etc", "/dev", "/usr/bin"] {
            let mut theirs: Vec<_> =
                std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect();
            theirs.sort();
            assert_eq!(names(path).unwrap(), theirs);
        }
        assert!(numbers("/proc").unwrap().binary_search(&std::process::id()).is_ok());
        assert_eq!(names("/etc/passwd"), Err(Errno::ENOTDIR));
    }

    #[test]
    fn links_are_followed_as_by_std() {
        for path in ["/proc/self/exe", "/etc/../bin/sh", "/proc/self/cwd", "/"] {
            assert_eq!(real(path).unwrap(), std::fs::canonicalize(path).unwrap());
        }
        assert_eq!(link("/proc/self/exe").unwrap(), std::env::current_exe().unwrap());
        assert_eq!(real("/nonexistent"), Err(Errno::ENOENT));
    }
}
