//! The restore, in its order. The conductor does all of it; PID 1 waits and is replaced last.
//!
//! Before the commit every step can be given up: puppets die with their tracer. The commit is the moment when
//! PID 1's memory is replaced. See `docs/design.md`, "Restore".

use std::os::fd::OwnedFd;

use crate::capture::Tree;
use crate::error::{Context, Error, Failure, Result};
use crate::file::{self, Entry, pty};
use crate::image::pages::{PAGE, PageIndex, PageReader};
use crate::image::{self, Meta, Reader, Source};
use crate::kernel::{self, cgroup};
use crate::sorted::Listed;
use crate::stage::{Stage, Times};
use crate::sys::descriptor;
use crate::sys::ptrace;
use crate::sys::{fs, limit, signal};
use crate::task::clock;
use crate::task::namespace;
use crate::task::pages::Place;
use crate::task::puppet::{self, Puppets};
use crate::task::sharing;
use crate::task::tree::{Ids, Process, plan};

const KIND: &str = "restore";
/// Pages of zeroes that are placed at a time.
const ZEROES: u32 = 16;

/// The sections of an image, decoded and checked against each other.
#[derive(Debug)]
pub struct Image {
    /// What it is.
    pub meta: Meta,
    /// Its processes.
    pub tree: Tree,
    /// Its open descriptions.
    pub files: Vec<Entry>,
    /// The kernel's state and the files in memory, for the whole system.
    pub kernel: Option<(kernel::State, kernel::tmpfs::State)>,
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
            kernel: reader.find(image::KERNEL)?.zip(reader.find(image::TMPFS)?),
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
        let ids = self.tree.processes.iter().map(|p| (&p.ids, p.body.is_some())).list();
        if !sharing::is_sound(&ids) || self.tree.processes.iter().any(has_too_much) {
            return wrong("something shared that it does not have");
        }
        if !self.tree.processes.iter().any(|p| p.ids.pid == self.tree.root && p.body.is_some()) {
            return wrong("no first process");
        }
        Ok(())
    }

    fn ids(&self) -> Vec<Ids> {
        self.tree.processes.iter().map(|p| p.ids.clone()).list()
    }
}

/// Rebuilds the tree in a file as children of ours, and lets it run. With `wait`, waits for its root and
/// returns its wait status.
///
/// # Errors
/// Nothing runs.
pub fn tree(path: &std::path::Path, wait: bool, externals: Vec<OwnedFd>) -> Result<Option<i32>> {
    let bytes = fs::read(path).context(KIND, format_args!("reading {}", path.to_string_lossy()))?;
    let mut source: &[u8] = &bytes;
    let image = Image::read(&mut source)?;
    if image.meta.whole_system {
        return Err(Error::new(KIND, "restoring a tree", "the image holds a whole system"));
    }
    check_kernel(&image.meta)?;
    signal::clean_slate();
    let ahead = clock::go_on(&image.meta.clocks)?;
    let mut times = Times::new();
    let mut builder = Builder::new(&image, None)?;
    builder.puppets.ahead = ahead;
    builder.build(externals, &mut source, &mut times)?;
    builder.finish()?;
    builder.release()?;
    // Before the wait: a reader must see the end of a pipe although we are still here.
    drop(builder);
    if !wait {
        return Ok(None);
    }
    loop {
        let root = image.tree.root.cast_signed();
        if let Some((_, status)) =
            ptrace::wait(root, 0).context(KIND, format_args!("waiting for the root of the tree"))?
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
    /// Everything stands ready and nothing runs yet: the place for /run/rcsnap. `kept` is how many bytes of pages
    /// we hold for PID 1.
    ///
    /// # Errors
    /// It cannot be written.
    fn before_release(&mut self, image: &Image, kept: u64, times: &Times) -> Result<()>;
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
    deadline: std::time::Instant,
    boot: &mut dyn Boot,
    times: &mut Times,
) -> Result<(), Failure> {
    let kernel = image.kernel.as_ref();
    let clean = Failure::Clean;
    times.enter(Stage::Check).map_err(clean)?;
    let whole = kernel.filter(|_| image.meta.whole_system && image.tree.root == 1);
    let (kernel, tmpfs) =
        whole.ok_or_else(|| clean(Error::new(KIND, "checking the image", "it holds a mere tree")))?;
    check_kernel(&image.meta).map_err(clean)?;
    boot.check(image).map_err(clean)?;
    kernel::check(kernel, root, deadline).map_err(clean)?;
    times.enter(Stage::Arm).map_err(clean)?;
    boot.arm().map_err(clean)?;

    let before = Failure::Before;
    times.enter(Stage::Kernel).map_err(before)?;
    kernel::restore(kernel, tmpfs, root, deadline, &mut |_| {}).map_err(before)?;
    signal::clean_slate();
    let ahead = clock::go_on(&image.meta.clocks).map_err(before)?;
    let mut builder = Builder::new(image, Some(1)).map_err(before)?;
    builder.puppets.ahead = ahead;
    if ahead.is_some() {
        builder.puppets.time = Some(clock::namespace().map_err(before)?);
    }
    builder.build(Vec::new(), source, times).map_err(before)?;
    builder.finish().map_err(before)?;
    kernel::restore_late(kernel, tmpfs, root).map_err(before)?;
    times.enter(Stage::Seize).map_err(before)?;
    builder.puppets.seize(1).map_err(before)?;

    let after = Failure::After;
    times.enter(Stage::Commit).map_err(after)?;
    builder.commit().map_err(after)?;
    times.enter(Stage::Release).map_err(after)?;
    boot.before_release(image, builder.kept_bytes(), times).map_err(after)?;
    builder.release().map_err(after)
}

/// Whether a process has mappings that another one lays out for it.
fn has_too_much(process: &Process) -> bool {
    let body = process.body.as_ref();
    process.ids.sharing.memory != process.ids.pid && body.is_some_and(|body| !body.memory.vmas.is_empty())
}

/// The image's kernel must be this one: the vdso's code, and every structure that is put back raw.
fn check_kernel(meta: &Meta) -> Result<()> {
    let kernel = |what| fs::kernel(what).context(KIND, format_args!("asking for the kernel's name"));
    if kernel("osrelease")? != meta.kernel_release || kernel("version")? != meta.kernel_version {
        return Err(Error::new(KIND, "checking the kernel", "the image was captured under another one"));
    }
    Ok(())
}

/// The puppets of an image in the making.
struct Builder<'a> {
    image: &'a Image,
    puppets: Puppets<'a>,
    /// Pages of PID 1, checked, until its commit.
    kept: Vec<(u64, Vec<u8>)>,
}

impl<'a> Builder<'a> {
    fn new(image: &'a Image, init: Option<u32>) -> Result<Builder<'a>> {
        raise_descriptor_limit()?;
        Ok(Builder {
            image,
            puppets: Puppets::new(&image.tree.processes, &image.tree.filters, init)?,
            kept: Vec::new(),
        })
    }

    /// The processes that we rebuild now: all that live but PID 1.
    fn live(&self) -> impl Iterator<Item = u32> + use<'a> {
        let init = self.puppets.init;
        self.image
            .tree
            .processes
            .iter()
            .filter(|p| p.body.is_some())
            .map(|p| p.ids.pid)
            .filter(move |p| Some(*p) != init)
    }

    /// Makes the puppets and everything of them but their last stage.
    fn build(&mut self, externals: Vec<OwnedFd>, source: &mut dyn Source, times: &mut Times) -> Result<()> {
        let image = self.image;
        times.enter(Stage::Puppet)?;
        let steps = plan(&image.ids(), image.tree.root, self.puppets.init.is_some());
        let steps = steps
            .map_err(|(pid, refusal)| Error::new(KIND, format!("planning {pid}"), refusal.into_reason()))?;
        let fds = image.tree.processes.iter().filter_map(|p| p.body.as_ref()).flat_map(|b| &b.fds);
        let base = file::floor(&image.files, fds);
        self.puppets.groups = cgroup::restore(&image.tree.groups)?;
        // Before the sessions: only who is born in one has its terminal.
        let ends = pty::prepare(&image.files, base)?;
        if !image.tree.namespaces.is_empty() {
            self.puppets.doors = namespace::restore(&image.tree.namespaces, base)?;
        }
        self.puppets.create(&steps)?;
        // Before they have memory, which is counted where it is first touched. PID 1 may be anywhere too.
        let bodies = image.tree.processes.iter().filter(|p| p.body.is_some());
        bodies.map(|p| p.ids.pid).try_for_each(|pid| self.puppets.groups.put(pid, true))?;
        self.live().try_for_each(|pid| self.puppets.make_threads(pid))?;
        times.enter(Stage::File)?;
        let raise = |fd| descriptor::raise(fd, base).context(KIND, format_args!("moving a descriptor"));
        let externals = externals.into_iter().map(raise).whole()?;
        self.puppets.files = puppet::open_files(&image.tree.mapped, &self.puppets.doors, base)?;
        self.puppets.objects =
            puppet::make_objects(&image.tree.objects, &self.puppets.doors, base, &mut self.puppets.attached)?;
        self.puppets.entries = file::restore(&image.files, externals, ends, &mut self.puppets, base)?;
        times.enter(Stage::Memory)?;
        for pid in self.live() {
            self.puppets.lay_out(pid)?;
        }
        // After the foreground groups, for which the terminals are opened.
        pty::lock(&image.files, &self.puppets.entries)?;
        self.fill(source)?;
        for pid in self.live() {
            self.puppets.assemble(pid)?;
        }
        // After all threads exist, and before anybody's signals are queued.
        self.live().try_for_each(|pid| self.puppets.stop(pid))
    }

    /// One pass over the blocks: each page goes to every place that has it.
    fn fill(&mut self, source: &mut dyn Source) -> Result<()> {
        let image = self.image;
        let mut places = self.puppets.places()?;
        // A run of zeroes may be as long as a mapping: in parts.
        let zeroes = vec![0; ZEROES as usize * PAGE];
        for run in image.index.zeros.iter().flat_map(|run| run.parts(ZEROES)) {
            let bytes = zeroes.get(..run.pages as usize * PAGE).unwrap_or(&zeroes);
            puppet::place(&mut places, &run, bytes)?;
        }
        let mut reader = PageReader::new(source, &image.header, &image.index)?;
        while let Some(pages) = reader.next_block()? {
            for run in pages.runs {
                let bytes = pages
                    .of(run)
                    .ok_or_else(|| Error::new(KIND, "filling memory", "a run lies outside its block"))?;
                puppet::place(&mut places, run, bytes)?;
            }
        }
        let init = image.tree.processes.iter().position(|p| Some(p.ids.pid) == self.puppets.init);
        if let Some(Place::Later(kept)) = init.and_then(|at| places.get_mut(at)) {
            self.kept = std::mem::take(kept);
        }
        drop(places);
        puppet::cut(&image.tree.objects, &self.puppets.objects)?;
        Ok(())
    }

    /// Replaces PID 1: no way back from its first call.
    fn commit(&mut self) -> Result<()> {
        let Some(pid) = self.puppets.init else { return Ok(()) };
        self.puppets.lay_out(pid)?;
        self.puppets.fill_kept(pid, &self.kept)?;
        self.puppets.make_threads(pid)?;
        self.puppets.assemble(pid)?;
        self.puppets.finish(pid)
    }

    /// What the pages of PID 1 take.
    fn kept_bytes(&self) -> u64 {
        self.kept.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    fn finish(&self) -> Result<()> {
        namespace::finish(&self.image.tree.namespaces, &self.puppets.doors)?;
        self.live().try_for_each(|pid| self.puppets.finish(pid))?;
        self.puppets.groups.finish()
    }

    /// What is half read of /proc tells of the tasks as they are now, and what is mapped may be sealed: once for all, PID 1
    /// too.
    fn look_again(&self) -> Result<()> {
        for (entry, fd) in self.image.files.iter().zip(&self.puppets.entries) {
            match &entry.state {
                file::State::Regular(state) => file::regular::look_again(state, fd)?,
                file::State::Memfd(state) => file::memfd::seal(state, fd)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets all go: PID 1 last, so that it finds its children running.
    fn release(&self) -> Result<()> {
        self.look_again()?;
        // One of those that share memory takes the area away for all: before any of them runs.
        self.live().try_for_each(|pid| self.puppets.vanish(pid))?;
        self.live().try_for_each(|pid| self.puppets.release(pid))?;
        let Some(pid) = self.puppets.init else { return Ok(()) };
        self.puppets.vanish(pid)?;
        self.puppets.release(pid)
    }
}

fn raise_descriptor_limit() -> Result<()> {
    let nofile = crate::task::limit::RLIMIT_NOFILE;
    let me = std::process::id();
    let (_, hard) = limit::get(me, nofile).context(KIND, format_args!("reading our descriptor limit"))?;
    limit::set(me, nofile, hard, hard).context(KIND, format_args!("raising our descriptor limit"))
}
