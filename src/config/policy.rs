//! Lines about services and what they hold: `writable`, `reopen`, `close` as `[SERVICE:] OBJECT...`, and `refuse`
//! as `SERVICE...`.
//!
//! A service is named by its executable, as in `rerun`; a colon and a blank end its name. Services and objects are
//! globs. A line without a service is for all.

use super::{Config, Key};
use crate::sys::fs;
use crate::{glob, text};

/// What `writable` and `reopen` take.
pub(super) const PATHS: &str = "[SERVICE:] /PATH...";
/// What `close` takes.
pub(super) const SOCKETS: &str = "[SERVICE:] tcp[:ADDRESS[:PORT]]... or unix[:PATH]...";
/// What `refuse` takes.
pub(super) const SERVICES: &str = "/SERVICE...";

/// The names under which the configuration may have a service. Both are empty for one that is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// The file that it runs.
    pub executable: String,
    /// The path by which it was called: of the applets of one binary it tells which. Empty if that is not clear.
    pub called: String,
}

impl Service {
    /// The service of a process.
    #[must_use]
    pub fn of(pid: u32) -> Service {
        let executable = fs::link_text(format!("/proc/{pid}/exe")).unwrap_or_default();
        let line = fs::of_task(pid, "cmdline").unwrap_or_default();
        // What a daemon writes over its arguments begins with its name: `sshd: /usr/sbin/sshd [listener]`.
        let word = line.split(['\0', ' ', ':']).next().unwrap_or_default();
        let mut called = String::new();
        if text::file_name(word) == text::file_name(&executable) {
            called.push_str(&executable);
        } else {
            for folder in ["", "/sbin/", "/bin/", "/usr/sbin/", "/usr/bin/"] {
                let path = format!("{folder}{word}");
                if path.starts_with('/') && fs::real(&path).is_ok_and(|real| *real.as_os_str() == *executable)
                {
                    called = path;
                    break;
                }
            }
        }
        Service { executable, called }
    }

    /// The name that says most.
    #[must_use]
    pub fn name(&self) -> &str {
        if self.called.is_empty() { &self.executable } else { &self.called }
    }

    fn is(&self, name: &str) -> bool {
        glob::matches(name, &self.executable) || glob::matches(name, &self.called)
    }
}

/// The words of a line.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\t', ',']).filter(|word| !word.is_empty())
}

/// Whether a glob covers an object. `tcp` covers `tcp:10.0.2.2:80`, as a directory covers what is in it.
fn covers(glob: &str, object: &str) -> bool {
    glob::matches(glob, object)
        || !glob.starts_with('/') && object.strip_prefix(glob).is_some_and(|rest| rest.starts_with(':'))
}

impl Config {
    /// Whether a line of `writable`, `reopen` or `close` allows this object to a service.
    #[must_use]
    pub fn allows(&self, key: Key, service: &Service, object: &str) -> bool {
        self.list(key).any(|line| {
            let mut meant = true;
            words(line).any(|word| match word.strip_suffix(':') {
                Some(name) => {
                    meant = service.is(name);
                    false
                }
                None => meant && covers(word, object),
            })
        })
    }

    /// Whether `refuse` names a service.
    #[must_use]
    pub fn refuses(&self, service: &Service) -> bool {
        self.list(Key::Refuse).any(|line| words(line).any(|name| service.is(name)))
    }
}

/// The word that does not belong into such a line.
pub(super) fn wrong<'a>(takes: &str, line: &'a str) -> Option<&'a str> {
    let path = |word: &str| word == "*" || word.starts_with('/') && !text::has(word, ":/");
    words(line).find(|word| !match word.strip_suffix(':') {
        Some(name) => takes != SERVICES && path(name) && !line.ends_with(word),
        None if takes == SOCKETS => ["*", "tcp", "unix"].iter().any(|sort| word.starts_with(sort)),
        None => path(word),
    })
}

#[cfg(test)]
mod tests {
    use super::{Service, covers};
    use crate::config::{Config, Key};

    fn service(executable: &str, called: &str) -> Service {
        Service { executable: executable.into(), called: called.into() }
    }

    #[test]
    fn lines_are_for_all_or_for_one_service() {
        let gpsd = service("/usr/sbin/gpsd", "/usr/sbin/gpsd");
        let other = service("/usr/sbin/other", "");
        let nobody = Service::default();
        let text = "reopen = /usr/sbin/gpsd: /dev/ttyS0, /dev/pps*\nreopen = /dev/rtc0\nclose = /opt/*/x: tcp:10.0.*\n";
        let config = Config::parse(text, &[]);
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        let reopens = |service, object| config.allows(Key::Reopen, service, object);
        for object in ["/dev/ttyS0", "/dev/pps1", "/dev/rtc0"] {
            assert!(reopens(&gpsd, object), "{object}");
        }
        for object in ["/dev/ttyS1", "/dev/ttyS00", "/usr/sbin/gpsd"] {
            assert!(!reopens(&gpsd, object), "{object}");
        }
        assert!(!reopens(&other, "/dev/ttyS0") && reopens(&other, "/dev/rtc0"));
        assert!(!reopens(&nobody, "/dev/ttyS0") && reopens(&nobody, "/dev/rtc0"));
        // A line of one key means nothing for another.
        assert!(!config.allows(Key::Writable, &gpsd, "/dev/rtc0"));
        let x = service("/opt/a/x", "");
        assert!(config.allows(Key::Close, &x, "tcp:10.0.2.2:80"));
        assert!(!config.allows(Key::Close, &x, "tcp:10.1.2.2:80"));
        assert!(!config.allows(Key::Close, &gpsd, "tcp:10.0.2.2:80"));
    }

    #[test]
    fn an_applet_is_known_by_both_of_its_names() {
        let udhcpc = service("/bin/busybox", "/sbin/udhcpc");
        let unclear = service("/bin/busybox", "");
        for (line, first, second) in
            [("/sbin/udhcpc", true, false), ("/bin/busybox", true, true), ("/sbin/x", false, false)]
        {
            let config = Config::parse(&format!("writable = {line}: /a\nrefuse = {line}"), &[]);
            assert_eq!(config.allows(Key::Writable, &udhcpc, "/a"), first, "{line}");
            assert_eq!(config.allows(Key::Writable, &unclear, "/a"), second, "{line}");
            assert_eq!((config.refuses(&udhcpc), config.refuses(&unclear)), (first, second), "{line}");
        }
    }

    #[test]
    fn sockets_are_covered_from_their_beginning() {
        for glob in ["*", "tcp", "tcp:*", "tcp:10.0.2.2", "tcp:10.0.2.2:80", "tcp:*:80", "tcp:10.0.*"] {
            assert!(covers(glob, "tcp:10.0.2.2:80"), "{glob}");
        }
        for glob in ["tcp:10.0.2.2:8", "tcp:10.0.2", "tc", "unix", "/tcp"] {
            assert!(!covers(glob, "tcp:10.0.2.2:80"), "{glob}");
        }
        assert!(covers("tcp:[fe80::1]:80", "tcp:[fe80::1]:80") && covers("unix", "unix:/run/x"));
        // A name with a colon is not the shorter name.
        assert!(!covers("/dev/x", "/dev/x:1"));
    }

    #[test]
    fn bad_lines_are_named_and_change_nothing() {
        let good = "close = tcp\nreopen = /dev/a\nrefuse = /bin/a\n";
        let bad = "close = yes\nclose = /bin/x: /dev/x\nclose = /bin/x:tcp\nreopen = gpsd: /dev/x\nreopen = /bin/x:\n\
                   reopen = /bin/x:/dev/x\nreopen = /bin/x: ttyS0\nrefuse = /bin/x: /bin/y\nrefuse = sshd\nwritable = a\n";
        let config = Config::parse(&[good, bad].concat(), &[]);
        let words = [
            "yes",
            "/dev/x",
            "/bin/x:tcp",
            "gpsd:",
            "/bin/x:",
            "/bin/x:/dev/x",
            "ttyS0",
            "/bin/x:",
            "sshd",
            "a",
        ];
        assert_eq!(config.warnings.len(), words.len(), "{:?}", config.warnings);
        for ((line, word), warning) in (4..).zip(words).zip(&config.warnings) {
            assert!(warning.starts_with(&format!("config: /etc/rcsnap.conf:{line}: ")), "{warning}");
            assert!(warning.ends_with(&format!(", not \"{word}\"")), "{warning}");
        }
        assert_eq!(Config { warnings: Vec::new(), ..config }, Config::parse(good, &[]));
        assert!(config_of("close =\nreopen =\nrefuse =\n").warnings.is_empty());
    }

    fn config_of(text: &str) -> Config {
        Config::parse(text, &[])
    }

    #[test]
    fn every_key_is_part_of_what_the_image_depends_on() {
        for line in ["close = tcp\n", "reopen = /dev/a\n", "refuse = /bin/a\n", "writable = /bin/x: /a\n"] {
            assert!(config_of(line).settled().contains(line), "{line}");
        }
    }

    #[test]
    fn service_of_a_process_is_its_executable() {
        let own = Service::of(std::process::id());
        assert_eq!(own.executable, std::env::current_exe().unwrap().to_str().unwrap());
        assert_eq!(own.called, own.executable);
        assert_eq!(Service::of(u32::MAX), Service::default());
    }
}
