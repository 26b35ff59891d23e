//! What runs on every restored boot before `rcsnap ready` returns: rerun scripts, then after-restore.d hooks.
//!
//! Each is run as the rc scripts were: by /bin/sh with `start`, in `/`, with the standard streams of `ready`
//! and the environment of PID 1, plus `RCSNAP=restored`. One that fails or takes too long is logged and does
//! not stop the boot.

use crate::sorted::Listed;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::config::Rerun;
use crate::error::{Context, Error, Result};
use crate::log;
use crate::sorted;
use crate::sys::process::spawn;
use crate::sys::time::milliseconds;
use crate::sys::{fs, path, stat};

/// How often we look whether a script has ended.
const INTERVAL: Duration = Duration::from_millis(2);
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_millis(500);

/// Runs the scripts in rc order, which is the order of their names. Says how many did not work.
#[must_use]
pub fn scripts(names: &[String], limit: Duration) -> usize {
    let mut paths: Vec<PathBuf> = names.iter().map(|name| script(name)).list();
    sorted::sort_by(&mut paths, |a, b| path::name(a).cmp(path::name(b)));
    let shell = |path| [OsStr::new("/bin/sh"), path, OsStr::new("start")];
    let failed = paths.iter().filter(|path| !run("rerun", path, &shell(path.as_os_str()), "restored", limit));
    failed.count()
}

/// The first script that is not there. Its processes would be left out of the image and never be started again.
#[must_use]
pub fn missing(reruns: &[Rerun]) -> Option<PathBuf> {
    reruns.iter().map(|rerun| script(&rerun.script)).find(|path| !stat::exists(path))
}

/// The processes of rerun services, which the image leaves out: given by executable, or by a file that holds
/// the number. Their descendants are not listed.
#[must_use]
pub fn processes(reruns: &[Rerun]) -> Vec<u32> {
    let mut found = Vec::new();
    for name in reruns.iter().flat_map(|rerun| &rerun.processes) {
        match fs::text(name).ok().and_then(|text| text.trim_ascii().parse().ok()) {
            Some(pid) => found.push(pid),
            None => found.extend(running(Path::new(name))),
        }
    }
    found
}

/// The processes that run this executable. Links are followed: /sbin/udhcpc is BusyBox, so of those the one
/// whose first argument has this name.
fn running(executable: &Path) -> Vec<u32> {
    let Ok(real) = fs::real(executable) else { return Vec::new() };
    let is_it = |pid: &u32| {
        let same = fs::link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.as_os_str() == real.as_os_str());
        let name = path::name(executable);
        same && (path::name(&real) == name
            || first_argument(*pid).is_some_and(|first| path::name(&first) == name))
    };
    let mut pids = fs::numbers("/proc").unwrap_or_default();
    pids.retain(is_it);
    pids
}

/// A process's first argument.
fn first_argument(pid: u32) -> Option<PathBuf> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = line.split(|byte| *byte == 0).next()?;
    // A login shell and some daemons put a dash or blanks with more words there.
    let first = first.split(|byte| *byte == b' ').next()?;
    Some(OsStr::from_bytes(first).into())
}

/// Runs the executables of a hook folder in the order of their names. Says how many did not work.
#[must_use]
pub fn hooks(folder: &Path, boot: &str, limit: Duration) -> usize {
    let names = fs::names(folder).unwrap_or_default();
    let paths: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).list();
    let runnable =
        |path: &&PathBuf| stat::stat(path).is_ok_and(|found| found.is_file() && found.mode & 0o111 != 0);
    paths.iter().filter(runnable).filter(|path| !run("hook", path, &[path.as_os_str()], boot, limit)).count()
}

/// The path of a script: a bare name is one of /etc/init.d.
fn script(name: &str) -> PathBuf {
    if name.contains('/') { PathBuf::from(name) } else { Path::new("/etc/init.d").join(name) }
}

/// Runs one of them and logs what went wrong.
fn run(kind: &'static str, path: &Path, args: &[&OsStr], boot: &str, limit: Duration) -> bool {
    let start = Instant::now();
    let args: Vec<CString> = args.iter().map(|arg| CString::new(arg.as_bytes()).unwrap_or_default()).list();
    let doing = format_args!("running {}", path.to_string_lossy());
    let ended = spawn(&args, &environment(boot)).and_then(|child| wait(child, limit)).context(kind, doing);
    let result = ended.and_then(|ended| {
        let cause = match ended {
            Some(WaitStatus::Exited(_, 0)) => return Ok(()),
            Some(WaitStatus::Exited(_, status)) => format!("exit status: {status}"),
            Some(WaitStatus::Signaled(_, signal, _)) => format!("signal: {}", signal as i32),
            _ => format!("not done after {} ms", milliseconds(limit)),
        };
        Err(Error::new(kind, doing.to_string(), cause))
    });
    match &result {
        Ok(()) => log!(Info, "{kind}: {}: {} ms", path.to_string_lossy(), milliseconds(start.elapsed())),
        Err(error) => log!(Warning, "{error}"),
    }
    result.is_ok()
}

/// Waits for a child until the limit, then ends its whole process group. `None` when it had to be ended.
fn wait(child: u32, limit: Duration) -> Result<Option<WaitStatus>, Errno> {
    let start = Instant::now();
    let group = Pid::from_raw(child.cast_signed());
    let mut asked = false;
    loop {
        match waitpid(group, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
            Ok(status) => return Ok((!asked).then_some(status)),
            Err(errno) => return Err(errno),
        }
        if start.elapsed() > limit + GRACE {
            let _ = killpg(group, Signal::SIGKILL);
        } else if start.elapsed() > limit && !asked {
            let _ = killpg(group, Signal::SIGTERM);
            asked = true;
        }
        std::thread::sleep(INTERVAL);
    }
}

/// PID 1's environment as it was when it was started, which the scripts got, and what sort of boot this is.
fn environment(boot: &str) -> Vec<CString> {
    let bytes = fs::read("/proc/1/environ").unwrap_or_default();
    let entries = bytes.split(|byte| *byte == 0);
    let kept = entries.filter(|entry| entry.contains(&b'=') && !entry.starts_with(b"RCSNAP="));
    let own = format!("RCSNAP={boot}");
    kept.chain([own.as_bytes()]).filter_map(|entry| CString::new(entry).ok()).list()
}

#[cfg(test)]
mod tests {
    use super::{hooks, missing, processes, script, scripts};
    use crate::config::Rerun;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Duration;

    fn folder(name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("rcsnap-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (file, text) in files {
            let path = folder.join(file);
            std::fs::write(&path, text.replace("HERE", folder.to_str().unwrap())).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    }

    #[test]
    fn a_bare_name_is_a_script_of_init_d() {
        assert_eq!(script("S40network"), Path::new("/etc/init.d/S40network"));
        assert_eq!(script("/opt/x"), Path::new("/opt/x"));
        let rerun = |script: &str| [Rerun { script: script.into(), processes: Vec::new() }];
        assert_eq!(missing(&rerun("/bin/sh")), None);
        assert_eq!(missing(&rerun("/nonexistent/x")).unwrap(), Path::new("/nonexistent/x"));
    }

    #[test]
    fn processes_are_found_by_executable_and_by_pid_file() {
        let here = folder("left", &[("pid", "4711\n")]);
        let own = std::env::current_exe().unwrap();
        let words = [here.join("pid"), own, "/nonexistent".into()].map(|p| p.to_str().unwrap().to_owned());
        let found = processes(&[Rerun { script: "x".into(), processes: words.to_vec() }]);
        assert!(found.contains(&4711) && found.contains(&std::process::id()), "{found:?}");
        std::fs::remove_dir_all(here).unwrap();
    }

    #[test]
    fn scripts_run_in_the_order_of_their_names_and_a_failure_stops_nothing() {
        let here = folder(
            "rerun",
            &[("S20b", "echo b $1 $RCSNAP >> HERE/out"), ("S10a", "echo a $1 >> HERE/out; exit 3")],
        );
        let names = ["S20b", "S10a"].map(|name| here.join(name).to_str().unwrap().to_owned());
        assert_eq!(scripts(&names, Duration::from_secs(5)), 1);
        assert_eq!(std::fs::read_to_string(here.join("out")).unwrap(), "a start\nb start restored\n");
        std::fs::remove_dir_all(here).unwrap();
    }

    #[test]
    fn a_hook_that_hangs_is_ended_with_its_children() {
        let here = folder(
            "hook",
            &[("10-hang", "#!/bin/sh\nsleep 1000 &\nsleep 1000\n"), ("20-ok", "#!/bin/sh\n:\n")],
        );
        let start = std::time::Instant::now();
        assert_eq!(hooks(&here, "restored", Duration::from_millis(50)), 1);
        assert!(start.elapsed() < Duration::from_secs(5));
        std::fs::remove_dir_all(here).unwrap();
    }
}
