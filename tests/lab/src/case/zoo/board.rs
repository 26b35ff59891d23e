//! The zoo on a board: every program in one cold boot and one restored boot of the whole system.
//!
//! The last rc script starts them all. What may be refused is looked at with `rcsnap check --tree` by itself, and
//! ends before the capture if it is refused. When the image is in the store the live programs are told to go on, which
//! shows what the capture did to them; then the power goes, and those of the restored boot are told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cage::Mode;
use super::keeper::{Outcome, Verdict};
use super::{MAY_REFUSE, Row};
use crate::case::{Case, Kind, come_up_within};
use crate::disk::{Disks, Put};
use crate::guest::{Boot, Guest, Running};
use crate::timeline::{Timeline, ms};
use crate::toolchain::target::Target;
use crate::toolchain::{self, Binary, Wish};
use crate::{board, demo, progress};

/// How much slower than in namespaces everything is (`ZOO_PACE`): what is armed is due after 40 s.
const PACE: u64 = 16;
/// From the start of the programs whose time runs until the tasks stand still: at most what `later_ms` of the zoo says.
const LATER: Duration = Duration::from_millis(2500 * PACE);
/// A cold boot with some fifty programs, and their answers.
const LIMIT: Duration = Duration::from_secs(400);
/// A hundred processes on an emulated processor take longer to read than a board's daemons may.
const WORDS: &str = "rcsnap.limit.stop_ms=60000";
/// Programs with a time running; they are started late, so that it has not run out at the capture.
const TIMED: [&str; 4] = ["blocked_modes", "blocked_timed", "timer", "timerfd"];
/// Programs with threads that spin: started last.
const SPINNING: &str = "registers";
/// The file of the console log after which time runs.
const MARK: &str = "zoo: time runs";

/// Starts the zoo; NAMES are given as functions behind it.
const START: &str = include_str!("board-start.sh");
/// Tells the programs to go on, and tells what they say.
const GO: &str = include_str!("board-go.sh");

/// What the two boots showed beside the programs.
pub struct Boots {
    pub cpu: String,
    pub stopped_ms: f64,
    pub processes: u64,
    pub threads: u64,
    pub image_bytes: u64,
    pub restored_ms: f64,
}

/// The zoo as a case: on the processor that has the most registers.
pub fn cases(board: &'static str) -> Vec<Case> {
    vec![Case::new("zoo", "every program", move |bench, _| {
        let programs = super::programs(&[])?;
        let cpu = Some(bench.guest.board.zoo_cpu.as_str());
        let (rows, _) = run(board, cpu, Some(&bench.guest.binary.path), &programs)?;
        let failed =
            rows.iter().filter(|row| !row.good()).map(|row| format!("{}: {}", row.program, row.wrong()));
        let failed: Vec<String> = failed.collect();
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    })]
}

/// Runs these programs on a board.
pub fn run(
    name: &str,
    cpu: Option<&str>,
    rcsnap: Option<&Path>,
    programs: &[String],
) -> Result<(Vec<Row>, Boots)> {
    let board = board::load(name)?;
    let target = board.target()?;
    let binary = match rcsnap {
        Some(path) => Binary::given(path)?,
        None => toolchain::build(target, "")?,
    };
    let built = build(target)?;
    let folder = toolchain::own_folder()?.join("zoo").join(name);
    std::fs::create_dir_all(&folder)?;
    let guest = Guest::prepare(name, binary, &folder)?;
    let cpu = cpu
        .map_or_else(|| guest.board.cpu.first().cloned(), |cpu| Some(cpu.into()))
        .context("choosing a CPU")?;
    let disks = guest.disks("disks")?;
    install(&disks, &built, programs)?;
    let boot = |part: &str| {
        let boot = Boot::new(&format!("zoo-{part}"));
        Boot { cpu: Some(cpu.clone()), ..boot }.words(WORDS)
    };

    progress::say(format!("zoo on {name} with {cpu}: the cold boot"));
    let mut running = guest.boot(&disks, &boot("cold"))?;
    come_up_within(&running, LIMIT)?;
    let published =
        running.qemu.console.wait(0, &["rcsnap: published: ", "rcsnap: not captured: "], LIMIT)?;
    let lines = running.qemu.console.lines(0);
    let obstacles: Vec<_> =
        lines.iter().filter(|l| l.text.contains("rcsnap: obstacle: ")).map(|l| &l.text).collect();
    ensure!(published.text.contains("published"), "{}\n{obstacles:#?}", published.text);
    let timeline = Timeline::read(&lines).context("reading the console: no start")?;
    let begun = timeline.last(MARK).context("the zoo was not started")?;
    let captured = timeline.last("rcsnap: captured: ").context("the system was not captured")?;
    let said = timeline.text("rcsnap: captured: ").unwrap_or_default();
    let stopped = demo::number_after(&said, "stopped for ").context("reading the stopped time")?;
    let still = ms(captured - begun) - stopped;
    ensure!(
        still < ms(LATER),
        "the tasks stood still {still:.0} ms after the timed programs began: nothing slept any more"
    );
    running.login()?;
    let live = answers(&mut running)?;
    let cold = note(&mut running)?;
    running.qemu.kill()?;

    progress::say("power off; the boot from the image");
    let mut running = guest.boot(&disks, &boot("restored"))?;
    let (kind, timeline) = come_up_within(&running, LIMIT)?;
    ensure!(kind == Kind::Restored, "the second boot was cold:\n{}", timeline.show());
    running.login()?;
    let restored = answers(&mut running)?;
    running.qemu.kill()?;

    let rows = programs.iter().map(|program| row(program, &live, &restored)).collect::<Result<Vec<_>>>()?;
    let rows = super::in_order(rows);
    let number = |name: &str| cold[name].as_u64().with_context(|| format!("reading {name} of the cold boot"));
    let boots = Boots {
        cpu,
        stopped_ms: stopped,
        processes: number("processes")?,
        threads: number("threads")?,
        image_bytes: number("image_bytes")?,
        restored_ms: timeline.ready().map(ms).context("the restored boot never was ready")?,
    };
    Ok((rows, boots))
}

/// The programs for the board, static. As small as they get without optimisation: they are put into its root.
fn build(target: &'static Target) -> Result<PathBuf> {
    progress::say(format!("building the zoo for {}", target.arch));
    let (mut cargo, _) = Wish::new(target).cargo()?;
    cargo.args(["build", "--quiet", "--locked", "--package", "rcsnap-zoo", "--bins"]);
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_DEV_STRIP", "symbols");
    let folder = toolchain::own_folder()?.join("build/zoo");
    crate::run::output(cargo.env("CARGO_TARGET_DIR", &folder))?;
    Ok(folder.join(target.triple).join("debug"))
}

/// Puts programs and scripts into the root file system.
fn install(disks: &Disks, built: &Path, programs: &[String]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = |name: &str, text: &str| -> Result<PathBuf> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    };
    let named = |wanted: &dyn Fn(&str) -> bool| {
        programs.iter().map(String::as_str).filter(|name| wanted(name)).collect::<Vec<_>>().join(" ")
    };
    let late = |name: &str| TIMED.contains(&name) || name == SPINNING;
    let refusable = |name: &str| MAY_REFUSE.iter().any(|(program, _)| *program == name);
    let start = START
        .replace("@PACE@", &PACE.to_string())
        .replace("@REFUSABLE@", &named(&refusable))
        .replace("@PLAIN@", &named(&|name| !late(name) && !refusable(name)))
        .replace("@TIMED@", &named(&|name| TIMED.contains(&name)))
        .replace("@SPINNING@", &named(&|name| name == SPINNING));
    let mut files = vec![
        Put { from: text("start", &start)?, to: "/etc/init.d/S90zoo".into(), mode: 0o755 },
        Put { from: text("go", GO)?, to: "/opt/zoo/go".into(), mode: 0o755 },
    ];
    files.extend(programs.iter().map(|name| Put {
        from: built.join(name),
        to: format!("/opt/zoo/{name}"),
        mode: 0o755,
    }));
    disks.folder("/opt/zoo")?;
    disks.put_all(&files)
}

/// Tells all programs to go on; what each said at last.
fn answers(running: &mut Running) -> Result<BTreeMap<String, String>> {
    let said = running.command_within("/opt/zoo/go", LIMIT)?;
    ensure!(said.status == 0, "asking the zoo: {}", said.output);
    let lines = said.output.lines().filter_map(|line| line.strip_prefix("zoo: ")?.split_once(": "));
    Ok(lines.map(|(program, word)| (program.into(), word.into())).collect())
}

/// What rcsnap noted of this boot.
fn note(running: &mut Running) -> Result<serde_json::Value> {
    let text = running.must("cat /run/rcsnap/boot.json")?;
    serde_json::from_str(&text).context("reading the note of the boot")
}

fn row(program: &str, live: &BTreeMap<String, String>, restored: &BTreeMap<String, String>) -> Result<Row> {
    let verdict = |mode: Mode, answers: &BTreeMap<String, String>| {
        let word = answers.get(program).map_or("nothing said", String::as_str);
        (mode, judge(program, word))
    };
    Ok(Row {
        kind: super::kind(program)?,
        program: program.into(),
        verdicts: vec![verdict(Mode::Live, live), verdict(Mode::Restored, restored)],
    })
}

/// What a program's last line means. A refusal must name the kind that the program is of.
fn judge(program: &str, word: &str) -> Verdict {
    let may = MAY_REFUSE.iter().find(|(name, _)| *name == program).map(|(_, kind)| *kind);
    let outcome = match (word, word.strip_prefix("REFUSED: obstacle: "), may) {
        ("PASS", ..) => Outcome::Passed,
        (_, Some(obstacle), Some(kind)) if obstacle.split(':').next() == Some(kind) => Outcome::Refused,
        _ if word.starts_with("SKIP: ") => Outcome::Skipped,
        _ => Outcome::Failed,
    };
    let problem = if outcome == Outcome::Passed { String::new() } else { word.into() };
    Verdict { outcome, ..Verdict::failed("check", problem) }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, judge};

    #[test]
    fn only_what_may_be_refused_may_and_by_its_kind() {
        let outcome = |program, word| judge(program, word).outcome;
        assert_eq!(outcome("vfork", "PASS"), Outcome::Passed);
        assert_eq!(outcome("vfork", "REFUSED: obstacle: freeze: vfork[9]: x"), Outcome::Refused);
        assert_eq!(outcome("vfork", "REFUSED: obstacle: inet: vfork[9]: x"), Outcome::Failed);
        assert_eq!(outcome("pipe", "REFUSED: obstacle: pipe: pipe[9]: x"), Outcome::Failed);
        assert_eq!(outcome("rseq", "SKIP: no rseq"), Outcome::Skipped);
        assert_eq!(outcome("pipe", "FAIL: x"), Outcome::Failed);
        assert_eq!(outcome("pipe", "READY"), Outcome::Failed);
    }
}
