//! `cargo lab daemons`: real daemons of the distribution, unchanged, captured and restored.
//!
//! Each is started from its own packages in namespaces of its own, on a read-only root with tmpfs where a board has
//! it; state is put in through its own protocol; it is captured, killed and restored twice, and asked again. It is
//! carried when it then answers as before, or refused by the obstacles that its entry names. Anything else is a
//! failure, and so is a table in docs/daemons.md that says something else.

mod cage;
mod entry;
pub mod keeper;
mod page;
mod root;
mod stage;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use argh::FromArgs;
use serde_json::json;

use crate::report::Report;
use crate::{progress, toolchain, workers};
use cage::Cage;
use entry::{Entry, Expected};
use keeper::{Outcome, Verdict};

/// Capture and restore real daemons of the distribution, and use them before and after.
#[derive(FromArgs)]
#[argh(subcommand, name = "daemons")]
pub struct Args {
    /// the daemons; all when none is named
    #[argh(positional)]
    names: Vec<String>,
    /// the rcsnap to test, instead of one that is built for it
    #[argh(option)]
    rcsnap: Option<PathBuf>,
    /// how many run at the same time (4)
    #[argh(option, default = "4")]
    jobs: usize,
    /// only run the daemons as they are, without a capture
    #[argh(switch)]
    plain: bool,
    /// write the table of docs/daemons.md instead of comparing it
    #[argh(switch)]
    update: bool,
    /// keep the logs of all runs in this folder
    #[argh(option)]
    logs: Option<PathBuf>,
    /// write the figures to this file; without a file, to standard output
    #[argh(option)]
    json: Option<PathBuf>,
}

/// One line of the table.
pub struct Row {
    entry: Entry,
    version: String,
    verdict: Verdict,
}

/// Runs the daemons; true when all came out as expected.
pub fn run(args: &Args) -> Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        bail!("this needs root, for namespaces");
    }
    let (all, chosen) = entry::all(&args.names)?;
    let (root, versions) = root::make(&all)?;
    let rcsnap = match &args.rcsnap {
        Some(path) => path.canonicalize().with_context(|| format!("finding {}", path.display()))?,
        None => toolchain::build(toolchain::target::of(std::env::consts::ARCH)?, "")?.path,
    };
    let scratch = tempfile::Builder::new().prefix("rcsnap-daemons-").tempdir()?;
    let logs = args.logs.clone().unwrap_or_else(|| scratch.path().to_owned());
    let cage = Cage::new(&root, &rcsnap, &logs, args.plain)?;
    let version = |entry: &Entry| {
        let at = all.iter().position(|other| other.name == entry.name);
        at.and_then(|at| versions.get(at)).cloned().unwrap_or_default()
    };
    let rows = each(args, &cage, chosen.into_iter().map(|entry| (version(&entry), entry)).collect())?;
    table(&rows);
    figures(&rows).write(args.json.as_deref())?;
    let mut good = rows.iter().all(Row::good);
    if !args.plain {
        if args.update {
            page::update(&rows)?;
        } else {
            for complaint in page::complaints(&rows, args.names.is_empty())? {
                println!("docs/daemons.md: {complaint}");
                good = false;
            }
        }
    }
    if !good && args.logs.is_none() {
        progress::say(format!("the logs are in {}", scratch.keep().display()));
    }
    Ok(good)
}

/// All daemons as one step of `cargo lab test`; the number is that of the daemons.
pub fn check(rcsnap: &Path) -> Result<usize> {
    let words = ["daemons".as_ref(), "--rcsnap".as_ref(), rcsnap.as_os_str()];
    let (done, good) = super::counted(&words, ["carried", "refused"])?;
    if !done.status.success() || good == 0 {
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        let wrong: Vec<&str> =
            said.lines().filter(|line| line.contains("FAILED") || line.starts_with("docs/")).collect();
        bail!("{}\n{}", wrong.join("\n"), crate::run::tail(&done.stderr, 20));
    }
    Ok(good)
}

/// All of them, some at a time.
fn each(args: &Args, cage: &Cage, entries: Vec<(String, Entry)>) -> Result<Vec<Row>> {
    let mut rows = workers::each(args.jobs, entries, |(version, entry)| one(args, cage, version, entry))?;
    rows.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
    Ok(rows)
}

fn one(args: &Args, cage: &Cage, version: String, entry: Entry) -> Result<Row> {
    let mut verdict = cage.run(&entry)?;
    let met = kinds(&verdict);
    if verdict.outcome == Outcome::Refused && met != entry.refused {
        verdict.outcome = Outcome::Failed;
        verdict.problem = format!("other obstacles than expected: {}", shown(&met));
    }
    if verdict.outcome == Outcome::Carried && !entry.refused.is_empty() && !args.plain {
        verdict.outcome = Outcome::Failed;
        verdict.problem = "it is carried now: its entry expects obstacles".into();
    }
    let (name, outcome) = (&entry.name, verdict.outcome.word());
    progress::say(format!("{name}: {outcome} {}: {}", verdict.stage, verdict.problem));
    Ok(Row { entry, version, verdict })
}

/// Which kinds of which processes were refused, each once.
fn kinds(verdict: &Verdict) -> Vec<Expected> {
    let mut met: Vec<Expected> = verdict
        .obstacles
        .iter()
        .map(|found| Expected { kind: found.kind.clone(), process: found.process.clone() })
        .collect();
    met.sort();
    met.dedup();
    met
}

fn shown(met: &[Expected]) -> String {
    met.iter().map(|one| format!("{} of {}", one.kind, one.process)).collect::<Vec<_>>().join(", ")
}

impl Row {
    fn good(&self) -> bool {
        self.verdict.outcome != Outcome::Failed
    }

    /// What stood in the way, or what was wrong.
    fn remark(&self) -> String {
        match self.verdict.outcome {
            Outcome::Carried => String::new(),
            Outcome::Refused => shown(&kinds(&self.verdict)),
            Outcome::Failed => format!("{}: {}", self.verdict.stage, self.verdict.problem),
        }
    }
}

fn table(rows: &[Row]) {
    println!(
        "{:<14} {:<26} {:<8} {:>8} {:>8} {:>10}",
        "daemon", "version", "", "capture", "restore", "image"
    );
    for row in rows {
        let ms = |times: &[f64]| times.first().map_or_else(|| "-".into(), |ms| format!("{ms:.0} ms"));
        println!(
            "{:<14} {:<26} {:<8} {:>8} {:>8} {:>10}  {}",
            row.entry.name,
            row.version,
            row.verdict.outcome.word(),
            ms(&row.verdict.capture_ms),
            ms(&row.verdict.restore_ms),
            row.verdict.image_bytes,
            row.remark(),
        );
    }
}

/// The figures for machines.
fn figures(rows: &[Row]) -> Report {
    let count = |outcome: Outcome| rows.iter().filter(|row| row.verdict.outcome == outcome).count();
    let mut report = Report::new("daemons");
    let daemons: Vec<serde_json::Value> = rows
        .iter()
        .map(|row| {
            let verdict = &row.verdict;
            json!({
                "name": row.entry.name,
                "version": row.version,
                "carried": verdict.outcome == Outcome::Carried,
                "outcome": verdict.outcome.word().to_lowercase(),
                "obstacles": verdict.obstacles,
                "problem": row.remark(),
                "differences": verdict.differences,
                "capture_ms": verdict.capture_ms,
                "restore_ms": verdict.restore_ms,
                "image_bytes": verdict.image_bytes,
            })
        })
        .collect();
    report.put("daemons", daemons);
    report.put("carried", count(Outcome::Carried));
    report.put("refused", count(Outcome::Refused));
    report.put("failed", count(Outcome::Failed));
    report
}

#[cfg(test)]
mod tests {
    use super::keeper::Found;
    use super::{Entry, Outcome, Row, Verdict, figures};

    #[test]
    fn every_daemon_is_carried_or_has_its_obstacle() {
        let row = |outcome: Outcome| {
            let entry = Entry::read("dropbear").unwrap();
            let mut verdict = Verdict { outcome, ..Verdict::failed("check", "wrong") };
            if outcome == Outcome::Refused {
                let (kind, process, said) = ("tty".into(), "dropbear".into(), "obstacle: tty: x".into());
                verdict.obstacles.push(Found { kind, process, said });
            }
            Row { entry, version: "1".into(), verdict }
        };
        let rows = [row(Outcome::Carried), row(Outcome::Refused), row(Outcome::Failed)];
        let place = tempfile::NamedTempFile::new().unwrap();
        figures(&rows).write(Some(place.path())).unwrap();
        let report: serde_json::Value = serde_json::from_reader(place).unwrap();
        let daemons = report["daemons"].as_array().unwrap();
        assert_eq!((&daemons[0]["carried"], &daemons[0]["name"]), (&true.into(), &"dropbear".into()));
        assert_eq!(
            (&daemons[1]["carried"], &daemons[1]["obstacles"][0]["kind"]),
            (&false.into(), &"tty".into())
        );
        assert_eq!(
            (&daemons[2]["outcome"], &daemons[2]["problem"]),
            (&"failed".into(), &"check: wrong".into())
        );
        assert_eq!(
            (&report["carried"], &report["refused"], &report["failed"]),
            (&1.into(), &1.into(), &1.into())
        );
        assert!(rows.iter().map(Row::good).eq([true, true, false]));
    }
}
