//! How the code and the documents must look, beyond what the compiler and clippy see.
//!
//! Each check is a function from text to complaints, with a test that it does complain, and a test that the
//! tree gives it no reason to. No root, no processes: only the files of the tree are read.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "style/code.rs"]
mod code;

/// Files outside src/sys and src/arch with unsafe code: the C entry point.
const ENTRY: [&str; 1] = ["src/main.rs"];
/// The files of the fence with unsafe code. One more is a decision: it is added here, and looked at.
const FENCE: [&str; 28] = [
    "src/arch/aarch64.rs",
    "src/arch/arm.rs",
    "src/arch/mod.rs",
    "src/arch/x86_64.rs",
    "src/sys/anonymous.rs",
    "src/sys/brief.rs",
    "src/sys/clone.rs",
    "src/sys/crash.rs",
    "src/sys/descriptor.rs",
    "src/sys/fs.rs",
    "src/sys/fsmount.rs",
    "src/sys/arena.rs",
    "src/sys/ioctl.rs",
    "src/sys/ipc.rs",
    "src/sys/limit.rs",
    "src/sys/module.rs",
    "src/sys/mount.rs",
    "src/sys/order.rs",
    "src/sys/process.rs",
    "src/sys/ptrace.rs",
    "src/sys/shape.rs",
    "src/sys/shape/form.rs",
    "src/sys/signal.rs",
    "src/sys/socket.rs",
    "src/sys/start.rs",
    "src/sys/time.rs",
    "src/sys/vm.rs",
    "src/sys/xattr.rs",
];

/// Lines of a file of src/ before its tests. A longer one holds more than one thing.
const LONGEST: usize = 400;

/// What the vocabulary calls capture, restore and release; no identifier has a part of these names.
const SYNONYMS: [&str; 3] = ["dump", "thaw", "checkpoint"];
/// The kernel's own word: a request for all objects of a sort (NLM_F_DUMP of netlink(7)).
const TERMS: [(&str, &str); 3] = [
    ("src/sys/netlink.rs", "dump"),
    ("src/sys/netlink.rs", "NLM_F_DUMP"),
    ("src/sys/netlink.rs", "NLM_F_DUMP_INTR"),
];

/// What the module documentation of a kind says, and its section of docs/kinds.md.
const HEADINGS: [&str; 5] = ["What", "Reads", "Rebuilds", "Loses", "Refuses"];
/// Files of the three folders of kinds that are no kind. What lies in the folder of a kind, or is named after
/// it (`unix_name` after `unix`), belongs to that.
const HELPERS: [&str; 22] = [
    "file/content",
    "file/holder",
    "file/mod",
    "file/multicast",
    "file/options",
    "file/place",
    "file/sort",
    "file/table",
    "file/testing",
    "file/world",
    "kernel/bytes",
    "kernel/mod",
    "kernel/network",
    "kernel/root",
    "kernel/tree",
    "task/actor",
    "task/batch",
    "task/freeze",
    "task/mod",
    "task/process",
    "task/puppet",
    "task/remote",
];

/// Directories of any Linux system, so that a path that begins there says nothing about this machine.
const TOP: [&str; 9] = ["bin", "etc", "lib", "opt", "root", "sbin", "tmp", "usr", "var"];
/// Hosts that documents may point to.
const HOSTS: [&str; 4] = ["postcard.jamesmunns.com", "docs.kernel.org", "man7.org", "www.kernel.org"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder of the tree, as paths from its root, sorted.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_symlink() {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn rust(folder: &str) -> Vec<(String, String)> {
    let names = files(folder).into_iter().filter(|name| name.ends_with(".rs"));
    names.map(|name| (name.clone(), text(&name))).collect()
}

fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// Everything that people read or run: no lock file, nothing built.
fn written() -> Vec<(String, String)> {
    let mut names: Vec<String> = ["src", "tests", "docs", "board", "buildroot", "initramfs", ".ci", ".cargo"]
        .iter()
        .flat_map(|folder| files(folder))
        .collect();
    names.extend(["README.md", "CHANGELOG.md", "Cargo.toml", "rustfmt.toml", "clippy.toml"].map(Into::into));
    // This file names what is forbidden in its tests.
    names.retain(|name| name != "tests/style.rs");
    let read = |name: String| Some((name.clone(), fs::read_to_string(root().join(name)).ok()?));
    names.into_iter().filter_map(read).collect()
}

fn nothing(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

// Unsafe code.

fn unsafe_outside(name: &str, text: &str) -> Vec<String> {
    let fenced = name.starts_with("src/sys/") || name.starts_with("src/arch/") || ENTRY.contains(&name);
    if fenced || !code::has_unsafe(text) {
        return Vec::new();
    }
    vec![format!("{name}: unsafe code outside src/sys and src/arch")]
}

#[test]
fn unsafe_code_is_inside_the_fence() {
    assert_eq!(unsafe_outside("src/boot/a.rs", "fn a() { unsafe { b() } }").len(), 1);
    assert_eq!(unsafe_outside("src/boot/a.rs", "#![allow(unsafe_code)]").len(), 1);
    assert_eq!(unsafe_outside("src/boot/a.rs", "// unsafe\nconst A: &str = \"unsafe\";"), [""; 0]);
    nothing(rust("src").iter().flat_map(|(name, text)| unsafe_outside(name, text)));
}

#[test]
fn the_fence_has_the_files_that_were_looked_at() {
    let found: Vec<String> =
        rust("src").into_iter().filter(|f| code::has_unsafe(&f.1)).map(|f| f.0).collect();
    let known: BTreeSet<&str> = FENCE.into_iter().chain(ENTRY).collect();
    let new = found.iter().filter(|name| !known.contains(name.as_str()));
    let gone = known.iter().filter(|name| !found.iter().any(|found| found == *name));
    nothing(
        new.map(|name| format!("{name}: unsafe code in a file that FENCE does not list"))
            .chain(gone.map(|name| format!("{name}: FENCE lists it, and it has no unsafe code"))),
    );
}

// Length.

fn length(name: &str, text: &str) -> Vec<String> {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
    let long = lines > LONGEST;
    long.then(|| format!("{name}: {lines} lines before its tests; at most {LONGEST}")).into_iter().collect()
}

#[test]
fn no_file_is_too_long() {
    let long = "//\n".repeat(401);
    assert_eq!(length("src/a.rs", &long).len(), 1);
    assert_eq!(length("src/a.rs", &format!("//\n#[cfg(test)]\n{long}")), [""; 0]);
    nothing(rust("src").iter().flat_map(|(name, text)| length(name, text)));
}

// Words.

fn synonyms(name: &str, text: &str) -> Vec<String> {
    let known = |identifier: &str| TERMS.contains(&(name, identifier));
    let identifiers = code::identifiers(text).into_iter().filter(|i| !known(i));
    let bad = identifiers.filter(|i| code::words(i).iter().any(|word| SYNONYMS.contains(&word.as_str())));
    bad.map(|i| format!("{name}: {i}: the words are capture, restore and release")).collect()
}

#[test]
fn one_word_for_each_thing() {
    assert_eq!(synonyms("src/a.rs", "fn dump_pages() {}").len(), 1);
    assert_eq!(synonyms("src/a.rs", "struct PageDump;").len(), 1);
    assert_eq!(synonyms("src/a.rs", "fn a() { thaw(); }").len(), 1);
    assert_eq!(synonyms("src/a.rs", "// dump\nconst CORE: u8 = MADV_DONTDUMP; dumpable.a"), [""; 0]);
    nothing(rust("src").iter().flat_map(|(name, text)| synonyms(name, text)));
}

fn failed_to(name: &str, text: &str) -> Vec<String> {
    let bad = code::strings(text).into_iter().filter(|s| s.to_lowercase().contains("failed to"));
    bad.map(|s| format!("{name}: \"{s}\": an error says what was being done, and the cause")).collect()
}

#[test]
fn errors_say_what_was_being_done() {
    assert_eq!(failed_to("src/a.rs", "log(\"Failed to open x\")").len(), 1);
    assert_eq!(failed_to("src/a.rs", "// failed to\n"), [""; 0]);
    nothing(rust("src").iter().flat_map(|(name, text)| failed_to(name, text)));
}

// Kinds.

/// Part and name of a kind's file: `("kernel", "mount")` of src/kernel/mount/mod.rs. None for helpers.
fn kind(name: &str) -> Option<(&str, &str)> {
    let path = name.strip_prefix("src/")?.strip_suffix(".rs")?;
    let (part, rest) = path.split_once('/')?;
    let rest = rest.strip_suffix("/mod").unwrap_or(rest);
    let helper = |rest: &str| HELPERS.contains(&format!("{part}/{rest}").as_str());
    let is_kind = ["task", "file", "kernel"].contains(&part) && !helper(rest) && !rest.contains('/');
    let named_after = rest.split_once('_').is_some_and(|(first, _)| is_file(&format!("src/{part}/{first}")));
    (is_kind && !named_after).then_some((part, rest))
}

/// Whether there is this module, as a file or as a folder.
fn is_file(module: &str) -> bool {
    root().join(format!("{module}.rs")).exists() || root().join(module).is_dir()
}

fn headings(name: &str, text: &str) -> Vec<String> {
    let doc: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let says = |heading: &str| {
        let colon = format!("{heading}:");
        let inside = format!(". {colon}");
        let hash = format!("# {heading}");
        doc.iter().any(|line| line.starts_with(&colon) || line.contains(&inside) || *line == hash)
    };
    let missing = HEADINGS.iter().filter(|heading| !says(heading));
    missing.map(|heading| format!("{name}: its documentation does not say \"{heading}\"")).collect()
}

/// Sections of docs/kinds.md as `part/name`, and those without one of the headings.
fn sections(text: &str) -> (BTreeSet<String>, Vec<String>) {
    let (mut found, mut wrong) = (BTreeSet::new(), Vec::new());
    for part in text.split("\n# ").skip(1) {
        let title = part.lines().next().unwrap_or("").trim();
        for section in part.split("\n## ").skip(1) {
            let name = format!("{title}/{}", section.lines().next().unwrap_or("").trim());
            for heading in HEADINGS.iter().filter(|heading| !section.contains(&format!("\n- **{heading}**")))
            {
                wrong.push(format!("docs/kinds.md: {name}: no \"- **{heading}**\""));
            }
            found.insert(name);
        }
    }
    (found, wrong)
}

#[test]
fn every_kind_says_what_it_carries() {
    let whole = "//! What: a\n//! Reads: a\n//! # Rebuilds\n//! a\n//! Loses: a. Refuses: a\n";
    assert_eq!(headings("src/task/a.rs", whole), [""; 0]);
    assert_eq!(headings("src/task/a.rs", &whole.replace("Reads:", "Takes:")).len(), 1);
    assert_eq!(kind("src/kernel/mount/mod.rs"), Some(("kernel", "mount")));
    for helper in
        ["src/task/remote.rs", "src/file/mod.rs", "src/kernel/mount/plan.rs", "src/file/unix_name.rs"]
    {
        assert_eq!(kind(helper), None, "{helper}");
    }
    let all = rust("src");
    nothing(all.iter().filter(|f| kind(&f.0).is_some()).flat_map(|(name, text)| headings(name, text)));
}

#[test]
fn the_list_of_kinds_is_in_step() {
    let example =
        "\n# task\n\n## a\n\n- **What** a\n- **Reads** a\n- **Rebuilds** a\n- **Loses** a\n- **Refuses** a\n";
    assert_eq!(sections(example), (BTreeSet::from(["task/a".into()]), Vec::new()));
    assert_eq!(sections(&example.replace("Loses", "Lacks")).1.len(), 1);
    let (listed, wrong) = sections(&text("docs/kinds.md"));
    let there: BTreeSet<String> =
        rust("src").iter().filter_map(|f| kind(&f.0)).map(|(part, name)| format!("{part}/{name}")).collect();
    let unlisted = there.difference(&listed).map(|kind| format!("docs/kinds.md: nothing about {kind}"));
    let gone = listed.difference(&there).map(|kind| format!("docs/kinds.md: there is no {kind} in src/"));
    nothing(unlisted.chain(gone).chain(wrong));
}

#[test]
fn the_list_of_helpers_is_in_step() {
    let gone = HELPERS.iter().filter(|helper| !is_file(&format!("src/{helper}")));
    nothing(gone.map(|helper| format!("src/{helper}.rs: HELPERS lists it, and it is gone")));
}

// Places.

/// Paths that exist for one person or on one machine: below a home directory, or where `here` is.
fn foreign_paths(name: &str, text: &str, here: &str) -> Vec<String> {
    let top = here.split('/').nth(1).unwrap_or("");
    let mut bad = vec!["/home/".to_owned(), "/Users/".to_owned(), here.to_owned()];
    if !TOP.contains(&top) {
        bad.push(format!("/{top}/"));
    }
    let begins = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || "/.-_".contains(c));
    bad.retain(|bad| text.match_indices(bad.as_str()).any(|(at, _)| begins(at)));
    bad.iter().map(|bad| format!("{name}: {bad}: a path of one machine")).collect()
}

fn foreign_hosts(name: &str, text: &str) -> Vec<String> {
    let mut bad = Vec::new();
    for (at, mark) in text.match_indices("://") {
        let scheme = text[..at].rsplit(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or("");
        let host: &str = text[at + mark.len()..]
            .split(|c: char| !(c.is_alphanumeric() || "-.".contains(c)))
            .next()
            .unwrap_or("");
        let local = host.is_empty() || host.starts_with("127.") || host == "localhost";
        if scheme.starts_with("http") && !local && !HOSTS.contains(&host) {
            bad.push(format!("{name}: {host}: not among HOSTS"));
        }
    }
    bad
}

#[test]
fn nothing_points_to_one_machine_or_registry() {
    let paths = |text| foreign_paths("a", text, "/build/rcsnap").len();
    assert_eq!(paths("run \"/home/me/x\""), 1);
    assert_eq!(paths("see /build/other/x"), 1);
    assert_eq!(paths("/proc/1/root /etc/x a/build/c //! target/build/x /build"), 0);
    assert_eq!(foreign_hosts("a", "see https://registry.example/x").len(), 1);
    assert_eq!(foreign_hosts("a", "http://127.0.0.1:80/ file://x"), [""; 0]);
    let all = written();
    nothing(all.iter().flat_map(|(name, text)| {
        let mut bad = foreign_paths(name, text, env!("CARGO_MANIFEST_DIR"));
        bad.extend(foreign_hosts(name, text));
        bad
    }));
}

// Documents.

/// Targets of relative links in a Markdown text.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    targets.map(|target| target.split('#').next().unwrap_or(target)).collect()
}

#[test]
fn links_of_documents_lead_somewhere() {
    assert_eq!(links("[a](b.md#c), [d](https://e/f), [g](#h)"), ["b.md"]);
    let pages = written().into_iter().filter(|(name, _)| name.ends_with(".md"));
    nothing(pages.flat_map(|(name, text)| {
        let folder = root().join(&name).parent().unwrap().to_owned();
        let dead = links(&text).into_iter().filter(|link| !folder.join(link).exists());
        dead.map(|link| format!("{name}: {link} is not there")).collect::<Vec<_>>()
    }));
}

/// What is wrong with the number of a decision: `docs/decisions/0010-crc-and-lz4.md` begins with "# 0010: ".
fn decision(name: &str, text: &str) -> Vec<String> {
    let base = name.rsplit('/').next().unwrap_or(name);
    let number = base.get(..4).filter(|n| n.chars().all(|c| c.is_ascii_digit())).unwrap_or("");
    let good =
        !number.is_empty() && base.get(4..5) == Some("-") && text.starts_with(&format!("# {number}: "));
    if good { Vec::new() } else { vec![format!("{name}: not NNNN-title.md that begins with \"# NNNN: \"")] }
}

#[test]
fn decisions_are_numbered() {
    assert_eq!(decision("docs/decisions/0010-a.md", "# 0010: A\n"), [""; 0]);
    assert_eq!(decision("docs/decisions/0010-a.md", "# 0011: A\n").len(), 1);
    assert_eq!(decision("docs/decisions/a.md", "# 0010: A\n").len(), 1);
    let all = files("docs/decisions");
    nothing(all.iter().flat_map(|name| decision(name, &text(name))));
    let numbers: BTreeSet<&str> = all.iter().filter_map(|name| name.rsplit('/').next()?.get(..4)).collect();
    assert_eq!(numbers.len(), all.len(), "two decisions have one number: {all:?}");
}

// docs/porting.md.

/// Names in the first column of the tables below a heading of a document, up to the next one.
fn column(document: &str, heading: &str) -> BTreeSet<String> {
    let lines = document.lines().skip_while(|line| line.trim_start_matches('#').trim() != heading).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned())).collect()
}

/// Items of a trait, or public fields of a structure: the names between its line and the next closing brace at
/// the margin.
fn items(text: &str, begin: &str) -> BTreeSet<String> {
    let lines = text.lines().skip_while(|line| !line.starts_with(begin)).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('}'));
    let name = |line: &str| {
        let words = ["    fn ", "    const ", "    pub "];
        let rest = words.iter().find_map(|word| line.strip_prefix(word))?;
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().map(Into::into)
    };
    lines.filter_map(name).collect()
}

fn differ(what: &str, told: &BTreeSet<String>, are: &BTreeSet<String>) -> Vec<String> {
    told.symmetric_difference(are).map(|name| format!("docs/porting.md: {what}: {name}")).collect()
}

#[test]
fn porting_lists_what_an_architecture_provides() {
    let document = text("docs/porting.md");
    let contract = text("src/arch/mod.rs");
    let targets = text("tests/lab/src/toolchain/target.rs");
    for (heading, of, begin) in [
        ("Registers", &contract, "pub trait Registers"),
        ("Processor", &contract, "pub trait Processor"),
        ("The toolchain", &targets, "pub struct Target "),
    ] {
        let are = items(of, begin);
        assert!(!are.is_empty(), "{begin}");
        nothing(differ(heading, &column(&document, heading), &are));
    }
}

#[test]
fn porting_lists_the_files_that_ask_for_the_architecture() {
    let asks = |text: &str| text.contains("target_arch") || text.contains("target_pointer_width");
    let outside = |name: &str| !name.starts_with("src/arch/");
    let code = rust("src").into_iter().chain(rust("tests/zoo"));
    let are = code.filter(|(name, text)| outside(name) && asks(text)).map(|(name, _)| name).collect();
    nothing(differ("Elsewhere", &column(&text("docs/porting.md"), "Elsewhere"), &are));
}

#[test]
fn a_name_that_porting_lacks_is_seen() {
    let document = "### A\n\n| item | holds |\n|---|---|\n| `x` | one |\n\n### B\n\n| `y` | two |\n";
    let code = "pub trait A: Sized {\n    /// One.\n    fn x(&self);\n    const Z: u8;\n}\nfn y() {}\n";
    assert_eq!(differ("A", &column(document, "A"), &items(code, "pub trait A")), ["docs/porting.md: A: Z"]);
}
