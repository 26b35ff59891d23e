//! `cargo lab test`: every check there is, as named steps. A failure does not stop the rest; the last
//! line alone is the sum.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use argh::FromArgs;
use serde_json::{Value, json};

use crate::case::{self, Benches, Case};
use crate::report::Report;
use crate::run::{raw, shown, tail};
use crate::{pages, progress, toolchain, workers};

/// Do all checks: format, lints, unit tests, the zoo, the cells, and the boards in QEMU.
#[derive(FromArgs)]
#[argh(subcommand, name = "test")]
pub struct Args {
    /// only steps whose name contains this
    #[argh(option, default = "String::new()")]
    only: String,
    /// no boards in QEMU: the checks of a minute
    #[argh(switch)]
    quick: bool,
    /// list the steps and do nothing
    #[argh(switch)]
    list: bool,
    /// only cases of this board
    #[argh(option)]
    board: Option<String>,
    /// a binary for `--board`, or for the first one, that is built already, instead of building it
    #[argh(option)]
    binary: Option<PathBuf>,
    /// machines that run at a time, by default one a processor
    #[argh(option, default = "0")]
    jobs: usize,
    /// write the figures to this file; without a file, to standard output
    #[argh(option)]
    json: Option<PathBuf>,
}

/// What the steps came to.
#[derive(Default)]
struct Sum {
    passed: usize,
    /// Names, and why.
    failed: Vec<(String, String)>,
    steps: Vec<Value>,
}

impl Sum {
    fn add(&mut self, name: &str, begin: Instant, result: &Result<usize>) {
        let seconds = begin.elapsed().as_secs_f64();
        self.steps.push(json!({ "name": name, "passed": result.is_ok(), "seconds": seconds }));
        match result {
            Ok(count) => {
                self.passed += count;
                progress::say(format!("pass  {name}  ({seconds:.1} s)"));
            }
            Err(error) => {
                let why = format!("{error:#}");
                progress::say(format!("FAIL  {name}  ({seconds:.1} s)\n{why}"));
                self.failed.push((name.into(), why));
            }
        }
    }
}

/// A check of the tree itself; the number is how many tests it stands for.
type Check = (&'static str, fn() -> Result<usize>);

const CHECKS: [Check; 8] = [
    ("format", || cargo(&["fmt", "--all", "--check"])),
    ("clippy", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"])
    }),
    ("unit tests", unit_tests),
    ("packaging: files", case::shipped::check),
    ("packaging: kernel options", case::kernel::check),
    ("zoo", || case::zoo::check(&toolchain::build(own_target()?, "")?.path)),
    ("cells", || case::cells::check(&toolchain::build(own_target()?, "fault")?.path)),
    ("daemons", || case::daemons::check(&toolchain::build(own_target()?, "")?.path)),
];

/// The last step: every line of docs/integration was run.
const PAGES: &str = "packaging: pages";

/// What this machine runs itself.
fn own_target() -> Result<&'static toolchain::target::Target> {
    toolchain::target::of(std::env::consts::ARCH)
}

pub fn run(args: &Args) -> Result<bool> {
    let chosen = |name: &str| name.contains(&args.only);
    let on = |board: &str| args.board.as_ref().is_none_or(|wanted| wanted == board);
    if let Some(unknown) = args.board.as_ref().filter(|board| !case::BOARDS.contains(&board.as_str())) {
        bail!("there is no board {unknown} to test; there are: {}", case::BOARDS.join(" "));
    }
    let cases: Vec<Case> =
        case::all().into_iter().filter(|c| !args.quick && chosen(&c.full_name()) && on(c.board)).collect();
    // Only where all that take lines of pages have run.
    let takers: Vec<_> = case::packaging::cases().iter().map(Case::full_name).collect();
    let pages = !args.quick
        && args.board.is_none()
        && chosen(PAGES)
        && takers.iter().all(|taker| cases.iter().any(|case| case.full_name() == *taker));
    let checks = CHECKS.iter().filter(|(name, _)| chosen(name) && args.board.is_none());
    if args.list {
        checks.for_each(|(name, _)| println!("{name}"));
        cases.iter().for_each(|case| println!("{}", case.full_name()));
        if pages {
            println!("{PAGES}");
        }
        return Ok(true);
    }
    let sum = Mutex::new(Sum::default());
    // Two at a time: while one waits for what it runs, the other builds.
    workers::each(2, checks.collect(), |(name, check)| {
        progress::say(format!("begin {name}"));
        let begin = Instant::now();
        let result = check();
        sum.lock().unwrap_or_else(PoisonError::into_inner).add(name, begin, &result);
        Ok(())
    })?;
    if !cases.is_empty() {
        run_cases(args, &cases, &sum)?;
    }
    if pages {
        let begin = Instant::now();
        sum.lock().unwrap_or_else(PoisonError::into_inner).add(PAGES, begin, &pages::all_taken(false));
    }
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    tell(&sum, args)
}

/// The boards: as many machines at a time as there are processors, each case with disks of its own.
fn run_cases(args: &Args, cases: &[Case], sum: &Mutex<Sum>) -> Result<()> {
    let benches = Benches::new(args.binary.as_deref(), args.board.as_deref())?;
    let jobs = match args.jobs {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    };
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let name = case.full_name();
                    progress::say(format!("begin {name}"));
                    let begin = Instant::now();
                    let result = benches.of(case.board).and_then(|bench| (case.run)(&bench, &case.id()));
                    let result = result.map(|()| 1);
                    sum.lock().unwrap_or_else(PoisonError::into_inner).add(&name, begin, &result);
                }
            });
        }
    });
    Ok(())
}

fn tell(sum: &Sum, args: &Args) -> Result<bool> {
    if !sum.failed.is_empty() {
        println!("\nfailed:");
        // Once more at the end, with the reasons: of a long log often nothing else is kept.
        sum.failed
            .iter()
            .for_each(|(name, why)| println!("  {name}\n    {}", ends(why).replace('\n', "\n    ")));
    }
    let mut report = Report::new("test");
    report.put("passed", sum.passed);
    report.put("failed", sum.failed.len());
    report.put("steps", sum.steps.clone());
    report.write(args.json.as_deref())?;
    println!("{} passed, {} failed", sum.passed, sum.failed.len());
    Ok(sum.failed.is_empty())
}

/// A text without its middle: consoles are long, and the reason is at one end of them.
fn ends(text: &str) -> String {
    const FIRST: usize = 10;
    const LAST: usize = 40;
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= FIRST + LAST {
        return lines.join("\n");
    }
    let middle = lines.len() - FIRST - LAST;
    [&lines[..FIRST], &[&*format!("[{middle} lines]")], &lines[FIRST + middle..]].concat().join("\n")
}

/// A cargo command on the workspace, as one test.
fn cargo(words: &[&str]) -> Result<usize> {
    let mut command = toolchain::cargo();
    let done = raw(command.args(words).current_dir(toolchain::workspace()))?;
    if !done.status.success() {
        bail!("{}: {}\n{}{}", shown(&command), done.status, tail(&done.stdout, 40), tail(&done.stderr, 40));
    }
    Ok(1)
}

/// `cargo test` on everything; each of its tests counts as one.
fn unit_tests() -> Result<usize> {
    let mut command: Command = toolchain::cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]).current_dir(toolchain::workspace());
    let done = raw(&mut command)?;
    let text = String::from_utf8_lossy(&done.stdout);
    if !done.status.success() {
        let failures: Vec<&str> = text.lines().filter(|l| l.ends_with("... FAILED")).collect();
        bail!(
            "{}\n{}\n{}{}",
            shown(&command),
            failures.join("\n"),
            tail(&done.stdout, 60),
            tail(&done.stderr, 40)
        );
    }
    let counts = text.lines().filter_map(|l| l.strip_prefix("test result: ok. "));
    let counts = counts.filter_map(|l| l.split(' ').next()?.parse::<usize>().ok());
    Some(counts.sum()).filter(|n| *n > 0).context("counting the tests: none ran")
}
