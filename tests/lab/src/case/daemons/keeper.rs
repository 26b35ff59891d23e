//! PID 1 of the namespaces of one daemon: makes the root, starts the daemon below an init of its own, uses it,
//! captures, restores, uses it again, and writes down how it went.
//!
//! Daemon, capture and restore get the very same three standard descriptors, which is how a restore knows what to
//! put in their place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use argh::FromArgs;
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::root::RCSNAP;
use super::stage;
use crate::case::zoo::namespace::{close_the_rest, others, reap, runs};
use crate::case::zoo::{compare, keeper::OBSTACLES};

/// PID 1 of a run of a daemon (started by `daemons`).
#[derive(FromArgs)]
#[argh(subcommand, name = "daemon-keeper")]
pub struct Args {
    /// the daemon
    #[argh(positional)]
    name: String,
    /// the root with all packages
    #[argh(option)]
    root: PathBuf,
    /// where its log goes
    #[argh(option)]
    folder: PathBuf,
    /// rcsnap
    #[argh(option)]
    rcsnap: PathBuf,
    /// no capture
    #[argh(switch)]
    plain: bool,
}

/// In which a daemon sees that a client has gone.
const PAUSE: Duration = Duration::from_millis(200);

/// How a run came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Carried,
    Refused,
    Failed,
}

impl Outcome {
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Carried => "carried",
            Outcome::Refused => "refused",
            Outcome::Failed => "FAILED",
        }
    }
}

/// One obstacle that the capture named.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Found {
    pub kind: String,
    pub process: String,
    pub said: String,
}

/// What is known of a run afterwards.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    pub outcome: Outcome,
    pub stage: String,
    pub problem: String,
    pub obstacles: Vec<Found>,
    /// Where the image of the restored tree says something else. A daemon runs on meanwhile, so it is only told.
    pub differences: Vec<String>,
    pub capture_ms: Vec<f64>,
    pub restore_ms: Vec<f64>,
    pub image_bytes: u64,
}

impl Verdict {
    pub fn failed(stage: &str, problem: impl Into<String>) -> Verdict {
        Verdict {
            outcome: Outcome::Failed,
            stage: stage.into(),
            problem: problem.into(),
            obstacles: Vec::new(),
            differences: Vec::new(),
            capture_ms: Vec::new(),
            restore_ms: Vec::new(),
            image_bytes: 0,
        }
    }
}

/// Does the run; the verdict is in the folder, the exit status only says that there is one.
pub fn run(args: &Args) -> Result<bool> {
    if std::process::id() != 1 {
        bail!("this runs as PID 1 of a namespace only");
    }
    let entry = Entry::read(&args.name)?;
    close_the_rest();
    stage::enter(&args.root, &args.folder, &args.rcsnap)?;
    let mut keeper = Keeper {
        input: File::open("/dev/null")?,
        log: File::options().create(true).append(true).open(stage::LOG)?,
        entry,
        verdict: Verdict::failed("setup", ""),
        ended: BTreeMap::new(),
    };
    let outcome = keeper.story(args.plain);
    let mut verdict = keeper.verdict;
    match outcome {
        Ok(outcome) => verdict.outcome = outcome,
        Err(error) => verdict.problem = format!("{error:#}"),
    }
    fs::write(Path::new(stage::HERE).join("verdict"), serde_json::to_vec_pretty(&verdict)?)?;
    Ok(true)
}

struct Keeper {
    entry: Entry,
    input: File,
    log: File,
    verdict: Verdict,
    /// Ends of processes that PID 1 has reaped: every orphan comes here.
    ended: BTreeMap<i32, i32>,
}

impl Keeper {
    fn story(&mut self, plain: bool) -> Result<Outcome> {
        let entry = self.entry.clone();
        let setup = self.start(stage::setup().args(&entry.users))?;
        self.done("setup", setup, 30)?;
        self.network()?;
        stage::write(&entry)?;
        self.stage("ready");
        // tini is a subreaper: who forks twice stays in the tree.
        let mut command = Command::new("/usr/bin/setsid");
        command.args(["/usr/bin/tini", "-s", "--", "/bin/sh", "-e", stage::START]);
        let root = self.start(&mut command)?;
        self.ready(root)?;
        self.stage("put");
        self.script(&entry.put)?;
        std::thread::sleep(PAUSE);
        let idle = others().len();
        self.stage("check before");
        let before = self.script(&entry.check)?;
        if plain {
            self.stage("after");
            self.script(&entry.after)?;
            return Ok(Outcome::Carried);
        }
        // A daemon may still be busy with the end of the last client, in a process for it alone.
        let _ = self.until("the clients to be gone", 5, |_| others().len() <= idle);
        std::thread::sleep(PAUSE);
        let Some(first) = self.capture(root, 1)? else { return Ok(Outcome::Refused) };
        self.restore(&first, root)?;
        self.stage("second capture");
        let Some(second) = self.capture(root, 2)? else { bail!("the restored tree is refused") };
        self.verdict.differences = compare::differences(&first, &second)?;
        self.restore(&second, root)?;
        self.stage("check after");
        let after = self.script(&entry.check)?;
        ensure!(before == after, "it answered {before:?} before and {after:?} after");
        self.stage("after");
        self.script(&entry.after)?;
        self.stage("");
        Ok(Outcome::Carried)
    }

    fn stage(&mut self, stage: &str) {
        self.verdict.stage = stage.into();
    }

    /// Starts something on the shared descriptors.
    fn start(&self, command: &mut Command) -> Result<i32> {
        command.stdin(self.input.try_clone()?).stdout(self.log.try_clone()?).stderr(self.log.try_clone()?);
        command.env_clear().envs(stage::VARIABLES).current_dir("/");
        let child = command.spawn().with_context(|| format!("starting {}", crate::run::shown(command)))?;
        // Reaped by number, with all the others.
        Ok(child.id().cast_signed())
    }

    /// Runs a script to its end and gives what it printed.
    fn script(&mut self, text: &str) -> Result<String> {
        let said = Path::new(stage::HERE).join("said");
        let mut command = Command::new("/bin/sh");
        command.args(["-e", "-c", &format!("exec >{}\n{text}", said.display())]);
        let script = self.start(&mut command)?;
        self.done("the script", script, 90)?;
        Ok(String::from_utf8_lossy(&fs::read(&said)?).into_owned())
    }

    fn ready(&mut self, root: i32) -> Result<()> {
        let entry = self.entry.clone();
        let start = Instant::now();
        while let Err(error) = self.script(&entry.ready) {
            if let Some(status) = self.ended.get(&root) {
                bail!("it ended with {status}: {}", self.last_words());
            }
            if start.elapsed() > Duration::from_secs(60) {
                return Err(error.context(format!("not ready after a minute: {}", self.last_words())));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        crate::run::tail(&fs::read(stage::LOG).unwrap_or_default(), 3)
    }

    fn until(&mut self, what: &str, seconds: u64, mut holds: impl FnMut(&mut Keeper) -> bool) -> Result<()> {
        let start = Instant::now();
        loop {
            reap(&mut self.ended);
            if holds(self) {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(seconds) {
                bail!("waiting for {what} took more than {seconds} s");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the end of something that must end with 0.
    fn done(&mut self, what: &str, pid: i32, seconds: u64) -> Result<()> {
        self.until(&format!("the end of {what}"), seconds, |keeper| keeper.ended.contains_key(&pid))?;
        match self.ended.remove(&pid) {
            Some(0) => Ok(()),
            status => bail!("{what} ended with {}: {}", status.unwrap_or(-1), self.last_words()),
        }
    }

    fn network(&mut self) -> Result<()> {
        let network = self.start(&mut stage::network())?;
        self.done("the network", network, 10)
    }

    /// The image, or none when there were obstacles.
    fn capture(&mut self, root: i32, round: u32) -> Result<Option<PathBuf>> {
        self.stage("capture");
        let image = Path::new(stage::HERE).join(format!("image.{round}"));
        let start = Instant::now();
        let mut command = Command::new(RCSNAP);
        command.args(["capture", "--kill", "--tree", &root.to_string()]).arg(&image);
        let capture = self.start(&mut command)?;
        self.until("the end of the capture", 60, |keeper| keeper.ended.contains_key(&capture))?;
        match self.ended.remove(&capture) {
            Some(0) => {}
            Some(OBSTACLES) => {
                self.verdict.obstacles = obstacles(&fs::read_to_string(stage::LOG).unwrap_or_default());
                return Ok(None);
            }
            status => bail!("the capture ended with {}: {}", status.unwrap_or(-1), self.last_words()),
        }
        self.verdict.capture_ms.push(start.elapsed().as_secs_f64() * 1000.0);
        self.verdict.image_bytes = fs::metadata(&image)?.len();
        self.until("the tree to be gone", 10, |_| others().is_empty())?;
        self.ended.remove(&root);
        // As after a boot: no port is kept busy by connections of the tree that was killed.
        unshare(CloneFlags::CLONE_NEWNET).context("leaving the network")?;
        self.network()?;
        Ok(Some(image))
    }

    fn restore(&mut self, image: &Path, root: i32) -> Result<()> {
        self.stage("restore");
        let start = Instant::now();
        let restore = self.start(Command::new(RCSNAP).arg("restore").arg(image))?;
        self.done("the restore", restore, 60)?;
        // For a moment a puppet is there that nobody has taken in hand yet: only what lasts counts.
        let mut times = 0;
        let runs = |_: &mut Keeper| {
            times = if runs(root) { times + 1 } else { 0 };
            times >= 5
        };
        self.until("the tree to run", 30, runs)?;
        self.verdict.restore_ms.push(start.elapsed().as_secs_f64() * 1000.0);
        Ok(())
    }
}

/// The lines `obstacle: KIND: PROCESS[PID]: ...` of a capture; one of no process has an empty name.
fn obstacles(text: &str) -> Vec<Found> {
    let mut all: Vec<Found> = Vec::new();
    for line in text.lines() {
        let Some((kind, said)) = line.strip_prefix("obstacle: ").and_then(|line| line.split_once(": "))
        else {
            continue;
        };
        let process = said.split_once("]: ").and_then(|(process, _)| process.rsplit_once('['));
        let process = process.map_or("", |(name, _)| name).to_owned();
        all.push(Found { kind: kind.into(), process, said: said.into() });
    }
    all
}

#[cfg(test)]
mod tests {
    #[test]
    fn obstacles_have_kind_and_process() {
        let text = "noise\nobstacle: tty: tmux: server[7]: fd 3 /dev/ptmx: a pseudo-terminal (remedy: rerun it)\n\
                    obstacle: sysvipc: shared memory: there is one (remedy: rerun)\n";
        let found = super::obstacles(text);
        let names: Vec<(&str, &str)> =
            found.iter().map(|one| (one.kind.as_str(), one.process.as_str())).collect();
        assert_eq!(names, [("tty", "tmux: server"), ("sysvipc", "")]);
    }
}
