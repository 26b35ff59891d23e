//! Help for the tests of the kinds: descriptions of this process's own descriptors.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Actor, Description, Entry, Known, Opener, Scope, State, Who, World, pty, table};
use crate::config::Config;
use crate::error::{Error, Refusal, Result};
use crate::proc::fdinfo;

/// Does the calls itself: fit for tests whose sockets all belong to this process.
pub struct Own;

impl Actor for Own {
    fn socketpair(&mut self, _who: &Who, kind: i32) -> Result<(OwnedFd, OwnedFd), Error> {
        crate::sys::socket::pair(kind).map_err(|errno| Error::os("test", "pair", errno))
    }
    fn listen(&mut self, _who: &Who, socket: BorrowedFd<'_>, backlog: i32) -> Result<(), Error> {
        crate::sys::socket::listen(socket, backlog).map_err(|errno| Error::os("test", "listen", errno))
    }
    fn connect(&mut self, _who: &Who, socket: BorrowedFd<'_>, address: &[u8]) -> Result<(), Error> {
        crate::sys::socket::connect(socket, address).map_err(|errno| Error::os("test", "connect", errno))
    }
}

/// A description of one of our descriptors.
pub fn describe(fd: &OwnedFd) -> Description {
    describe_as(fd, 0)
}

fn describe_as(fd: &OwnedFd, entry: u32) -> Description {
    let number = fd.as_raw_fd();
    let link = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap().to_string_lossy().into_owned();
    let mut info = fdinfo::parse(&std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap());
    info.flags &= !libc::O_CLOEXEC;
    let stat = nix::sys::stat::fstat(fd).unwrap().into();
    let holders = vec![(std::process::id(), number)];
    Description {
        entry,
        fd: fd.try_clone().unwrap(),
        link,
        info,
        stat,
        holders,
        external: None,
        queue: super::unix_queue::look(fd),
        spaces: crate::task::namespace::Spaces::HOME,
    }
}

/// A world of these descriptions and this process.
pub fn world<T>(descriptions: &[Description], work: impl FnOnce(&World<'_>) -> T) -> T {
    world_of(Scope::Tree, "", descriptions, work)
}

fn world_of<T>(
    scope: Scope,
    config: &str,
    descriptions: &[Description],
    work: impl FnOnce(&World<'_>) -> T,
) -> T {
    let processes = [std::process::id()];
    let config = Config::parse(config, &[]);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    work(&World {
        scope,
        root: "",
        config: &config,
        ahead: Default::default(),
        processes: &processes,
        tasks: &crate::sorted::Map::new(),
        descriptions,
        known: Known::default(),
        spaces: crate::task::namespace::Spaces::HOME,
        seen: &crate::task::namespace::Seen::default(),
    })
}

/// Runs `work` while another thread lives, with its number. It is not in the image.
pub fn beside(work: impl FnOnce(u32)) {
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        tell.send(nix::unistd::gettid().as_raw().cast_unsigned()).unwrap();
        let _ = ends.recv();
    });
    work(told.recv().unwrap());
    drop(end);
    thread.join().unwrap();
}

/// Capture and restore of one kind.
pub fn once<S>(
    fd: &OwnedFd,
    capture: impl Fn(&Description, &World<'_>) -> Result<Box<S>, Refusal>,
    restore: impl Fn(&S, &mut Opener) -> Result<OwnedFd>,
) -> (S, OwnedFd) {
    let descriptions = [describe(fd)];
    let state = world(&descriptions, |world| capture(&descriptions[0], world)).unwrap();
    let again = restored(&*state, restore);
    (*state, again)
}

/// Restore of one kind.
pub fn restored<S>(state: &S, restore: impl Fn(&S, &mut Opener) -> Result<OwnedFd>) -> OwnedFd {
    let mut actor = Own;
    let mut opener = Opener {
        entries: &[],
        entry: 0,
        open: Vec::new(),
        base: 3,
        actor: &mut actor,
        ends: crate::sorted::Map::new(),
    };
    restore(state, &mut opener).unwrap()
}

/// Capture, restore, and capture once more, which must give the same.
pub fn round_trip<S: PartialEq + std::fmt::Debug>(
    fd: &OwnedFd,
    capture: impl Fn(&Description, &World<'_>) -> Result<Box<S>, Refusal>,
    restore: impl Fn(&S, &mut Opener) -> Result<OwnedFd>,
) -> (S, OwnedFd) {
    let (state, again) = once(fd, &capture, restore);
    let descriptions = [describe(&again)];
    assert_eq!(*world(&descriptions, |world| capture(&descriptions[0], world)).unwrap(), state);
    (state, again)
}

/// Entries of several descriptors, as one table.
pub fn entries(fds: &[&OwnedFd]) -> Result<Vec<Entry>, Refusal> {
    entries_with("", fds)
}

/// The same under a configuration.
pub fn entries_with(config: &str, fds: &[&OwnedFd]) -> Result<Vec<Entry>, Refusal> {
    let descriptions: Vec<_> = (0..).zip(fds).map(|(i, fd)| describe_as(fd, i)).collect();
    world_of(Scope::Tree, config, &descriptions, table::entries)
}

/// Follows the remedy of what is refused: its line allows it, and the same line for another service does not.
/// Returns the line, and the state of the first.
pub fn cured(fds: &[&OwnedFd]) -> (String, State) {
    let refusal = refused(fds);
    let (_, line) = refusal.remedy.split_once(": ").unwrap();
    let own = std::env::current_exe().unwrap();
    assert!(line.contains(&format!(" = {}: ", own.to_str().unwrap())), "{line}");
    let other = line.replacen(own.to_str().unwrap(), "/usr/sbin/other", 1);
    assert_eq!(entries_with(&other, fds).unwrap_err(), refusal);
    let state = entries_with(line, fds).unwrap().swap_remove(0).state;
    (line.replacen(own.to_str().unwrap(), "EXE", 1), state)
}

/// Round trip of descriptors as if all others of this process belonged to a rerun service.
pub fn states_of_system(fds: Vec<OwnedFd>) -> States {
    let descriptions: Vec<_> = (0..).zip(&fds).map(|(i, fd)| describe_as(fd, i)).collect();
    let before = world_of(Scope::System, "", &descriptions, table::entries).unwrap();
    let flags = fds.iter().map(kept_flags).collect();
    drop((fds, descriptions));
    again(flags, before)
}

/// The states of descriptors in the same view.
pub fn capture_of_system(fds: &[&OwnedFd]) -> Vec<State> {
    let descriptions: Vec<_> = (0..).zip(fds).map(|(i, fd)| describe_as(fd, i)).collect();
    let entries = world_of(Scope::System, "", &descriptions, table::entries).unwrap();
    entries.into_iter().map(|entry| entry.state).collect()
}

/// The refusal in the same view.
pub fn refused_of_system(fds: &[&OwnedFd]) -> Refusal {
    let descriptions: Vec<_> = (0..).zip(fds).map(|(i, fd)| describe_as(fd, i)).collect();
    world_of(Scope::System, "", &descriptions, table::entries).unwrap_err()
}

/// The refusal of the first descriptor that is refused.
pub fn refused(fds: &[&OwnedFd]) -> Refusal {
    entries(fds).unwrap_err()
}

/// What [`states`] found.
pub struct States {
    /// The first capture.
    pub before: Vec<State>,
    /// The capture of what was restored.
    pub after: Vec<State>,
    /// What was restored.
    pub open: Vec<OwnedFd>,
}

/// Whole round trip of several descriptors through the table.
pub fn states(fds: &[&OwnedFd]) -> States {
    let before = entries(fds).unwrap();
    again(fds.iter().map(|fd| kept_flags(fd)).collect(), before)
}

/// The same, with the originals closed before the restore, so that their numbers are free.
pub fn states_alone(fds: Vec<OwnedFd>) -> States {
    let before = entries(&fds.iter().collect::<Vec<_>>()).unwrap();
    let flags = fds.iter().map(kept_flags).collect();
    drop(fds);
    again(flags, before)
}

/// O_LARGEFILE, which is not the same everywhere.
const LARGE: i32 = if cfg!(target_arch = "x86_64") { 0o100_000 } else { 0o400_000 };

/// Flags without those that act at open(2) only.
fn kept_flags(fd: &OwnedFd) -> i32 {
    describe(fd).info.flags & !(libc::O_CREAT | libc::O_NOCTTY | libc::O_DIRECTORY | LARGE)
}

static NUMBER: AtomicU32 = AtomicU32::new(200);

/// Moves a descriptor to a number that no other test uses.
pub fn high(fd: OwnedFd) -> OwnedFd {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed).try_into().unwrap();
    let fd = crate::sys::descriptor::raise(fd, number).unwrap();
    assert_eq!(fd.as_raw_fd(), number);
    fd
}

fn again(flags: Vec<i32>, before: Vec<Entry>) -> States {
    // Far above whatever the tests of other threads open.
    let open =
        table::restore(&before, Vec::new(), pty::prepare(&before, 500).unwrap(), &mut Own, 500).unwrap();
    assert!(open.iter().all(|fd| fd.as_raw_fd() >= 500));
    assert_eq!(flags, open.iter().map(kept_flags).collect::<Vec<_>>());
    let after = entries(&open.iter().collect::<Vec<_>>()).unwrap();
    let states = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.state).collect();
    States { before: states(before), after: states(after), open }
}

/// The restored descriptors only.
pub fn table(fds: &[&OwnedFd]) -> Vec<OwnedFd> {
    states(fds).open
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A new folder.
pub fn directory() -> String {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("rcsnap-file-{}-{count}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path.to_str().unwrap().to_owned()
}
