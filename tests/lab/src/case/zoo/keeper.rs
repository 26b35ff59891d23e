//! PID 1 of the namespaces of one run: starts the program, captures, restores, and writes down how it went.
//!
//! Program, capture and restore get the very same three standard descriptors, which is how a restore knows what
//! to put in their place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use argh::FromArgs;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::namespace::{close_the_rest, others, own_devpts, reap, runs};
use super::{compare, group, mutation};

/// PID 1 of a run of the zoo (started by `zoo`).
#[derive(FromArgs)]
#[argh(subcommand, name = "zoo-keeper")]
pub struct Args {
    /// the program
    #[argh(positional)]
    program: PathBuf,
    /// where its log and its files go
    #[argh(positional)]
    folder: PathBuf,
    /// rcsnap
    #[argh(option)]
    rcsnap: Option<PathBuf>,
    /// how often to capture and restore
    #[argh(option)]
    rounds: u32,
    /// start the program as a session leader
    #[argh(switch)]
    session: bool,
    /// restore the last image a second time when all is over: random numbers must differ
    #[argh(switch)]
    twice: bool,
    /// falsify the last image in this way: the program must notice
    #[argh(option)]
    mutation: Option<String>,
}

/// How a run came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Passed,
    Failed,
    Skipped,
    /// The capture named an obstacle: nothing is lost, but nothing is carried either.
    Refused,
}

impl Outcome {
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "not applicable",
            Outcome::Refused => "refused",
        }
    }
}

/// The exit status of a capture that meets obstacles.
pub const OBSTACLES: i32 = 3;

/// What is known of a run afterwards.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    pub outcome: Outcome,
    /// Where it ended.
    pub stage: String,
    /// What was wrong there, or why it does not apply.
    pub problem: String,
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
    let mut keeper = Keeper::new(args)?;
    let outcome = keeper.story();
    let mut verdict = keeper.verdict;
    match outcome {
        Ok(outcome) => verdict.outcome = outcome,
        Err(error) => {
            verdict.outcome = Outcome::Failed;
            verdict.problem = format!("{error:#}");
        }
    }
    fs::write(args.folder.join("verdict"), serde_json::to_vec_pretty(&verdict)?)?;
    Ok(true)
}

struct Keeper<'a> {
    args: &'a Args,
    input: File,
    log: File,
    go: PathBuf,
    verdict: Verdict,
    /// Ends of processes that PID 1 has reaped: every orphan comes here.
    ended: BTreeMap<i32, i32>,
    /// The last capture met obstacles.
    refused: bool,
}

impl<'a> Keeper<'a> {
    fn new(args: &'a Args) -> Result<Keeper<'a>> {
        close_the_rest();
        own_devpts()?;
        let files = args.folder.join("files");
        fs::create_dir(&files)?;
        // A file open for writing on persistent storage is an obstacle, and rightly so.
        mount(Some("files"), &files, Some("tmpfs"), MsFlags::empty(), Some("mode=0777"))
            .with_context(|| format!("mounting {}", files.display()))?;
        let go = files.join("go");
        Ok(Keeper {
            args,
            input: File::open("/dev/null")?,
            log: File::options().create(true).append(true).open(args.folder.join("log"))?,
            go,
            verdict: Verdict::failed("start", ""),
            ended: BTreeMap::new(),
            refused: false,
        })
    }

    fn story(&mut self) -> Result<Outcome> {
        let program = self.args.program.clone();
        let mut command = if self.args.session {
            let mut setsid = Command::new("setsid");
            setsid.arg(&program);
            setsid
        } else {
            Command::new(&program)
        };
        let root = self.start(command.arg(&self.go))?;
        self.stage("ready");
        self.until("READY or the end", 30, |keeper| {
            keeper.says("READY") || keeper.ended.contains_key(&root)
        })?;
        if self.ended.get(&root) == Some(&77) {
            self.verdict.problem = self.last_word();
            return Ok(Outcome::Skipped);
        }
        let mut images = Vec::new();
        for round in 1..=self.args.rounds {
            let Some(image) = self.capture(root, round)? else { return Ok(Outcome::Refused) };
            images.push(image);
            if round < self.args.rounds {
                self.stage("restore");
                self.restore(&images[images.len() - 1], false, root)?;
            }
        }
        if let [.., before, after] = images.as_slice() {
            self.stage("compare");
            self.compare(before, after)?;
        }
        let Some(last) = images.pop() else {
            self.go()?;
            return self.judge(root);
        };
        if let Some(name) = self.args.mutation.clone() {
            return self.mutated(&name, &last, root);
        }
        let waiting = self.restore(&last, true, root)?;
        self.go()?;
        let outcome = self.judge(waiting)?;
        if self.args.twice { self.again(&last, root) } else { Ok(outcome) }
    }

    fn stage(&mut self, stage: &str) {
        self.verdict.stage = stage.into();
    }

    /// Starts something on the shared descriptors.
    fn start(&self, command: &mut Command) -> Result<i32> {
        command.stdin(self.input.try_clone()?).stdout(self.log.try_clone()?).stderr(self.log.try_clone()?);
        let child = command.spawn().with_context(|| format!("starting {}", crate::run::shown(command)))?;
        // Reaped by number, with all the others.
        Ok(child.id().cast_signed())
    }

    fn go(&self) -> Result<()> {
        fs::write(&self.go, b"")?;
        Ok(())
    }

    fn text(&self) -> String {
        fs::read(self.args.folder.join("log"))
            .map_or_else(|_| String::new(), |b| String::from_utf8_lossy(&b).into_owned())
    }

    fn says(&self, line: &str) -> bool {
        self.text().lines().any(|l| l == line)
    }

    /// The last line that is a result, or the last one of all.
    fn last_word(&self) -> String {
        let text = self.text();
        let result =
            text.lines().rfind(|line| ["PASS", "FAIL", "SKIP"].iter().any(|word| line.starts_with(word)));
        result.or_else(|| text.lines().next_back()).unwrap_or("nothing said").to_owned()
    }

    fn until(&mut self, what: &str, seconds: u64, mut holds: impl FnMut(&mut Keeper) -> bool) -> Result<()> {
        let start = Instant::now();
        loop {
            reap(&mut self.ended);
            if holds(self) {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(seconds) {
                bail!("waiting for {what} took more than {seconds} s; last words: {}", self.last_word());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the end of something that must end with 0.
    fn done(&mut self, what: &str, pid: i32, seconds: u64) -> Result<()> {
        self.until(&format!("the end of {what}"), seconds, |keeper| keeper.ended.contains_key(&pid))?;
        match self.ended.remove(&pid) {
            Some(0) => Ok(()),
            status => {
                self.refused = status == Some(OBSTACLES);
                let text = self.text();
                let ours = |line: &&str| line.contains("rcsnap: ") || line.starts_with("obstacle: ");
                let said: Vec<&str> = text.lines().filter(ours).collect();
                let tail = said[said.len().saturating_sub(4)..].join(" | ");
                bail!("{what} ended with {}; {tail}", status.unwrap_or(-1))
            }
        }
    }

    fn rcsnap(&self) -> Result<Command> {
        Ok(Command::new(self.args.rcsnap.as_ref().context("no rcsnap was given")?))
    }

    /// The image, or none when there were obstacles.
    fn capture(&mut self, root: i32, round: u32) -> Result<Option<PathBuf>> {
        self.stage("capture");
        let image = self.args.folder.join(format!("image.{round}"));
        let start = Instant::now();
        let mut command = self.rcsnap()?;
        command.args(["capture", "--kill", "--tree", &root.to_string()]).arg(&image);
        let capture = self.start(&mut command)?;
        let ended = self.done("rcsnap capture", capture, 30);
        if let Err(refusal) = ended {
            self.kill_all()?;
            self.verdict.problem = format!("{refusal:#}");
            return if self.refused { Ok(None) } else { Err(refusal) };
        }
        self.verdict.capture_ms.push(start.elapsed().as_secs_f64() * 1000.0);
        self.verdict.image_bytes = fs::metadata(&image)?.len();
        self.until("the tree to be gone", 10, |_| others().is_empty())?;
        self.remove_groups()?;
        self.ended.remove(&root);
        Ok(Some(image))
    }

    /// Restores; returns the process to wait for: rcsnap itself with `wait`, else the root.
    fn restore(&mut self, image: &Path, wait: bool, root: i32) -> Result<i32> {
        self.stage("restore");
        let start = Instant::now();
        let mut command = self.rcsnap()?;
        command.arg("restore").arg(image);
        if wait {
            command.arg("--wait");
        }
        let restore = self.start(&mut command)?;
        if !wait {
            self.done("rcsnap restore", restore, 30)?;
        }
        // For a moment a puppet is there that nobody has taken in hand yet: only what lasts counts.
        let mut times = 0;
        let runs = |keeper: &mut Keeper| {
            times = if runs(root) { times + 1 } else { 0 };
            times >= 5 || wait && keeper.ended.contains_key(&restore)
        };
        self.until("the tree to run", 30, runs)?;
        self.verdict.restore_ms.push(start.elapsed().as_secs_f64() * 1000.0);
        Ok(if wait { restore } else { root })
    }

    /// Waits for the end and reads the result.
    fn judge(&mut self, pid: i32) -> Result<Outcome> {
        self.stage("check");
        // A program that a mutation makes hang has noticed; its own limits are longer than that.
        let limit = if self.args.mutation.is_some() { 10 } else { 60 };
        let ended = self.until("the program's end", limit, |keeper| keeper.ended.contains_key(&pid));
        let status = self.ended.remove(&pid);
        let word = self.last_word();
        if ended.is_ok() && status == Some(0) && word == "PASS" {
            return Ok(Outcome::Passed);
        }
        self.kill_all()?;
        bail!("{word} (status {})", status.map_or_else(|| "none".into(), |status| status.to_string()))
    }

    /// What the two images say must agree.
    fn compare(&self, before: &Path, after: &Path) -> Result<()> {
        let differences = compare::differences(before, after)?;
        if differences.is_empty() {
            return Ok(());
        }
        Err(anyhow!("the image of the restored tree differs: {}", differences.join("; ")))
    }

    /// The program must notice that the image was falsified; so may the restore.
    fn mutated(&mut self, name: &str, image: &Path, root: i32) -> Result<Outcome> {
        self.stage("mutation");
        let falsified = image.with_extension("falsified");
        let program = self.args.program.file_name().unwrap_or_default().to_string_lossy();
        if !mutation::falsify(&program, name, image, &falsified)? {
            self.verdict.problem = "the image has nothing of the kind".into();
            return Ok(Outcome::Skipped);
        }
        let run = self.restore(&falsified, true, root).and_then(|waiting| {
            self.go()?;
            self.judge(waiting)
        });
        let by = std::mem::replace(&mut self.verdict.stage, "mutation".into());
        self.kill_all()?;
        match run {
            Err(error) if name == mutation::CONTROL.name => {
                Err(error.context("an unchanged image was noticed"))
            }
            Err(error) => {
                self.verdict.problem = format!("noticed by {by}: {error:#}");
                Ok(Outcome::Passed)
            }
            Ok(_) if name == mutation::CONTROL.name => Ok(Outcome::Passed),
            Ok(_) => bail!("nobody noticed"),
        }
    }

    /// A second life from the same image: the line RANDOM must be another one.
    fn again(&mut self, image: &Path, root: i32) -> Result<Outcome> {
        fs::remove_file(&self.go)?;
        let waiting = self.restore(image, true, root)?;
        self.go()?;
        self.judge(waiting)?;
        let text = self.text();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("RANDOM ")).collect();
        match lines.as_slice() {
            [first, second] if first != second && self.says("GENERATOR wiped") => Ok(Outcome::Passed),
            [first, second] if first != second => bail!("a generator in user space keeps its state"),
            _ => bail!("two restores of one image drew the same random numbers, or none"),
        }
    }

    fn kill_all(&mut self) -> Result<()> {
        for pid in others() {
            // Every process here is ours: the namespace has no others.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        self.until("the killed to be gone", 10, |_| others().is_empty())?;
        self.remove_groups()
    }

    /// A restore must make them: on another boot they are not there either.
    fn remove_groups(&self) -> Result<()> {
        let program = self.args.program.file_name().unwrap_or_default().to_string_lossy();
        group::remove(&program, &self.args.folder)
    }
}
