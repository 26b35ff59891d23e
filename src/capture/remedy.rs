//! The line of the configuration that would allow a capture: the owner of an obstacle as a rerun service.

use crate::config::Service;
use crate::error::Obstacle;
use crate::sys::fs;
use crate::text;

/// Where rc scripts are.
const SCRIPTS: &str = "/etc/init.d";

/// Puts into the remedies of processes that could be rerun what to write into /etc/rcsnap.conf: `+=`, because `=`
/// would set aside the reruns that are there by default. They must still run. `parent` knows those in the image.
pub(super) fn complete(obstacles: &mut [Obstacle], parent: &dyn Fn(u32) -> Option<u32>) {
    for obstacle in obstacles {
        if text::has(&obstacle.remedy, "rerun") || text::has(&obstacle.remedy, "after `rcsnap ready`") {
            let line = line(SCRIPTS, obstacle.pid, parent);
            obstacle.remedy = format!("{}{line}", obstacle.remedy).into();
        }
    }
}

/// The line for a process. What a daemon starts is rerun with the daemon, which is the one that a script names.
fn line(folder: &str, mut pid: u32, parent: &dyn Fn(u32) -> Option<u32>) -> String {
    let mut line = String::new();
    while pid > 1
        && let Some(above) = parent(pid)
    {
        let program = Service::of(pid).called;
        // Without a name of its own it could be any applet of the binary, and a shell is each of its scripts.
        if !program.is_empty() && !program.ends_with("sh") {
            let script = script(folder, &program);
            if line.is_empty() || script.is_some() {
                let name = script.as_deref().unwrap_or("SCRIPT");
                line = format!(": rerun += {name}: {program}");
            }
            if script.is_some() {
                break;
            }
        }
        pid = above;
    }
    line
}

/// The script that names a program, with its path if one does.
fn script(folder: &str, program: &str) -> Option<String> {
    for word in [program, text::file_name(program)] {
        for name in fs::names(folder).unwrap_or_default() {
            let name = name.to_string_lossy();
            let script = fs::text(format!("{folder}/{name}")).unwrap_or_default();
            // rcS starts all others.
            if text::has(&script, word) && !name.starts_with("rc") {
                return Some(name.into_owned());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{complete, line, script};
    use crate::error::{Obstacle, Refusal};

    fn start(program: &str, argument: &str) -> std::process::Child {
        let mut command = std::process::Command::new(program);
        let child = command.arg(argument).stdin(std::process::Stdio::piped()).spawn().unwrap();
        // It shows its arguments a moment after it was started.
        while std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap().is_empty() {}
        child
    }

    #[test]
    fn remedy_names_the_line_of_the_configuration() {
        let mut children = [start("/bin/sleep", "60"), start("/bin/sh", "-s")];
        let obstacle =
            |pid| Obstacle::process("file", pid, "sleep", "fd 3", Refusal::new("no", "rerun the service"));
        let mut obstacles = [
            obstacle(children[0].id()),
            obstacle(1),
            obstacle(children[1].id()),
            Obstacle::kernel("swap", "x", Refusal::new("no", "y")),
        ];
        complete(&mut obstacles, &|_| Some(1));
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(obstacles[0].remedy.ends_with("/sleep"), "{}", obstacles[0].remedy);
        assert!(obstacles[0].remedy.starts_with("rerun the service: rerun += "), "{}", obstacles[0].remedy);
        assert_eq!(obstacles[1].remedy, "rerun the service");
        assert_eq!(obstacles[2].remedy, "rerun the service");
        assert_eq!(obstacles[3].remedy, "y");
    }

    #[test]
    fn script_is_the_one_that_names_the_program() {
        let folder = std::env::temp_dir().join(format!("rcsnap-remedy-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let scripts = [
            ("rcS", "/usr/sbin/lighttpd"),
            ("S40log", "ls /var/log/lighttpd"),
            ("S50web", "DAEMON=/usr/sbin/lighttpd"),
            ("S60web", "/opt/bin/lighttpd"),
        ];
        for (name, text) in scripts {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let folder = folder.to_str().unwrap();
        assert_eq!(script(folder, "/usr/sbin/lighttpd").as_deref(), Some("S50web"));
        assert_eq!(script(folder, "/opt/bin/lighttpd").as_deref(), Some("S60web"));
        assert_eq!(script(folder, "/bin/lighttpd").as_deref(), Some("S60web"));
        assert_eq!(script(folder, "/usr/sbin/other"), None);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_a_daemon_starts_is_rerun_with_it() {
        let folder = std::env::temp_dir().join(format!("rcsnap-parent-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let own = std::env::current_exe().unwrap();
        let own = own.to_str().unwrap();
        std::fs::write(folder.join("S50own"), own).unwrap();
        let mut child = start("/bin/sleep", "60");
        let at = folder.to_str().unwrap();
        let (pid, parent) = (child.id(), std::process::id());
        let known = line(at, pid, &|asked| Some(if asked == pid { parent } else { 1 }));
        // A parent outside of the image does not count.
        let alone = line(at, pid, &|asked| (asked == pid).then_some(parent));
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        assert_eq!(known, format!(": rerun += S50own: {own}"));
        assert!(alone.starts_with(": rerun += SCRIPT: /") && alone.ends_with("/sleep"), "{alone}");
    }
}
