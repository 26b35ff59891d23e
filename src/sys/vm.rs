//! Memory of other processes: process_vm_readv(2), process_vm_writev(2), /proc/PID/mem; and our own maps.
#![allow(unsafe_code, reason = "process_vm_* and mmap take addresses")]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::statfs;

use crate::sys::ptrace::Sys;

fn iovec(address: u64, len: usize) -> Sys<libc::iovec> {
    let base = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
    Ok(libc::iovec { iov_base: std::ptr::without_provenance_mut(base), iov_len: len })
}

/// Reads memory of another process; fails on PROT_NONE. All or nothing.
pub fn read(pid: u32, address: u64, buffer: &mut [u8]) -> Sys<()> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = iovec(address, buffer.len())?;
    // SAFETY: `local` is our own live buffer; `remote` is only read by the kernel in the other process.
    let got =
        unsafe { libc::process_vm_readv(pid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
    complete(got, buffer.len())
}

/// Writes memory of another process where it may write itself. All or nothing.
pub fn write(pid: u32, address: u64, bytes: &[u8]) -> Sys<()> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = iovec(address, bytes.len())?;
    // SAFETY: `local` is only read; `remote` belongs to a stopped process that we trace.
    let got =
        unsafe { libc::process_vm_writev(pid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
    complete(got, bytes.len())
}

fn complete(got: isize, wanted: usize) -> Sys<()> {
    let got = Errno::result(got)?;
    if got.cast_unsigned() == wanted { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Reads through /proc/PID/mem, which overrides page protection for a tracer.
pub fn read_forced(mem: &OwnedFd, address: u64, buffer: &mut [u8]) -> Sys<()> {
    super::fs::read_at(mem, address, buffer)
}

/// Writes through /proc/PID/mem.
pub fn write_forced(mem: &OwnedFd, address: u64, bytes: &[u8]) -> Sys<()> {
    super::fs::write_at(mem, address, bytes)
}

/// Reads words of another process. All or nothing.
pub fn read_words(pid: u32, address: u64, words: &mut [usize]) -> Sys<()> {
    let len = size_of_val(words);
    // SAFETY: these are the bytes of `words`, which live as long and are borrowed alone; a word may have any bytes.
    read(pid, address, unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), len) })
}

/// Writes words into another process, as [`write`] does.
pub fn write_words(pid: u32, address: u64, words: &[usize]) -> Sys<()> {
    // SAFETY: these are the bytes of `words`, which live as long.
    write(pid, address, unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) })
}

/// Fresh pages, all zero, at an address that the kernel chooses.
pub(super) fn fresh(len: usize) -> Sys<std::ptr::NonNull<u8>> {
    mapped(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
}

/// A mapping at an address that the kernel chooses.
fn mapped(len: usize, flags: i32, file: i32, offset: libc::off_t) -> Sys<std::ptr::NonNull<u8>> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, rights, flags, file, offset) };
    if start == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    std::ptr::NonNull::new(start.cast()).ok_or(Errno::ENOMEM)
}

/// The size of the huge pages that a file has, as mmap(2) and memfd_create(2) take it: its logarithm from bit 26 on.
/// 0 for a file that is not on hugetlbfs.
///
/// # Errors
/// The errno of fstatfs(2).
pub fn huge(file: BorrowedFd<'_>) -> Sys<u32> {
    let found = statfs::fstatfs(file)?;
    let huge = found.filesystem_type() == statfs::HUGETLBFS_MAGIC;
    Ok(if huge { found.block_size().trailing_zeros() << HUGE_SHIFT } else { 0 })
}

/// Bytes of a huge page whose size is given as [`huge`] does.
#[must_use]
pub fn huge_bytes(bits: u32) -> u64 {
    1 << (bits >> HUGE_SHIFT)
}

/// MAP_HUGE_SHIFT and MFD_HUGE_SHIFT.
pub const HUGE_SHIFT: u32 = 26;

/// Writes bytes at an offset of a file on hugetlbfs, which cannot be written but mapped: what is mapped is set aside, so
/// that no page is missing when it is touched.
pub(super) fn write_mapped(file: BorrowedFd<'_>, offset: u64, bytes: &[u8]) -> Sys<()> {
    let bits = huge(file)?;
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    let page = huge_bytes(bits);
    let inside = usize::try_from(offset % page).map_err(|_| Errno::EFBIG)?;
    let len = (inside + bytes.len()).next_multiple_of(usize::try_from(page).map_err(|_| Errno::EFBIG)?);
    let fd = file.as_raw_fd();
    let start = mapped(len, libc::MAP_SHARED, fd, (offset - inside as u64).cast_signed())?;
    // SAFETY: the mapping is our own, has room for `bytes` from `inside` on, and is not used afterwards.
    unsafe {
        start.add(inside).copy_from_nonoverlapping(std::ptr::NonNull::from(bytes).cast(), bytes.len());
        libc::munmap(start.as_ptr().cast(), len);
    }
    Ok(())
}

/// Zeroed memory for much data that is needed for a moment: it is given back, as nothing else is (see `sys::arena`).
#[derive(Debug)]
pub struct Room {
    start: std::ptr::NonNull<u8>,
    len: usize,
}

impl Room {
    /// Of so many bytes.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(len: usize) -> Sys<Room> {
        let start = fresh(len.max(1))?;
        Ok(Room { start, len })
    }
}

impl std::ops::Deref for Room {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has `len` bytes, which are zero or were written, and it lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl std::ops::DerefMut for Room {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and no reference to it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len.max(1)) };
    }
}

/// PAGEMAP_SCAN of ioctl(2), Linux 6.7: `_IOWR('f', 16, struct pm_scan_arg)`, which is twelve numbers of 64 bits.
const SCAN_PAGES: u32 = 0xc060_6610;
/// PAGE_IS_PRESENT and PAGE_IS_SWAPPED, which a guard is as well.
const FILLED: u64 = 0x18;

/// The address of the first page in a range that is there or swapped.
///
/// # Errors
/// ENOTTY before Linux 6.7.
pub fn first_page(pagemap: &OwnedFd, start: u64, end: u64) -> Sys<Option<u64>> {
    // Start, end and categories of the one region that is asked for.
    let mut region = [0_u64; 3];
    let place = (&raw mut region).expose_provenance() as u64;
    // Size, flags, start, end, end of the walk, regions and their number, limit of pages; the categories that are
    // inverted, all of which or any of which must be, and which are told.
    let mut ask = [96_u64, 0, start, end, 0, place, 1, 1, 0, 0, FILLED, FILLED];
    // SAFETY: the request is of this size, and `region` is as long as it says.
    let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), SCAN_PAGES as libc::Ioctl, &raw mut ask) };
    let found = Errno::result(found)?;
    // SAFETY: a live array of our own, which the kernel wrote to behind the compiler's back.
    let first = unsafe { (&raw const region[0]).read_volatile() };
    Ok((found > 0).then_some(first))
}

/// Maps shared anonymous memory of our own and opens the object behind it through /proc/self/map_files, so
/// that other processes can map the same. Returns the descriptor; our own mapping is gone again. `huge` is the size of
/// its pages, see [`huge`].
pub fn shared_anonymous(len: u64, huge: u32) -> Sys<OwnedFd> {
    let len = usize::try_from(len).map_err(|_| Errno::ENOMEM)?;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let huge = if huge == 0 { 0 } else { libc::MAP_HUGETLB | huge.cast_signed() };
    let map = mapped(len, flags | huge, -1, 0)?;
    let start = map.addr().get();
    let path = format!("/proc/self/map_files/{start:x}-{:x}", start + len);
    let opened = super::fs::open(path, nix::fcntl::OFlag::O_RDWR);
    // SAFETY: nothing refers to the mapping; only the descriptor is kept.
    unsafe { libc::munmap(map.as_ptr().cast(), len) };
    opened
}

/// Maps private anonymous memory at exactly this address in our own process, for the batch loop.
pub fn map_area(address: u64, len: u64, protection: i32) -> Sys<()> {
    let base = usize::try_from(address).map_err(|_| Errno::EINVAL)?;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    // SAFETY: MAP_FIXED_NOREPLACE never replaces a mapping that is in use.
    let map = unsafe {
        libc::mmap(
            std::ptr::without_provenance_mut(base),
            len,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        )
    };
    if map == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    if map.addr() == base { Ok(()) } else { Err(Errno::EEXIST) }
}

/// Gives back a mapping made by [`map_area`].
pub fn unmap_area(address: u64, len: u64) -> Sys<()> {
    let base = usize::try_from(address).map_err(|_| Errno::EINVAL)?;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the caller made this mapping with `map_area`, and only other processes use its contents.
    let result = unsafe { libc::munmap(std::ptr::without_provenance_mut(base), len) };
    Errno::result(result).map(drop)
}

/// Bytes of a page of memory.
#[must_use]
pub fn page_size() -> u64 {
    // SAFETY: a plain number; it is only looked up.
    (unsafe { libc::getauxval(libc::AT_PAGESZ) }) as u64
}

/// The end of user addresses. It depends on the kernel's configuration (arm64: 39 to 52 bits; arm: where the
/// kernel begins), and munmap(2) takes no range beyond it. Found by mapping a page without replacing anything.
#[must_use]
pub fn top() -> u64 {
    const STEP: u64 = 0x1000;
    let usable = |address: u64| match map_area(address, STEP, libc::PROT_NONE) {
        Ok(()) => unmap_area(address, STEP).is_ok(),
        Err(errno) => errno == Errno::EEXIST,
    };
    // Our own code is below the end; half of all addresses, and more, belong to the kernel on 64 bit.
    let mut inside = 0x10_0000;
    let mut beyond = u64::try_from(usize::MAX).unwrap_or(u64::MAX) / STEP * STEP;
    while beyond - inside > STEP {
        let middle = inside + (beyond - inside) / 2 / STEP * STEP;
        if usable(middle) {
            inside = middle;
        } else {
            beyond = middle;
        }
    }
    beyond
}

#[cfg(test)]
mod tests {
    use super::{map_area, top};

    #[test]
    fn the_last_page_below_the_top_can_be_mapped() {
        let top = top();
        let local = 0;
        assert!((&raw const local).addr() as u64 <= top);
        let map = |address| map_area(address, 0x1000, libc::PROT_NONE);
        let last = map(top - 0x1000);
        assert!(last.is_ok() || last == Err(nix::errno::Errno::EEXIST), "{top:#x} {last:?}");
        if last.is_ok() {
            super::unmap_area(top - 0x1000, 0x1000).unwrap();
        }
        assert!(map(top).is_err());
    }
}
