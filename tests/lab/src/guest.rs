//! A guest: what a test has in its hands. Prepared once (kernel, root file system, binary), then
//! booted as often as one likes, from disks that are copied and edited in between.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::board::{self, Board};
use crate::console::Line;
use crate::disk::Disks;
use crate::initramfs::{self, Entry};
use crate::kernel::{self, Kernel};
use crate::qemu::{Machine, Qemu};
use crate::toolchain::Binary;
use crate::{answer, packages, progress, rootfs, timeline};

/// A boot without KVM takes 15 s on a quiet machine; CI machines are not quiet.
pub const BOOT_LIMIT: Duration = Duration::from_secs(180);
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// Everything that boots of one board have in common.
pub struct Guest {
    pub board: Board,
    pub binary: Binary,
    kernel: Kernel,
    base: PathBuf,
    /// initramfs archives, console logs
    pub folder: PathBuf,
}

/// How to boot.
#[derive(Clone)]
pub struct Boot {
    pub entry: Entry,
    /// an initramfs that is made already, instead of one for the entry
    pub archive: Option<PathBuf>,
    /// another kernel than the board's
    pub kernel: Option<PathBuf>,
    /// words for root and store, instead of the board's own
    pub place: Option<String>,
    /// words behind the board's own command line
    pub words: String,
    /// which init the lab's initramfs starts
    pub init: String,
    pub clock: Option<String>,
    /// another processor than the board's
    pub cpu: Option<String>,
    pub store: bool,
    /// name of the console log
    pub name: String,
}

impl Boot {
    pub fn new(name: &str) -> Self {
        let (words, init) = (String::new(), "/sbin/rcsnap".into());
        let (archive, kernel, place) = (None, None, None);
        Self {
            entry: Entry::Initramfs,
            archive,
            kernel,
            place,
            words,
            init,
            clock: None,
            cpu: None,
            store: true,
            name: name.into(),
        }
    }

    pub fn words(mut self, words: &str) -> Self {
        self.words = words.into();
        self
    }

    pub fn entry(mut self, entry: Entry) -> Self {
        self.entry = entry;
        self
    }
}

impl Guest {
    /// Gets and makes all that is missing. `folder` keeps what boots leave behind.
    pub fn prepare(board: &str, binary: Binary, folder: &Path) -> Result<Self> {
        let board = board::load(board)?;
        packages::need(&[(&board.qemu[0], &board.qemu[1])])?;
        progress::say("getting the kernel");
        let kernel = kernel::fetch(&board)?;
        progress::say("getting the guest's root file system");
        let base = rootfs::image(&board, &kernel)?;
        Ok(Self { board, binary, kernel, base, folder: folder.into() })
    }

    /// New disks with rcsnap in the root and an empty store.
    pub fn disks(&self, name: &str) -> Result<Disks> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder)?;
        Disks::fresh(&folder, &self.base, &self.binary.path, self.board.disk.store_mib)
    }

    /// Disks that an earlier run left, with the binary of now.
    pub fn old_disks(&self, name: &str) -> Result<Disks> {
        let folder = self.folder.join(name);
        let disks = Disks { root: folder.join("root.img"), store: folder.join("store.img") };
        disks.put(&self.binary.path, "/sbin/rcsnap", 0o755)?;
        Ok(disks)
    }

    /// Powers a machine on with these disks.
    pub fn boot(&self, disks: &Disks, boot: &Boot) -> Result<Running> {
        let archive = match &boot.archive {
            Some(archive) => archive.clone(),
            None => initramfs::write(boot.entry, &self.board, &self.kernel, &self.binary.path, &self.folder)?,
        };
        let board = &self.board;
        let place = boot.place.as_ref().unwrap_or(&board.root);
        let mut line = format!("console={} {} {place}", board.tty, board.command_line);
        if boot.store {
            line += &format!(" {}", self.board.store);
        }
        match boot.entry {
            Entry::Init => line += &format!(" init={}", boot.init),
            Entry::Initramfs => {}
        }
        let command_line = format!("{line} {}", boot.words).trim_end().to_string();
        let qemu = Qemu::start(&Machine {
            board,
            cpu: boot.cpu.clone().or_else(|| board.cpu.first().cloned()).context("choosing a processor")?,
            kernel: boot.kernel.as_ref().unwrap_or(&self.kernel.image),
            initramfs: &archive,
            command_line,
            root: &disks.root,
            store: boot.store.then_some(disks.store.as_path()),
            clock: boot.clock.clone(),
            log: self.folder.join(format!("{}.console", boot.name)),
        })?;
        Ok(Running { qemu, commands: 0 })
    }

    /// The release of the kernel that boots.
    pub fn release(&self) -> &str {
        &self.kernel.release
    }

    /// The kernel that boots, with its modules.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }
}

/// A guest that runs.
pub struct Running {
    pub qemu: Qemu,
    commands: u32,
}

/// What a command in the guest came to.
pub struct Outcome {
    pub status: i32,
    pub output: String,
}

impl Running {
    /// Waits until the guest's application serves.
    pub fn app(&self) -> Result<serde_json::Value> {
        let port = self.qemu.port(8080);
        answer::retry(Duration::from_secs(20), || answer::app(port))
    }

    /// Which daemons answer over the network.
    pub fn daemons(&self) -> Vec<(&'static str, Result<()>)> {
        let port = |guest| self.qemu.port(guest);
        vec![
            ("dropbear", answer::ssh(port(22)).map(drop)),
            ("lighttpd", answer::http(port(80), "/").map(drop)),
            ("mosquitto", answer::mqtt(port(1883))),
            ("redis-server", answer::redis(port(6379))),
            ("app", answer::app(port(8080)).map(drop)),
        ]
    }

    /// Waits for one of `texts`, telling each moment of the boot as it comes.
    pub fn follow(&self, texts: &[&str], limit: Duration) -> Result<Line> {
        let end = std::time::Instant::now() + limit;
        let mut told = 0;
        loop {
            let found = self.qemu.console.prompt(0, texts, Duration::from_millis(300));
            for line in self.qemu.console.lines(told) {
                told += 1;
                if let Some(moment) = timeline::moment(&line.text) {
                    progress::say(format!("  {moment}"));
                }
            }
            if found.is_ok() || std::time::Instant::now() > end || self.qemu.console.ended() {
                return found;
            }
        }
    }

    /// Logs in as root on the console; works when the prompt of getty is up or comes up.
    pub fn login(&mut self) -> Result<()> {
        self.qemu.console.prompt(0, &[" login: "], BOOT_LIMIT)?;
        let mark = self.qemu.console.mark();
        self.qemu.console.send("root")?;
        self.qemu.console.prompt(mark, &["# "], COMMAND_LIMIT).context("logging in")?;
        Ok(())
    }

    /// Runs a command in the shell that `login` left on the console.
    pub fn command(&mut self, command: &str) -> Result<Outcome> {
        self.command_within(command, COMMAND_LIMIT)
    }

    /// The same for one that may take longer.
    pub fn command_within(&mut self, command: &str, limit: Duration) -> Result<Outcome> {
        self.commands += 1;
        let number = self.commands;
        let mark = self.qemu.console.mark();
        // The quotes keep the echo of what is typed from looking like the answer.
        self.qemu.console.send(&format!("echo be''gin-{number}; {command}; echo e''nd-{number}:$?"))?;
        let end = format!("end-{number}:");
        let last = self.qemu.console.wait(mark, &[&end], limit)?;
        let lines = self.qemu.console.lines(mark);
        let begin = format!("begin-{number}");
        let inside = lines.iter().skip_while(|l| l.text != begin).skip(1);
        let output = inside.take_while(|l| !l.text.contains(&end)).map(|l| l.text.clone() + "\n").collect();
        let status = last.text.split(&end).nth(1).and_then(|s| s.trim().parse().ok());
        Ok(Outcome { status: status.context("reading an exit status")?, output })
    }

    /// Runs a command that must succeed, and returns what it said.
    pub fn must(&mut self, command: &str) -> Result<String> {
        let done = self.command(command)?;
        ensure!(done.status == 0, "in the guest: {command}: status {}\n{}", done.status, done.output);
        Ok(done.output)
    }

    /// Runs a command until what it says satisfies `enough`.
    pub fn until(&mut self, command: &str, limit: Duration, enough: impl Fn(&str) -> bool) -> Result<String> {
        let end = std::time::Instant::now() + limit;
        loop {
            let done = self.command(command)?;
            if enough(&done.output) {
                return Ok(done.output);
            }
            if std::time::Instant::now() > end {
                bail!("in the guest: waiting for {command}: it says\n{}", done.output);
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}
