//! What the configuration says of services: each obstacle names the line that allows it, the line does, and the same
//! line for another service does not.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::{LIMIT, cold};
use crate::case::cell::{Boot, Cell};

/// Starts the services in their order.
const RCS: &str = "\
ip addr add 10.9.9.9/24 dev lo
for script in /etc/init.d/S*; do $script start; done
echo rcS: end
";

/// The services: what each script does before it says that it did. The programs are copies of BusyBox.
const SCRIPTS: [(&str, &str); 5] = [
    (
        "S60device",
        "for node in 'fuse 10 229' 'loop-control 10 237'; do
            mknod /dev/${node%% *} c ${node#* }
            (exec 3<>/dev/${node%% *}) 2>/dev/null && exec 3<>/dev/${node%% *} && break
        done
        /opt/device/sleep 100000 >/dev/null 2>&1 &",
    ),
    ("S61server", "/opt/server/nc -ll -p 80 -e /bin/cat &"),
    (
        "S62client",
        "mkfifo /run/in
        (exec 4<>/run/in; while ! /opt/client/nc 10.9.9.9 80 <&4 >/dev/null; do usleep 100000; done; echo connection ended > /run/ended) &
        while ! grep -q ' 01 ' /proc/net/tcp; do usleep 10000; done",
    ),
    ("S63apart", "unshare -U /opt/apart/sleep 100000 &"),
    ("S64keys", "/opt/keys/sleep 100000 &"),
];

/// Shows the number of the service with the device.
const OWNER: &str =
    "for p in /proc/[0-9]*; do [ \"$(readlink $p/exe)\" = /opt/device/sleep ] && echo ${p#/proc/}; done";

/// What is there from the start: the server that the client is connected with runs anew, and one service is refused,
/// whatever else it may do.
const GIVEN: &str = "\
store = /var/lib/store
rerun += S61server: /opt/server/nc
refuse = /opt/keys/sleep
reopen = /opt/keys/sleep: *
";

/// A device, a connection, a namespace and a service that is refused: none is captured without its line.
pub fn check(cell: &Cell) -> Result<()> {
    for (name, text) in SCRIPTS {
        cell.script(&format!("etc/init.d/{name}"), &format!("#!/bin/sh\n{text}\necho {name}: started\n"))?;
    }
    for program in ["device/sleep", "server/nc", "client/nc", "apart/sleep", "keys/sleep"] {
        let path = cell.path("opt").join(program);
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        std::fs::copy(cell.path("bin/busybox"), path)?;
    }
    let rcs = std::fs::read_to_string(cell.path("etc/init.d/rcS"))?;
    cell.script("etc/init.d/rcS", &rcs.replace("echo rcS: end\n", RCS))?;
    cell.write("etc/rcsnap.conf", GIVEN)?;
    let lines = lines(cell)?;
    cell.write("etc/rcsnap.conf", &(GIVEN.to_owned() + &lines.join("\n") + "\n"))?;
    cold(cell, &[], "no image with this key")?.wait_for("rcsnap: published: ", LIMIT)?;
    let mut boot = cell.boot(&[])?;
    boot.wait_for("getty", LIMIT)?;
    let console = boot.console()?;
    ensure!(console.contains("rcsnap: restored: "), "not restored:\n{console}");
    let ran: Vec<&str> = console.lines().filter_map(|line| line.strip_suffix(": started")).collect();
    ensure!(ran == ["S61server", "S63apart", "S64keys"], "the reruns were {ran:?}:\n{console}");
    let device = inside(&boot, &format!("readlink /proc/$({OWNER})/fd/3"))?;
    ensure!(device.starts_with("/dev/"), "the device is not open: {device}");
    let ended = inside(
        &boot,
        "for n in $(seq 500); do [ -e /run/ended ] && break; usleep 10000; done; cat /run/ended",
    )?;
    ensure!(ended.contains("connection ended"), "the connection did not end: {ended}");
    Ok(())
}

/// Boots and follows the remedies of all obstacles, first as a question. Returns the lines.
fn lines(cell: &Cell) -> Result<Vec<String>> {
    let mut boot = cold(cell, &[], "no image with this key")?;
    boot.wait_for("rcsnap: not captured: ", LIMIT)?;
    let told = obstacles(&boot, "")?;
    let lines: Vec<String> = told.iter().filter_map(|obstacle| remedy(obstacle)).collect();
    let device = if lines.iter().any(|line| line.ends_with("fuse")) { "fuse" } else { "loop-control" };
    let expected = [
        &format!("reopen = /opt/device/sleep: /dev/{device}"),
        "close = /opt/client/nc: tcp:10.9.9.9:80",
        "rerun += S63apart: /opt/apart/sleep",
        "rerun += S64keys: /opt/keys/sleep",
    ];
    let set = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<BTreeSet<_>>();
    ensure!(lines.iter().cloned().collect::<BTreeSet<_>>() == set(&expected), "the obstacles are {told:#?}");
    let opens = expected[0];
    for line in &lines {
        let left = obstacles(&boot, line)?;
        let cured: Vec<&String> = told.iter().filter(|obstacle| !left.contains(obstacle)).collect();
        ensure!(cured.len() == 1 && cured[0].contains(line), "{line} cures {cured:#?}");
        let other = line.replace("/opt/", "/usr/");
        ensure!(obstacles(&boot, &other)? == told, "{other} cures something");
    }
    for (line, carried) in [("", false), ("reopen = /usr/sleep: *", false), (opens, true)] {
        let capture =
            format!("/sbin/rcsnap capture --tree $({OWNER}) --allow '{line}' /run/image && echo carried");
        let told = inside(&boot, &capture)?;
        ensure!(told.contains("carried") == carried, "the tree with \"{line}\": {told}");
    }
    Ok(lines)
}

/// What `rcsnap check` says, with this line as if it were in the configuration.
fn obstacles(boot: &Boot, line: &str) -> Result<Vec<String>> {
    let told = inside(boot, &format!("/sbin/rcsnap check --allow '{line}'"))?;
    Ok(told.lines().filter(|line| line.starts_with("obstacle: ")).map(str::to_owned).collect())
}

/// The line of the configuration in the remedy of an obstacle.
fn remedy(obstacle: &str) -> Option<String> {
    let (_, remedy) = obstacle.split_once(" (remedy: ")?;
    Some(remedy.strip_suffix(')')?.split_once(": ")?.1.to_owned())
}

/// What a command of the guest's shell prints, however it ends.
fn inside(boot: &Boot, command: &str) -> Result<String> {
    boot.run(&["/bin/sh", "-c", &format!("{command}; true")])
}
