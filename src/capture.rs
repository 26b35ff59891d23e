//! The capture, in its order. Tasks stand still from the first step to the last but one.
//!
//! 1. Freeze: every task of the scope.
//! 2. Descriptions: before anything runs inside a task, so that no descriptor of ours is among them.
//! 3. Processes: each kind of `task/` looks at each.
//! 4. Kernel state, for the whole system: the difference to what it was before the scripts.
//! 5. Memory: compressed into RAM, in the order in which a restore places it.
//! 6. Release; what remains is writing.
//!
//! An obstacle does not stop the pass: all are found, then there is no image.

mod beside;
mod check;
mod command;
mod memory;
mod meta;
mod remedy;

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

pub use command::{check, tree};
use memory::Clock;

use crate::config::Config;
use crate::error::{Context, Obstacle, Refusal, Result};
use crate::file::{self, Entry, Scope};
use crate::image::pages::PageIndex;
use crate::image::{self, Meta, Target, Title, Writer};
use crate::kernel;
use crate::sorted::Listed;
use crate::sys::{fs, vm};
use crate::task::freeze::{self, Frozen};
use crate::task::memory::{Object, Shared};
use crate::task::pages::{self, Memory, Origins, Space};
use crate::task::tree::{Ids, Process};
use crate::task::{clock, namespace, process, sharing};

const KIND: &str = "capture";

crate::section! {
    /// All processes of an image.
    pub struct Tree {
        /// The first: PID 1, or the root of the tree.
        pub root: u32,
        /// Parents before children.
        pub processes: Vec<Process>,
        /// Their control groups.
        pub groups: kernel::cgroup::State,
        /// Files that they map.
        pub mapped: Vec<crate::task::memory::MappedFile>,
        /// Shared anonymous memory.
        pub objects: Vec<Object>,
        /// Filters of seccomp(2) that their threads live under.
        pub filters: Vec<crate::task::seccomp::Filter>,
        /// Namespaces that are not those of the first process.
        pub namespaces: Vec<namespace::State>,
    }
}

/// What to capture.
#[derive(Debug)]
pub struct Request<'a> {
    /// Whole system or tree.
    pub scope: Scope,
    /// PID 1, or the root of the tree.
    pub root: u32,
    /// The process that is left alone: ourselves.
    pub except: u32,
    /// How long to wait for tasks that do not stop.
    pub patience: Duration,
    /// How long tasks may stand still; then they run on, and there is no image.
    pub limit: Duration,
    /// Whether memory is read too. Without it the picture is of no use, and only the obstacles count.
    pub pages: bool,
    /// What stands before every path of the system: empty, or `/proc/1/root` for the watcher.
    pub prefix: &'a str,
    /// Descriptions that a restore will be given (tree only).
    pub externals: &'a [BorrowedFd<'a>],
    /// What is allowed beyond the defaults, and what never.
    pub config: &'a Config,
    /// The kernel's state before the scripts (whole system only).
    pub baseline: Option<(&'a kernel::Baseline, &'a kernel::Root)>,
    /// Processes that are left out of the image, with all their descendants: those of rerun services.
    pub leave_out: &'a [u32],
}

/// A picture in RAM, not yet written.
#[derive(Debug)]
pub struct Picture {
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
    /// The compressed pages.
    pub blocks: Vec<u8>,
    /// Paths of files whose identity must match at a restore.
    pub inputs: Vec<String>,
    /// Whether PID 1 leads a session.
    pub session_leader: bool,
}

/// What came of a capture.
#[derive(Debug)]
pub enum Outcome {
    /// A picture.
    Picture(Box<Picture>),
    /// There is no image, because of these.
    Obstacles(Vec<Obstacle>),
}

/// Captures and lets everything run on. With `kill`, the captured processes end instead.
///
/// # Errors
/// Something that must work does not; everything runs on.
pub fn capture(request: &Request<'_>, kill: bool) -> Result<Outcome> {
    let clock = Clock::start(request.limit);
    let freeze = freeze::Request {
        scope: request.scope,
        root: request.root,
        except: request.except,
        leave_out: request.leave_out,
        patience: request.patience,
    };
    let mut frozen = freeze::freeze(&freeze)?;
    let mut eye = Eye {
        request,
        clock,
        obstacles: std::mem::take(&mut frozen.obstacles),
        shared: Shared::new(request.prefix),
        seen: namespace::Seen::default(),
    };
    let picture = eye.look(&frozen)?;
    let parent = |pid| frozen.processes.get(&pid).map(|p| p.stat.ppid);
    remedy::complete(&mut eye.obstacles, &parent);
    if kill && eye.obstacles.is_empty() {
        frozen.kill()?;
    } else {
        drop(frozen);
    }
    if !eye.obstacles.is_empty() {
        return Ok(Outcome::Obstacles(eye.obstacles));
    }
    let mut picture = picture;
    picture.meta.stopped_ms = clock.milliseconds();
    Ok(Outcome::Picture(Box::new(picture)))
}

/// One pass over the frozen world.
struct Eye<'a> {
    request: &'a Request<'a>,
    clock: Clock,
    obstacles: Vec<Obstacle>,
    shared: Shared,
    seen: namespace::Seen,
}

impl Eye<'_> {
    fn look(&mut self, frozen: &Frozen) -> Result<Picture> {
        self.check_surroundings(frozen)?;
        self.check_services(frozen);
        let groups = self.sharing(frozen)?;
        let mut files = self.files(frozen, &groups)?;
        let mut processes = self.processes(frozen, &mut files, &groups)?;
        // After the timers were read: the time that passed meanwhile makes them a little late, never early.
        let clocks = meta::clocks(self.request.root)?;
        self.check_plan(&processes);
        let mut kernel = self.kernel()?;
        if let Some((kernel, _)) = &mut kernel {
            kernel.devnode.needs = file::required(&files.entries);
        }
        let groups = self.groups(&processes)?;
        let namespaces = self.namespaces()?;
        let (objects, origins) = self.origins(frozen, &processes)?;
        let (index, blocks) = if self.request.pages && self.obstacles.is_empty() {
            memory::capture(&origins, &mut processes, &objects, self.clock)?
        } else {
            (PageIndex { blocks: Vec::new(), runs: Vec::new(), zeros: Vec::new() }, Vec::new())
        };
        let root = processes.iter().find(|p| p.ids.pid == self.request.root);
        let mut inputs = files.inputs;
        self.mapped(&mut inputs);
        Ok(Picture {
            meta: meta::meta(self.request.scope, clocks, &processes)?,
            session_leader: root.is_some_and(|p| p.ids.session == p.ids.pid),
            tree: Tree {
                root: self.request.root,
                processes,
                groups,
                mapped: self.shared.files.clone(),
                objects,
                filters: self.shared.filters.clone(),
                namespaces,
            },
            files: files.entries,
            kernel,
            index,
            blocks,
            inputs,
        })
    }

    fn refuse(&mut self, kind: &'static str, pid: u32, comm: &str, object: String, refusal: Refusal) {
        self.obstacles.push(Obstacle::process(kind, pid, comm, object, refusal));
    }

    fn files(&mut self, frozen: &Frozen, groups: &sharing::Groups) -> Result<file::Captured> {
        let tables: Vec<(u32, String)> = frozen
            .processes
            .values()
            .filter(|p| !p.threads.is_empty() && groups.of(p.pid).files == p.pid)
            .map(|p| (p.pid, p.stat.comm.clone()))
            .list();
        let processes: Vec<u32> = frozen.processes.keys().copied().list();
        let mut captured = file::capture(&file::Request {
            scope: self.request.scope,
            root: self.request.prefix,
            tables: &tables,
            processes: &processes,
            tasks: &frozen.tids,
            ahead: clock::ahead(self.request.root)?,
            externals: self.request.externals,
            config: self.request.config,
            seen: &self.seen,
        })?;
        self.obstacles.append(&mut captured.obstacles);
        self.shared.entries = std::mem::take(&mut captured.nameless);
        Ok(captured)
    }

    fn processes(
        &mut self,
        frozen: &Frozen,
        files: &mut file::Captured,
        groups: &sharing::Groups,
    ) -> Result<Vec<Process>> {
        let mut list: Vec<Process> = Vec::new();
        // Stopped processes whose parents have not waited for that yet.
        let mut news = Vec::new();
        for p in frozen.processes.values() {
            let comm = p.stat.comm.clone();
            let mut ids = self.ids(frozen, p, groups);
            let spaces = self.seen.of(p.pid);
            let mut body = None;
            if ids.exit.is_none() && self.seen.is_open(p.pid) {
                if self.obstacles.is_empty() {
                    self.clock.check()?;
                }
                let mut told = Vec::new();
                let mut captured = None;
                self.shared.enter(&spaces, self.request.prefix);
                self.seen.inside(&spaces, &mut || {
                    captured = process::capture(
                        p,
                        frozen,
                        &mut self.shared,
                        groups,
                        &mut |kind, object, refusal| {
                            told.push(Obstacle::process(kind, p.pid, &*comm, object, refusal));
                        },
                    )?;
                    Ok(())
                })?;
                self.obstacles.append(&mut told);
                let Some(captured) = captured else { continue };
                ids.subreaper = captured.subreaper;
                news.extend(captured.news);
                body = Some(captured.body);
                if let Some(body) = &mut body {
                    if body.terminal.is_some()
                        && let Err(refusal) = process::check_terminal(p, frozen, &files.entries)
                    {
                        self.refuse("tty", p.pid, &comm, "controlling terminal".into(), refusal);
                    }
                    body.fds = files.fds.get(&ids.sharing.files).cloned().unwrap_or_default();
                    let mine = files.posix_locks.iter().filter(|lock| lock.pid == p.pid);
                    body.locks = mine.cloned().list();
                }
            }
            list.push(Process { ids, comm, spaces, body });
        }
        for p in &mut list {
            if let Some(stop) = p.body.as_mut().and_then(|body| body.stop.as_mut()) {
                stop.seen = !news.contains(&p.ids.pid);
            }
        }
        Ok(list)
    }

    /// What tasks share that are no threads of one process.
    fn sharing(&mut self, frozen: &Frozen) -> Result<sharing::Groups> {
        sharing::find(&frozen.processes, self.request.scope == Scope::Tree, &mut |p, object, refusal| {
            self.refuse("sharing", p.pid, &p.stat.comm, object.to_owned(), refusal);
        })
    }

    /// The ids of a process; what lies outside a tree becomes 0.
    fn ids(&self, frozen: &Frozen, p: &freeze::Process, groups: &sharing::Groups) -> Ids {
        let stat = &p.stat;
        let mut ids = Ids {
            pid: p.pid,
            ppid: stat.ppid,
            pgrp: stat.pgrp,
            session: stat.session,
            subreaper: false,
            exit: p.threads.is_empty().then_some(stat.exit_code),
            sharing: groups.of(p.pid),
        };
        if self.request.scope == Scope::Tree {
            let root = frozen.processes.get(&self.request.root).map(|r| &r.stat);
            let outside = |id: u32, of_root: Option<u32>| of_root == Some(id) && id != self.request.root;
            if p.pid == self.request.root {
                ids.ppid = 0;
            }
            if outside(ids.session, root.map(|r| r.session)) {
                ids.session = 0;
            }
            if outside(ids.pgrp, root.map(|r| r.pgrp)) {
                ids.pgrp = 0;
            }
        } else if p.pid == self.request.root {
            ids.ppid = 0;
        }
        ids
    }

    /// What pages are read from: each process's memory, then each shared object.
    fn origins(&mut self, frozen: &Frozen, processes: &[Process]) -> Result<(Vec<Object>, Origins)> {
        let mut spaces = Vec::new();
        for p in processes {
            let live = frozen.processes.get(&p.ids.pid).is_some_and(|f| !f.threads.is_empty());
            spaces.push(if live { Space::Process(Memory::open(p.ids.pid)?) } else { Space::Nothing });
        }
        let mut objects = Vec::new();
        for found in &self.shared.objects {
            let (file, size) = pages::open_object(found.pid, found.range)?;
            if (self.request.scope == Scope::Tree || self.seen.has(namespace::IPC))
                && let Some(refusal) = found.outside()
            {
                self.obstacles.push(Obstacle::kernel("sysvipc", "shared memory", refusal));
            }
            let segment = found.segment.as_ref().map(|(perm, ..)| perm.clone());
            let (path, place) = (found.path.clone(), found.spaces.clone());
            let huge = vm::huge(file.as_fd()).context("memory", format_args!("asking for its pages"))?;
            objects.push(Object { size, path, segment, spaces: place, huge });
            spaces.push(Space::Object(file));
        }
        Ok((objects, Origins { spaces }))
    }
}

impl Picture {
    /// Writes the image. The header goes last.
    ///
    /// # Errors
    /// The target's.
    pub fn write(
        &self,
        target: &mut dyn Target,
        key: [u8; 32],
        extra: &mut Extra<'_>,
    ) -> Result<image::header::Header> {
        let mut writer = Writer::new(target)?;
        image::Sink::push(&mut writer, &self.blocks)?;
        writer.section(image::META, &self.meta)?;
        writer.section(image::TREE, &self.tree)?;
        writer.section(image::FILES, &self.files)?;
        writer.section(image::PAGES, &self.index)?;
        if let Some((kernel, tmpfs)) = &self.kernel {
            writer.section(image::KERNEL, kernel)?;
            writer.section(image::TMPFS, tmpfs)?;
        }
        extra(&mut writer)?;
        let flags = if self.session_leader { image::header::FLAG_SESSION_LEADER } else { 0 };
        let mut generation = [0; 16];
        let random = fs::open("/dev/urandom", nix::fcntl::OFlag::O_RDONLY)
            .and_then(|file| fs::read_at(&file, 0, &mut generation));
        random.context(KIND, format_args!("drawing an id for the image"))?;
        writer.finish(&Title { flags, generation, key })
    }
}

/// Writes sections that somebody else knows: the inputs.
pub type Extra<'a> = dyn FnMut(&mut Writer<'_>) -> Result<()> + 'a;
