//! System V shared memory in an address space: segments are attached, not mapped.

use std::path::Path;

use super::backing::{Found, Shared};
use super::{Backing, KIND, State};
use crate::error::{Context, Refusal, Result};
use crate::image::pages::PAGE;
use crate::kernel::root::Dir;
use crate::kernel::sysvipc::exact;
use crate::proc::smaps::Mapping;
use crate::proc::sysvipc::{self, ATTACHED};
use crate::sorted::Listed;
use crate::sys::{fs, vm};
use crate::task::remote::{AREA, Script};

/// What is behind a mapping of a segment, whose inode number is its id.
pub fn backing(pid: u32, map: &Mapping, shared: &mut Shared) -> Result<Backing, Refusal> {
    let index = shared.object(pid, map, "");
    let gone = || Refusal::new("its segment is not in our IPC namespace", "rerun the service");
    let object = shared.objects.get_mut(index as usize).ok_or_else(gone)?;
    if object.segment.is_none() {
        exact(&Dir::open(Path::new("/proc")).context(KIND, format_args!("opening /proc"))?)?;
        let text = fs::text("/proc/sysvipc/shm").unwrap_or_default();
        let found =
            sysvipc::parse(&text).into_iter().find(|o| u64::from(o.perm.id.cast_unsigned()) == map.ino);
        let found = found.ok_or_else(gone)?;
        let column = |at: usize| found.rest.get(at).copied().unwrap_or(0);
        let len = column(0).next_multiple_of(vm::page_size());
        object.segment = Some((found.perm.clone(), len, column(ATTACHED)));
    }
    let (perm, len, _) = object.segment.as_ref().ok_or_else(gone)?;
    Ok(Backing::Segment { id: perm.id, len: *len, writable: map.has(b"mw") })
}

impl Found {
    /// A refusal if somebody whose mappings were not met has the segment attached too.
    #[must_use]
    pub fn outside(&self) -> Option<Refusal> {
        let (_, _, attached) = self.segment.as_ref()?;
        if *attached < self.met {
            // Two namespaces have one with this number, and somebody has both.
            return Some(Refusal::new("it was attached in another IPC namespace", "rerun the service"));
        }
        (*attached > self.met).then(|| {
            Refusal::new("a process outside the image has it attached", "capture all processes that have it")
        })
    }
}

/// Where shmat(2) takes an address: SHMLBA, which 32-bit ARM insists on although it gives any page itself.
const ALIGNED: u64 = if cfg!(target_arch = "arm") { 4 * PAGE as u64 } else { PAGE as u64 };

/// An aligned place where nothing is yet, and nothing will be.
fn aside(state: &State, area: u64, len: u64) -> u64 {
    let mapped = state.vmas.iter().map(|vma| (vma.start, vma.end));
    let taken = mapped.chain(state.vdso.iter().map(|part| (part.start, part.end)));
    let taken: Vec<(u64, u64)> = taken.chain([(area, area + AREA)]).list();
    // Above what no process may map (vm.mmap_min_addr).
    let mut at = 1 << 20;
    while let Some((_, end)) = taken.iter().find(|(start, end)| at < *end && *start < at + len) {
        at = end.next_multiple_of(ALIGNED);
    }
    at
}

/// Attaches every segment, whole, and unmaps what the process had unmapped of it: before other mappings fill the
/// gaps. Then each part gets its protection.
///
/// # Errors
/// As [`Script::ensure`].
pub fn attach(script: &mut Script<'_>, state: &State) -> Result<()> {
    let vmas = &state.vmas;
    let mut bases: Vec<u64> = Vec::new();
    for vma in vmas {
        let Backing::Segment { id, len, writable } = vma.backing else { continue };
        let base = vma.start.wrapping_sub(vma.offset);
        if bases.contains(&base) {
            continue;
        }
        bases.push(base);
        let flags = if writable { 0 } else { libc::SHM_RDONLY };
        script.ensure(4, 0)?;
        let place = if base % ALIGNED == 0 { base } else { aside(state, script.batch.base(), len) };
        let call = [id.cast_unsigned().into(), place, u64::from(flags.cast_unsigned())];
        script.batch.call(libc::SYS_shmat, &call);
        script.batch.doing("attaching a segment");
        if place != base {
            let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            script.batch.call(libc::SYS_mremap, &[place, len, len, u64::from(how.cast_unsigned()), base]);
            script.batch.doing("moving a segment");
        }
        let mut at = base;
        let parts = vmas
            .iter()
            .filter(|part| part.backing == vma.backing && part.start.wrapping_sub(part.offset) == base);
        for (start, end) in parts.map(|part| (part.start, part.end)).chain([(base + len, base + len)]) {
            if at < start {
                script.ensure(4, 0)?;
                script.batch.call(libc::SYS_munmap, &[at, start - at]);
                script.batch.doing("unmapping a part of a segment");
            }
            at = end;
        }
    }
    for vma in vmas {
        let Backing::Segment { writable, .. } = vma.backing else { continue };
        if vma.prot != 1 | u8::from(writable) << 1 {
            script.ensure(4, 0)?;
            script.batch.call(libc::SYS_mprotect, &[vma.start, vma.end - vma.start, vma.prot.into()]);
            script.batch.doing("protecting a segment");
        }
    }
    Ok(())
}
