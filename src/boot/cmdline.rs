//! The kernel command line: its words, and what they say about this boot.

use crate::sorted::Listed;
use crate::sys::fs;
use crate::text;

/// The words of the command line, in order, without quotes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cmdline {
    words: Vec<String>,
}

/// Words that ask for a maintenance shell, in the spelling of sysvinit, systemd and Buildroot users.
const MAINTENANCE: [&str; 7] = ["single", "s", "S", "1", "-b", "emergency", "rescue"];

impl Cmdline {
    /// Splits a command line as the kernel does: at blanks that are not inside double quotes.
    #[must_use]
    pub fn parse(text: &str) -> Cmdline {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut quoted = false;
        for c in text.chars() {
            match c {
                '"' => quoted = !quoted,
                c if c.is_ascii_whitespace() && !quoted => {
                    if !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                    }
                }
                c => word.push(c),
            }
        }
        if !word.is_empty() {
            words.push(word);
        }
        Cmdline { words }
    }

    /// The kernel's command line, or nothing without /proc. A loader may leave bytes in it that are no text: the other
    /// words still count.
    #[must_use]
    pub fn kernel() -> Cmdline {
        Cmdline::parse(&String::from_utf8_lossy(&fs::read("/proc/cmdline").unwrap_or_default()))
    }

    /// The command line of a cell: in a pid namespace the arguments of PID 1 stand for it, since
    /// /proc/cmdline is the host's.
    #[must_use]
    pub fn of_cell(args: &[String]) -> Cmdline {
        Cmdline { words: args.get(1..).unwrap_or_default().to_vec() }
    }

    /// The same, for a process of the cell: as the boot noted it, in the form of /proc/PID/cmdline.
    #[must_use]
    pub fn noted(bytes: &[u8]) -> Cmdline {
        let args = bytes.strip_suffix(&[0]).unwrap_or(bytes).split(|byte| *byte == 0);
        Cmdline::of_cell(&args.map(|arg| String::from_utf8_lossy(arg).into_owned()).list())
    }

    /// What [`Cmdline::noted`] reads.
    #[must_use]
    pub fn note(words: &[String]) -> String {
        let name = "rcsnap".to_owned();
        std::iter::once(&name).chain(words).map(|word| format!("{word}\0")).collect()
    }

    /// All words.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The last `NAME=value`; the kernel lets the last one win as well.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.words.iter().rev().find_map(|word| {
            let (found, value) = word.split_once('=')?;
            (found == name).then_some(value)
        })
    }

    /// Whether the word stands there alone.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }

    /// Why this boot is none of rcsnap's business, if it is not.
    #[must_use]
    pub fn left_alone(&self) -> Option<String> {
        if self.get("rcsnap") == Some("off") {
            return Some("rcsnap=off".into());
        }
        if let Some(init) = self.get("init").filter(|init| is_shell(init)) {
            return Some(format!("init={init}"));
        }
        // Words after a lone "--" are for init only; before it they are for both.
        let word = self.words.iter().find(|word| MAINTENANCE.contains(&word.as_str()))?;
        Some(format!("\"{word}\" on the command line"))
    }
}

/// Whether a path names a shell: sh, ash, bash, dash, zsh and their like, or a multi-call BusyBox.
#[must_use]
pub fn is_shell(path: &str) -> bool {
    let name = text::file_name(path);
    name.ends_with("sh") || name == "busybox"
}

#[cfg(test)]
mod tests {
    use super::Cmdline;

    #[test]
    fn words_are_split_outside_quotes() {
        let line = Cmdline::parse("console=ttyS0 dyndbg=\"file a +p\"  ro\n");
        assert_eq!(line.words(), ["console=ttyS0", "dyndbg=file a +p", "ro"]);
        assert_eq!(line.get("dyndbg"), Some("file a +p"));
        assert!(line.has("ro") && !line.has("rw"));
    }

    #[test]
    fn words_of_a_cell_are_noted_for_its_processes() {
        let words = ["rcsnap.store=/dev/a b".to_owned(), "3".to_owned()];
        assert_eq!(Cmdline::noted(Cmdline::note(&words).as_bytes()).words(), words);
        assert!(Cmdline::noted(Cmdline::note(&[]).as_bytes()).words().is_empty());
        assert!(Cmdline::noted(b"").words().is_empty());
    }

    #[test]
    fn the_last_value_wins() {
        assert_eq!(Cmdline::parse("root=/dev/a root=UUID=1=2").get("root"), Some("UUID=1=2"));
    }

    #[test]
    fn maintenance_boots_are_left_alone() {
        for text in
            ["rcsnap=off", "init=/bin/sh", "single", "root=/dev/a S", "init=/bin/busybox", "emergency"]
        {
            assert!(Cmdline::parse(text).left_alone().is_some(), "{text}");
        }
        for text in ["", "rcsnap=auto", "init=/sbin/rcsnap", "init=/sbin/init", "init=/lib/systemd/systemd"] {
            assert_eq!(Cmdline::parse(text).left_alone(), None, "{text}");
        }
    }
}
