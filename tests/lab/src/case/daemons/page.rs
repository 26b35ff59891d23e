//! The table of docs/daemons.md, which must say what was found.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::keeper::Outcome;
use super::{Row, kinds, shown};

/// Where the table begins and ends.
const HEAD: &str = "| daemon | version | result | obstacles | on a board |";
const RULE: &str = "|---|---|---|---|---|";

fn place() -> PathBuf {
    crate::toolchain::workspace().join("docs/daemons.md")
}

/// One line. A failure has none: it is not a result.
fn line(row: &Row) -> Option<String> {
    let result = match row.verdict.outcome {
        Outcome::Carried => "carried",
        Outcome::Refused => "obstacle",
        Outcome::Failed => return None,
    };
    let obstacles = shown(&kinds(&row.verdict));
    let (name, version, advice) = (&row.entry.name, &row.version, &row.entry.advice);
    Some(format!("| {name} | {version} | {result} | {obstacles} | {advice} |"))
}

/// The lines of the page's table, by name.
fn lines(page: &str) -> Vec<&str> {
    let after = page.lines().skip_while(|line| *line != HEAD).skip(2);
    after.take_while(|line| line.starts_with('|')).collect()
}

fn name(line: &str) -> &str {
    line.split('|').nth(1).unwrap_or_default().trim()
}

/// A line without its version: security updates change that and nothing else.
fn unversioned(line: &str) -> String {
    let cells = line.split('|').map(str::trim).enumerate().filter(|(at, _)| *at != 2);
    cells.map(|(_, cell)| cell).collect::<Vec<_>>().join("|")
}

/// Where the page says something else; with `whole`, also what it has and the lab has not.
pub fn complaints(rows: &[Row], whole: bool) -> Result<Vec<String>> {
    let page = fs::read_to_string(place()).context("reading docs/daemons.md")?;
    let said = lines(&page);
    let mut all = Vec::new();
    for found in rows.iter().filter_map(line) {
        match said.iter().find(|line| name(line) == name(&found)) {
            None => all.push(format!("no line for {}: {found}", name(&found))),
            Some(line) if unversioned(line) != unversioned(&found) => all.push(format!("{line} is {found}")),
            Some(_) => {}
        }
    }
    let unknown = said.iter().filter(|line| whole && rows.iter().all(|row| row.entry.name != name(line)));
    all.extend(unknown.map(|line| format!("there is no daemon {}", name(line))));
    Ok(all)
}

/// Writes what was found over the lines of the same daemons.
pub fn update(rows: &[Row]) -> Result<()> {
    let page = fs::read_to_string(place()).context("reading docs/daemons.md")?;
    let old = lines(&page);
    let found: Vec<String> = rows.iter().filter_map(line).collect();
    let kept = old.iter().filter(|line| found.iter().all(|new| name(new) != name(line)));
    let mut all: Vec<String> = kept.map(|line| (*line).to_owned()).chain(found.iter().cloned()).collect();
    all.sort();
    let (before, after) = page.split_once(HEAD).context("finding the table of docs/daemons.md")?;
    let after: String = after
        .lines()
        .skip(1)
        .skip_while(|line| line.starts_with('|'))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(place(), format!("{before}{HEAD}\n{RULE}\n{}\n{after}", all.join("\n")))
        .context("writing docs/daemons.md")
}

#[cfg(test)]
mod tests {
    use super::{HEAD, RULE, lines, name, unversioned};

    #[test]
    fn lines_are_known_by_name_and_a_version_does_not_count() {
        let page = format!("text\n\n{HEAD}\n{RULE}\n| cron | 1 | carried |  |  |\n\nmore\n");
        let all = lines(&page);
        assert_eq!(all.len(), 1);
        assert_eq!(name(all[0]), "cron");
        assert_eq!(unversioned(all[0]), unversioned("| cron | 2 | carried |  |  |"));
        assert_ne!(unversioned(all[0]), unversioned("| cron | 1 | obstacle |  |  |"));
    }
}
