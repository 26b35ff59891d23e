//! What: the address space of a process: its mappings, the addresses that exec(2) set, auxv, brk, exe.
//! Reads: /proc/PID/smaps, stat, auxv, exe; brk(2) inside. Contents are in `pages.rs`.
//! Rebuilds: everything is unmapped but the batch area; this boot's vdso is moved to the captured address
//!   (its bytes differ between boots and are never restored); then every mapping, exactly where it was.
//!   Huge pages can be written until their contents are in.
//! Loses: seals, mode and owner of a memfd that nobody has open; contents of MADV_WIPEONFORK and MAP_DROPPABLE ranges, on purpose: they come back as zeroes, so
//!   that random generators in them draw fresh. Names of anonymous memory. Private pages that parent and child share
//!   become each one's own, for which the pool of huge pages grows; the offset that those show in maps once cut.
//! Refuses: a program that was deleted, or whose name leads to another file now, and a mapped file that did;
//!   a deleted file that has another name, no directory or huge pages; a shared, writable mapping of a file on persistent
//!   storage; device memory; huge pages of PID 1 and of System V;
//!   shadow stacks; tagged mappings; userfaultfd; mappings of an unknown sort, as `[uprobes]`.

mod backing;
mod segment;
pub mod vdso;

pub use backing::{Found, Nameless, Shared};
pub use segment::attach;

use crate::error::{Context, Refusal, Result};
use crate::proc::smaps::{self, Mapping};
use crate::proc::stat::Layout;
use crate::proc::sysvipc::Perm;
use crate::sys::{abi, fs, vm};
use crate::task::batch::long;
use crate::task::namespace::Spaces;
use crate::task::remote::{AREA, Batch};
use vdso::{Move, Special};

const KIND: &str = "memory";

crate::section! {
    /// What is behind a mapping.
    pub enum Backing {
        /// Private anonymous memory.
        Anonymous,
        /// Shared anonymous memory or a deleted file: index into the list of objects.
        Shared(u32),
        /// A file, private or shared: index into the list of mapped files.
        File(u32),
        /// An open description, for memfds: index into the file table.
        Entry(u32),
        /// System V shared memory.
        Segment {
            /// Its id.
            id: i32,
            /// Its bytes, in whole pages.
            len: u64,
            /// It was not attached with SHM_RDONLY.
            writable: bool,
        },
    }
}

crate::section! {
    /// One mapping.
    pub struct Vma {
        /// First address.
        pub start: u64,
        /// Address after the last byte.
        pub end: u64,
        /// PROT_* bits.
        pub prot: u8,
        /// MAP_SHARED.
        pub shared: bool,
        /// Offset into the backing in bytes.
        pub offset: u64,
        /// What is behind it.
        pub backing: Backing,
        /// Bits of `FLAGS`, by index. The upper ones are the size of its pages, if they are huge ([`vm::huge`]).
        pub flags: u32,
    }
}

crate::section! {
    /// A file that processes map.
    pub struct MappedFile {
        /// Its path.
        pub path: String,
        /// Opened for writing too: a shared mapping that may be written.
        pub writable: bool,
        /// Where the path leads to it.
        pub spaces: Spaces,
    }
}

crate::section! {
    /// Memory with an identity of its own: shared anonymous memory, a segment of System V, or a memfd or deleted file
    /// that is mapped and not open.
    pub struct Object {
        /// Bytes.
        pub size: u64,
        /// The name that the deleted file had; empty for anonymous memory.
        pub path: String,
        /// The segment of System V that it is.
        pub segment: Option<Perm>,
        /// Where it is made.
        pub spaces: Spaces,
        /// The size of its pages, if they are huge ([`vm::huge`]).
        pub huge: u32,
    }
}

crate::section! {
    /// The address space of a process.
    #[derive(Default)]
    pub struct State {
        /// Mappings in ascending order.
        pub vmas: Vec<Vma>,
        /// [vvar], [vdso] and the like.
        pub vdso: Vec<Special>,
        /// Guard regions (MADV_GUARD_INSTALL, 6.13): first address and address after the last byte.
        pub guards: Vec<(u64, u64)>,
        /// What exec(2) set.
        pub layout: Layout,
        /// End of the heap.
        pub brk: u64,
        /// The auxiliary vector.
        pub auxv: Vec<u8>,
        /// The program: index into the list of mapped files.
        pub exe: u32,
    }
}

/// VmFlags that are put back, with the mmap(2) flag or the madvise(2) advice that does it.
const FLAGS: [(&[u8; 2], Put); 14] = [
    (b"gd", Put::Map),
    (b"nr", Put::Map),
    (b"dp", Put::Map),
    (b"wf", Put::Advise(libc::MADV_WIPEONFORK)),
    (b"dc", Put::Advise(libc::MADV_DONTFORK)),
    (b"dd", Put::Advise(libc::MADV_DONTDUMP)),
    (b"hg", Put::Advise(libc::MADV_HUGEPAGE)),
    (b"nh", Put::Advise(libc::MADV_NOHUGEPAGE)),
    (b"mg", Put::Advise(libc::MADV_MERGEABLE)),
    (b"sr", Put::Advise(libc::MADV_SEQUENTIAL)),
    (b"rr", Put::Advise(libc::MADV_RANDOM)),
    (b"lo", Put::Lock),
    (b"bt", Put::Map),
    // The last of a mapping: nothing can be changed after it.
    (b"sl", Put::Seal),
];
/// mseal(2), 6.10: the same number on every architecture.
const MSEAL: abi::Number = 462;
/// One-call form of PR_SET_MM (prctl(2)).
const PR_SET_MM_MAP: u64 = 14;
const GROWS_DOWN: u32 = 1;
const NO_RESERVE: u32 = 1 << 1;
const DROPPABLE: u32 = 1 << 2;
const WIPE_ON_FORK: u32 = 1 << 3;
/// Landing pads of arm64 are demanded of branches into it.
const GUARDED: u32 = 1 << 12;

/// VmFlags that stand for memory which cannot be carried, with the reason.
const REFUSED: [(&[u8; 2], &str); 7] = [
    (b"io", "it is device memory"),
    (b"pf", "it is device memory"),
    (b"ss", "it is a shadow stack"),
    (b"mt", "it is tagged"),
    (b"um", "userfaultfd watches it"),
    (b"uw", "userfaultfd watches it"),
    (b"ui", "userfaultfd watches it"),
];

#[derive(Clone, Copy)]
enum Put {
    /// By mmap(2), see `map`.
    Map,
    Advise(i32),
    Lock,
    Seal,
}

impl Vma {
    /// Whether its private pages are worth reading: wiped and droppable ranges restart as zeroes.
    #[must_use]
    pub fn has_contents(&self) -> bool {
        !self.shared && self.flags & (DROPPABLE | WIPE_ON_FORK) == 0
    }

    /// Bytes of its pages, if they are huge.
    #[must_use]
    pub fn huge(&self) -> Option<u64> {
        (self.flags >> vm::HUGE_SHIFT != 0).then(|| vm::huge_bytes(self.flags))
    }

    /// Whether it is mapped so that it can be written until its contents are in: huge pages cannot be written against
    /// their protection before Linux 6.14.
    fn is_opened(&self) -> bool {
        self.huge().is_some() && !self.shared && !self.is_writable()
    }

    /// Whether the process may write there.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.prot & 2 != 0
    }

    /// Whether it may hold instructions.
    #[must_use]
    pub fn is_code(&self) -> bool {
        self.prot & 4 != 0
    }
}

/// Reads the mappings of a stopped process. `refuse` is told of each that cannot be carried.
///
/// # Errors
/// /proc cannot be read.
pub fn capture(
    pid: u32,
    layout: &Layout,
    shared: &mut Shared,
    refuse: &mut dyn FnMut(String, Refusal),
) -> Result<State> {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::text(&path).context(KIND, format_args!("reading {path}"))?;
    let mut state = State {
        vmas: Vec::new(),
        vdso: Vec::new(),
        guards: Vec::new(),
        layout: layout.clone(),
        brk: 0,
        auxv: fs::read(format!("/proc/{pid}/auxv"))
            .context(KIND, format_args!("reading the auxiliary vector"))?,
        exe: 0,
    };
    match backing::exe(pid, shared) {
        Ok((path, spaces)) => state.exe = shared.file(&path, false, &spaces),
        Err(refusal) => refuse("exe".into(), refusal),
    }
    for map in smaps::parse(&text) {
        if map.name == "[vsyscall]" || map.name == "[vectors]" {
            continue; // fixed, part of every process
        }
        if let Some(special) = Special::of(&map) {
            state.vdso.push(special);
            continue;
        }
        match vma(pid, &map, shared) {
            Ok(vma) => state.vmas.push(vma),
            Err(refusal) => refuse(format!("mapping {:x}-{:x} {}", map.start, map.end, map.name), refusal),
        }
    }
    Ok(state)
}

fn vma(pid: u32, map: &Mapping, shared: &mut Shared) -> Result<Vma, Refusal> {
    if let Some((_, reason)) = REFUSED.iter().find(|(flag, _)| map.has(flag)) {
        return Err(Refusal::new(*reason, "rerun the service"));
    }
    let flags =
        (0..).zip(FLAGS).filter(|(_, (flag, _))| map.has(flag)).fold(0, |all, (bit, _)| all | 1 << bit);
    let backing = backing::backing(pid, map, shared)?;
    // Private huge pages show a place in a file of their own.
    let offset = if backing == Backing::Anonymous { 0 } else { map.offset };
    let huge = if map.has(b"ht") { backing::huge(pid, map)? } else { 0 };
    let Mapping { start, end, prot, shared, .. } = *map;
    Ok(Vma { start, end, prot, shared, offset, backing, flags: flags | huge })
}

/// Asks for the end of the heap.
pub fn ask(batch: &mut Batch) -> usize {
    batch.call(libc::SYS_brk, &[0])
}

/// Empties the address space of a puppet but for the batch area, and puts its vdso, `own`, where the captured one
/// was. `top` is the end of user addresses.
///
/// # Errors
/// This kernel's vdso is not the captured one.
pub fn clear(batch: &mut Batch, state: &State, own: &[Special], top: u64) -> Result<()> {
    let base = batch.base();
    let vdso = Move::plan(own, &state.vdso, base)?;
    vdso.park(batch);
    batch.call(libc::SYS_munmap, &[0, base]);
    batch.doing("unmapping below the area");
    let above = base + AREA;
    batch.call(libc::SYS_munmap, &[above, top - above]);
    batch.doing("unmapping above the area");
    vdso.settle(batch);
    Ok(())
}

/// Maps one range. `fd` is the descriptor of its file in the puppet. A range whose contents come later
/// through /proc/PID/mem has its final protection already.
pub fn map(batch: &mut Batch, vma: &Vma, fd: Option<u64>) {
    let mut flags = libc::MAP_FIXED_NOREPLACE;
    if vma.flags & DROPPABLE != 0 {
        flags |= libc::MAP_DROPPABLE;
    } else {
        flags |= if vma.shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    }
    if vma.flags & GROWS_DOWN != 0 {
        flags |= libc::MAP_GROWSDOWN;
    }
    if vma.flags & NO_RESERVE != 0 {
        flags |= libc::MAP_NORESERVE;
    }
    if fd.is_none() {
        flags |= libc::MAP_ANONYMOUS;
    }
    /// PROT_BTI of arm64.
    const LANDING: u64 = 0x10;
    let guarded = if vma.flags & GUARDED != 0 { LANDING } else { 0 };
    if vma.huge().is_some() {
        flags |= libc::MAP_HUGETLB | (vma.flags >> vm::HUGE_SHIFT << vm::HUGE_SHIFT).cast_signed();
    }
    let opened = if vma.is_opened() { libc::PROT_WRITE as u64 } else { 0 };
    let args = [
        vma.start,
        vma.end - vma.start,
        u64::from(vma.prot) | guarded | opened,
        u64::from(flags.cast_unsigned()),
        fd.unwrap_or(u64::MAX),
        // Anonymous memory shows an offset of its own in maps; mmap(2) wants none.
        if fd.is_some() { vma.offset } else { 0 },
    ];
    batch.mmap(args);
    batch.doing("mapping memory");
}

/// What follows when contents are in: advice and locks. Droppable memory brings its own advice.
pub fn advise(batch: &mut Batch, vma: &Vma) {
    if vma.is_opened() {
        batch.call(libc::SYS_mprotect, &[vma.start, vma.end - vma.start, vma.prot.into()]);
        batch.doing("protecting huge pages");
    }
    for (bit, (_, put)) in FLAGS.iter().enumerate() {
        if vma.flags & 1 << bit == 0 || vma.flags & DROPPABLE != 0 {
            continue;
        }
        let (start, len) = (vma.start, vma.end - vma.start);
        match put {
            Put::Advise(advice) => {
                batch.call(libc::SYS_madvise, &[start, len, u64::from(advice.cast_unsigned())]);
                batch.doing("advising memory");
            }
            // ENOMEM with the lock in place: a part without access, or a guard, cannot be filled.
            Put::Lock => {
                batch.try_call(libc::SYS_mlock, &[start, len]);
            }
            Put::Seal => {
                batch.call(MSEAL, &[start, len, 0]);
                batch.doing("sealing memory");
            }
            Put::Map => {}
        }
    }
}

/// Makes a guard region again: it has no mapping of its own.
pub fn guard(batch: &mut Batch, (start, end): (u64, u64)) {
    const MADV_GUARD_INSTALL: u64 = 102;
    batch.call(libc::SYS_madvise, &[start, end - start, MADV_GUARD_INSTALL]);
    batch.doing("installing a guard region");
}

/// PR_SET_MM_MAP of prctl(2): struct prctl_mm_map of <linux/prctl.h>. `exe` is a descriptor of the program;
/// nothing of the old program is mapped any more, or the kernel says EBUSY.
pub fn set_layout(batch: &mut Batch, state: &State, exe: u64) {
    let l = &state.layout;
    let auxv = batch.bytes(&state.auxv);
    let words = [
        l.start_code,
        l.end_code,
        l.start_data,
        l.end_data,
        l.start_brk,
        state.brk,
        l.start_stack,
        l.arg_start,
        l.arg_end,
        l.env_start,
        l.env_end,
    ];
    let mut bytes = abi::bytes(&words);
    // A pointer, then two numbers of 32 bits, and padding up to the alignment of the words before.
    bytes.extend(long(auxv));
    bytes.extend((state.auxv.len() as u64 | exe << 32).to_ne_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let room = batch.bytes(&bytes);
    let map = PR_SET_MM_MAP;
    batch.call(libc::SYS_prctl, &[libc::PR_SET_MM as u64, map, room, bytes.len() as u64, 0]);
    batch.doing("setting the memory layout");
}
