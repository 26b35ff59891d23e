//! What: the contents of memory.
//! Reads: /proc/PID/pagemap for which private pages exist (present or swapped, and no page of the file),
//!   in large mappings after a search with PAGEMAP_SCAN (Linux 6.7); process_vm_readv(2), or /proc/PID/mem where
//!   the protection forbids it. Shared objects without holes; st_blocks says how many huge pages of zeroes they have.
//! Rebuilds: process_vm_writev(2) into what may be written, /proc/PID/mem elsewhere. Zero pages and
//!   duplicates are not stored, see `image/pages.rs`. Of a huge page of zeroes that is there the first part is.
//! Loses: which of several shared huge pages of zeroes are there. Refuses: pages that cannot be read (guard regions).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::unistd::Whence;

use crate::error::{Context, Error, Result};
use crate::file::content;
use crate::image::Sink;
use crate::image::pages::{PAGE, PageWriter, Run};
use crate::sys::{fs, vm};
use crate::task::memory::{Backing, State, Vma};

const KIND: &str = "memory";
/// pagemap bits (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_PAGE: u64 = 1 << 61;
const GUARD: u64 = 1 << 58;
/// Pages that are read at a time.
const CHUNK: usize = 64;

/// The memory of one stopped process, for reading.
#[derive(Debug)]
pub struct Memory {
    pid: u32,
    mem: OwnedFd,
}

impl Memory {
    /// Opens /proc/PID/mem.
    ///
    /// # Errors
    /// The process is gone or not ours to trace.
    pub fn open(pid: u32) -> Result<Memory> {
        let path = format!("/proc/{pid}/mem");
        let mem = fs::open(&path, OFlag::O_RDWR);
        Ok(Memory { pid, mem: mem.context(KIND, format_args!("opening {path}"))? })
    }

    /// Reads whatever the protection says.
    ///
    /// # Errors
    /// There is no memory.
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Result<()> {
        vm::read(self.pid, address, buffer)
            .or_else(|_| vm::read_forced(&self.mem, address, buffer))
            .context(KIND, format_args!("reading {:#x} of {}", address, self.pid))
    }

    /// Writes; `plain` says that the process might itself, and that no instruction is among the bytes: only
    /// /proc/PID/mem does the cache maintenance that code needs.
    ///
    /// # Errors
    /// There is no memory.
    pub fn write(&self, address: u64, bytes: &[u8], plain: bool) -> Result<()> {
        let doing = format_args!("writing {:#x} of {}", address, self.pid);
        if plain {
            return vm::write(self.pid, address, bytes).context(KIND, doing);
        }
        vm::write_forced(&self.mem, address, bytes).context(KIND, doing)
    }
}

/// What memory is read into, again and again.
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// With room for a chunk.
    #[must_use]
    pub fn new() -> Buffer {
        Buffer(vec![0; CHUNK * PAGE])
    }
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer::new()
    }
}

/// Pages of a mapping by number from its start, as ranges: those to carry, and guards.
#[derive(Default)]
struct Wanted {
    carry: Vec<(u64, u64)>,
    guard: Vec<(u64, u64)>,
}

fn extend(ranges: &mut Vec<(u64, u64)>, page: u64) {
    match ranges.last_mut() {
        Some(last) if last.1 == page => last.1 += 1,
        _ => ranges.push((page, page + 1)),
    }
}

/// Mappings with more pages than this are searched for those that are there; of others every page is looked at.
const SPARSE: u64 = 1 << 14;

/// Which pages of a mapping must be carried.
fn wanted(pagemap: &OwnedFd, vma: &Vma, buffer: &mut [u8]) -> Result<Wanted> {
    let mut found = Wanted::default();
    let total = (vma.end - vma.start) / PAGE as u64;
    let mut page = 0;
    while page < total {
        // What a program has reserved may be terabytes, of which it uses little.
        if total > SPARSE {
            match vm::first_page(pagemap, vma.start + page * PAGE as u64, vma.end) {
                Ok(Some(address)) => page = (address - vma.start) / PAGE as u64,
                Ok(None) => break,
                Err(_) => {} // before Linux 6.7
            }
        }
        let count = usize::try_from(total - page).unwrap_or(usize::MAX).min(buffer.len() / 8);
        let bytes = &mut buffer[..8 * count];
        let at = (vma.start / PAGE as u64 + page) * 8;
        fs::read_at(pagemap, at, bytes).context(KIND, format_args!("reading pagemap at {:#x}", vma.start))?;
        for entry in bytes.chunks_exact(8).map(|b| b.try_into().map_or(0, u64::from_le_bytes)) {
            // A guard shows as swapped too. On 6.13 and 6.14 it cannot be told, and fails to be read.
            if entry & GUARD != 0 && entry & PRESENT == 0 {
                extend(&mut found.guard, page);
            } else if entry & (PRESENT | SWAPPED) != 0 && entry & FILE_PAGE == 0 {
                extend(&mut found.carry, page);
            }
            page += 1;
        }
    }
    Ok(found)
}

/// What the contents of processes and objects are read from, by the number of their address space.
pub struct Origins {
    /// Processes first, objects after them.
    pub spaces: Vec<Space>,
}

/// One source of pages.
#[derive(Debug)]
pub enum Space {
    /// A process.
    Process(Memory),
    /// A shared object: address N is offset N.
    Object(OwnedFd),
    /// A zombie, which has none.
    Nothing,
}

impl Origins {
    /// Compares a page that was stored before with this one.
    fn same(&self, mm: u32, address: u64, page: &[u8; PAGE]) -> bool {
        let mut other = [0u8; PAGE];
        let read = match self.spaces.get(mm as usize) {
            Some(Space::Process(memory)) => memory.read(address, &mut other).is_ok(),
            Some(Space::Object(file)) => fs::read_at(file, address, &mut other).is_ok(),
            Some(Space::Nothing) | None => false,
        };
        read && other == *page
    }
}

/// Stores the private pages of a process, and returns its guard regions.
///
/// # Errors
/// Memory cannot be read, or the sink is full.
pub fn capture<S: Sink>(
    origins: &Origins,
    mm: u32,
    state: &State,
    writer: &mut PageWriter<S>,
    buffer: &mut Buffer,
) -> Result<Vec<(u64, u64)>> {
    let mut guards = Vec::new();
    let Some(Space::Process(memory)) = origins.spaces.get(mm as usize) else { return Ok(guards) };
    let path = format!("/proc/{}/pagemap", memory.pid);
    let pagemap = fs::open(&path, OFlag::O_RDONLY).context(KIND, format_args!("opening {path}"))?;
    for vma in state.vmas.iter().filter(|v| v.has_contents()) {
        // A huge page of zeros is there or not, which the process notices where no more are set aside.
        let every = if vma.backing == Backing::Anonymous { vma.huge().unwrap_or(0) } else { PAGE as u64 };
        let found = wanted(&pagemap, vma, buffer.0.as_mut_slice())?;
        let address = |page: u64| vma.start + page * PAGE as u64;
        guards.extend(found.guard.iter().map(|(first, end)| (address(*first), address(*end))));
        for (first, end) in found.carry {
            let mut page = first;
            while page < end {
                let count = usize::try_from(end - page).unwrap_or(CHUNK).min(CHUNK);
                let address = vma.start + page * PAGE as u64;
                let bytes = &mut buffer.0[..count * PAGE];
                memory.read(address, bytes)?;
                push(origins, mm, address, bytes, every, writer)?;
                page += count as u64;
            }
        }
    }
    Ok(guards)
}

/// Stores the contents of a shared object, holes left out.
///
/// # Errors
/// The object cannot be read, or the sink is full.
pub fn capture_object<S: Sink>(
    origins: &Origins,
    mm: u32,
    size: u64,
    writer: &mut PageWriter<S>,
    buffer: &mut Buffer,
) -> Result<()> {
    let Some(Space::Object(file)) = origins.spaces.get(mm as usize) else { return Ok(()) };
    let mut at = 0;
    while at < size {
        let seek = |from: u64, whence| {
            nix::unistd::lseek(file.as_fd(), i64::try_from(from).unwrap_or(i64::MAX), whence)
        };
        // ENXIO: only holes are left.
        let Ok(data) = seek(at, Whence::SeekData) else { break };
        let start = data.cast_unsigned() / PAGE as u64 * PAGE as u64;
        let end = seek(start, Whence::SeekHole).map_or(size, i64::cast_unsigned).min(size);
        at = start;
        while at < end {
            let count = usize::try_from((end - at).div_ceil(PAGE as u64)).unwrap_or(CHUNK).min(CHUNK);
            let bytes = &mut buffer.0[..count * PAGE];
            // The last page may be only begun.
            let there = usize::try_from(size - at).unwrap_or(usize::MAX).min(bytes.len());
            let (whole, rest) = bytes.split_at_mut(there);
            fs::read_at(file, at, whole).context(KIND, format_args!("reading shared memory"))?;
            rest.fill(0);
            push(origins, mm, at, bytes, 0, writer)?;
            at += (count * PAGE) as u64;
        }
    }
    for at in content::huge_zeros(file, size).context(KIND, format_args!("looking for huge pages"))? {
        let page = &mut buffer.0[..PAGE];
        page.fill(0);
        push(origins, mm, at, page, PAGE as u64, writer)?;
    }
    Ok(())
}

/// Takes pages. Those of zeros are kept where the address is a multiple of `every`.
fn push<S: Sink>(
    origins: &Origins,
    mm: u32,
    address: u64,
    bytes: &[u8],
    every: u64,
    writer: &mut PageWriter<S>,
) -> Result<()> {
    let (pages, _) = bytes.as_chunks::<PAGE>();
    for (page, at) in pages.iter().zip((address..).step_by(PAGE)) {
        writer.push(mm, at, page, every != 0 && at.is_multiple_of(every), &mut |mm, at, page| {
            origins.same(mm, at, page)
        })?;
    }
    Ok(())
}

/// Opens the object behind a shared anonymous mapping of a process, and says how large it is.
///
/// # Errors
/// The mapping is gone.
pub fn open_object(pid: u32, range: (u64, u64)) -> Result<(OwnedFd, u64)> {
    let path = format!("/proc/{pid}/map_files/{:x}-{:x}", range.0, range.1);
    let file = fs::open(&path, OFlag::O_RDONLY).context(KIND, format_args!("opening {path}"))?;
    let found = nix::sys::stat::fstat(&file).context(KIND, format_args!("reading {path}"))?;
    Ok((file, found.st_size.cast_unsigned()))
}

/// Where the pages of an address space go.
#[derive(Debug)]
pub enum Place<'a> {
    /// Into a puppet.
    Puppet(Memory, &'a State),
    /// Into a shared object.
    Object(&'a OwnedFd),
    /// Kept until the commit: PID 1.
    Later(Vec<(u64, Vec<u8>)>),
}

impl Place<'_> {
    /// Puts one run of pages where it belongs.
    ///
    /// # Errors
    /// The run lies outside the memory, or the puppet died.
    pub fn put(&mut self, run: &Run, bytes: &[u8]) -> Result<()> {
        match self {
            Place::Puppet(memory, state) => put_into(memory, state, run.start, bytes),
            Place::Object(fd) => {
                let doing = format_args!("writing shared memory {}", fd.as_raw_fd());
                fs::write_at(fd, run.start, bytes).context(KIND, doing)
            }
            Place::Later(kept) => {
                kept.push((run.start, bytes.to_vec()));
                Ok(())
            }
        }
    }
}

/// Writes a run into a process, mapping by mapping, as each is writable or not.
///
/// # Errors
/// The run lies outside the mappings: the image contradicts itself.
pub fn put_into(memory: &Memory, state: &State, start: u64, bytes: &[u8]) -> Result<()> {
    let mut at = start;
    let end = start + bytes.len() as u64;
    while at < end {
        let index = state.vmas.partition_point(|v| v.end <= at);
        let vma = state.vmas.get(index).filter(|v| v.start <= at);
        let vma = vma.ok_or_else(|| {
            Error::new(KIND, format!("placing a page at {at:#x}"), "nothing is mapped there")
        })?;
        let stop = end.min(vma.end);
        let from = usize::try_from(at - start).unwrap_or(usize::MAX);
        let to = usize::try_from(stop - start).unwrap_or(usize::MAX);
        let part = bytes.get(from..to).unwrap_or(&[]);
        memory.write(at, part, vma.is_writable() && !vma.is_code())?;
        at = stop;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Backing, PAGE, SPARSE, Vma, wanted};

    /// Numbers of the pages to carry.
    fn carried(start: u64, end: u64) -> Vec<u64> {
        let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap().into();
        let vma =
            Vma { start, end, prot: 3, shared: false, offset: 0, backing: Backing::Anonymous, flags: 0 };
        let found = wanted(&pagemap, &vma, &mut [0; 4096]).unwrap();
        let first = start / PAGE as u64;
        found.carry.iter().flat_map(|(from, to)| first + from..first + to).collect()
    }

    #[test]
    fn pages_of_a_large_mapping_are_those_of_its_parts() {
        let page = PAGE as u64;
        let mut memory = vec![0_u8; 1 << 30];
        for at in [300 << 20, (300 << 20) + 3 * PAGE, (1 << 30) - 2 * PAGE] {
            memory[at] = 1;
        }
        let start = (memory.as_ptr().addr() as u64).next_multiple_of(page);
        let end = start + (1 << 30) - page;
        let whole = carried(start, end);
        let step = SPARSE * page;
        let parts = (0..(end - start).div_ceil(step)).map(|i| start + i * step);
        let parts: Vec<u64> = parts.flat_map(|at| carried(at, end.min(at + step))).collect();
        assert!(whole.len() >= 3);
        assert_eq!(whole, parts);
    }
}
