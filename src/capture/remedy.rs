//! The line of the configuration that would allow a capture: the owner of an obstacle as a rerun service.

use crate::config::Service;
use crate::error::Obstacle;
use crate::sys::fs;
use crate::text;

/// Where rc scripts are.
const SCRIPTS: &str = "/etc/init.d";

/// Puts into the remedies of processes that could be rerun what to write into /etc/rcsnap.conf: `+=`, because `=`
/// would set aside the reruns that are there by default. They must still run.
pub(super) fn complete(obstacles: &mut [Obstacle]) {
    for obstacle in obstacles {
        let rerun = text::has(&obstacle.remedy, "rerun");
        if obstacle.pid > 1 && (rerun || text::has(&obstacle.remedy, "after `rcsnap ready`")) {
            let program = Service::of(obstacle.pid).called;
            // Without a name of its own it could be any applet of the binary, and a shell is each of its scripts.
            if program.is_empty() || program.ends_with("sh") {
                continue;
            }
            let script = script(SCRIPTS, &program);
            obstacle.remedy = format!("{}: rerun += {script}: {program}", obstacle.remedy).into();
        }
    }
}

/// The script that names a program, with its path if one does; `SCRIPT` if none names it.
fn script(folder: &str, program: &str) -> String {
    for word in [program, text::file_name(program)] {
        for name in fs::names(folder).unwrap_or_default() {
            let name = name.to_string_lossy();
            let script = fs::text(format!("{folder}/{name}")).unwrap_or_default();
            // rcS starts all others.
            if text::has(&script, word) && !name.starts_with("rc") {
                return name.into_owned();
            }
        }
    }
    "SCRIPT".into()
}

#[cfg(test)]
mod tests {
    use super::{complete, script};
    use crate::error::{Obstacle, Refusal};

    #[test]
    fn remedy_names_the_line_of_the_configuration() {
        // Both show their arguments a moment after they were started.
        let start = |program: &str, argument: &str| {
            let mut command = std::process::Command::new(program);
            let child = command.arg(argument).stdin(std::process::Stdio::piped()).spawn().unwrap();
            while std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap().is_empty() {}
            child
        };
        let mut children = [start("/bin/sleep", "60"), start("/bin/sh", "-s")];
        let obstacle =
            |pid| Obstacle::process("file", pid, "sleep", "fd 3", Refusal::new("no", "rerun the service"));
        let mut obstacles = [
            obstacle(children[0].id()),
            obstacle(1),
            obstacle(children[1].id()),
            Obstacle::kernel("swap", "x", Refusal::new("no", "y")),
        ];
        complete(&mut obstacles);
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
        assert_eq!(script(folder, "/usr/sbin/lighttpd"), "S50web");
        assert_eq!(script(folder, "/opt/bin/lighttpd"), "S60web");
        assert_eq!(script(folder, "/bin/lighttpd"), "S60web");
        assert_eq!(script(folder, "/usr/sbin/other"), "SCRIPT");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
