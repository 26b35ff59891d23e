//! The lines of docs/integration: what a page tells an integrator to type is run by a test, word for word.
//!
//! The first line of a fenced block says what becomes of it: `sh lab=NAME` is run where `NAME` says, several
//! blocks of one name one after the other; `sh unrun: WHY` is not run, and says why.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::toolchain;

/// A fenced block: the first line behind the fence, and what is inside.
#[derive(Debug, PartialEq, Eq)]
pub struct Block<'t> {
    pub info: &'t str,
    pub text: String,
}

/// The fenced blocks of a Markdown text.
pub fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let inside = lines.by_ref().take_while(|line| !line.starts_with("```"));
        found.push(Block { info, text: inside.map(|line| line.to_owned() + "\n").collect() });
    }
    found
}

/// Where a block is run, if it is.
pub fn place<'t>(block: &Block<'t>) -> Option<&'t str> {
    block.info.split(' ').find_map(|word| word.strip_prefix("lab="))
}

/// Why a block is not run.
pub fn reason<'t>(block: &Block<'t>) -> Option<&'t str> {
    block.info.split_once(" unrun: ").map(|(_, reason)| reason).filter(|reason| !reason.is_empty())
}

/// All lines of a page that are run in one place.
pub fn lines(page: &str, name: &str) -> Result<String> {
    let folder = if page == "integration.md" { "docs" } else { "docs/integration" };
    let path = toolchain::workspace().join(folder).join(page);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let found: String = blocks(&text)
        .iter()
        .filter(|block| place(block) == Some(name))
        .map(|block| block.text.as_str())
        .collect();
    ensure!(!found.is_empty(), "{page}: no block says lab={name}");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{blocks, place, reason};

    #[test]
    fn blocks_say_where_they_are_run_or_why_not() {
        let text = "a\n```sh lab=x\nb\nc\n```\n```sh unrun: no d\ne\n```\n```\nf\n```\n";
        let found = blocks(text);
        assert_eq!(found.iter().map(|b| b.text.as_str()).collect::<Vec<_>>(), ["b\nc\n", "e\n", "f\n"]);
        assert_eq!(found.iter().map(place).collect::<Vec<_>>(), [Some("x"), None, None]);
        assert_eq!(found.iter().map(reason).collect::<Vec<_>>(), [None, Some("no d"), None]);
    }
}
