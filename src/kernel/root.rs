//! Where the kinds read and write: procfs, sysfs and the files of the system.
//!
//! procfs and sysfs are held as open directories, not as paths: rcsnap's own mounts of them are taken out of
//! the mount table in the middle of a restore, when the system's own come in their places, and an open
//! directory goes on working in a detached mount.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir};

use crate::error::{Context, Result};
use crate::proc::mountinfo::{self, Mount};
use crate::sorted::Listed;
use crate::sys::fs;
use crate::sys::fsmount;
use crate::sys::path::{self, openat};
use crate::text;

/// An open directory, and small operations below it.
#[derive(Debug)]
pub struct Dir(OwnedFd);

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The file name.
    pub name: String,
    /// Whether it is a directory (not a link to one).
    pub dir: bool,
}

impl Dir {
    /// Opens a directory by path.
    ///
    /// # Errors
    /// The errno of open(2).
    pub fn open(path: &Path) -> Result<Dir, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Dir(path::open(path, flags, Mode::empty())?))
    }

    /// Opens a file below it for reading.
    ///
    /// # Errors
    /// The errno of openat(2).
    pub fn file(&self, path: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        openat(&self.0, path, flags, Mode::empty())
    }

    /// The text of a file below it. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// The errno of openat(2) or read(2).
    pub fn read(&self, path: &str) -> Result<String, Errno> {
        let bytes = fs::read_to_end(self.file(path)?.as_fd())?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|err| String::from_utf8_lossy(err.as_bytes()).into_owned()))
    }

    /// The first line of a file below it without its end; empty if it cannot be read.
    #[must_use]
    pub fn line(&self, path: &str) -> String {
        self.read(path).unwrap_or_default().trim_ascii_end().to_owned()
    }

    /// Writes a file of procfs or sysfs below it, in one write(2): the kernel takes each write as a whole.
    ///
    /// # Errors
    /// The errno of openat(2) or write(2).
    pub fn write(&self, path: &str, text: &str) -> Result<(), Errno> {
        let file = openat(&self.0, path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        fs::write_all(file.as_fd(), text.as_bytes())
    }

    /// The names in a directory below it, sorted; "" is the directory itself.
    ///
    /// # Errors
    /// The errno of openat(2) or getdents64(2).
    pub fn names(&self, path: &str) -> Result<Vec<Name>, Errno> {
        let path = if path.is_empty() { "." } else { path };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = openat(&self.0, path, flags, Mode::empty())?;
        let text = |name: OsString| name.to_string_lossy().into_owned();
        let names = fs::names_in(dir.as_fd())?.into_iter();
        Ok(names.map(|fs::Name { name, dir }| Name { name: text(name), dir }).list())
    }

    /// The text of a symbolic link below it.
    ///
    /// # Errors
    /// The errno of readlinkat(2).
    pub fn link(&self, path: &str) -> Result<String, Errno> {
        Ok(fs::link_in(self.0.as_fd(), path.as_ref())?.to_string_lossy().into_owned())
    }

    /// Whether a name exists below it.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        openat(&self.0, path, OFlag::O_PATH, Mode::empty()).is_ok()
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a procfs is that of the machine, and not of a pid namespace in it.
#[must_use]
pub fn is_machine(proc: &Dir) -> bool {
    // PROC_PID_INIT_INO of include/uapi/linux/nsfs.h: the same number on every boot.
    proc.link("self/ns/pid").is_ok_and(|link| link == "pid:[4026531836]")
}

/// The mount table that a task sees.
///
/// # Errors
/// The errno of reading it, or a line that is not understood.
pub fn mounts_of(task: u32) -> Result<Vec<Mount>> {
    let text = fs::of_task(task, "mountinfo");
    mountinfo::parse(&text.context("mount", format_args!("reading the mounts of {task}"))?)
}

/// The system whose state is meant.
#[derive(Debug)]
pub struct Root {
    /// procfs.
    pub proc: Dir,
    /// The path of procfs, for what has no call that takes a directory.
    pub proc_path: PathBuf,
    /// sysfs, of the network namespace of the system.
    pub sys: Dir,
    /// The root directory of the system: `/proc/1/root` for the watcher, `/` for the conductor.
    pub files: PathBuf,
    /// Whether this is a pid namespace and not the machine: what has no namespace belongs to others then
    /// (modules, devices, most parameters), and is left alone.
    pub cell: bool,
    /// The task whose mount table is the system's: a name below procfs, `1` on a real boot.
    pub task: String,
}

impl Root {
    /// Opens procfs and sysfs. `task` is a name below procfs whose mount table is the system's; the caller
    /// must share its network, UTS and IPC namespaces, because there procfs shows the reader's own.
    ///
    /// # Errors
    /// The errno of open(2).
    pub fn open(proc: &Path, sys: &Path, files: &Path, task: &str) -> Result<Root> {
        let dir = Dir::open(proc).context("kernel", format_args!("opening {}", proc.to_string_lossy()))?;
        Ok(Root {
            cell: !is_machine(&dir),
            proc: dir,
            proc_path: proc.to_path_buf(),
            sys: Dir::open(sys).context("kernel", format_args!("opening {}", sys.to_string_lossy()))?,
            files: files.to_path_buf(),
            task: task.to_owned(),
        })
    }

    /// What the watcher uses on a cold boot: its own procfs and sysfs, the files of PID 1.
    ///
    /// # Errors
    /// The errno of open(2).
    pub fn watcher() -> Result<Root> {
        Root::open(Path::new("/proc"), Path::new("/sys"), Path::new("/proc/1/root"), "1")
    }

    /// What the conductor uses on a restored boot: it shares the mount namespace of PID 1.
    ///
    /// # Errors
    /// The errno of open(2).
    pub fn conductor() -> Result<Root> {
        Root::open(Path::new("/proc"), Path::new("/sys"), Path::new("/"), "1")
    }

    /// What this process sees in its namespaces, where nothing but /proc need be mounted: sysfs shows the interfaces
    /// of the network in which it is mounted.
    ///
    /// # Errors
    /// The errno of open(2), or sysfs cannot be mounted.
    pub fn own() -> Result<Root> {
        let proc = Path::new("/proc");
        let mut root = Root::open(proc, proc, Path::new("/"), "thread-self")?;
        let sys = fsmount::mount(Path::new("sysfs"), "sysfs", false);
        root.sys = Dir(sys.context("kernel", format_args!("mounting sysfs"))?);
        Ok(root)
    }

    /// An absolute path of the system as a path of ours.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.files.join(text::without_start(path, "/"))
    }

    /// The mount table of the system.
    ///
    /// # Errors
    /// The errno of reading it, or a line that is not understood.
    pub fn mounts(&self) -> Result<Vec<Mount>> {
        let path = format!("{}/mountinfo", self.task);
        let text = self.proc.read(&path).context("mount", format_args!("reading {path}"))?;
        mountinfo::parse(&text)
    }

    /// Does something in the mount namespace of the system and comes back, to the same root and directory. Needs
    /// a process of one thread if the namespace is not our own.
    ///
    /// # Errors
    /// The errno of setns(2), or of what was done.
    pub fn inside<T>(&self, work: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        if self.files.as_os_str() == "/" {
            return work();
        }
        let ours = self.proc.file("thread-self/ns/mnt")?;
        let theirs = self.proc.file(&format!("{}/ns/mnt", self.task))?;
        let (root, here) = (Dir::open(Path::new("/"))?, Dir::open(Path::new("."))?);
        setns(theirs, CloneFlags::CLONE_NEWNS)?;
        let done = work();
        setns(ours, CloneFlags::CLONE_NEWNS)?;
        fchdir(&root)?;
        chroot(c".")?;
        fchdir(&here)?;
        done
    }

    /// A path to the directory that one of our descriptors stands for; the dot goes on through the link.
    #[must_use]
    pub fn descriptor(&self, fd: RawFd) -> PathBuf {
        self.proc_path.join(format!("self/fd/{fd}/."))
    }

    /// A file of the system's procfs that belongs to a task's namespaces: `net/route`.
    ///
    /// # Errors
    /// The errno of reading it.
    pub fn of_task(&self, path: &str) -> Result<String, Errno> {
        self.proc.read(&format!("{}/{path}", self.task))
    }
}
