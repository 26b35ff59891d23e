//! The lines of docs/integration: what a page tells an integrator to type is run by a test, word for word.
//!
//! The first line of a fenced block says where: `sh lab=NAME`, or `sh tree=NAME` where a tree of Buildroot is
//! needed; several blocks of one name are taken one after the other. A block without such a word, or one that
//! nobody took, is an error.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

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

/// Where a block is run or compared: the word, and whether that takes a tree of Buildroot.
fn place<'t>(block: &Block<'t>) -> Option<(&'t str, bool)> {
    let mut words = block.info.split(' ');
    words.find_map(|word| match word.split_once('=') {
        Some(("lab", name)) => Some((name, false)),
        Some(("tree", name)) => Some((name, true)),
        _ => None,
    })
}

/// The pages, by their path in the tree.
fn pages() -> Result<Vec<String>> {
    let mut names = vec!["docs/integration.md".to_owned()];
    for entry in fs::read_dir(toolchain::workspace().join("docs/integration"))? {
        names.push(format!("docs/integration/{}", entry?.file_name().to_string_lossy()));
    }
    names.sort();
    Ok(names)
}

fn read(page: &str) -> Result<String> {
    fs::read_to_string(toolchain::workspace().join(page)).with_context(|| format!("reading {page}"))
}

/// Places whose lines were taken by this lab since it began: page and word.
static TAKEN: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());

/// All lines of a page that belong to one place; whoever takes them runs or compares every one.
pub fn lines(page: &str, name: &str) -> Result<String> {
    let page =
        if page == "integration.md" { format!("docs/{page}") } else { format!("docs/integration/{page}") };
    let text = read(&page)?;
    let found: String = blocks(&text)
        .iter()
        .filter(|block| place(block).is_some_and(|(own, _)| own == name))
        .map(|block| block.text.as_str())
        .collect();
    ensure!(!found.is_empty(), "{page}: no block says lab={name} or tree={name}");
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert((page, name.into()));
    Ok(found)
}

/// Fails where a page has a block that nobody took: those for a tree of Buildroot, or the others. Returns how many
/// blocks there are.
pub fn all_taken(tree: bool) -> Result<usize> {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut count = 0;
    for page in pages()? {
        for block in blocks(&read(&page)?) {
            let Some((name, needs_tree)) = place(&block) else {
                bail!("{page}: a block that does not say where it is run: ```{}\n{}", block.info, block.text);
            };
            if needs_tree == tree {
                count += 1;
                let key = (page.clone(), name.to_owned());
                ensure!(taken.contains(&key), "{page}: nothing ran this:\n```{}\n{}", block.info, block.text);
            }
        }
    }
    ensure!(count > 0, "the pages have no blocks");
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::{all_taken, blocks, place};

    #[test]
    fn blocks_say_where_they_are_run() {
        let text = "a\n```sh lab=x\nb\nc\n```\n```sh tree=y\ne\n```\n```\nf\n```\n";
        let found = blocks(text);
        assert_eq!(found.iter().map(|b| b.text.as_str()).collect::<Vec<_>>(), ["b\nc\n", "e\n", "f\n"]);
        let places: Vec<_> = found.iter().map(place).collect();
        assert_eq!(places, [Some(("x", false)), Some(("y", true)), None]);
    }

    #[test]
    fn a_block_that_nobody_took_is_an_error() {
        assert!(all_taken(false).unwrap_err().to_string().contains("nothing ran this"));
    }
}
