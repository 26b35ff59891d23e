//! What puppets get from the conductor: files to map, shared memory, descriptors, locks, and their pages.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;

use super::{KIND, Puppets};
use crate::error::{Context, Error, Result};
use crate::image::pages::{PAGE, Run};
use crate::kernel::root::Dir;
use crate::kernel::sysvipc;
use crate::sorted::{self, Listed};
use crate::sys::ipc::Attached;
use crate::sys::{abi, anonymous, descriptor, fs, path, stat, vm};
use crate::task::memory::{self, Backing, MappedFile, Object};
use crate::task::namespace::Doors;
use crate::task::pages::Place;
use crate::task::remote::{Batch, Script};
use crate::task::tree::Body;

/// Opens the files that processes map, at numbers from `base` on.
///
/// # Errors
/// One of them is gone.
pub fn open_files(files: &[MappedFile], doors: &Doors, base: i32) -> Result<Vec<OwnedFd>> {
    let mut open = Vec::new();
    for f in files {
        let doing = format_args!("opening {}", f.path);
        let access = if f.writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
        doors.inside(&f.spaces, &mut || {
            let file = fs::open(&f.path, access).context("memory", doing)?;
            open.push(descriptor::raise(file, base).context("memory", doing)?);
            Ok(())
        })?;
    }
    Ok(open)
}

/// Makes the shared anonymous memory, empty.
///
/// # Errors
/// There is no room, or an id of a segment is taken.
pub fn make_objects(
    objects: &[Object],
    doors: &Doors,
    base: i32,
    attached: &mut Vec<Attached>,
) -> Result<Vec<OwnedFd>> {
    let mut make = |o: &Object| {
        let doing = format_args!("making shared memory {}", o.path);
        let fd = if let Some(perm) = &o.segment {
            let proc = Dir::open(Path::new("/proc")).context("memory", doing)?;
            let (held, fd) = sysvipc::segment(&proc, perm, o.size)?;
            attached.push(held);
            fd
        } else if o.path.is_empty() {
            vm::shared_anonymous(o.size, o.huge).context("memory", doing)?
        } else if let Some(name) = o.path.strip_prefix("/memfd:") {
            let name = path::text(Path::new(name)).context("memory", doing)?;
            let fd = anonymous::memfd(&name, o.huge).context("memory", doing)?;
            nix::unistd::ftruncate(&fd, o.size.cast_signed()).context("memory", doing)?;
            fd
        } else {
            deleted_file(o)?
        };
        descriptor::raise(fd, base).context("memory", doing)
    };
    let mut made = Vec::new();
    for o in objects {
        doors.inside(&o.spaces, &mut || {
            made.push(make(o)?);
            Ok(())
        })?;
    }
    Ok(made)
}

/// A file without a name any more, at the place where the captured one had been.
fn deleted_file(object: &Object) -> Result<OwnedFd> {
    let doing = format_args!("making the deleted file {}", object.path);
    let fresh = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
    let mut path = object.path.clone();
    let file = fs::open(&path, fresh).or_else(|_| {
        // The name is taken by a newer file.
        path.push_str(".deleted");
        fs::open(&path, fresh)
    });
    let file = file.context("memory", doing)?;
    path::unlink(&path).context("memory", doing)?;
    nix::unistd::ftruncate(&file, object.size.cast_signed()).context("memory", doing)?;
    Ok(file)
}

/// Whether two paths lead to one file.
fn same_file(one: &str, other: &str) -> bool {
    let id = |path| stat::stat(path).map(|found| (found.dev, found.ino)).ok();
    id(one).is_some() && id(one) == id(other)
}

/// The lowest number below `fd` that no descriptor of the process has.
fn first_gap(fds: &[crate::file::Fd], fd: i32) -> i32 {
    (0..fd).find(|n| fds.iter().all(|f| f.fd != *n)).unwrap_or(fd)
}

/// fcntl(2) with F_SETLK and a struct flock of 64 bit: type, whence, start, length, pid.
pub(super) fn take_lock(batch: &mut Batch, lock: &crate::file::lock::Posix) {
    let kind = if lock.write { libc::F_WRLCK } else { libc::F_RDLCK };
    let mut bytes = u64::from(kind.cast_unsigned()).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&lock.start.to_ne_bytes());
    bytes.extend_from_slice(&lock.len.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    let room = batch.bytes(&bytes);
    let fd = u64::from(lock.fd.cast_unsigned());
    batch.call(abi::FCNTL, &[fd, u64::from(libc::F_SETLK.cast_unsigned()), room]);
    batch.doing("taking a lock");
}

/// Gives the objects their lengths again, after pages were placed in them whole.
///
/// # Errors
/// The errno of ftruncate(2).
pub fn cut(objects: &[Object], files: &[OwnedFd]) -> Result<()> {
    for (object, file) in objects.iter().zip(files) {
        if object.size % PAGE as u64 != 0 {
            nix::unistd::ftruncate(file, object.size.cast_signed())
                .context("memory", format_args!("cutting shared memory {}", object.path))?;
        }
    }
    Ok(())
}

/// Puts the runs of one block where they belong.
///
/// # Errors
/// The image names an address space that it does not have, or a puppet died.
pub fn place(places: &mut [Place<'_>], run: &Run, bytes: &[u8]) -> Result<()> {
    let place = places.get_mut(run.mm as usize);
    let place = place
        .ok_or_else(|| Error::new(KIND, format!("filling memory {}", run.mm), "there is no such one"))?;
    place.put(run, bytes)
}

impl Puppets<'_> {
    /// Whether a process stands for all that share its memory.
    pub(super) fn stands(&self, pid: u32) -> bool {
        self.process(pid).is_some_and(|p| p.ids.sharing.memory == pid)
    }

    pub(super) fn backing_fd(&self, backing: &Backing) -> Result<u64> {
        let fd = match backing {
            Backing::Anonymous | Backing::Segment { .. } => None,
            Backing::Shared(index) => self.objects.get(*index as usize),
            Backing::File(index) => self.files.get(*index as usize),
            Backing::Entry(index) => self.entries.get(*index as usize),
        };
        let fd = fd.ok_or_else(|| Error::new(KIND, "mapping a file", "the image does not have it"))?;
        Ok(u64::from(fd.as_raw_fd().cast_unsigned()))
    }

    /// PR_SET_MM_MAP with the program's file, and PR_SET_THP_DISABLE, by the one that stands for the memory.
    pub(super) fn describe(&self, script: &mut Script<'_>, pid: u32, body: &Body) -> Result<()> {
        if !self.stands(pid) {
            return Ok(());
        }
        let exe = self.backing_fd(&Backing::File(body.memory.exe))?;
        script.batch.call(libc::SYS_pidfd_getfd, &[0, exe, 0]);
        // The program stays where it is the same: the kernel refuses one while files of the present one are
        // mapped (EBUSY), and the mappings of `rcsnap ready` are those of rcsnap.
        let same = same_file("/proc/self/exe", &format!("/proc/self/fd/{exe}"));
        memory::set_layout(&mut script.batch, &body.memory, if same { u64::from(u32::MAX) } else { 1 });
        script.batch.call(libc::SYS_close, &[1]);
        if body.no_thp {
            script.batch.call(libc::SYS_prctl, &[libc::PR_SET_THP_DISABLE as u64, 1, 0, 0, 0]);
        }
        Ok(())
    }

    /// Gives the process its descriptors. Numbers are known beforehand: pidfd_getfd(2) returns the lowest free one, and they are taken in ascending order.
    pub(super) fn place_fds(&self, script: &mut Script<'_>, body: &Body) -> Result<()> {
        let mut fds: Vec<_> = body.fds.iter().list();
        sorted::sort_by_key(&mut fds, |fd| fd.fd);
        let number = |fd: i32| u64::from(fd.cast_unsigned());
        let above = fds.last().map_or(0, |fd| fd.fd) + 1;
        script.ensure(4, 0)?;
        script.batch.call(libc::SYS_dup3, &[0, number(above), number(libc::O_CLOEXEC)]);
        script.batch.call(libc::SYS_close, &[0]);
        for (lowest, fd) in (0i32..).zip(fds) {
            script.ensure(5, 0)?;
            let here = self.entries.get(fd.entry as usize);
            let here =
                here.ok_or_else(|| Error::new(KIND, "placing a descriptor", "the image does not have it"))?;
            script.batch.call(libc::SYS_pidfd_getfd, &[number(above), number(here.as_raw_fd()), 0]);
            script.batch.doing("taking a descriptor from the conductor");
            // All below are placed. If they leave no gap, the lowest free number is the wanted one.
            if lowest == fd.fd {
                let flag = if fd.cloexec { libc::FD_CLOEXEC } else { 0 };
                script.batch.call(libc::SYS_fcntl, &[number(fd.fd), number(libc::F_SETFD), number(flag)]);
            } else {
                let flag = if fd.cloexec { libc::O_CLOEXEC } else { 0 };
                let gap = first_gap(&body.fds, fd.fd);
                script.batch.call(libc::SYS_dup3, &[number(gap), number(fd.fd), number(flag)]);
                script.batch.call(libc::SYS_close, &[number(gap)]);
            }
        }
        script.ensure(4, 16)?;
        script.batch.call(libc::SYS_close, &[number(above)]);
        Ok(())
    }
}
