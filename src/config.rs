//! /etc/rcsnap.conf, and `rcsnap.<key>=` on the kernel command line.
//!
//! ```text
//! # a comment
//! store = PARTLABEL=rcsnap
//! input.skip += /etc/machine-state     # more than the defaults
//! rerun = S40network: /sbin/udhcpc
//! ```
//!
//! The file may be absent: every key has a default that is right for a stock BusyBox or sysvinit system. `=`
//! sets a key, for a list from its first line on; `+=` adds to a list. Nothing in the file stops a boot: what
//! is not understood is a warning with file and line, and the key keeps the value it had.

mod policy;

use std::fmt;

use nix::errno::Errno;

use crate::log;
use crate::sorted::Listed;
use crate::sys::fs;
use crate::text;
pub use policy::Service;

/// Where the file is.
pub const PATH: &str = "/etc/rcsnap.conf";

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Any text.
    Text,
    /// Several texts, one a line.
    List,
    /// A whole number.
    Number,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Services and what they hold, several lines: in this form.
    Policy(&'static str),
}

/// The definition of a key.
#[derive(Debug)]
pub struct Definition {
    /// Its name in the file.
    pub name: &'static str,
    /// What it takes.
    pub sort: Sort,
    /// Its default; for a list one value a line.
    pub default: &'static str,
    /// One line for `rcsnap config`.
    pub help: &'static str,
}

macro_rules! keys {
    ($( $key:ident, $name:literal, $sort:expr, $default:expr, $help:literal; )*) => {
        /// Every key there is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Key { $( #[doc = $help] $key ),* }

        /// The definitions, in the order of [`Key`].
        pub static KEYS: &[Definition] =
            &[$( Definition { name: $name, sort: $sort, default: $default, help: $help } ),*];
    };
}

const NO_YES: Sort = Sort::Choice(&["no", "yes"]);

keys! {
    Store, "store", Sort::Text, "", "where images are kept: /dev/X, PARTLABEL=, PARTUUID=, LABEL=, UUID= or file:DEVICE:PATH";
    StoreSlots, "store.slots", Sort::Number, "2", "slots that a new store is divided into, 1 to 4";
    StoreSize, "store.size", Sort::Number, "0", "MiB of a new store file; 0 is half of what is free, at most 128";
    Init, "init", Sort::Text, "/sbin/init", "the real init";
    KeyScripts, "key.scripts", Sort::List, SCRIPTS, "files whose content is part of the key (globs)";
    KeyBoard, "key.board", Sort::Text, "", "text that stands for the board in the key, instead of device tree or DMI";
    KeyIgnore, "key.ignore", Sort::List, VOLATILE, "words of the kernel command line that differ between boots (globs)";
    InputSkip, "input.skip", Sort::List, SKIP, "files that no restore depends on, though they are in /etc or open (globs)";
    InputVerify, "input.verify", Sort::Choice(&["stat", "content"]), "stat", "how inputs are compared: by identity and times, or by content";
    Writable, "writable", Sort::Policy(policy::PATHS), "", "files on flash that may be open for writing in an image: [SERVICE:] globs";
    Reopen, "reopen", Sort::Policy(policy::PATHS), "", "device nodes that a restore opens afresh, losing what the driver remembered: [SERVICE:] globs";
    Close, "close", Sort::Policy(policy::SOCKETS), "", "connections that end on a restored boot, instead of preventing a capture: [SERVICE:] tcp:ADDRESS:PORT or unix:PATH (globs)";
    Refuse, "refuse", Sort::Policy(policy::SERVICES), "", "executables that no image may hold, whatever else is allowed (globs)";
    Rerun, "rerun", Sort::List, RERUN, "scripts that run on every boot: NAME: executables or pid files of their processes";
    RerunRequired, "rerun_required", NO_YES, "no", "whether a failed rerun leaves the attempt unconfirmed";
    Hooks, "hooks", Sort::Text, "/etc/rcsnap", "directory of before-capture.d and after-restore.d";
    Confirm, "confirm", Sort::Choice(&["auto", "manual"]), "auto", "who confirms an attempt: rcsnap ready, or rcsnap confirm";
    LimitReady, "limit.ready", Sort::Number, "600", "seconds until a cold boot must be ready";
    LimitStop, "limit.stop_ms", Sort::Number, "10000", "ms that tasks may stand still during a capture";
    LimitDevice, "limit.device_ms", Sort::Number, "2000", "ms to wait for the store and the devices an image refers to";
    LimitHook, "limit.hook_ms", Sort::Number, "10000", "ms that a hook or rerun script may take";
    Log, "log", Sort::Choice(&["error", "warning", "notice", "info", "debug"]), "info", "what is logged";
    Verify, "verify", NO_YES, "no", "whether every byte of an image is checked before the restore begins";
}

/// Scripts and what init reads, in the places of BusyBox, sysvinit, Buildroot, Alpine and OpenWrt.
const SCRIPTS: &str = "/etc/inittab\n/etc/fstab\n/etc/init.d/*\n/etc/rc*.d/*\n/etc/rc.d/*\n/etc/rc.local\n\
    /etc/rc.conf\n/etc/rc.common\n/etc/conf.d/*\n/etc/default/*\n/etc/runlevels/*/*";

/// What boot loaders put into the command line anew each time.
const VOLATILE: &str =
    "BOOT_IMAGE=*\ninitrd=*\nbootcount=*\nboot_reason=*\nreset_cause=*\nrng_seed=*\nandroidboot.*";

/// What scripts and daemons write into /etc as they go, and what is generated at the first boot.
const SKIP: &str = "/etc/resolv.conf*\n/etc/mtab*\n/etc/adjtime\n/etc/ld.so.cache~\n/etc/.updated\n/etc/.pwd.lock\n\
    /etc/network/run\n/etc/rcsnap.off\n/etc/random-seed\n/etc/fake-hwclock.data\n/etc/.rcsnap*";

/// Services that draw their secrets once and keep them: each boot needs its own. Without the script the line
/// means nothing.
const RERUN: &str = "S50dropbear: /usr/sbin/dropbear\nS50sshd: /usr/sbin/sshd";

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the file.
    Line(u32),
    /// The kernel command line.
    Cmdline,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Line(line) => write!(f, "{PATH}:{line}"),
            Origin::Cmdline => f.write_str("command line"),
        }
    }
}

/// One value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The text.
    pub text: String,
    /// Where it came from.
    pub origin: Origin,
}

/// A line `rerun = NAME: process, process`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rerun {
    /// The script, a name in /etc/init.d or a path.
    pub script: String,
    /// Executables or pid files of its processes.
    pub processes: Vec<String>,
}

/// The effective configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    values: Vec<Vec<Value>>,
    /// What was not understood, each with file and line. Log them once.
    pub warnings: Vec<String>,
    /// The values without those of the command line: what the key is made of.
    settled: String,
}

impl Config {
    /// Reads the file and applies the words of the kernel command line.
    #[must_use]
    pub fn load(words: &[String]) -> Config {
        Config::load_with("", words)
    }

    /// The same, as if these lines stood at the end of the file.
    #[must_use]
    pub fn load_with(lines: &str, words: &[String]) -> Config {
        match fs::read(PATH) {
            Ok(bytes) => Config::parse(&format!("{}\n{lines}", String::from_utf8_lossy(&bytes)), words),
            Err(errno) => {
                let mut config = Config::parse(lines, words);
                if errno != Errno::ENOENT {
                    config.warnings.push(format!("config: reading {PATH}: {}", crate::error::name(errno)));
                }
                config
            }
        }
    }

    /// The configuration of a text and of the words of a kernel command line.
    #[must_use]
    pub fn parse(text: &str, words: &[String]) -> Config {
        let mut config = Config { values: Vec::new(), warnings: Vec::new(), settled: String::new() };
        for key in KEYS {
            let mut values = Vec::new();
            for line in key.default.lines() {
                values.push(Value { text: line.into(), origin: Origin::Default });
            }
            config.values.push(values);
        }
        for (number, line) in (1u32..).zip(text.lines()) {
            config.line(line, Origin::Line(number));
        }
        config.settled = config.lines();
        for word in words {
            // rcsnap.fault belongs to the stages, not to the configuration.
            if let Some(setting) = word.strip_prefix("rcsnap.")
                && !setting.starts_with("fault=")
            {
                config.line(setting, Origin::Cmdline);
            }
        }
        config
    }

    fn warn(&mut self, origin: Origin, what: &str) {
        self.warnings.push(format!("config: {origin}: {what}"));
    }

    /// Applies one line.
    fn line(&mut self, line: &str, origin: Origin) {
        // A comment begins the line or follows a blank, so that a value may hold a '#'.
        let cut = text::find(line, " #").or_else(|| text::find(line, "\t#")).unwrap_or(line.len());
        let line = line[..cut].trim_ascii();
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        let Some((name, text)) = line.split_once('=') else {
            return self.warn(origin, &format!("\"{line}\" is not \"key = value\""));
        };
        let (name, adds) = match name.trim_ascii_end().strip_suffix('+') {
            Some(name) => (name.trim_ascii(), true),
            None => (name.trim_ascii(), false),
        };
        let text = text.trim_ascii();
        let Some(at) = KEYS.iter().position(|key| key.name == name) else {
            let hint = nearest(name).map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default();
            return self.warn(origin, &format!("unknown key \"{name}\"{hint}"));
        };
        if let Some(problem) = problem(&KEYS[at], text) {
            return self.warn(origin, &problem);
        }
        let is_list = matches!(KEYS[at].sort, Sort::List | Sort::Policy(_));
        if adds && !is_list {
            return self.warn(origin, &format!("\"{name}\" is no list, so += cannot add to it"));
        }
        let values = &mut self.values[at];
        let same_source = |value: &Value| {
            std::mem::discriminant(&value.origin) == std::mem::discriminant(&origin)
                && value.origin != Origin::Default
        };
        if !is_list || (!adds && !values.iter().any(same_source)) {
            values.clear();
        }
        if !text.is_empty() {
            values.push(Value { text: text.into(), origin });
        }
    }

    /// The values of a key, with their origins.
    #[must_use]
    pub fn values(&self, key: Key) -> &[Value] {
        &self.values[key as usize]
    }

    /// The value of a key that is no list; empty if it was set to nothing.
    #[must_use]
    pub fn text(&self, key: Key) -> &str {
        self.values(key).last().map_or("", |value| &value.text)
    }

    /// The values of a list.
    pub fn list(&self, key: Key) -> impl Iterator<Item = &str> {
        self.values(key).iter().map(|value| value.text.as_str())
    }

    /// The value of a number.
    #[must_use]
    pub fn number(&self, key: Key) -> u32 {
        let text = if self.text(key).is_empty() { KEYS[key as usize].default } else { self.text(key) };
        text.parse().unwrap_or(0)
    }

    /// Whether a key is `yes`.
    #[must_use]
    pub fn is_yes(&self, key: Key) -> bool {
        self.text(key) == "yes"
    }

    /// Whether one of a list's globs matches a path.
    #[must_use]
    pub fn matches(&self, key: Key, path: &str) -> bool {
        self.list(key).any(|glob| crate::glob::matches(glob, path))
    }

    /// The `rerun` lines.
    #[must_use]
    pub fn reruns(&self) -> Vec<Rerun> {
        let mut reruns = Vec::new();
        for Value { text, origin } in self.values(Key::Rerun) {
            let (script, list) = text.split_once(':').unwrap_or((text, ""));
            // A script of the defaults that the system does not have is not missed.
            if *origin == Origin::Default && !crate::sys::stat::exists(format!("/etc/init.d/{script}")) {
                continue;
            }
            let mut processes = Vec::new();
            for word in policy::words(list) {
                processes.push(word.to_owned());
            }
            reruns.push(Rerun { script: script.trim_ascii().into(), processes });
        }
        reruns
    }

    /// The level of `log`.
    #[must_use]
    pub fn level(&self) -> log::Level {
        match self.text(Key::Log) {
            "error" => log::Level::Error,
            "warning" => log::Level::Warning,
            "notice" => log::Level::Notice,
            "debug" => log::Level::Debug,
            _ => log::Level::Info,
        }
    }

    /// What the file and the defaults say, without the command line: a part of the key.
    #[must_use]
    pub fn settled(&self) -> &str {
        &self.settled
    }

    /// All values as lines of the file.
    fn lines(&self) -> String {
        let mut text = String::new();
        for (key, values) in KEYS.iter().zip(&self.values) {
            for value in values {
                text.extend([key.name, " = ", &value.text, "\n"]);
            }
        }
        text
    }

    /// The text of `rcsnap config`: each value with its origin, each key with its help.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (key, values) in KEYS.iter().zip(&self.values) {
            text.extend(["# ", key.help, "\n"]);
            if values.is_empty() {
                text.extend([key.name, " =\n"]);
            }
            for value in values {
                text.extend([key.name, " = ", &value.text, "  # ", &value.origin.to_string(), "\n"]);
            }
        }
        text
    }
}

/// Why a text is no value for a key.
fn problem(key: &Definition, value: &str) -> Option<String> {
    let joined;
    let (takes, wrong) = match key.sort {
        Sort::Number if value.parse::<u32>().is_err() => ("a whole number", value),
        Sort::Choice(words) if !words.contains(&value) => {
            joined = text::joined(&mut words.iter().copied(), " or ");
            (joined.as_str(), value)
        }
        Sort::Policy(takes) => (takes, policy::wrong(takes, value)?),
        _ => return None,
    };
    Some(format!("\"{}\" takes {takes}, not \"{wrong}\"", key.name))
}

/// The known key that is most like a name, if one is near enough to be meant.
fn nearest(name: &str) -> Option<&'static str> {
    let near = KEYS.iter().map(|key| (distance(name, key.name), key.name)).min()?;
    (near.0 <= 1 + name.len() / 3).then_some(near.1)
}

/// How many letters must be changed, put in or left out (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).list();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let step = (corner + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = std::mem::replace(&mut row[j + 1], step);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{Config, KEYS, Key, Origin, Sort, problem};

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(Into::into).collect()
    }

    #[test]
    fn every_default_is_a_value() {
        for key in KEYS {
            assert!(
                matches!(key.sort, Sort::List | Sort::Policy(_)) || problem(key, key.default).is_none(),
                "{}",
                key.name
            );
        }
        let config = Config::parse("", &[]);
        assert_eq!(config.text(Key::Init), "/sbin/init");
        assert_eq!(config.number(Key::LimitReady), 600);
        assert!(config.matches(Key::KeyScripts, "/etc/init.d/S01syslogd"));
        assert!(config.matches(Key::InputSkip, "/etc/resolv.conf.tmp"));
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn file_and_command_line_say_where_a_value_came_from() {
        let config = Config::parse(
            "# board\nstore = /dev/vdb\ninit=/bin/init # ours\n",
            &words("rcsnap.store=LABEL=x rcsnap=auto rcsnap.fault=arm"),
        );
        assert_eq!(config.text(Key::Store), "LABEL=x");
        assert_eq!(config.values(Key::Store)[0].origin, Origin::Cmdline);
        assert_eq!(config.text(Key::Init), "/bin/init");
        assert_eq!(config.values(Key::Init)[0].origin, Origin::Line(3));
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        assert!(config.settled().contains("store = /dev/vdb\n"), "the key does not know the command line");
        assert!(config.describe().contains("store = LABEL=x  # command line\n"));
    }

    #[test]
    fn lists_are_set_from_their_first_line_or_added_to() {
        let config = Config::parse("rerun = a: /bin/x, y\nrerun = b\ninput.skip += /etc/x#y\n", &[]);
        let reruns = config.reruns();
        assert_eq!(reruns[0].processes, ["/bin/x", "y"]);
        assert_eq!((reruns.len(), reruns[1].script.as_str()), (2, "b"));
        assert!(config.matches(Key::InputSkip, "/etc/mtab") && config.matches(Key::InputSkip, "/etc/x#y"));
        let config = Config::parse("input.skip = /etc/a\ninput.skip = /etc/b\n", &[]);
        assert_eq!(config.list(Key::InputSkip).collect::<Vec<_>>(), ["/etc/a", "/etc/b"]);
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line_and_changes_nothing() {
        let text =
            "\nstoer = /dev/vdb\nconfirm = perhaps\nlimit.ready = soon\nnonsense\nxyzzy=1\nlog += debug\n";
        let config = Config::parse(text, &[]);
        assert_eq!(
            config.warnings,
            [
                "config: /etc/rcsnap.conf:2: unknown key \"stoer\", did you mean \"store\"?",
                "config: /etc/rcsnap.conf:3: \"confirm\" takes auto or manual, not \"perhaps\"",
                "config: /etc/rcsnap.conf:4: \"limit.ready\" takes a whole number, not \"soon\"",
                "config: /etc/rcsnap.conf:5: \"nonsense\" is not \"key = value\"",
                "config: /etc/rcsnap.conf:6: unknown key \"xyzzy\"",
                "config: /etc/rcsnap.conf:7: \"log\" is no list, so += cannot add to it",
            ]
        );
        assert_eq!(Config { warnings: vec![], ..config }, Config::parse("", &[]));
    }
}
