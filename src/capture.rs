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

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::config::{Config, Key};
use crate::error::{Context, Error, Obstacle, Refusal, Result};
use crate::file::{self, Entry, Policy, Scope};
use crate::image::pages::{PageIndex, PageWriter};
use crate::image::{self, Clocks, Meta, Target, Title, Writer};
use crate::kernel;
use crate::task::freeze::{self, Frozen};
use crate::task::memory::{Object, Shared};
use crate::task::pages::{self, Memory, Origins, Space};
use crate::task::process;
use crate::task::tree::{Ids, Process, plan};

const KIND: &str = "capture";

crate::section! {
    /// All processes of an image.
    pub struct Tree {
        /// The first: PID 1, or the root of the tree.
        pub root: u32,
        /// Parents before children.
        pub processes: Vec<Process>,
        /// Files that they map.
        pub mapped: Vec<crate::task::memory::MappedFile>,
        /// Shared anonymous memory.
        pub objects: Vec<Object>,
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
    /// What stands before every path of the system: empty, or `/proc/1/root` for the watcher.
    pub prefix: &'a str,
    /// Descriptions that a restore will be given (tree only).
    pub externals: &'a [BorrowedFd<'a>],
    /// What the configuration allows.
    pub policy: Policy<'a>,
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
    let begin = Instant::now();
    let freeze = freeze::Request {
        scope: request.scope,
        root: request.root,
        except: request.except,
        leave_out: request.leave_out,
        patience: request.patience,
    };
    let mut frozen = freeze::freeze(&freeze)?;
    let mut eye =
        Eye { request, obstacles: std::mem::take(&mut frozen.obstacles), shared: Shared::default() };
    let picture = eye.look(&frozen)?;
    if kill && eye.obstacles.is_empty() {
        frozen.kill()?;
    } else {
        drop(frozen);
    }
    if !eye.obstacles.is_empty() {
        return Ok(Outcome::Obstacles(eye.obstacles));
    }
    let mut picture = picture;
    picture.meta.stopped_ms = u32::try_from(begin.elapsed().as_millis()).unwrap_or(u32::MAX);
    Ok(Outcome::Picture(Box::new(picture)))
}

/// One pass over the frozen world.
struct Eye<'a> {
    request: &'a Request<'a>,
    obstacles: Vec<Obstacle>,
    shared: Shared,
}

impl Eye<'_> {
    fn look(&mut self, frozen: &Frozen) -> Result<Picture> {
        self.check_namespaces(frozen);
        let mut files = self.files(frozen)?;
        let mut processes = self.processes(frozen, &mut files)?;
        // After the timers were read: the time that passed meanwhile makes them a little late, never early.
        let clocks = clocks(self.request.root)?;
        self.check_plan(&processes);
        let kernel = self.kernel(&processes)?;
        let (objects, origins) = self.origins(frozen, &processes)?;
        let (index, blocks) = if self.obstacles.is_empty() {
            memory(&origins, &mut processes, &objects)?
        } else {
            (PageIndex { blocks: Vec::new(), runs: Vec::new(), zeros: Vec::new() }, Vec::new())
        };
        let root = processes.iter().find(|p| p.ids.pid == self.request.root);
        let mut inputs = files.inputs;
        inputs.extend(self.shared.files.iter().map(|f| f.path.clone()));
        Ok(Picture {
            meta: meta(self.request.scope, clocks, &processes)?,
            session_leader: root.is_some_and(|p| p.ids.session == p.ids.pid),
            tree: Tree { root: self.request.root, processes, mapped: self.shared.files.clone(), objects },
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

    /// Tasks must live in the namespaces of the root; in a tree, of the caller, who will restore there.
    fn check_namespaces(&mut self, frozen: &Frozen) {
        for name in process::NAMESPACES {
            let ours = match self.request.scope {
                Scope::System => process::namespace(self.request.root, name),
                Scope::Tree => process::namespace(std::process::id(), name),
            };
            for p in frozen.processes.values().filter(|p| !p.threads.is_empty()) {
                let theirs = process::namespace(p.pid, name);
                if theirs != ours {
                    let refusal =
                        Refusal::new(format!("it has a {name} namespace of its own"), "rerun the service");
                    self.refuse("namespace", p.pid, &p.stat.comm.clone(), theirs, refusal);
                }
            }
        }
    }

    fn files(&mut self, frozen: &Frozen) -> Result<file::Captured> {
        let tables: Vec<(u32, String)> = frozen
            .processes
            .values()
            .filter(|p| !p.threads.is_empty())
            .map(|p| (p.pid, p.stat.comm.clone()))
            .collect();
        let mut tasks: Vec<u32> = frozen.processes.keys().copied().collect();
        tasks.extend(frozen.processes.values().flat_map(|p| p.threads.iter().map(|t| t.tid)));
        tasks.sort_unstable();
        tasks.dedup();
        let mut captured = file::capture(&file::Request {
            scope: self.request.scope,
            root: self.request.prefix,
            tables: &tables,
            processes: &tasks,
            externals: self.request.externals,
            policy: self.request.policy,
        })?;
        self.obstacles.append(&mut captured.obstacles);
        let memfds = (0..).zip(&captured.entries).filter_map(|(entry, e)| match &e.state {
            file::State::Memfd(memfd) => Some((memfd.inode, entry)),
            _ => None,
        });
        self.shared.entries = memfds.collect();
        Ok(captured)
    }

    fn processes(&mut self, frozen: &Frozen, files: &mut file::Captured) -> Result<Vec<Process>> {
        let mut list = Vec::new();
        for p in frozen.processes.values() {
            let comm = p.stat.comm.clone();
            let mut ids = self.ids(frozen, p);
            let mut body = None;
            if ids.exit.is_none() {
                let mut told = Vec::new();
                let captured = process::capture(p, &mut self.shared, &mut |kind, object, refusal| {
                    told.push(Obstacle::process(kind, p.pid, &*comm, object, refusal));
                })?;
                self.obstacles.append(&mut told);
                let Some(captured) = captured else { continue };
                ids.subreaper = captured.subreaper;
                body = Some(captured.body);
                if let Some(body) = &mut body {
                    body.fds = files.fds.remove(&p.pid).unwrap_or_default();
                    let mine = files.posix_locks.iter().filter(|lock| lock.pid == p.pid);
                    body.locks = mine.cloned().collect();
                }
            }
            list.push(Process { ids, comm, body });
        }
        self.check_tables(frozen);
        Ok(list)
    }

    /// Processes that share a descriptor table, directories, handlers or memory without being threads.
    fn check_tables(&mut self, frozen: &Frozen) {
        const SHARED: [(i32, &str); 3] = [(1, "memory"), (2, "descriptor table"), (3, "directories")];
        let live: Vec<_> = frozen.processes.values().filter(|p| !p.threads.is_empty()).collect();
        for p in &live {
            // Sharing comes from clone(2), so it is found between a child and its parent or sibling.
            for q in
                live.iter().filter(|q| q.pid < p.pid && (q.pid == p.stat.ppid || q.stat.ppid == p.stat.ppid))
            {
                for (kind, name) in SHARED {
                    if crate::sys::vm::same_object(p.pid, q.pid, kind).unwrap_or(false) {
                        let reason = format!("it shares its {name} with {}[{}]", q.stat.comm, q.pid);
                        let refusal = Refusal::new(reason, "rerun the service");
                        self.obstacles.push(Obstacle::process("tree", p.pid, &*p.stat.comm, name, refusal));
                    }
                }
            }
        }
    }

    /// The ids of a process; what lies outside a tree becomes 0.
    fn ids(&self, frozen: &Frozen, p: &freeze::Process) -> Ids {
        let stat = &p.stat;
        let mut ids = Ids {
            pid: p.pid,
            ppid: stat.ppid,
            pgrp: stat.pgrp,
            session: stat.session,
            subreaper: false,
            exit: p.threads.is_empty().then_some(stat.exit_code),
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

    fn check_plan(&mut self, processes: &[Process]) {
        let ids: Vec<Ids> = processes.iter().map(|p| p.ids.clone()).collect();
        if !self.obstacles.is_empty() {
            return; // the list is not complete
        }
        if let Err((pid, refusal)) = plan(&ids, self.request.root, self.request.scope == Scope::System) {
            let comm = processes.iter().find(|p| p.ids.pid == pid).map_or("", |p| &p.comm);
            self.obstacles.push(Obstacle::process("tree", pid, comm, "place in the process tree", refusal));
        }
    }

    fn kernel(&mut self, processes: &[Process]) -> Result<Option<(kernel::State, kernel::tmpfs::State)>> {
        let Some((baseline, root)) = self.request.baseline else { return Ok(None) };
        let pids: Vec<u32> = processes.iter().map(|p| p.ids.pid).collect();
        let (state, tmpfs, mut obstacles) = kernel::capture(baseline, root, &pids)?;
        self.obstacles.append(&mut obstacles);
        Ok(Some((state, tmpfs)))
    }

    /// What pages are read from: each process's memory, then each shared object.
    fn origins(&self, frozen: &Frozen, processes: &[Process]) -> Result<(Vec<Object>, Origins)> {
        let mut spaces = Vec::new();
        for p in processes {
            let live = frozen.processes.get(&p.ids.pid).is_some_and(|f| !f.threads.is_empty());
            spaces.push(if live { Space::Process(Memory::open(p.ids.pid)?) } else { Space::Nothing });
        }
        let mut objects = Vec::new();
        for found in &self.shared.objects {
            let (file, size) = pages::open_object(found.pid, found.range)?;
            objects.push(Object { size, path: found.path.clone() });
            spaces.push(Space::Object(file));
        }
        Ok((objects, Origins { spaces }))
    }
}

/// Stores all memory, process by process, then the objects.
fn memory(origins: &Origins, processes: &mut [Process], objects: &[Object]) -> Result<(PageIndex, Vec<u8>)> {
    let mut writer = PageWriter::new(Vec::new());
    let mut mm = 0;
    for process in processes {
        if let Some(body) = &mut process.body {
            body.memory.guards = pages::capture(origins, mm, &body.memory, &mut writer)?;
        }
        mm += 1;
    }
    for object in objects {
        pages::capture_object(origins, mm, object.size, &mut writer)?;
        mm += 1;
    }
    writer.finish()
}

fn meta(scope: Scope, clocks: Clocks, processes: &[Process]) -> Result<Meta> {
    let uname = nix::sys::utsname::uname().context(KIND, || "asking for the kernel's name")?;
    let ids = processes.iter().flat_map(|p| {
        let threads = p.body.iter().flat_map(|b| b.threads.iter().map(|t| t.tid));
        [p.ids.pid, p.ids.pgrp, p.ids.session].into_iter().chain(threads)
    });
    let threads = processes.iter().filter_map(|p| p.body.as_ref()).map(|b| b.threads.len()).sum::<usize>();
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(Meta {
        rcsnap: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_release: uname.release().to_string_lossy().into_owned(),
        kernel_version: uname.version().to_string_lossy().into_owned(),
        whole_system: scope == Scope::System,
        clocks,
        highest_id: ids.max().unwrap_or(1),
        processes: number(processes.len()),
        threads: number(threads),
        stopped_ms: 0,
        features: Vec::new(),
    })
}

/// The clocks as the captured processes see them: ours, with the offset of their time namespace.
fn clocks(root: u32) -> Result<Clocks> {
    use nix::time::{ClockId, clock_gettime};
    let read = |id: ClockId| -> Result<i64> {
        let time = clock_gettime(id).context(KIND, || "reading a clock")?;
        Ok(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
    };
    let theirs = crate::task::clock::offsets(root)?;
    let ours = crate::task::clock::offsets(std::process::id())?;
    Ok(Clocks {
        monotonic: read(ClockId::CLOCK_MONOTONIC)? - ours.monotonic + theirs.monotonic,
        boottime: read(ClockId::CLOCK_BOOTTIME)? - ours.boottime + theirs.boottime,
        realtime: read(ClockId::CLOCK_REALTIME)?,
    })
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
        let random =
            File::open("/dev/urandom").and_then(|mut f| std::io::Read::read_exact(&mut f, &mut generation));
        random.context(KIND, || "drawing an id for the image")?;
        writer.finish(&Title { flags, generation, key })
    }
}

/// Writes sections that somebody else knows: the inputs.
pub type Extra<'a> = dyn FnMut(&mut Writer<'_>) -> Result<()> + 'a;

/// Captures the tree under `root` into a file. Returns the obstacles if there are any.
///
/// # Errors
/// The tree cannot be captured, or the file not written.
pub fn tree(
    root: u32,
    path: &std::path::Path,
    kill: bool,
    externals: &[BorrowedFd<'_>],
) -> Result<Vec<Obstacle>> {
    let request = Request {
        scope: Scope::Tree,
        root,
        except: std::process::id(),
        patience: Duration::from_secs(10),
        prefix: "",
        externals,
        policy: Policy::default(),
        baseline: None,
        leave_out: &[],
    };
    if freeze::read_stat(root).is_none() {
        return Err(Error::new(KIND, format!("capturing the tree of {root}"), "there is no such process"));
    }
    let picture = match capture(&request, kill)? {
        Outcome::Obstacles(obstacles) => return Ok(obstacles),
        Outcome::Picture(picture) => picture,
    };
    let mut bytes = Vec::new();
    picture.write(&mut bytes, [0; 32], &mut |_| Ok(()))?;
    write_private(path, &bytes)?;
    Ok(Vec::new())
}

/// Looks at the running system, or at one tree, and names what could not be captured. Nothing is written.
///
/// # Errors
/// This system was not booted by rcsnap: its tasks are not ours to stop.
pub fn check(config: &Config, tree: Option<u32>) -> Result<Vec<Obstacle>> {
    let booted = std::path::Path::new(crate::boot::status::FOLDER).join("boot.json").exists();
    if tree.is_none() && !booted {
        let cause = "rcsnap did not boot this system (there is no /run/rcsnap/boot.json)";
        return Err(Error::new(KIND, "checking the whole system", cause));
    }
    let writable: Vec<String> = config.list(Key::Writable).map(str::to_owned).collect();
    let devices: Vec<String> = config.list(Key::Devices).map(str::to_owned).collect();
    let close = config.is_yes(Key::Close);
    let mut leave_out = crate::boot::rerun::processes(&config.reruns());
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let own = [input.as_fd(), output.as_fd(), error.as_fd()];
    // Who called us is no service: its shell, its terminal and its connection.
    let mut parent = freeze::read_stat(std::process::id()).map(|s| s.ppid).filter(|pid| *pid > 1);
    while let Some(pid) = parent.filter(|_| tree.is_none()) {
        leave_out.push(pid);
        parent = freeze::read_stat(pid).map(|s| s.ppid).filter(|pid| *pid > 1);
    }
    let request = Request {
        scope: if tree.is_some() { Scope::Tree } else { Scope::System },
        root: tree.unwrap_or(1),
        except: std::process::id(),
        patience: Duration::from_secs(2),
        prefix: "",
        externals: if tree.is_some() { &own } else { &[] },
        policy: Policy { writable: &writable, devices: &devices, close },
        baseline: None,
        leave_out: &leave_out,
    };
    match capture(&request, false)? {
        Outcome::Obstacles(obstacles) => Ok(obstacles),
        Outcome::Picture(_) => Ok(Vec::new()),
    }
}

/// Writes a file that only its owner may read, whole or not at all: an image holds all secrets in memory.
fn write_private(path: &std::path::Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let doing = || format!("writing {}", path.display());
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let mut options = File::options();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&part).context(KIND, doing)?;
    file.write_all(bytes).context(KIND, doing)?;
    file.sync_all().context(KIND, doing)?;
    std::fs::rename(&part, path).context(KIND, doing)
}
