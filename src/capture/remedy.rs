//! The line of the configuration that would allow a capture: the owner of an obstacle as a rerun service.

use crate::error::Obstacle;
use crate::sys::fs;
use crate::text;

/// Where rc scripts are.
const SCRIPTS: &str = "/etc/init.d";

/// Puts into the remedies of processes that could be rerun what to write into /etc/rcsnap.conf. They must still run.
pub(super) fn complete(obstacles: &mut [Obstacle]) {
    for obstacle in obstacles {
        let rerun = text::has(&obstacle.remedy, "rerun");
        if obstacle.pid > 1
            && (rerun || text::has(&obstacle.remedy, "after `rcsnap ready`"))
            && let Some(program) = program(obstacle.pid)
        {
            let script = script(SCRIPTS, &program);
            obstacle.remedy = format!("{}: rerun = {script}: {program}", obstacle.remedy).into();
        }
    }
}

/// The program of a process as `rerun` takes it: of the applets of one binary it is the name that was called.
fn program(pid: u32) -> Option<String> {
    let program = fs::link_text(format!("/proc/{pid}/exe")).ok()?;
    let called = fs::of_task(pid, "cmdline").ok()?;
    let called = called.split('\0').next()?;
    if text::file_name(called) == text::file_name(&program) {
        return Some(program);
    }
    // Without a path it could be anything.
    fs::real(called).ok().filter(|real| called.starts_with('/') && *real.as_os_str() == *program)?;
    Some(called.to_owned())
}

/// The script that names a program; `SCRIPT` if none does.
fn script(folder: &str, program: &str) -> String {
    let names = fs::names(folder).unwrap_or_default();
    let starts = |name: &std::ffi::OsString| {
        let script = fs::text(format!("{folder}/{}", name.to_string_lossy())).unwrap_or_default();
        text::has(&script, text::file_name(program))
    };
    let found = names.into_iter().find(starts);
    found.map_or_else(|| "SCRIPT".into(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::{complete, script};
    use crate::error::{Obstacle, Refusal};

    #[test]
    fn remedy_names_the_line_of_the_configuration() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        // In execve(2) the parent may go on before the new arguments are shown.
        while std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap().is_empty() {}
        let obstacle =
            |pid| Obstacle::process("file", pid, "sleep", "fd 3", Refusal::new("no", "rerun the service"));
        let mut obstacles =
            [obstacle(child.id()), obstacle(1), Obstacle::kernel("swap", "x", Refusal::new("no", "y"))];
        complete(&mut obstacles);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(obstacles[0].remedy.ends_with("/sleep"), "{}", obstacles[0].remedy);
        assert!(obstacles[0].remedy.starts_with("rerun the service: rerun = "), "{}", obstacles[0].remedy);
        assert_eq!(obstacles[1].remedy, "rerun the service");
        assert_eq!(obstacles[2].remedy, "y");
    }

    #[test]
    fn script_is_the_one_that_names_the_program() {
        let folder = std::env::temp_dir().join(format!("rcsnap-remedy-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("S50web"), "DAEMON=/usr/sbin/lighttpd\n").unwrap();
        let folder = folder.to_str().unwrap();
        assert_eq!(script(folder, "/usr/sbin/lighttpd"), "S50web");
        assert_eq!(script(folder, "/usr/sbin/other"), "SCRIPT");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
