//! A pseudo-terminal (pty(7)): a pair of a master and a terminal, the slave.
//!
//! What: either end; number, lock, packet mode, modes, window size, owner of the slave's node, and what is on its way
//!   in both directions. The controlling terminal belongs to the session.
//! Reads: TIOCGPTN, TIOCGPTLCK, TIOCGPKT, TCGETS2, TIOCGLCKTRMIOS, TIOCGWINSZ, TIOCGEXCL; the bytes through a slave of our own (TIOCGPTPEER):
//!   they are taken out and put back.
//! Rebuilds: by opening the multiplexer until the number comes; then the bytes, the modes, and slaves by TIOCGPTPEER. A
//!   slave that was hung up gets a master that is closed again.
//! Loses: what was written to a slave that nobody has opened yet; a newline inside a line (VLNEXT).
//! Refuses: a pair of which an end is outside the image; one whose output is stopped or that nobody reads; a state of
//!   packet mode that was not read; ends with O_ASYNC; a master that was not opened for both directions; line
//!   disciplines other than the usual one; more input than the terminal can hold at once.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::pty_queue::{self, Queue};
use super::{Description, Entry, Key, Opener, World, device, holder, place, tty};
use crate::error::{Context, Error, Refusal, Result};
use crate::sorted::{Listed, Map};
use crate::sys::stat::stat;
use crate::sys::{abi, descriptor, fs, ioctl, path};
use crate::text;

const KIND: &str = "pty";
/// devpts (linux/magic.h).
const DEVPTS: u32 = 0x1cd1;
/// The device number of the multiplexer.
const PTMX: (u64, u64) = (5, 2);
/// The major number of slaves.
pub const SLAVE: u64 = 136;

crate::section! {
    /// One end in the image.
    pub struct State {
        /// The entry that has the body: that of the master, or of the first of the slaves that have none any more.
        pub first: u32,
        /// Whether it is the master.
        pub master: bool,
        /// What both ends share.
        pub body: Option<Body>,
    }
}

crate::section! {
    /// A pair.
    pub struct Body {
        /// The multiplexer that makes it.
        pub ptmx: String,
        /// The folder of the slaves.
        pub folder: String,
        /// Its number.
        pub index: u32,
        /// What it is while its master is open. Otherwise the slaves are hung up.
        pub live: Option<Live>,
    }
}

crate::section! {
    /// A pair whose master is open.
    pub struct Live {
        /// Owner, group and permissions of the slave's node.
        pub node: [u32; 3],
        /// Whether the slave was ever opened: until then the master waits for it.
        pub opened: bool,
        /// Whether the slave cannot be opened.
        pub locked: i32,
        /// Packet mode.
        pub packet: i32,
        /// Modes and size.
        pub settings: tty::Settings,
        /// What is on its way.
        pub queue: Queue,
    }
}

/// Which pair it is.
#[derive(Debug, PartialEq)]
struct Pair {
    /// The instance of devpts: its device number.
    dev: u64,
    index: u32,
    folder: String,
}

fn is_master(desc: &Description) -> bool {
    device::numbers(desc.stat.rdev) == PTMX
}

/// Whether a character device is an end of a pair.
#[must_use]
pub fn is_pty(desc: &Description) -> bool {
    is_master(desc) || tty::number(desc).is_ok_and(|rdev| device::numbers(rdev).0 == SLAVE)
}

/// Finds out which pair an end belongs to.
fn pair(desc: &Description, world: &World<'_>) -> Result<Pair, Refusal> {
    let doing = format_args!("asking its number");
    let index = match is_master(desc) {
        true => ioctl::get(desc.fd.as_fd(), &ioctl::GET_NUMBER).context(KIND, doing)?,
        false => u32::try_from(device::numbers(tty::number(desc)?).1).unwrap_or(0),
    };
    // The multiplexer stands beside the folder or in it, and so does /dev/tty.
    let beside = text::split_last(&desc.link, '/').map_or("", |(folder, _)| folder);
    let on_devpts = place::magic(desc)? == DEVPTS;
    for folder in [format!("{beside}/pts"), beside.to_owned()] {
        if let Ok(ptmx) = stat(world.inside(&format!("{folder}/ptmx")))
            && device::numbers(ptmx.rdev) == PTMX
            && (!on_devpts || ptmx.dev == desc.stat.dev)
        {
            return Ok(Pair { dev: ptmx.dev, index, folder });
        }
    }
    Err(unreadable("its devpts is not mounted beside it"))
}

fn unreadable(reason: &'static str) -> Refusal {
    Refusal::new(reason, "start its owner after `rcsnap ready`")
}

/// Reads one end, and with the first the pair.
///
/// # Errors
/// A refusal, as the head of the file says.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    let own = pair(desc, world)?;
    let ends = world.descriptions.iter().filter(|end| !end.is_path() && is_pty(end));
    let ends: Vec<_> = ends.filter(|end| pair(end, world).is_ok_and(|other| other == own)).list();
    let master = ends.iter().find(|end| is_master(end));
    let hung_up = master.is_none() && ioctl::get(desc.fd.as_fd(), &ioctl::GET_WINDOW).is_err();
    if !hung_up && (master.is_none() || ends.iter().any(|end| end.external.is_some())) {
        return Err(outside(&own, world, true));
    }
    let first = master.or(ends.first()).map_or(desc.entry, |first| first.entry);
    let (is_master, mut body) = (is_master(desc), None);
    if first == desc.entry {
        let (ptmx, live) = match is_master {
            true => (place::find(desc, world)?.path, Some(live(desc, &ends, &own, world)?)),
            false => (format!("{}/ptmx", own.folder), None),
        };
        body = Some(Body { ptmx, folder: own.folder, index: own.index, live });
    }
    Ok(Box::new(State { first, master: is_master, body }))
}

/// The refusal of a pair with an end outside the image, which names who has it.
fn outside(pair: &Pair, world: &World<'_>, master: bool) -> Refusal {
    let holder = holder(pair, world, master).unwrap_or_else(|| "the caller".to_owned());
    Refusal::new(
        format!("{holder}, which is outside the image, has its other end"),
        "start both after `rcsnap ready`",
    )
}

/// A task outside the image that has an end of a pair open.
fn holder(pair: &Pair, world: &World<'_>, master: bool) -> Option<String> {
    let wanted = format!("tty-index:\t{}\n", pair.index);
    for pid in fs::numbers("/proc").ok()? {
        if pid == std::process::id() || world.has_process(pid) {
            continue;
        }
        for fd in fs::numbers(format!("/proc/{pid}/fd")).unwrap_or_default() {
            let Ok(found) = stat(format!("/proc/{pid}/fd/{fd}")) else { continue };
            let numbers = device::numbers(found.rdev);
            let is_end = match master {
                // The folder does not show the instance, but the number does not mislead often.
                true => {
                    numbers == PTMX
                        && fs::of_task(pid, &format!("fdinfo/{fd}"))
                            .is_ok_and(|text| text::has(&text, &wanted))
                }
                false => numbers == (SLAVE, pair.index.into()) && found.dev == pair.dev,
            };
            if is_end {
                return Some(format!("{}[{pid}]", holder::comm(pid)));
            }
        }
    }
    None
}

/// Reads a pair through its master.
fn live(desc: &Description, ends: &[&Description], pair: &Pair, world: &World<'_>) -> Result<Live, Refusal> {
    if holder(pair, world, false).is_some() {
        return Err(outside(pair, world, false));
    }
    if !desc.reads() || !desc.writes() || ends.iter().any(|end| end.info.flags & libc::O_ASYNC != 0) {
        return Err(unreadable("it is open for one direction, or with O_ASYNC"));
    }
    let master = desc.fd.as_fd();
    let doing = format_args!("reading pseudo-terminal {}", pair.index);
    let mut settings = tty::settings(master)?;
    settings.exclusive = false;
    let locked = ioctl::get(master, &ioctl::GET_LOCK).context(KIND, doing)?;
    let packet = ioctl::get(master, &ioctl::GET_PACKET).context(KIND, doing)?;
    let events = descriptor::ready(master, libc::POLLIN | libc::POLLPRI).context(KIND, doing)?;
    let opened = ends.len() > 1 || events & libc::POLLHUP != 0;
    let node = stat(world.inside(&format!("{}/{}", pair.folder, pair.index))).context(KIND, doing)?;
    let mut queue = Queue { lines: Vec::new(), rest: Vec::new(), output: Vec::new() };
    if opened {
        let slave = peer(master, libc::O_RDWR | libc::O_NONBLOCK, locked).context(KIND, doing)?;
        if tty::discipline(slave.as_fd())? != 0 {
            return Err(unreadable("its line discipline has state of its own"));
        }
        settings.exclusive = ioctl::get(slave.as_fd(), &ioctl::GET_EXCLUSIVE).is_ok_and(|it| it != 0);
        let writable =
            descriptor::ready(slave.as_fd(), libc::POLLOUT).context(KIND, doing)? & libc::POLLOUT != 0;
        if !writable || packet != 0 && events & libc::POLLPRI != 0 {
            return Err(unreadable("its output is stopped or not read, or its master has not read a state"));
        }
        let modes = tty::termios(&settings);
        let mut taken = tty::unfix(master, &settings);
        // Without the byte before everything that is read.
        taken = taken.and(ioctl::set(master, &ioctl::SET_PACKET, &0));
        taken = taken.and_then(|()| pty_queue::take(master, slave.as_fd(), &modes, &mut queue));
        let back = pty_queue::put(master, slave.as_fd(), &modes, &queue);
        let back = back.and(ioctl::set(master, &ioctl::SET_PACKET, &packet)).and(tty::fix(master, &settings));
        taken.context(KIND, doing)?;
        if back == Err(Errno::ENOBUFS) {
            return Err(unreadable("more waits in it than it can hold at once"));
        }
        back.context(KIND, doing)?;
    } else if events & libc::POLLIN != 0 {
        return Err(unreadable("it has echoed, and nobody has opened its slave yet"));
    }
    let node = [node.uid, node.gid, node.mode & 0o7777];
    Ok(Live { node, opened, locked, packet, settings, queue })
}

/// A description of the slave, unlocked for the moment. It is not closed at execve(2): here the kernel takes
/// O_CLOEXEC as a flag of the description, and shows it for all its descriptors.
fn peer(master: BorrowedFd<'_>, flags: i32, locked: i32) -> Result<OwnedFd, Errno> {
    if locked != 0 {
        ioctl::set(master, &ioctl::SET_LOCK, &0)?;
    }
    let slave = ioctl::open_with(master, &ioctl::OPEN_PEER, flags | libc::O_NOCTTY);
    if locked != 0 {
        ioctl::set(master, &ioctl::SET_LOCK, &locked)?;
    }
    slave
}

/// Makes the pairs whose masters are open, before the sessions that they control. Their slaves are not locked before
/// [`lock`].
///
/// # Errors
/// A number that is in use; the errno of the calls.
pub fn prepare(entries: &[Entry], base: i32) -> Result<Map<Key, OwnedFd>> {
    let mut ends = Map::new();
    for (i, entry) in (0..).zip(entries) {
        if let super::State::Pty(state) = &entry.state
            && let Some(body) = state.body.as_ref()
            && let Some(live) = &body.live
        {
            let doing = format_args!("making pseudo-terminal {}", body.index);
            let master = make(body, entry.flags & abi::LARGE)?;
            revive(master.as_fd(), body, live).context(KIND, doing)?;
            ends.insert((KIND, i), descriptor::raise(master, base).context(KIND, doing)?);
        }
    }
    Ok(ends)
}

/// A new master with the number of a pair, unlocked, opened with these flags as well.
fn make(body: &Body, flags: i32) -> Result<OwnedFd> {
    let doing = format_args!("making pseudo-terminal {}", body.index);
    // The kernel gives the lowest free number.
    let mut surplus = Vec::new();
    loop {
        let master = place::open(&body.ptmx, libc::O_RDWR | libc::O_NONBLOCK | flags, KIND)?;
        let index = ioctl::get(master.as_fd(), &ioctl::GET_NUMBER).context(KIND, doing)?;
        if index == body.index {
            ioctl::set(master.as_fd(), &ioctl::SET_LOCK, &0).context(KIND, doing)?;
            return Ok(master);
        }
        if index > body.index {
            return Err(Error::os(KIND, doing.to_string(), Errno::EBUSY));
        }
        surplus.push(master);
    }
}

/// Gives a new pair its state.
fn revive(master: BorrowedFd<'_>, body: &Body, live: &Live) -> Result<(), Errno> {
    let node = format!("{}/{}", body.folder, body.index);
    let [uid, gid, mode] = live.node;
    path::chown(&node, uid, gid)?;
    path::chmod(&node, mode)?;
    if live.opened {
        let slave = peer(master, libc::O_RDWR | libc::O_NONBLOCK, 0)?;
        pty_queue::put(master, slave.as_fd(), &tty::termios(&live.settings), &live.queue)?;
        tty::apply(slave.as_fd(), &live.settings)?;
    } else {
        tty::apply(master, &live.settings)?;
    }
    ioctl::set(master, &ioctl::SET_PACKET, &live.packet)
}

/// Opens one end of a pair that [`prepare`] has made, or makes the pair to hang its slaves up.
///
/// # Errors
/// The errno of the calls.
pub fn restore(state: &State, opener: &mut Opener) -> Result<OwnedFd> {
    let key = (KIND, state.first);
    if let Some(body) = &state.body
        && body.live.is_none()
    {
        opener.keep(key, make(body, 0)?)?;
    }
    let Some(master) = opener.ends.get(&key) else {
        return Err(Error::new(KIND, "opening an end", "its master is missing"));
    };
    let flags = (opener.flags() & (libc::O_ACCMODE | abi::LARGE)) | libc::O_NONBLOCK;
    let end = match state.master {
        true => descriptor::copy(master.as_fd(), opener.base),
        false => peer(master.as_fd(), flags, 0),
    };
    end.context(KIND, format_args!("opening an end"))
}

/// Locks what was locked. The last of all: after it nobody opens a slave.
///
/// # Errors
/// The errno of the call.
pub fn lock(entries: &[Entry], open: &[OwnedFd]) -> Result<()> {
    for (entry, fd) in entries.iter().zip(open) {
        if let super::State::Pty(state) = &entry.state
            && let Some(live) = state.body.as_ref().and_then(|body| body.live.as_ref())
        {
            ioctl::set(fd.as_fd(), &ioctl::SET_LOCK, &live.locked).context(KIND, format_args!("locking"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};
    use std::process::Command;

    use nix::unistd::{read, write};

    use super::{make, peer};
    use crate::file::testing::{entries, refused, states_alone};
    use crate::file::{State, place};
    use crate::sys::ioctl;

    /// A pair, where there is a devpts.
    fn pair() -> Option<(OwnedFd, OwnedFd)> {
        let master = place::open("/dev/ptmx", libc::O_RDWR, "pty").ok()?;
        let slave = peer(master.as_fd(), libc::O_RDWR, 1).ok()?;
        Some((master, slave))
    }

    #[test]
    fn pairs() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--test-threads=1", "file::pty::tests::"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    #[test]
    #[ignore = "run apart by the first test: other tests fork, and would hold the slaves"]
    fn what_waits_comes_back_and_is_not_lost() {
        let Some((master, slave)) = pair() else { return };
        write(&slave, b"up\n").unwrap();
        write(&master, b"one\ntw").unwrap();
        let first = entries(&[&slave, &master]).unwrap();
        assert_eq!(first, entries(&[&slave, &master]).unwrap());
        let State::Pty(state) = &first[1].state else { panic!("{first:?}") };
        let live = state.body.as_ref().unwrap().live.as_ref().unwrap();
        assert_eq!(
            (live.queue.lines.as_slice(), live.queue.rest.as_slice()),
            (&[b"one\n".to_vec()][..], &b"tw"[..])
        );
        assert_eq!((live.queue.output.as_slice(), live.locked), (&b"up\r\none\r\ntw"[..], 1));
        super::lock(&first, &[slave.try_clone().unwrap(), master.try_clone().unwrap()]).unwrap();
        let found = states_alone(vec![slave, master]);
        let mut bytes = [0; 20];
        assert_eq!(read(&found.open[0], &mut bytes).unwrap(), 4);
    }

    #[test]
    #[ignore = "run apart by the first test: other tests fork, and would hold the slaves"]
    fn number_in_use_is_an_error() {
        let Some((master, _slave)) = pair() else { return };
        let index = ioctl::get(master.as_fd(), &ioctl::GET_NUMBER).unwrap();
        let body = super::Body { ptmx: "/dev/ptmx".into(), folder: "/dev/pts".into(), index, live: None };
        assert!(make(&body, 0).unwrap_err().to_string().contains("EBUSY"));
    }

    #[test]
    #[ignore = "run apart by the first test: other tests fork, and would hold the slaves"]
    fn slave_of_a_master_outside_is_refused() {
        let Some((_master, slave)) = pair() else { return };
        assert!(refused(&[&slave]).reason.contains("outside the image"));
    }

    #[test]
    #[ignore = "run apart by the first test: other tests fork, and would hold the slaves"]
    fn stopped_output_is_refused_and_stays() {
        let Some((master, slave)) = pair() else { return };
        write(&slave, b"x").unwrap();
        write(&master, b"\x13").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(refused(&[&master, &slave]).reason.contains("stopped"));
        assert_eq!(read(&master, &mut [0; 20]).unwrap(), 1);
    }

    #[test]
    #[ignore = "run apart by the first test: other tests fork, and would hold the slaves"]
    fn hung_up_slave_is_hung_up_again() {
        let Some((master, slave)) = pair() else { return };
        drop(master);
        let found = states_alone(vec![slave]);
        assert_eq!(found.before, found.after);
        assert_eq!(read(&found.open[0], &mut [0; 20]).unwrap(), 0);
    }
}
