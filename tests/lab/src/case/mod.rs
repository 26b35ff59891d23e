//! What is tried, one file a topic. A case gets the bench, on which the expensive things are made once:
//! the binary, the guest, and one pair of disks that hold a captured system.

pub mod again;
pub mod budget;
pub mod cell;
pub mod cells;
pub mod crash;
pub mod daemons;
pub mod fault;
pub mod kernel;
pub mod packaging;
pub mod power;
pub mod roundtrip;
pub mod shipped;
pub mod zoo;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::disk::Disks;
use crate::guest::{BOOT_LIMIT, Boot, Guest, Running};
use crate::timeline::{Timeline, ms};
use crate::{board, packages, progress, toolchain};

/// The boards, the first of which gets everything.
pub const BOARDS: [&str; 3] = [board::DEFAULT, "qemu-aarch64", "qemu-armv7"];

/// How much is tried on a board. What has nothing to do with the processor is tried on one board in full; on the
/// others a boot is followed as far as rcsnap has a part in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    Full,
    Short,
}

/// One thing that is tried. It gets its own name, for folders and logs.
pub struct Case {
    pub board: &'static str,
    pub topic: &'static str,
    pub name: String,
    pub run: Run,
}

type Run = Box<dyn Fn(&Bench, &str) -> Result<()> + Send + Sync>;

impl Case {
    fn new(
        topic: &'static str,
        name: impl Into<String>,
        run: impl Fn(&Bench, &str) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { board: board::DEFAULT, topic, name: name.into(), run: Box::new(run) }
    }

    /// As it is reported.
    pub fn full_name(&self) -> String {
        format!("{}: {}: {}", self.board, self.topic, self.name)
    }

    /// As its files are named.
    pub fn id(&self) -> String {
        self.full_name().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    }
}

/// Every case that is run in QEMU; the long ones of a board first, so that machines end together.
pub fn all() -> Vec<Case> {
    BOARDS.into_iter().flat_map(of).collect()
}

/// The cases of one board.
fn of(board: &'static str) -> impl Iterator<Item = Case> {
    let extent = if board == board::DEFAULT { Extent::Full } else { Extent::Short };
    let mut topics = vec![zoo::board::cases(board), roundtrip::cases(extent), again::cases()];
    if extent == Extent::Full {
        topics.push(packaging::cases());
    }
    topics.extend([power::cases(extent), crash::cases(), fault::cases(extent), budget::cases()]);
    topics.into_iter().flatten().map(move |case| Case { board, ..case })
}

/// Runs a command of the lab as root, in a process of its own. How it ended, and the sum of two of its figures.
fn counted(words: &[&OsStr], figures: [&str; 2]) -> Result<(Output, usize)> {
    // In a folder: root may not write into somebody's file right in /tmp.
    let scratch = tempfile::tempdir()?;
    let place = scratch.path().join("figures");
    let mut command = packages::as_root(std::env::current_exe()?);
    let done = crate::run::raw(command.args(words).arg("--json").arg(&place))?;
    let all: Value = serde_json::from_slice(&std::fs::read(&place).unwrap_or_default()).unwrap_or_default();
    let count = |name: &str| all[name].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    Ok((done, figures.into_iter().map(count).sum()))
}

/// A captured system: disks as the cold boot left them, and what it knew of itself.
pub struct Captured {
    pub disks: Disks,
    /// the application's answer some time after the capture
    pub app: Value,
    /// the monotonic clock at the capture, in seconds
    pub monotonic: f64,
    /// what rcsnap said of the image
    pub published: String,
}

/// Something expensive that is made once, by the first case that needs it; a failure is kept too.
struct Once<T>(Mutex<Option<Result<Arc<T>, String>>>);

impl<T> Once<T> {
    fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn get(&self, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let made = place.get_or_insert_with(|| make().map(Arc::new).map_err(|e| format!("{e:#}")));
        made.clone().map_err(|error| anyhow!(error))
    }
}

/// One bench a board, made by the first case that needs it.
pub struct Benches {
    folder: PathBuf,
    /// a binary that is built already, and the board that it is for
    binary: Option<(PathBuf, String)>,
    made: [Once<Bench>; BOARDS.len()],
}

impl Benches {
    /// `binary` is one that is built already, for `board`.
    pub fn new(binary: Option<&Path>, board: Option<&str>) -> Result<Self> {
        let folder = toolchain::own_folder()?.join("test");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        let binary = binary.map(|path| (path.to_owned(), board.unwrap_or(board::DEFAULT).to_owned()));
        Ok(Self { folder, binary, made: std::array::from_fn(|_| Once::new()) })
    }

    /// The bench of a board.
    pub fn of(&self, board: &str) -> Result<Arc<Bench>> {
        let at = BOARDS.iter().position(|name| *name == board).context("finding the bench: no such board")?;
        let given = self.binary.as_ref().filter(|(_, of)| of == board).map(|(path, _)| path.as_path());
        self.made[at].get(|| Bench::new(board, given, &self.folder.join(board)))
    }
}

/// What the cases of a board share.
pub struct Bench {
    pub guest: Arc<Guest>,
    pub folder: PathBuf,
    captured: Once<Captured>,
    faulty: Once<Guest>,
    faulty_captured: Once<Captured>,
}

impl Bench {
    fn new(board: &str, binary: Option<&Path>, folder: &Path) -> Result<Self> {
        let binary = match binary {
            Some(path) => toolchain::Binary::given(path)?,
            None => toolchain::build(board::load(board)?.target()?, "")?,
        };
        std::fs::create_dir_all(folder)?;
        let guest = Arc::new(Guest::prepare(board, binary, folder)?);
        let (captured, faulty, faulty_captured) = (Once::new(), Once::new(), Once::new());
        Ok(Self { guest, folder: folder.into(), captured, faulty, faulty_captured })
    }

    /// The guest with a binary that breaks on demand.
    pub fn faulty(&self) -> Result<Arc<Guest>> {
        self.faulty.get(|| {
            let folder = self.folder.join("faulty");
            std::fs::create_dir_all(&folder)?;
            let binary = toolchain::build(self.guest.board.target()?, "fault")?;
            Guest::prepare(&self.guest.board.name, binary, &folder)
        })
    }

    /// A guest and a system that it has captured, to be changed and broken. For a short look it is those whose
    /// binary breaks on demand, so that one cold boot serves all.
    pub fn subject(&self, extent: Extent) -> Result<(Arc<Guest>, Arc<Captured>)> {
        match extent {
            Extent::Full => Ok((Arc::clone(&self.guest), self.captured()?)),
            Extent::Short => Ok((self.faulty()?, self.faulty_captured()?)),
        }
    }

    /// A system captured by that binary.
    pub fn faulty_captured(&self) -> Result<Arc<Captured>> {
        let guest = self.faulty()?;
        self.faulty_captured.get(|| capture(&guest, "captured")).context("making a captured system")
    }

    /// Boots cold once for all cases that begin with a captured system.
    pub fn captured(&self) -> Result<Arc<Captured>> {
        self.captured.get(|| capture(&self.guest, "captured")).context("making a captured system")
    }

    /// A copy of the captured disks, to boot from and to break.
    pub fn copy(&self, name: &str) -> Result<Disks> {
        self.captured()?.disks.copy(&self.folder.join(name))
    }
}

/// A cold boot that must end in a published image; the power is cut right after.
pub fn capture(guest: &Guest, name: &str) -> Result<Captured> {
    let disks = guest.disks(name)?;
    let mut boot = Boot::new(name);
    // crond wakes at the full minute: let that be soon after the capture.
    boot.clock = Some("2026-03-01T12:00:25".into());
    let mut running = guest.boot(&disks, &boot)?;
    let console = &running.qemu.console;
    console.prompt(0, &["rcsnap: captured: ", " login: "], BOOT_LIMIT)?;
    // The prompt may be the beginning of that line: give it the time to end.
    let line = console.wait(0, &["rcsnap: captured: "], Duration::from_secs(2))?;
    let published = console.wait(0, &["rcsnap: published: "], BOOT_LIMIT)?.text;
    console.prompt(0, &[" login: "], BOOT_LIMIT)?;
    let app = running.app()?;
    let since = line.at.elapsed().as_secs_f64();
    let monotonic = app["monotonic"].as_f64().context("reading the application's clock")? - since;
    running.qemu.kill()?;
    Ok(Captured { disks, app, monotonic, published })
}

/// What a boot has turned out to be.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Kind {
    Cold,
    Restored,
}

/// Waits for the login prompt of the last boot on this console, and says which kind of boot it was.
/// Reboots on the way are followed; a board that does not come up is an error.
pub fn come_up(running: &Running) -> Result<(Kind, Timeline)> {
    come_up_within(running, BOOT_LIMIT * 2)
}

/// The same with another limit.
pub fn come_up_within(running: &Running, limit: Duration) -> Result<(Kind, Timeline)> {
    let console = &running.qemu.console;
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        console.prompt(0, &[" login: "], left)?;
        let lines = console.lines(0);
        let timeline = Timeline::read(&lines).context("reading the console: rcsnap did not start")?;
        let answer = timeline.moments.iter().find(|(_, m)| m == "cold" || m == "restored");
        if let Some((_, answer)) = answer {
            let kind = if answer == "restored" { Kind::Restored } else { Kind::Cold };
            return Ok((kind, timeline));
        }
        ensure!(!left.is_zero(), "waiting for the board: it rebooted and did not come up again");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The board works: every daemon answers, and one can log in.
pub fn works(running: &mut Running) -> Result<()> {
    for (name, answer) in running.daemons() {
        answer.with_context(|| format!("{name} does not answer"))?;
    }
    running.login()?;
    running.must("true").map(drop)
}

/// A cold boot that says so in one line, and works. Returns what rcsnap said up to that line: when a restore
/// was tried, the reason is the line before.
pub fn cold_and_works(running: &mut Running) -> Result<String> {
    let (kind, timeline) = come_up(running)?;
    ensure!(kind == Kind::Cold, "the boot was restored:\n{}", timeline.show());
    let said: Vec<&str> = timeline.moments.iter().map(|(_, moment)| moment.as_str()).collect();
    let decided = |line: &&&str| line.starts_with("rcsnap: cold: ");
    ensure!(said.iter().filter(decided).count() == 1, "one line must say it is cold:\n{}", timeline.show());
    works(running)?;
    let last = said.iter().position(|line| decided(&line)).unwrap_or_default();
    Ok(said[..=last].join("\n"))
}

/// A boot as far as its first rc script, which is where rcsnap has handed over to the real init for good.
pub fn begins(running: &Running) -> Result<Timeline> {
    const FIRST: &str = "rc: S01syslogd";
    let console = &running.qemu.console;
    let end = console.prompt(0, &[FIRST, " login: "], BOOT_LIMIT * 2)?;
    let timeline = Timeline::read(&console.lines(0)).context("reading the console: rcsnap did not start")?;
    ensure!(end.text.contains(FIRST), "the boot was restored:\n{}", timeline.show());
    Ok(timeline)
}

/// The same, when the boot says why it is cold. Returns what was said up to that line.
pub fn cold_and_begins(running: &Running) -> Result<String> {
    let timeline = begins(running)?;
    let said: Vec<&str> = timeline.moments.iter().map(|(_, moment)| moment.as_str()).collect();
    let decided = said.iter().position(|line| line.starts_with("rcsnap: cold: "));
    let last = decided.with_context(|| format!("no line says that it is cold:\n{}", timeline.show()))?;
    Ok(said[..=last].join("\n"))
}

/// A restored boot that works. Returns how long it took.
pub fn restored_and_works(running: &mut Running) -> Result<Timeline> {
    let (kind, timeline) = come_up(running)?;
    ensure!(kind == Kind::Restored, "the boot was cold:\n{}", timeline.show());
    works(running)?;
    if let Some(ready) = timeline.ready() {
        progress::say(format!("      restored in {:.0} ms", ms(ready)));
    }
    Ok(timeline)
}
