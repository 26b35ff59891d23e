//! `cargo lab zoo`: every program of tests/zoo, in namespaces on this machine's own kernel.
//!
//! For each program: a plain run, which must pass (the harness is checked before what it checks); a run that is
//! captured, killed, restored, captured, killed and restored again, which must pass too, and whose two images
//! must agree; the same as a child of the runner's own session; and one restore for each mutation of its kind,
//! which the program must notice. Nothing outside of the namespaces is ever captured.

pub mod board;
mod cage;
pub mod compare;
mod group;
pub mod keeper;
mod mutation;
pub mod namespace;
mod pool;
mod remaining;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use argh::FromArgs;
use serde_json::json;

use crate::report::Report;
use crate::{progress, toolchain, workers};
use cage::{Cage, Mode};
use keeper::{Outcome, Verdict};

/// Run the zoo: capture and restore one program a kind, in namespaces on this machine's kernel.
#[derive(FromArgs)]
#[argh(subcommand, name = "zoo")]
pub struct Args {
    /// the programs; all when none is named
    #[argh(positional)]
    programs: Vec<String>,
    /// run them on this board instead: in one cold and one restored boot of the whole system
    #[argh(option)]
    board: Option<String>,
    /// with `--board`: another processor than the board's first, as QEMU names it
    #[argh(option)]
    cpu: Option<String>,
    /// the rcsnap to test, instead of one that is built for it
    #[argh(option)]
    rcsnap: Option<PathBuf>,
    /// how often each program is captured and restored (2)
    #[argh(option, default = "2")]
    rounds: u32,
    /// how many programs run at the same time (6: most of the time they wait)
    #[argh(option, default = "6")]
    jobs: usize,
    /// only run the programs as they are, without a capture
    #[argh(switch)]
    plain: bool,
    /// leave the mutations out
    #[argh(switch)]
    no_mutations: bool,
    /// the folder with the programs, instead of building them
    #[argh(option)]
    built: Option<PathBuf>,
    /// keep the logs of all runs in this folder
    #[argh(option)]
    logs: Option<PathBuf>,
    /// write the figures to this file; without a file, to standard output
    #[argh(option)]
    json: Option<PathBuf>,
}

/// Programs of what rcsnap may refuse, and the kind that it then names. All others it must carry; these it must
/// carry or refuse by name.
const MAY_REFUSE: [(&str, &str); 14] = [
    ("cgroup_frozen", "cgroup"),
    ("huge_gone", "memory"),
    ("kernel_gone", "regular"),
    ("kernel_late", "regular"),
    ("kernel_reused", "regular"),
    ("leader_gone", "freeze"),
    ("namespace_blind", "namespace"),
    ("namespace_pid", "namespace"),
    ("sharing_outside", "sharing"),
    ("sharing_past", "tree"),
    ("sysvipc_undo", "sysvipc"),
    ("tty_switch", "tty"),
    ("unix_moved", "unix"),
    ("vfork", "freeze"),
];

/// One line of the table.
pub struct Row {
    /// The kind that the program is of.
    kind: String,
    program: String,
    verdicts: Vec<(Mode, Verdict)>,
}

/// Runs the zoo; true when everything that applies passed and every mutation was caught.
pub fn run(args: &Args) -> Result<bool> {
    if let Some(board) = &args.board {
        return on_board(args, board);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("the zoo needs root, for namespaces and for what its programs set up");
    }
    let programs = programs(&args.programs)?;
    let folder = match &args.built {
        Some(folder) => folder.clone(),
        None => build()?,
    };
    let rcsnap = match &args.rcsnap {
        _ if args.plain => PathBuf::new(),
        Some(path) => path.canonicalize().with_context(|| format!("finding {}", path.display()))?,
        None => toolchain::build(toolchain::target::of(std::env::consts::ARCH)?, "")?.path,
    };
    let scratch = tempfile::Builder::new().prefix("rcsnap-zoo-").tempdir()?;
    let logs = args.logs.clone().unwrap_or_else(|| scratch.path().to_owned());
    let cage = Cage::new(&folder, &rcsnap, &logs, args.rounds)?;
    let pool = pool::Pool::fill(&programs);
    let rows = all(args, &cage, programs)?;
    drop(pool);
    let good = table(&rows);
    figures(&rows).write(args.json.as_deref())?;
    if !good && args.logs.is_none() {
        progress::say(format!("the logs are in {}", scratch.keep().display()));
    }
    Ok(good)
}

/// The zoo on a board; true when everything that applies passed.
fn on_board(args: &Args, name: &str) -> Result<bool> {
    let programs = programs(&args.programs)?;
    let (rows, boots) = board::run(name, args.cpu.as_deref(), args.rcsnap.as_deref(), &programs)?;
    let good = table(&rows);
    println!(
        "{name}, {}: {} processes and {} threads captured, stopped for {:.0} ms, image {} bytes; restored in {:.0} ms",
        boots.cpu, boots.processes, boots.threads, boots.stopped_ms, boots.image_bytes, boots.restored_ms
    );
    let mut report = figures(&rows);
    report.put("board", name);
    report.put("cpu", boots.cpu);
    report.put("processes", boots.processes);
    report.put("threads", boots.threads);
    report.put("stopped_ms", boots.stopped_ms);
    report.put("image_bytes", boots.image_bytes);
    report.put("restored_ms", boots.restored_ms);
    report.write(args.json.as_deref())?;
    Ok(good)
}

/// The whole zoo as one step of `cargo lab test`; the number is that of programs and mutations that came out well.
pub fn check(rcsnap: &Path) -> Result<usize> {
    let folder = build()?;
    let words =
        ["zoo".as_ref(), "--rcsnap".as_ref(), rcsnap.as_os_str(), "--built".as_ref(), folder.as_ref()];
    let (done, good) = super::counted(&words, ["passed", "mutations_caught"])?;
    if !done.status.success() || good == 0 {
        let (table, remarks) = (crate::run::tail(&done.stdout, 100), crate::run::tail(&done.stderr, 20));
        let wrong: Vec<&str> =
            table.lines().filter(|line| line.contains("FAILED") || line.contains("mutated ")).collect();
        bail!("{}\n{remarks}", wrong.join("\n"));
    }
    Ok(good)
}

/// The programs by name, in the order of the alphabet.
fn programs(wanted: &[String]) -> Result<Vec<String>> {
    let folder = folder();
    let mut all: Vec<String> = std::fs::read_dir(&folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_string_lossy().into_owned()))
        .collect();
    all.sort();
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        bail!("there is no program {unknown} in the zoo; there are: {}", all.join(" "));
    }
    all.retain(|name| wanted.is_empty() || wanted.contains(name));
    Ok(all)
}

/// The folder of the programs.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../zoo/src/bin")
}

/// The kind that a program is of, as its first line says: `//! Kind `pipe`: ...`.
fn kind(program: &str) -> Result<String> {
    let path = folder().join(program).with_extension("rs");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let named = text.strip_prefix("//! Kind `").and_then(|rest| rest.split_once('`'));
    named.map(|(kind, _)| kind.to_owned()).with_context(|| format!("{} names no kind", path.display()))
}

/// Builds the programs for this machine (glibc, dynamic: with all that its threads register) beside the lab.
fn build() -> Result<PathBuf> {
    progress::say("building the zoo");
    let own = std::env::current_exe()?;
    let folder = own.parent().context("finding the folder of the lab")?;
    let target = folder.parent().context("finding the target folder")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "rcsnap-zoo", "--bins", "--target-dir"]).arg(target);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    crate::run::output(&mut cargo)?;
    Ok(target.join("debug"))
}

/// All programs, some at a time.
fn all(args: &Args, cage: &Cage, programs: Vec<String>) -> Result<Vec<Row>> {
    Ok(in_order(workers::each(args.jobs, programs, |program| one(args, cage, program))?))
}

/// By kind.
fn in_order(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by(|a, b| (&a.kind, &a.program).cmp(&(&b.kind, &b.program)));
    rows
}

/// One program in all its modes. What does not pass plainly is not worth capturing.
fn one(args: &Args, cage: &Cage, program: String) -> Result<Row> {
    let mut verdicts = Vec::new();
    let mut modes = vec![Mode::Plain];
    if !args.plain {
        modes.push(Mode::Restored);
        modes.push(Mode::Attached);
    }
    if !args.plain && !args.no_mutations {
        modes.extend(mutation::of(&program).map(Mode::Mutated));
    }
    for mode in modes {
        let mut verdict = cage.run(&program, mode)?;
        if verdict.outcome == Outcome::Refused && MAY_REFUSE.iter().all(|(name, _)| *name != program) {
            verdict.outcome = Outcome::Failed;
        }
        if verdict.outcome == Outcome::Failed {
            progress::say(format!("{program}, {}: {}: {}", mode.name(), verdict.stage, verdict.problem));
        }
        let goes_on = verdict.outcome == Outcome::Passed;
        verdicts.push((mode, verdict));
        if !goes_on && matches!(mode, Mode::Plain | Mode::Restored) {
            break;
        }
    }
    Ok(Row { kind: kind(&program)?, program, verdicts })
}

impl Row {
    /// What the table shows: the worst of its verdicts but those of mutations.
    fn outcome(&self) -> Outcome {
        let falsified = |mode: &Mode| matches!(mode, Mode::Mutated(m) if *m != mutation::CONTROL);
        let faithful = || self.verdicts.iter().filter(|(mode, _)| !falsified(mode));
        match faithful().find(|(_, verdict)| verdict.outcome != Outcome::Passed) {
            Some((_, verdict)) => verdict.outcome,
            None => Outcome::Passed,
        }
    }

    /// Mutations tried, and those that the program noticed.
    fn mutations(&self) -> (usize, usize) {
        let tried = self.verdicts.iter().filter(|(mode, v)| {
            matches!(mode, Mode::Mutated(m) if *m != mutation::CONTROL) && v.outcome != Outcome::Skipped
        });
        let (mut all, mut caught) = (0, 0);
        for (_, verdict) in tried {
            all += 1;
            caught += usize::from(verdict.outcome == Outcome::Passed);
        }
        (all, caught)
    }

    /// The first of its verdicts that is not "passed", in words.
    fn wrong(&self) -> String {
        let wrong = self.verdicts.iter().find(|(_, verdict)| verdict.outcome != Outcome::Passed);
        wrong.map_or_else(String::new, |(mode, v)| format!("{}: {}: {}", mode.name(), v.stage, v.problem))
    }

    fn good(&self) -> bool {
        let (all, caught) = self.mutations();
        self.outcome() != Outcome::Failed && all == caught
    }
}

/// Prints the table and says whether all is well.
fn table(rows: &[Row]) -> bool {
    println!(
        "{:<10} {:<15} {:<14} {:>8} {:>8} {:>9} {:>9}  ",
        "kind", "program", "", "capture", "restore", "image", "mutations"
    );
    for row in rows {
        let restored =
            row.verdicts.iter().find(|(mode, _)| *mode == Mode::Restored).map(|(_, verdict)| verdict);
        let (all, caught) = row.mutations();
        let ms = |times: &[f64]| times.first().map_or_else(|| "-".into(), |ms| format!("{ms:.0} ms"));
        println!(
            "{:<10} {:<15} {:<14} {:>8} {:>8} {:>9} {:>9}  {}",
            row.kind,
            row.program,
            row.outcome().word(),
            restored.map_or_else(|| "-".into(), |v| ms(&v.capture_ms)),
            restored.map_or_else(|| "-".into(), |v| ms(&v.restore_ms)),
            restored.map_or_else(|| "-".into(), |v| v.image_bytes.to_string()),
            if all == 0 { "-".into() } else { format!("{caught}/{all}") },
            row.wrong(),
        );
    }
    rows.iter().all(Row::good)
}

/// The figures for machines. A kind has one program or several.
fn figures(rows: &[Row]) -> Report {
    let count = |outcome: Outcome| rows.iter().filter(|row| row.outcome() == outcome).count();
    let (mutations, caught) = rows.iter().map(Row::mutations).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    let mut report = Report::new("zoo");
    report.put("kinds", rows.iter().map(|row| &row.kind).collect::<BTreeSet<_>>().len());
    report.put("programs", rows.len());
    report.put("passed", count(Outcome::Passed));
    report.put("failed", rows.iter().filter(|row| !row.good()).count());
    report.put("not_applicable", count(Outcome::Skipped));
    report.put("refused", count(Outcome::Refused));
    report.put("mutations", mutations);
    report.put("mutations_caught", caught);
    let results: BTreeMap<&str, serde_json::Value> = rows
        .iter()
        .map(|row| {
            let runs =
                row.verdicts.iter().map(|(mode, v)| (mode.name(), json!(v))).collect::<BTreeMap<_, _>>();
            (row.program.as_str(), json!({ "kind": row.kind, "outcome": row.outcome().word(), "runs": runs }))
        })
        .collect();
    report.put("results", json!(results));
    report
}

#[cfg(test)]
mod tests {
    use super::{Mode, Outcome, Row, Verdict, figures, kind, mutation, programs};

    fn row(program: &str, outcomes: &[(Mode, Outcome)]) -> Row {
        let verdict = |(mode, outcome): &(Mode, Outcome)| {
            (*mode, Verdict { outcome: *outcome, ..Verdict::failed("check", "") })
        };
        let verdicts = outcomes.iter().map(verdict).collect();
        Row { kind: kind(program).unwrap(), program: program.into(), verdicts }
    }

    #[test]
    fn every_program_names_its_kind() {
        assert!(programs(&[]).unwrap().iter().all(|program| !kind(program).unwrap().is_empty()));
    }

    #[test]
    fn figures_are_those_of_the_rows() {
        let mutated = |n: usize| Mode::Mutated(mutation::of("fifo").nth(n).unwrap());
        let rows = [
            row("fifo", &[(Mode::Plain, Outcome::Passed), (mutated(1), Outcome::Passed)]),
            row("fifo_half", &[(Mode::Plain, Outcome::Failed)]),
            row("rseq", &[(Mode::Plain, Outcome::Skipped)]),
        ];
        let place = tempfile::NamedTempFile::new().unwrap();
        figures(&rows).write(Some(place.path())).unwrap();
        let report: serde_json::Value = serde_json::from_reader(place).unwrap();
        for (name, number) in [
            ("kinds", 2),
            ("programs", 3),
            ("passed", 1),
            ("failed", 1),
            ("not_applicable", 1),
            ("refused", 0),
            ("mutations", 1),
            ("mutations_caught", 1),
        ] {
            assert_eq!(report[name], number, "{name}");
        }
        assert_eq!(report["results"]["fifo_half"]["outcome"], "FAILED");
        assert!(rows.iter().map(Row::good).eq([true, false, true]));
    }
}
