//! Control groups that programs of the zoo make on this machine: they outlive the namespaces of a run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Takes the groups of a run away. They bear the name of the program and the number of the folder of the run.
pub fn remove(program: &str, folder: &Path) -> Result<()> {
    if !program.starts_with("cgroup") {
        return Ok(());
    }
    let name = format!("zoo.{program}.{}", fs::metadata(folder)?.ino());
    let lines = fs::read_to_string("/proc/self/cgroup").context("reading our control groups")?;
    let homes: Vec<&str> = lines.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
    for mount in rcsnap::proc::mountinfo::parse(&fs::read_to_string("/proc/self/mountinfo")?)? {
        if mount.fstype.starts_with("cgroup") && mount.root == "/" {
            for home in &homes {
                let group = Path::new(&mount.point).join(home.trim_start_matches('/')).join(&name);
                if group.exists() {
                    empty(&group)?;
                }
            }
        }
    }
    Ok(())
}

/// Who was killed may take a moment to leave.
fn empty(group: &Path) -> Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            empty(&entry.path())?;
        }
    }
    for _ in 0..500 {
        match fs::remove_dir(group) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(std::time::Duration::from_millis(4));
            }
            done => return done.with_context(|| format!("removing {}", group.display())),
        }
    }
    bail!("{} does not become empty", group.display())
}
