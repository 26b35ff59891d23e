//! What stands behind `rcsnap` on the command line: verbs, what each takes, its help, and mistakes.
//!
//! A verb takes switches, one number, and one file. That is a table here, and the code that reads it is there
//! once, where a crate makes some for each verb.

use std::fmt::Write as _;

use super::Outcome;

/// A command.
pub struct Verb {
    /// The word for it.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// What it takes.
    pub takes: &'static [Takes],
    /// Does it.
    pub run: fn(&Args) -> Outcome,
}

/// Something that a command takes.
pub struct Takes {
    /// The word after the dashes, or what the help calls the file.
    pub name: &'static str,
    /// In what form it is given.
    pub form: Form,
    /// What it is for.
    pub about: &'static str,
}

/// In what form something is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `--json`
    Switch,
    /// `--tree 17`
    Number,
    /// `--tree 17`, and it must be there.
    NeededNumber,
    /// `--allow 'close = tcp'`, more than once
    Line,
    /// `image.rcsnap`
    File,
    /// `image.rcsnap`, and it must be there.
    NeededFile,
}

/// What was given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Args {
    switches: Vec<&'static str>,
    /// The number.
    pub number: Option<u32>,
    /// The lines.
    pub lines: String,
    /// The file.
    pub file: Option<String>,
}

impl Args {
    /// Whether a switch was given.
    #[must_use]
    pub fn has(&self, switch: &str) -> bool {
        self.switches.contains(&switch)
    }
}

/// What the words after `rcsnap` ask for.
pub enum Asked {
    /// A command.
    Run(&'static Verb, Args),
    /// Help, which is here.
    Help(String),
    /// A mistake was made, which is told here.
    Mistake(String),
}

/// Whether a word asks for help.
fn is_help(word: &str) -> bool {
    matches!(word, "help" | "--help")
}

/// Reads the words after `rcsnap`.
#[must_use]
pub fn read(words: &[&str], verbs: &'static [Verb]) -> Asked {
    let Some((first, rest)) = words.split_first() else {
        return Asked::Mistake(format!("What is to be done?\n{}", overview(verbs)));
    };
    let find = |word: &str| verbs.iter().find(|verb| verb.name == word);
    if is_help(first) {
        return Asked::Help(match rest.first().and_then(|word| find(word)) {
            Some(verb) => verb.help(),
            None => overview(verbs),
        });
    }
    let Some(verb) = find(first) else { return Asked::Mistake(format!("Unrecognized argument: {first}")) };
    if rest.iter().take_while(|word| **word != "--").any(|word| is_help(word)) {
        return Asked::Help(verb.help());
    }
    match verb.read(rest) {
        Ok(args) => Asked::Run(verb, args),
        Err(mistake) => Asked::Mistake(mistake),
    }
}

impl Verb {
    fn read(&self, words: &[&str]) -> Result<Args, String> {
        let mut args = Args::default();
        let mut only_files = false;
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let option = word.strip_prefix("--").filter(|_| !only_files);
            let taken = self.takes.iter().find(|takes| match option {
                Some(option) => takes.name == option && !takes.form.is_file(),
                None => takes.form.is_file(),
            });
            match taken.map(|takes| (takes.form, takes.name)) {
                _ if option == Some("") => only_files = true,
                Some((Form::Switch, name)) => args.switches.push(name),
                Some((form @ (Form::Number | Form::NeededNumber | Form::Line), _))
                    if form == Form::Line || args.number.is_none() =>
                {
                    let value =
                        words.next().ok_or_else(|| format!("No value provided for option '{word}'."))?;
                    if form == Form::Line {
                        args.lines.extend([value, "\n"]);
                        continue;
                    }
                    let number =
                        value.parse().map_err(|_| format!("Option '{word}': {value} is not a number."))?;
                    args.number = Some(number);
                }
                Some((Form::File | Form::NeededFile, _))
                    if args.file.is_none() && (only_files || !word.starts_with('-')) =>
                {
                    args.file = Some(word.to_owned());
                }
                _ => return Err(format!("Unrecognized argument: {word}")),
            }
        }
        let missing = self.takes.iter().find(|takes| match takes.form {
            Form::NeededNumber => args.number.is_none(),
            Form::NeededFile => args.file.is_none(),
            _ => false,
        });
        match missing {
            Some(takes) => Err(format!("Required and not provided: {}", takes.usage())),
            None => Ok(args),
        }
    }

    fn help(&self) -> String {
        let mut text = format!("Usage: rcsnap {}", self.name);
        for takes in self.takes {
            text += " ";
            text += &takes.usage();
        }
        let _ = write!(text, "\n\n{}\n", self.about);
        for (title, files) in [("Positional Arguments", true), ("Options", false)] {
            let mut entries = self.takes.iter().filter(|takes| takes.form.is_file() == files).peekable();
            if !files || entries.peek().is_some() {
                let _ = write!(text, "\n{title}:\n");
            }
            for Takes { name, about, .. } in entries {
                entry(&mut text, if files { "" } else { "--" }, name, about);
            }
        }
        text + HELP
    }
}

/// The line about help itself.
const HELP: &str = "  --help, help      display usage information\n";

impl Form {
    fn is_file(self) -> bool {
        matches!(self, Form::File | Form::NeededFile)
    }
}

impl Takes {
    /// How it is written.
    fn usage(&self) -> String {
        let name = self.name;
        match self.form {
            Form::Switch => format!("[--{name}]"),
            Form::Number => format!("[--{name} <{name}>]"),
            Form::Line => format!("[--{name} <line>]..."),
            Form::NeededNumber => format!("--{name} <{name}>"),
            Form::File => format!("[--] [<{name}>]"),
            Form::NeededFile => format!("[--] <{name}>"),
        }
    }
}

/// The help of `rcsnap` itself.
fn overview(verbs: &[Verb]) -> String {
    let mut text = format!(
        "Usage: rcsnap <command> [<args>]\n\nBoots an embedded Linux board from a picture of itself.\n\n\
         Options:\n{HELP}\nCommands:\n"
    );
    for Verb { name, about, .. } in verbs {
        entry(&mut text, "", name, about);
    }
    text + "\nNotes:\n  As PID 1 it boots the board; see docs/.\n\nError codes:\n  \
            1 An error, told on stderr.\n  \
            2 A mistake in the arguments.\n  \
            3 Obstacles stand in the way of a capture (check, capture).\n  \
            4 There is no image (inspect).\n"
}

/// A name, and beside it what it is, in lines of 80 characters.
fn entry(text: &mut String, dashes: &str, name: &str, about: &str) {
    const INDENT: usize = 20;
    let mut column = 2 + dashes.len() + name.len();
    let _ = write!(text, "  {dashes}{name}");
    for word in about.split(' ') {
        if column >= INDENT && column + 1 + word.len() > 80 {
            text.push('\n');
            column = 0;
        }
        let gap = if column < INDENT { INDENT - column } else { 1 };
        let _ = write!(text, "{:gap$}{word}", "");
        column += gap + word.len();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::{Args, Asked, read};
    use crate::cli::VERBS;

    fn given(words: &str) -> Result<Args, String> {
        match read(&words.split(' ').collect::<Vec<_>>(), &VERBS) {
            Asked::Run(_, args) => Ok(args),
            Asked::Help(text) | Asked::Mistake(text) => Err(text),
        }
    }

    #[test]
    fn switches_numbers_and_files_are_read() {
        let args = given("capture --kill file --tree 17").unwrap();
        assert_eq!((args.has("kill"), args.has("wait")), (true, false));
        assert_eq!((args.number, args.file.as_deref()), (Some(17), Some("file")));
        assert_eq!(given("restore -- --wait").unwrap().file.as_deref(), Some("--wait"));
        assert_eq!(given("check").unwrap(), Args::default());
        assert!(given("check --json --json").unwrap().has("json"));
        assert_eq!(given("check --allow a=1 --allow b=2").unwrap().lines, "a=1\nb=2\n");
    }

    #[test]
    fn mistakes_are_named() {
        for (words, text) in [
            ("nope", "Unrecognized argument: nope"),
            ("check -h", "Unrecognized argument: -h"),
            ("check --kill", "Unrecognized argument: --kill"),
            ("check --tree", "No value provided for option '--tree'."),
            ("check --tree z", "Option '--tree': z is not a number."),
            ("check --tree 1 --tree 2", "Unrecognized argument: --tree"),
            ("capture file", "Required and not provided: --tree <tree>"),
            ("capture --tree 1", "Required and not provided: [--] <file>"),
            ("restore a b", "Unrecognized argument: b"),
            ("ready --", ""),
        ] {
            assert_eq!(given(words).err().unwrap_or_default(), text, "{words}");
        }
    }

    #[test]
    fn help_has_lines_of_80_characters() {
        let help = given("help").unwrap_err();
        assert!(
            help.contains(
                "\n  abi               Print the sections that this rcsnap reads and writes, with\n"
            )
        );
        assert!(help.contains(
            "\n                    the hash of each definition; with --image, those of an image\n"
        ));
        assert!(help.lines().all(|line| line.len() <= 80));
        let help = given("capture --help").unwrap_err();
        assert!(help.starts_with(
            "Usage: rcsnap capture --tree <tree> [--kill] [--allow <line>]... [--] <file>\n\nCapture a"
        ));
        assert!(help.contains(
            "\nPositional Arguments:\n  file              the image to write\n\nOptions:\n  --tree "
        ));
        assert_eq!(given("help capture").unwrap_err(), help);
        assert!(matches!(read(&[], &VERBS), Asked::Mistake(text) if text.contains("Commands:")));
    }
}
