//! QEMU as a child process: one machine, its disks, its console, its forwarded ports.
//!
//! Without KVM: it does not run on every machine, and figures from both kinds would not compare.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use crate::board::{Board, Bus};
use crate::console::Console;
use crate::run::shown;

/// Guest ports that the lab talks to.
pub const GUEST_PORTS: [u16; 5] = [22, 80, 1883, 6379, 8080];

/// What one machine is started with.
pub struct Machine<'a> {
    pub board: &'a Board,
    pub cpu: String,
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    pub command_line: String,
    pub root: &'a Path,
    pub store: Option<&'a Path>,
    /// the real-time clock at power-on, as QEMU writes dates
    pub clock: Option<String>,
    pub log: PathBuf,
}

/// A running machine; it is killed when dropped.
pub struct Qemu {
    child: Child,
    pub console: Console,
    ports: Vec<(u16, u16)>,
}

impl Qemu {
    pub fn start(machine: &Machine) -> Result<Self> {
        let ports: Vec<(u16, u16)> =
            GUEST_PORTS.iter().map(|g| Ok((*g, free_port()?))).collect::<Result<_>>()?;
        let mut command = Command::new(&machine.board.qemu[0]);
        command
            .args(&machine.board.machine)
            .args(["-cpu", &machine.cpu])
            .args(["-m", &machine.board.memory_mib.to_string()]);
        command.args(["-nodefaults", "-display", "none", "-monitor", "none", "-serial", "stdio"]);
        // A second serial line, which nobody uses, for the zoo. Another machine would give it to its firmware.
        if machine.board.tty.starts_with("ttyS") {
            command.args(["-serial", "null"]);
        }
        command.arg("-kernel").arg(machine.kernel).arg("-initrd").arg(machine.initramfs);
        command.args(["-append", &machine.command_line]);
        let bus = machine.board.bus;
        let disks: Vec<_> =
            [Some(machine.root), machine.store].into_iter().flatten().zip(["root", "store"]).collect();
        for (file, id) in in_order(bus, disks) {
            command.args(["-drive", &format!("if=none,id={id},format=raw,file={}", file.display())]);
            command.args(["-device", &format!("virtio-blk-{},drive={id}", bus.suffix())]);
        }
        let forwards: String =
            ports.iter().map(|(g, h)| format!(",hostfwd=tcp:127.0.0.1:{h}-:{g}")).collect();
        command.args(["-netdev", &format!("user,id=net,ipv6=off{forwards}")]);
        // Without a boot ROM: nothing boots from the network, and it is a package of its own.
        let rom = match bus {
            Bus::Pci => ",romfile=",
            Bus::Mmio => "",
        };
        command.args(["-device", &format!("virtio-net-{},netdev=net{rom}", bus.suffix())]);
        if let Some(clock) = &machine.clock {
            command.args(["-rtc", &format!("base={clock}")]);
        }
        // QEMU with its stdin at end of file spins: the pipe stays open as long as the console.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().with_context(|| format!("running {}", shown(&command)))?;
        let (Some(input), Some(out)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("taking the console of QEMU: no pipes");
        };
        let console = Console::new(input, out, &machine.log)?;
        Ok(Self { child, console, ports })
    }

    /// The port of this machine that leads to a guest's.
    pub fn port(&self, guest: u16) -> u16 {
        self.ports.iter().find(|(g, _)| *g == guest).map_or(0, |(_, host)| *host)
    }

    /// The power cut: nothing in the guest gets to run any more.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("ending QEMU")?;
        self.child.wait().context("ending QEMU").map(drop)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Ended already is fine.
        self.kill().ok();
    }
}

/// Linux finds the devices of QEMU's virtio-mmio last to first.
fn in_order<T>(bus: Bus, mut disks: Vec<T>) -> Vec<T> {
    if matches!(bus, Bus::Mmio) {
        disks.reverse();
    }
    disks
}

/// A port nobody listens on now, and that no other machine of this lab was given: the kernel may hand out
/// the same one again before QEMU has taken it.
fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..100 {
        let port = TcpListener::bind(("127.0.0.1", 0)).context("finding a free port")?.local_addr()?.port();
        if given.insert(port) {
            return Ok(port);
        }
    }
    bail!("finding a free port: the same ones come again");
}
