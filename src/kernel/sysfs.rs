//! Attributes of devices in sysfs that scripts usually write.
//!
//! # What
//! LEDs, backlights, CPUs, I/O schedulers, power control, huge pages, parameters of modules, packet steering: the
//! list `PATTERNS`. sysfs has no inventory of what can be written, and what reads back is often another form.
//! # Reads
//! These attributes before and after the scripts. Of a choice, `none [timer]`, the word in brackets is taken.
//! # Rebuilds
//! Writes what was read where it differs from what is there, after the network is made; a device that is not
//! there yet is waited for if it was there before the scripts. Pools of huge pages are filled first of all, before
//! files and memory take from them.
//! # Loses
//! What scripts write elsewhere in sysfs, in debugfs, or to /proc/irq: such a script is a rerun, and so is one that
//! makes devices by writing to `new_device` or `bind`. Values of a device that came after the scripts began and is
//! not there at the restore: a line in the log tells of each.
//! # Refuses
//! GPIO lines and PWM channels that the scripts exported.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::root::Root;
use crate::error::{Context, Obstacle, Refusal, Result};
use crate::log;
use crate::section;
use crate::sys::fs;
use crate::text;

section! {
    #[derive(Default)]
    /// What differs from before the scripts.
    pub struct State {
        /// Path below /sys and value, in the order of `PATTERNS`; then those that were not there before the scripts.
        pub values: Vec<(String, String)>,
        /// How many were.
        pub early: u32,
    }
}

/// Attributes that can be written as they are read; `*` is any one name. The trigger of an LED comes before its
/// brightness, and a governor before its limits.
const PATTERNS: &[&str] = &[
    "class/leds/*/trigger",
    "class/leds/*/brightness",
    "class/backlight/*/brightness",
    "devices/system/cpu/*/online",
    "devices/system/cpu/cpufreq/*/scaling_governor",
    "devices/system/cpu/cpufreq/*/scaling_max_freq",
    "devices/system/cpu/cpufreq/*/scaling_min_freq",
    "kernel/mm/hugepages/*/nr_hugepages",
    // Also what did not change, for `stretch`.
    "kernel/mm/hugepages/*/nr_overcommit_hugepages",
    "block/*/queue/scheduler",
    "block/*/queue/read_ahead_kb",
    "bus/usb/devices/*/power/control",
    "bus/pci/devices/*/power/control",
    "kernel/mm/transparent_hugepage/enabled",
    "kernel/mm/transparent_hugepage/defrag",
    "module/*/parameters/*",
    "class/net/*/queues/*/rps_cpus",
    "class/net/*/queues/*/xps_cpus",
];

/// How many huge pages there may be beyond a pool.
const BEYOND: &str = "/nr_overcommit_hugepages";

/// Directories whose subdirectories come into being when a line or channel is exported.
const EXPORTED: &[&str] = &["class/gpio/*", "class/pwm/*/*"];

/// All values, and what is exported.
#[derive(Debug, Default)]
pub struct Seen {
    values: Vec<(String, String)>,
    exported: Vec<String>,
}

/// Reads all attributes of the list.
#[must_use]
pub fn baseline(root: &Root) -> Seen {
    let mut seen = Seen::default();
    for pattern in PATTERNS {
        for path in paths(pattern, root) {
            if let Some(value) = value(&path, root) {
                seen.values.push((path, value));
            }
        }
    }
    for pattern in EXPORTED {
        seen.exported.extend(paths(pattern, root).into_iter().filter(|path| exported(path)));
    }
    seen
}

/// `gpio17` and `pwm0`, not the chips (`gpiochip0`) nor the files beside them.
fn exported(path: &str) -> bool {
    let name = text::file_name(path);
    let number = name.strip_prefix("gpio").or_else(|| name.strip_prefix("pwm")).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// What a pattern stands for just now.
pub(super) fn paths(pattern: &str, root: &Root) -> Vec<String> {
    let mut found = vec![String::new()];
    for part in pattern.split('/') {
        let mut inside = Vec::new();
        for base in &found {
            let mut add = |name: &str| {
                inside.push(if base.is_empty() { name.to_owned() } else { format!("{base}/{name}") });
            };
            if part == "*" {
                root.sys.names(base).unwrap_or_default().iter().for_each(|name| add(&name.name));
            } else {
                add(part);
            }
        }
        found = inside;
    }
    found
}

/// The value of an attribute that can be written. An LED that is driven by its trigger has no brightness of its
/// own, and a parameter that was never set is no value.
fn value(path: &str, root: &Root) -> Option<String> {
    if let Some(led) = path.strip_suffix("/brightness").filter(|path| path.starts_with("class/leds/"))
        && chosen(&root.sys.line(&format!("{led}/trigger"))) != "none"
    {
        return None;
    }
    if let Some(pool) = path.strip_suffix("/nr_hugepages") {
        // The kernel counts what it took beyond the pool for a moment.
        let number = |name: &str| root.sys.line(&format!("{pool}/{name}_hugepages")).parse::<u64>().ok();
        return Some(number("nr")?.saturating_sub(number("surplus")?).to_string());
    }
    let file = root.sys.file(path).ok()?;
    if fstat(&file).ok()?.st_mode & 0o200 == 0 {
        return None;
    }
    let text = String::from_utf8(fs::read_to_end(file.as_fd()).ok()?).ok()?;
    let text = chosen(text::without_end(&text, "\n"));
    (!text.is_empty() && text != "(null)" && !text.contains('\n')).then(|| text.to_owned())
}

/// The word in brackets, or all of it.
fn chosen(text: &str) -> &str {
    let word = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    word.map_or(text, |(word, _)| word)
}

/// What differs from before. `loaded` are modules that the scripts loaded: `module` carries their parameters.
#[must_use]
pub fn capture(before: &Seen, loaded: &super::module::State, root: &Root) -> (State, Vec<Obstacle>) {
    let now = baseline(root);
    let theirs = |path: &str| {
        let module = path.strip_prefix("module/").and_then(|rest| rest.split('/').next());
        module.is_some_and(|name| loaded.list.iter().any(|module| module.name == name))
    };
    let (mut state, mut late, mut obstacles) = (State::default(), Vec::new(), Vec::new());
    for value in now.values {
        // A device that came meanwhile has the values it comes with, unless they are not those at the restore.
        let changed = !before.values.contains(&value) || value.0.ends_with(BEYOND);
        if changed && !theirs(&value.0) {
            let early = before.values.iter().any(|(path, _)| *path == value.0);
            if early { &mut state.values } else { &mut late }.push(value);
        }
    }
    state.early = u32::try_from(state.values.len()).unwrap_or(0);
    state.values.append(&mut late);
    for path in now.exported {
        if !before.exported.contains(&path) {
            let refusal = Refusal::new("exported lines are not carried", "export it in a rerun script");
            obstacles.push(Obstacle::kernel("sysfs", format!("/sys/{path}"), refusal));
        }
    }
    (state, obstacles)
}

/// Waits for the devices until the deadline.
///
/// # Errors
/// One that did not come.
pub fn check(state: &State, root: &Root, deadline: Instant) -> Result<()> {
    for (path, _) in state.values.iter().take(state.early as usize) {
        super::come("sysfs", path, root, deadline)?;
    }
    Ok(())
}

/// Writes the attributes that differ from what is there.
///
/// # Errors
/// An attribute that did not come, or the errno of writing.
pub fn restore(state: &State, root: &Root, deadline: Instant) -> Result<()> {
    check(state, root, deadline)?;
    set(state, root, "")
}

/// Fills the pools of huge pages, which files and memory are taken from.
///
/// # Errors
/// The errno of writing, or a pool that does not become full.
pub fn pools(state: &State, root: &Root) -> Result<()> {
    set(state, root, "kernel/mm/hugepages/")
}

/// Lets the pools grow while processes are made: what they had in common after a fork each of them gets for its own.
/// [`pools`] ends it.
pub fn stretch(state: &State, root: &Root) {
    for (path, _) in state.values.iter().filter(|(path, _)| path.ends_with(BEYOND)) {
        // Pages of 1 GiB cannot be had so.
        let _ = root.sys.write(path, "1048576");
    }
}

/// Writes what begins with this.
fn set(state: &State, root: &Root, start: &str) -> Result<()> {
    let differs = |path: &str, wanted: &String| value(path, root).as_ref() != Some(wanted);
    for (at, (path, wanted)) in (0..).zip(&state.values) {
        if !path.starts_with(start) || !differs(path, wanted) {
            continue;
        }
        let doing = format_args!("setting {path} to {wanted}");
        let mut written = root.sys.write(path, wanted);
        // The kernel says nothing when it does not find as many.
        if written.is_ok() && path.ends_with("/nr_hugepages") && differs(path, wanted) {
            written = Err(Errno::ENOMEM);
        }
        match written.context("sysfs", doing) {
            Err(error) if at >= state.early => log!(Warning, "{error}"),
            written => written?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{State, baseline, capture, chosen, exported, pools, restore};
    use crate::kernel::Root;
    use std::fs::{create_dir_all, write};
    use std::path::PathBuf;
    use std::time::Instant;

    /// A directory in place of sysfs, which belongs to the machine.
    fn place(name: &str) -> (PathBuf, Root) {
        let dir = std::env::temp_dir().join(format!("rcsnap-sysfs-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        for led in ["red", "green"] {
            create_dir_all(dir.join("class/leds").join(led)).unwrap();
            write(dir.join(format!("class/leds/{led}/trigger")), "[none] timer\n").unwrap();
            write(dir.join(format!("class/leds/{led}/brightness")), "0\n").unwrap();
        }
        create_dir_all(dir.join("class/gpio/gpiochip0")).unwrap();
        let root = Root::open("/proc".as_ref(), &dir, "/".as_ref(), "self").unwrap();
        (dir, root)
    }

    #[test]
    fn what_scripts_write_comes_back() {
        let (dir, root) = place("one");
        let before = baseline(&root);
        write(dir.join("class/leds/red/brightness"), "255\n").unwrap();
        // With a trigger the brightness is the kernel's.
        write(dir.join("class/leds/green/trigger"), "none [timer]\n").unwrap();
        write(dir.join("class/leds/green/brightness"), "7\n").unwrap();
        let (state, obstacles) = capture(&before, &Default::default(), &root);
        assert!(obstacles.is_empty());
        let expected = [("class/leds/green/trigger", "timer"), ("class/leds/red/brightness", "255")];
        assert_eq!(state.values, expected.map(|(path, value)| (path.to_owned(), value.to_owned())));
        let (other, root) = place("two");
        restore(&state, &root, Instant::now()).unwrap();
        assert_eq!(std::fs::read(other.join("class/leds/red/brightness")).unwrap(), b"255");
        std::fs::remove_dir_all(dir).unwrap();
        std::fs::remove_dir_all(other).unwrap();
    }

    #[test]
    fn pool_of_huge_pages_is_what_was_asked_for() {
        let (dir, root) = place("pool");
        let file = |name: &str| dir.join(format!("kernel/mm/hugepages/hugepages-2048kB/{name}_hugepages"));
        create_dir_all(file("nr").parent().unwrap()).unwrap();
        let fill = |all: &str, beyond: &str| {
            write(file("nr"), all).unwrap();
            write(file("surplus"), beyond).unwrap();
        };
        fill("2\n", "0\n");
        let before = baseline(&root);
        fill("9\n", "1\n");
        let (state, _) = capture(&before, &Default::default(), &root);
        assert_eq!(state.values, [("kernel/mm/hugepages/hugepages-2048kB/nr_hugepages".into(), "8".into())]);
        fill("0\n", "0\n");
        pools(&state, &root).unwrap();
        assert_eq!(std::fs::read(file("nr")).unwrap()[0], b'8');
        // A kernel that finds only six of eight.
        fill("8\n", "2\n");
        let error = pools(&state, &root).unwrap_err().to_string();
        assert!(error.ends_with("nr_hugepages to 8: ENOMEM"), "{error}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn exported_line_is_refused() {
        let (dir, root) = place("gpio");
        let before = baseline(&root);
        create_dir_all(dir.join("class/gpio/gpio17")).unwrap();
        let (_, obstacles) = capture(&before, &Default::default(), &root);
        assert_eq!(obstacles[0].object, "/sys/class/gpio/gpio17");
        assert!(!exported("class/gpio/export") && !exported("class/pwm/pwmchip0/npwm"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn attribute_that_does_not_come_is_an_error() {
        let (dir, root) = place("late");
        let values = vec![("class/leds/blue/trigger".into(), "none".into())];
        let state = State { values, early: 1 };
        let error = restore(&state, &root, Instant::now()).unwrap_err();
        assert_eq!(error.to_string(), "sysfs: waiting for class/leds/blue/trigger: it did not come");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn value_of_a_device_that_came_later_is_not_waited_for() {
        let (dir, root) = place("stick");
        let before = baseline(&root);
        let file = "block/sda/queue/read_ahead_kb";
        create_dir_all(dir.join("block/sda/queue")).unwrap();
        write(dir.join(file), "512\n").unwrap();
        let (state, _) = capture(&before, &Default::default(), &root);
        assert_eq!((state.values.len(), state.early), (1, 0));
        write(dir.join(file), "128\n").unwrap();
        restore(&state, &root, Instant::now()).unwrap();
        assert_eq!(std::fs::read(dir.join(file)).unwrap()[..3], *b"512");
        std::fs::remove_dir_all(dir.join("block")).unwrap();
        restore(&state, &root, Instant::now()).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn choice_is_the_word_in_brackets() {
        assert_eq!(chosen("always [madvise] never"), "madvise");
        assert_eq!(chosen("powersave"), "powersave");
    }
}
