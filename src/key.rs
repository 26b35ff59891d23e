//! The key: what must be equal, by content, for an image to stand for this boot.
//!
//! Eight groups of parts. Everything that steers the rc scripts before they read any other file is in it, and
//! everything that the captured memory itself depends on: code that was chosen by CPU features, tables sized
//! by memory and processors, the vdso of this very kernel. The words `rcsnap` and `rcsnap.*` of the command
//! line are left out, or `rcsnap=refresh` would make an image that no later boot may use.
//!
//! Taken before the scripts and again at the capture: if they differ, a script has changed what the next boot
//! starts from, and there is no capture.

use crate::sorted::Listed;
use std::fmt::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::config::{Config, Key as Setting};
use crate::sorted;
use crate::sys::fs;
use crate::sys::stat::{is_dir, stat};
use crate::text;
use crate::{glob, image};

/// The groups, in their order.
pub const GROUPS: [&str; 8] =
    ["image format", "rc scripts", "configuration", "kernel", "board", "processor", "memory", "command line"];

/// One part of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its group, a number in [`GROUPS`].
    pub group: usize,
    /// The value, or the path of a file.
    pub text: String,
    /// SHA-256 of what it stands for.
    pub digest: [u8; 32],
}

/// The key of this boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// SHA-256 over all parts.
    pub hash: [u8; 32],
    /// One byte of each group's hash: a store keeps them, to say which group made a key differ.
    pub hints: [u8; 8],
    /// The parts.
    pub parts: Vec<Part>,
}

impl Key {
    /// Takes the key: from the configuration, the words of the kernel command line, /etc, /proc and /sys.
    #[must_use]
    pub fn take(config: &Config, words: &[String]) -> Key {
        let mut parts = Vec::new();
        let mut part =
            |group, text: String| parts.push(Part { group, digest: digest(text.as_bytes()), text });
        part(0, format());
        part(2, config.settled().to_owned());
        part(3, kernel());
        part(4, board(config));
        part(5, processor());
        part(6, memory());
        part(7, command_line(config, words));
        for path in scripts(config) {
            parts.push(script(&path));
        }
        sorted::sort_by_key(&mut parts, |part| part.group);
        Key::of(parts)
    }

    /// The key of these parts.
    #[must_use]
    pub fn of(parts: Vec<Part>) -> Key {
        let mut whole = Sha256::new();
        let mut hints = [0; 8];
        for (group, hint) in hints.iter_mut().enumerate() {
            let mut sum = Sha256::new();
            for part in parts.iter().filter(|part| part.group == group) {
                sum.update((part.text.len() as u64).to_le_bytes());
                sum.update(&part.text);
                sum.update(part.digest);
            }
            let sum = sum.finalize();
            *hint = sum[0];
            whole.update(sum);
        }
        Key { hash: whole.finalize().into(), hints, parts }
    }

    /// What differs from the key of an image, as far as its hints tell: `rc scripts, command line`.
    #[must_use]
    pub fn differing(&self, hints: &[u8; 8]) -> String {
        let groups = GROUPS.iter().zip(self.hints.iter().zip(hints));
        let names: Vec<&str> = groups.filter(|(_, (a, b))| a != b).map(|(name, _)| *name).list();
        text::joined(&mut names.into_iter(), ", ")
    }

    /// The first part that differs from a key taken earlier in this boot.
    #[must_use]
    pub fn change(&self, before: &Key) -> Option<String> {
        let lacks = |key: &Key, part: &Part| !key.parts.contains(part);
        let new = self.parts.iter().find(|part| lacks(before, part));
        let part = new.or_else(|| before.parts.iter().find(|part| lacks(self, part)))?;
        Some(format!("{}: {}", GROUPS[part.group], part.text.lines().next().unwrap_or_default()))
    }

    /// The text of `rcsnap key`: a line for each part, with the beginning of its hash, and the key.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for part in &self.parts {
            let mut lines = part.text.lines();
            let name = GROUPS[part.group];
            let _ = writeln!(text, "{name:13} {}  {}", hex(&part.digest[..6]), lines.next().unwrap_or("-"));
            for line in lines {
                let _ = writeln!(text, "{:28}{line}", "");
            }
        }
        let _ = writeln!(text, "{:13} {}", "key", hex(&self.hash));
        text
    }
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A file's text without the zero bytes of device tree properties; empty if there is none.
fn read(path: &str) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    text::replaced(&String::from_utf8_lossy(&bytes), "\0", " ").trim_ascii().to_owned()
}

/// FORMAT, processor, and the definitions of all sections.
fn format() -> String {
    let hash = image::abi().iter().fold(0, |hash, kind| image::section::mix(hash, kind.hash));
    format!("format {}, processor {}, sections {hash:016x}", image::FORMAT, image::ARCH)
}

/// uname, and the kernel's build id: a rebuilt kernel may have the same release and version.
fn kernel() -> String {
    let name = |what: &str| read(&format!("/proc/sys/kernel/{what}"));
    let notes = fs::read("/sys/kernel/notes").unwrap_or_default();
    format!("{} {}\nnotes {}", name("osrelease"), name("version"), hex(&digest(&notes)[..8]))
}

/// Who this board is: what the configuration says, else the device tree, else DMI.
fn board(config: &Config) -> String {
    let configured = config.text(Setting::KeyBoard);
    if !configured.is_empty() {
        return configured.to_owned();
    }
    const TREE: &[&str] = &["model", "compatible", "serial-number"];
    const DMI: &[&str] =
        &["sys_vendor", "product_name", "product_version", "product_serial", "board_name", "board_version"];
    for (folder, names) in [("/proc/device-tree", TREE), ("/sys/class/dmi/id", DMI)] {
        let mut all = String::new();
        for name in names {
            for line in read(&format!("{folder}/{name}")).lines().filter(|line| !line.is_empty()) {
                all.extend([if all.is_empty() { "" } else { "\n" }, line]);
            }
        }
        if !all.is_empty() {
            return all;
        }
    }
    "no device tree and no DMI".into()
}

/// Lines of /proc/cpuinfo that say what a processor is, on any architecture; the rest is speed and numbering.
const CPU: [&str; 14] = [
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "stepping",
    "flags",
    "Features",
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
    "CPU revision",
    "isa",
    "uarch",
];

/// Which processors there are and what they can do.
fn processor() -> String {
    let info = read("/proc/cpuinfo");
    let mut lines: Vec<String> = Vec::new();
    for line in info.lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let line = format!("{}: {}", name.trim_ascii(), value.trim_ascii());
        // Each line once, so that two sorts of cores both show.
        if CPU.contains(&name.trim_ascii()) && !lines.contains(&line) {
            lines.push(line);
        }
    }
    format!(
        "processors {}\n{}",
        read("/sys/devices/system/cpu/present"),
        text::joined(&mut lines.iter().map(String::as_str), "\n")
    )
}

/// Memory in steps of 16 MiB, and the page size. /proc/iomem says what is there; MemTotal is less by what
/// the kernel took for itself, which differs a little from boot to boot.
fn memory() -> String {
    const STEP: u64 = 16 << 20;
    let ram = ram(&read("/proc/iomem")).or_else(|| {
        let info = read("/proc/meminfo");
        let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(total.trim_ascii().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    });
    let page = crate::sys::vm::page_size();
    format!("{} MiB, pages of {page}", ram.unwrap_or(0).div_ceil(STEP) * 16)
}

/// The length of all System RAM. None if the addresses are hidden, as in a container.
fn ram(iomem: &str) -> Option<u64> {
    let ranges = iomem.lines().filter(|line| !line.starts_with(' ') && line.ends_with(": System RAM"));
    let length = |line: &str| {
        let (first, last) = line.split(' ').next()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        (number(last)? + 1).checked_sub(number(first)?)
    };
    let sum: u64 = ranges.filter_map(length).sum();
    (sum > 1 << 20).then_some(sum)
}

/// The command line without what differs between boots, and without rcsnap's own words.
fn command_line(config: &Config, words: &[String]) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for word in words {
        let ours = word == "rcsnap" || word.starts_with("rcsnap=") || word.starts_with("rcsnap.");
        if !ours && !config.matches(Setting::KeyIgnore, word) {
            kept.push(word);
        }
    }
    text::joined(&mut kept.into_iter(), " ")
}

/// The files that the globs find, each once.
fn scripts(config: &Config) -> Vec<std::path::PathBuf> {
    let mut paths = Vec::new();
    for glob in config.list(Setting::KeyScripts) {
        paths.append(&mut glob::expand(glob));
    }
    paths.retain(|path| !is_dir(path));
    sorted::sort_by(&mut paths, |a, b| a.as_os_str().cmp(b.as_os_str()));
    paths.dedup_by(|a, b| a.as_os_str() == b.as_os_str());
    paths
}

/// A script: its path, mode, and content. A link counts as what it points to, and by its target.
fn script(path: &Path) -> Part {
    let mut sum = Sha256::new();
    if let Ok(target) = fs::link(path) {
        sum.update(target.as_os_str().as_encoded_bytes());
    }
    // Reading a FIFO or a terminal would not end.
    match stat(path).and_then(|found| Ok((found, if found.is_file() { fs::read(path)? } else { Vec::new() })))
    {
        Ok((found, content)) => {
            sum.update(found.mode.to_le_bytes());
            sum.update(content);
        }
        Err(_) => sum.update(b"unreadable"),
    }
    Part { group: 1, text: path.to_string_lossy().into_owned(), digest: sum.finalize().into() }
}

#[cfg(test)]
mod tests {
    use super::{GROUPS, Key, Part, command_line, ram};
    use crate::config::Config;
    use std::os::unix::fs::PermissionsExt;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(Into::into).collect()
    }

    #[test]
    fn the_key_is_the_same_twice_and_every_group_is_there() {
        let config = Config::parse("", &[]);
        let key = Key::take(&config, &words("console=ttyS0 root=/dev/vda"));
        assert_eq!(
            key,
            Key::take(&config, &words("console=ttyS0 rcsnap=refresh root=/dev/vda rcsnap.log=debug"))
        );
        for group in (0..GROUPS.len()).filter(|group| *group != 1) {
            assert!(key.parts.iter().any(|part| part.group == group), "{}", GROUPS[group]);
        }
        assert!(key.describe().contains("command line"), "{}", key.describe());
    }

    #[test]
    fn volatile_words_and_our_own_do_not_count() {
        let config = Config::parse("", &[]);
        let line = "BOOT_IMAGE=/boot/a ro rcsnap rcsnap=off rcsnap.store=x init=/sbin/rcsnap";
        assert_eq!(command_line(&config, &words(line)), "ro init=/sbin/rcsnap");
    }

    #[test]
    fn a_changed_script_makes_the_key_differ_and_is_named() {
        let directory = std::env::temp_dir().join(format!("rcsnap-key-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let script = directory.join("S01x");
        let take =
            || Key::take(&Config::parse(&format!("key.scripts = {}/S*", directory.display()), &[]), &[]);
        std::fs::write(&script, "one").unwrap();
        let before = take();
        std::fs::write(&script, "two").unwrap();
        let after = take();
        let named = format!("rc scripts: {}", script.display());
        assert_eq!(after.change(&before).as_deref(), Some(named.as_str()));
        assert_eq!(after.differing(&before.hints), "rc scripts");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(take().hash != after.hash, "a script that may be executed is another script");
        std::fs::remove_file(&script).unwrap();
        assert_eq!(take().change(&after).as_deref(), Some(named.as_str()), "one that is gone too");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn parts_cannot_run_into_each_other() {
        let part = |group, text: &str| Part { group, text: text.into(), digest: [0; 32] };
        let one = Key::of(vec![part(1, "ab"), part(1, "c")]);
        assert!(one.hash != Key::of(vec![part(1, "a"), part(1, "bc")]).hash);
        assert!(one.hash != Key::of(vec![part(1, "ab"), part(2, "c")]).hash);
    }

    #[test]
    fn ram_is_summed_without_what_lies_inside() {
        let text = "00001000-0009fbff : System RAM\n00100000-07ffffff : System RAM\n  01000000-01ffffff : Kernel code\n";
        assert_eq!(ram(text), Some(0x9ec00 + 0x07f0_0000));
        assert_eq!(ram("00000000-00000000 : System RAM\n"), None);
    }
}
