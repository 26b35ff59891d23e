//! The cell: the boot flow as PID 1 of a pid namespace with its own root, network, IPC and host name.
//!
//! A boot takes milliseconds, on this machine's own kernel, and is killed as a whole by ending its PID 1. It
//! leaves out what no namespace has: global sysctls, modules, devices, the kernel log, and reboot(2) ends the
//! cell. The root is a folder on a tmpfs that outlives the boots, as a disk does.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::packages;

/// What the guest's init does when nothing else is asked for: a Buildroot inittab, reduced.
const INITTAB: &str = "\
::sysinit:/etc/init.d/rcS
::wait:/sbin/rcsnap ready
::respawn:/bin/sh -c 'echo getty; exec sleep 1000'
::shutdown:/bin/true
";

/// Scripts with state that only the cold boot can make: a daemon with a token and a counter.
const RCS: &str = "\
#!/bin/sh
echo rcS: start
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
hostname cell
ip link set lo up
/etc/init.d/counter &
while [ ! -e /run/counter ]; do usleep 1000; done
cut -d ' ' -f 1 /run/counter > /var/lib/token
echo rcS: end
";

/// Prints its token and a number that goes on, whenever it finds a question.
const COUNTER: &str = "\
#!/bin/sh
token=$(cat /proc/sys/kernel/random/uuid)
count=0
while :; do
    count=$((count + 1))
    echo \"$token $count\" > /run/counter.new && mv /run/counter.new /run/counter
    sleep 1
done
";

/// Runs inside the new namespaces, before anything of the guest: `$1` is the root, `$2` busybox.
const SETUP: &str = r#"
set -e
root=$1 busybox=$2; shift 2
m() { "$busybox" mount "$@"; }
m --bind "$root" "$root"
m -t tmpfs -o mode=755 dev "$root/dev"
for node in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0' 'console 1 3'; do
    "$busybox" mknod -m 666 "$root/dev/${node%% *}" c ${node#* }
done
cd "$root"
"$busybox" pivot_root . old
exec /bin/busybox chroot . /bin/sh -c '
    umount -l /old
    exec /sbin/rcsnap "$@" </dev/null >>/var/log/console 2>&1' sh "$@"
"#;

/// How long anything in a cell may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A root folder in which boots can run.
pub struct Cell {
    folder: tempfile::TempDir,
    busybox: PathBuf,
}

/// One boot that is running. Dropping it ends it, like pulling the plug.
pub struct Boot {
    child: Child,
    console: PathBuf,
    from: u64,
    start: Instant,
}

impl Cell {
    /// Makes the root: BusyBox, rcsnap, an inittab and one script.
    pub fn new(rcsnap: &Path) -> Result<Cell> {
        let unpacked = packages::own()?.unpack("cell", &["busybox-static".to_owned()])?;
        let shm = Path::new("/dev/shm");
        let folder = tempfile::Builder::new().prefix("rcsnap-cell-").tempdir_in(if shm.is_dir() {
            shm.to_owned()
        } else {
            std::env::temp_dir()
        })?;
        let cell = Cell { folder, busybox: unpacked.join("bin/busybox") };
        for name in
            ["bin", "dev", "etc/init.d", "old", "proc", "run", "sbin", "sys", "tmp", "var/log", "var/lib"]
        {
            fs::create_dir_all(cell.path(name))?;
        }
        fs::set_permissions(cell.folder.path(), fs::Permissions::from_mode(0o755))?;
        fs::copy(&cell.busybox, cell.path("bin/busybox"))?;
        for applet in [
            "sh", "mount", "umount", "sleep", "cat", "mv", "echo", "hostname", "ip", "true", "ps", "kill",
            "chroot",
        ] {
            std::os::unix::fs::symlink("/bin/busybox", cell.path("bin").join(applet))?;
        }
        std::os::unix::fs::symlink("/bin/busybox", cell.path("sbin/init"))?;
        fs::copy(rcsnap, cell.path("sbin/rcsnap"))?;
        // A file of fixed length is a store as a partition is.
        File::create(cell.path("var/lib/store"))?.set_len(32 << 20)?;
        cell.write("etc/rcsnap.conf", "store = /var/lib/store\n")?;
        cell.write("etc/hosts", "127.0.0.1 localhost\n")?;
        cell.write("etc/inittab", INITTAB)?;
        cell.script("etc/init.d/rcS", RCS)?;
        cell.script("etc/init.d/counter", COUNTER)?;
        Ok(cell)
    }

    /// Keeps the content of the root for [`Cell::reset`].
    pub fn save(&self) -> Result<tempfile::TempDir> {
        let saved = Self::folder()?;
        copy(self.folder.path(), saved.path())?;
        Ok(saved)
    }

    /// Puts the content of the root back, times included. The folder stays the same: it is the source of the
    /// root mount, and an image fits no other.
    pub fn reset(&self, saved: &Path) -> Result<()> {
        for entry in fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(path)?
            } else {
                fs::remove_file(path)?
            }
        }
        copy(saved, self.folder.path())
    }

    /// An empty folder on a tmpfs, or where there is none, on a disk.
    fn folder() -> Result<tempfile::TempDir> {
        let shm = Path::new("/dev/shm");
        let place = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        tempfile::Builder::new()
            .prefix("rcsnap-cell-")
            .tempdir_in(place)
            .context("making a folder for a cell")
    }

    /// A path of the guest, as this machine sees it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the guest.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.path(name), text).with_context(|| format!("writing {name} of the cell"))
    }

    /// Writes a script of the guest.
    pub fn script(&self, name: &str, text: &str) -> Result<()> {
        self.write(name, text)?;
        Ok(fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755))?)
    }

    /// Boots: rcsnap is PID 1 and takes these words as its kernel command line.
    pub fn boot(&self, words: &[&str]) -> Result<Boot> {
        let console = self.path("var/log/console");
        let from = File::options().append(true).create(true).open(&console)?.metadata()?.len();
        // A pipe of whoever started the lab would be an end outside the image.
        rcsnap::sys::process::close_on_exec_from(3).context("closing foreign descriptors")?;
        let start = Instant::now();
        let child = Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"])
            .args(["--propagation", "private", "--"])
            .arg(&self.busybox)
            .args(["sh", "-c", SETUP, "sh"])
            .arg(self.folder.path())
            .arg(&self.busybox)
            .args(words)
            .env_clear()
            .env("PATH", "/sbin:/bin:/usr/sbin:/usr/bin")
            .stdin(Stdio::null())
            .spawn()
            .context("starting a cell (needs root and unshare of util-linux)")?;
        Ok(Boot { child, console, from, start })
    }
}

/// Copies the content of a folder with all its times and holes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    command.args(["--archive", "--sparse=always", "--no-target-directory"]).arg(from).arg(to);
    crate::run::output(&mut command).map(drop)
}

impl Boot {
    /// What the guest has written to its console on this boot.
    pub fn console(&self) -> Result<String> {
        let mut file = File::open(&self.console)?;
        file.seek(SeekFrom::Start(self.from))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Waits until a whole line of the console holds the text, and says how long it took since the start.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<Duration> {
        loop {
            let console = self.console()?;
            let complete = console.rfind('\n').map_or("", |end| &console[..end]);
            if complete.lines().any(|line| line.contains(text)) {
                return Ok(self.start.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the cell ended ({status}) before it said \"{text}\":\n{console}");
            }
            if self.start.elapsed() > limit {
                bail!("the cell never said \"{text}\":\n{console}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the cell ends by itself: SIGHUP stands for a reboot, SIGINT for a halt (reboot(2)).
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if self.start.elapsed() > limit {
                bail!("the cell does not end:\n{}", self.console()?);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Runs a command inside, with the guest's root and namespaces.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let init = self.init()?;
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(init.to_string()).args(["--all", "--root", "--wd=/", "--"]);
        crate::run::output(command.args(words).env_clear().env("PATH", "/sbin:/bin"))
    }

    /// PID 1 of the cell, as this machine numbers it: the only child of unshare.
    pub fn init(&self) -> Result<u32> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        children.split_whitespace().next().and_then(|word| word.parse().ok()).context("the cell has no PID 1")
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        if let Ok(init) = self.init() {
            // unshare passes its child's end on; killing PID 1 ends everything in the namespace.
            let _ = Command::new("kill").args(["-KILL", &init.to_string()]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Boot a cell: rcsnap as PID 1 of a pid namespace, in milliseconds, on this machine's kernel.
#[derive(argh::FromArgs)]
#[argh(subcommand, name = "cell")]
pub struct Args {
    /// a static rcsnap to use instead of building one
    #[argh(option)]
    binary: Option<PathBuf>,
    /// run the cases of the boot flow instead (needs a binary with the feature `fault`)
    #[argh(switch)]
    check: bool,
    /// how many boots of the same root
    #[argh(option, default = "1")]
    boots: u32,
    /// write the figures to this file; without a file, to standard output
    #[argh(option)]
    json: Option<PathBuf>,
    /// words of the command line, as rcsnap=off
    #[argh(positional)]
    words: Vec<String>,
}

/// Boots, shows the console of each boot, and says when the getty came.
pub fn run(args: &Args) -> Result<bool> {
    let rcsnap = match &args.binary {
        Some(path) => path.clone(),
        None => {
            crate::toolchain::build(
                crate::toolchain::target::of(std::env::consts::ARCH)?,
                if args.check { "fault" } else { "" },
            )?
            .path
        }
    };
    if args.check {
        println!("{} cases passed", super::cells::check(&rcsnap)?);
        return Ok(true);
    }
    let cell = Cell::new(&rcsnap)?;
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    let mut report = crate::report::Report::new("cell");
    for number in 1..=args.boots {
        let mut boot = cell.boot(&words)?;
        let took = boot.wait_for("getty", LIMIT);
        if boot.console()?.contains("rcsnap: captured: ") {
            boot.wait_for("rcsnap: published: ", LIMIT)?;
        }
        println!("--- boot {number}");
        print!("{}", boot.console()?);
        let ms = took?.as_millis();
        println!("{}", boot.run(&["/sbin/rcsnap", "status"])?.trim_end());
        println!("{}", boot.run(&["/bin/ps", "-o", "pid,ppid,sid,comm"])?.trim_end());
        println!("--- getty after {ms} ms");
        report.put(&format!("boot_{number}_ms"), u64::try_from(ms)?);
    }
    report.write(args.json.as_deref())?;
    Ok(true)
}
