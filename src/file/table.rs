//! The file table: both directions over all descriptions.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::holder::{self, Outsider};
use super::sort::{Sort, one, sort, unknown};
use super::{
    Actor, Description, Entry, Fd, Key, Known, Opener, Scope, State, World, inet, lock, owner, unix,
};
use crate::config::Config;
use crate::error::{Context, Error, Obstacle, Refusal, Result};
use crate::sorted::{self, Listed, Map};
use crate::sys::abi;
use crate::sys::descriptor::{self, FcntlNumber};
use crate::task::clock::Offsets;
use crate::task::memory::Nameless;
use crate::task::namespace::{MOUNT, Seen, Spaces};

const KIND: &str = "file";

/// What to capture.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Whole system or tree.
    pub scope: Scope,
    /// What stands before every path of the captured system: empty, or `/proc/1/root`.
    pub root: &'a str,
    /// One task for each descriptor table, with its name. All are stopped.
    pub tables: &'a [(u32, String)],
    /// Every process in the image, sorted.
    pub processes: &'a [u32],
    /// Every thread in the image, with its process.
    pub tasks: &'a Map<u32, u32>,
    /// How far the clocks of the tasks are ahead of ours.
    pub ahead: Offsets,
    /// Descriptions of the caller: those of the tasks that are the same become [`State::External`].
    pub externals: &'a [BorrowedFd<'a>],
    /// What is allowed beyond the defaults.
    pub config: &'a Config,
    /// Which namespaces there are.
    pub seen: &'a Seen,
}

/// What was captured.
#[derive(Debug, Default)]
pub struct Captured {
    /// The file table. Not to be used if there are obstacles.
    pub entries: Vec<Entry>,
    /// The descriptors of each task of the request.
    pub fds: Map<u32, Vec<Fd>>,
    /// Locks that the puppets must take themselves.
    pub posix_locks: Vec<lock::Posix>,
    /// What cannot be carried.
    pub obstacles: Vec<Obstacle>,
    /// Memfds and deleted files, for those who map them.
    pub nameless: Vec<Nameless>,
    /// Paths of open read-only files on persistent storage: their identity must match at a restore.
    pub inputs: Vec<String>,
}

/// Captures all descriptions of the tasks.
///
/// # Errors
/// If /proc cannot be read or descriptors cannot be copied. What is not supported is an obstacle instead.
pub fn capture(request: &Request<'_>) -> Result<Captured> {
    let mut found = holder::gather(request.tables, request.externals)?;
    let outsiders = holder::outsiders(&found.descriptions, request.processes)?;
    for desc in &mut found.descriptions {
        desc.spaces = request.seen.of_description(desc)?;
    }
    let mut places: Vec<&Spaces> = Vec::new();
    for desc in &found.descriptions {
        if !places.contains(&&desc.spaces) {
            places.push(&desc.spaces);
        }
    }
    // What a kind asks the kernel for is another thing in each network namespace.
    let mut entries: Map<u32, Result<Entry, Refusal>> = Map::new();
    for spaces in places {
        let world = World {
            scope: request.scope,
            root: spaces.root(request.root),
            config: request.config,
            ahead: request.ahead,
            processes: request.processes,
            tasks: request.tasks,
            descriptions: &found.descriptions,
            known: Known::default(),
            spaces: spaces.clone(),
            seen: request.seen,
        };
        request.seen.inside(spaces, &mut || {
            for desc in world.descriptions.iter().filter(|desc| desc.spaces == *spaces) {
                entries.insert(desc.entry, entry(desc, &world, outsiders.get(&desc.entry)));
            }
            Ok(())
        })?;
    }
    let mut captured = Captured { fds: found.fds, posix_locks: found.posix, ..Captured::default() };
    for (desc, (_, entry)) in found.descriptions.iter().zip(entries) {
        match entry {
            Ok(entry) => {
                if let State::Regular(regular) = &entry.state
                    && regular.input.is_some()
                {
                    match request.seen.at_home(&regular.place.path, &entry.spaces) {
                        Ok(path) => captured.inputs.push(path),
                        Err(refusal) => captured.obstacles.push(obstacle(desc, request, refusal)),
                    }
                }
                if desc.stat.format() == libc::S_IFREG
                    && matches!(entry.state, State::Memfd(_) | State::Deleted(_))
                {
                    let id = (desc.stat.dev, desc.stat.ino);
                    captured.nameless.push(Nameless { id, entry: desc.entry, writes: desc.writes() });
                }
                captured.entries.push(entry);
            }
            Err(refusal) => captured.obstacles.push(obstacle(desc, request, refusal)),
        }
    }
    sorted::sort(&mut captured.inputs);
    captured.inputs.dedup();
    Ok(captured)
}

/// The entries of descriptions that nobody else holds.
#[cfg(test)]
pub(super) fn entries(world: &World<'_>) -> Result<Vec<Entry>, Refusal> {
    world.descriptions.iter().map(|desc| entry(desc, world, None)).collect()
}

fn obstacle(desc: &Description, request: &Request<'_>, refusal: Refusal) -> Obstacle {
    let (pid, fd) = desc.holders.first().copied().unwrap_or_default();
    let name = request.tables.iter().find(|(table, _)| *table == pid).map_or("", |(_, comm)| comm.as_str());
    // Nobody holds what is in the queue of a socket.
    let object =
        if pid == 0 { format!("{} in a queue", desc.link) } else { format!("fd {fd} {}", desc.link) };
    Obstacle::process(sort(desc).map_or(KIND, Sort::name), pid, name, object, refusal)
}

fn entry(desc: &Description, world: &World<'_>, outsider: Option<&Outsider>) -> Result<Entry, Refusal> {
    if let Some(number) = desc.external {
        return Ok(Entry {
            flags: desc.info.flags,
            owner: None,
            locks: Vec::new(),
            spaces: Spaces::HOME,
            state: State::External(number),
        });
    }
    let state = sort(desc).ok_or_else(|| unknown(desc)).and_then(|sort| sort.capture(desc, world))?;
    if let Some(Outsider { pid, comm, fd }) = outsider {
        if world.outside_ends() {
            crate::log!(Info, "file: {comm}[{pid}], which is left out, has {} open too", desc.link);
        } else {
            let reason = format!("{comm}[{pid}], which is outside the image, has it open too, as fd {fd}");
            return Err(Refusal::new(reason, "start both after `rcsnap ready`"));
        }
    }
    if matches!(state, State::Pty(_)) && desc.spaces.of[MOUNT] != 0 {
        let reason = "it was opened in a mount namespace of its own";
        return Err(Refusal::new(reason, "start its owner after `rcsnap ready`"));
    }
    let (flags, spaces) = (desc.info.flags & KEPT, desc.spaces.clone());
    if flags & libc::O_PATH != 0 {
        return Ok(Entry { flags, owner: None, locks: Vec::new(), spaces, state });
    }
    Ok(Entry { flags, owner: owner::capture(desc, world)?, locks: lock::capture(&desc.info)?, spaces, state })
}

/// Flags that stay with a description: all but those that act at open(2) only (O_TMPFILE contains O_DIRECTORY).
const KEPT: i32 = SETTABLE | libc::O_ACCMODE | libc::O_SYNC | libc::O_DSYNC | libc::O_PATH | abi::LARGE;
/// Flags that F_SETFL sets.
const SETTABLE: i32 = libc::O_APPEND | libc::O_ASYNC | libc::O_DIRECT | libc::O_NOATIME | libc::O_NONBLOCK;

/// The lowest `base` for [`restore`]: above every descriptor and every number an epoll watches.
#[must_use]
pub fn floor<'a>(entries: &[Entry], fds: impl Iterator<Item = &'a Fd>) -> i32 {
    let watched = entries.iter().filter_map(|entry| match &entry.state {
        State::Epoll(epoll) => epoll.watches.iter().map(|watch| watch.fd).max(),
        _ => None,
    });
    watched.chain(fds.map(|fd| fd.fd)).max().unwrap_or(2) + 1
}

/// Paths in sysfs of the devices that must be there before anything is opened. They may appear late.
#[must_use]
pub fn required(entries: &[Entry]) -> Vec<String> {
    let mut needs = Vec::new();
    for entry in entries {
        let need = match &entry.state {
            State::Device(state) => &state.sysfs,
            State::Tty(state) => &state.sysfs,
            _ => continue,
        };
        if !need.is_empty() && !needs.contains(need) {
            needs.push(need.clone());
        }
    }
    needs
}

/// Opens every description of the table. Called when the state of the kernel is back and all puppets exist;
/// numbers below `base` (see [`floor`]) must be free in this process, and every descriptor returned is
/// at or above it. `ends` is what [`pty::prepare`](super::pty::prepare) made. The result goes by entry number.
///
/// # Errors
/// The first thing that could not be opened.
pub fn restore(
    entries: &[Entry],
    externals: Vec<OwnedFd>,
    ends: Map<Key, OwnedFd>,
    actor: &mut dyn Actor,
    base: i32,
) -> Result<Vec<OwnedFd>> {
    // Each entry may have an object that is kept for its other descriptions.
    holder::make_room(usize::try_from(base).unwrap_or(0) + 2 * entries.len());
    let open = entries.iter().map(|_| None).list();
    let mut opener = Opener { entries, entry: 0, open, base, actor, ends };
    let mut externals: Vec<Option<OwnedFd>> = externals.into_iter().map(Some).list();
    for rank in 0..=LAST {
        for (i, entry) in (0_u32..).zip(entries) {
            if self::rank(entry, entries, 0) == rank {
                opener.entry = i;
                opener.actor.go(&Spaces::HOME, &entry.spaces)?;
                let fd = one(entry, &mut opener, &mut externals);
                opener.actor.go(&entry.spaces, &Spaces::HOME)?;
                let fd = descriptor::raise(fd?, base).context(KIND, format_args!("moving a descriptor"))?;
                if let Some(place) = opener.open.get_mut(i as usize) {
                    *place = Some(fd);
                }
            }
        }
        if rank == SOCKETS {
            complete(&mut opener)?;
        }
    }
    let Opener { open, ends, .. } = opener;
    // Before the flags: the ends of our own may have kept something open.
    drop(ends);
    let missing = || Error::new(KIND, "opening the file table", "an entry was left out");
    let open = open.into_iter().map(|fd| fd.ok_or_else(missing)).whole()?;
    for (entry, fd) in entries.iter().zip(&open) {
        finish(entry, fd)?;
    }
    Ok(open)
}

/// When all sockets are open.
const SOCKETS: u32 = 1;
/// Epolls nested deeper than the kernel allows (EP_MAX_NESTS is 4) do not exist.
const LAST: u32 = SOCKETS + 7;

/// The order: connected pairs before the sockets that have their addresses for good, an epoll after
/// everything that it watches.
fn rank(entry: &Entry, entries: &[Entry], depth: u32) -> u32 {
    match &entry.state {
        State::Unix(unix) if !matches!(unix.role, unix::Role::Pair { .. } | unix::Role::Left { .. }) => {
            SOCKETS
        }
        State::Inet(inet) if !matches!(inet.role, inet::Role::Pair { .. }) => SOCKETS,
        // After everything that makes files.
        State::Inotify(_) => SOCKETS + 1,
        State::Epoll(epoll) if depth < 5 => {
            let inner = epoll.watches.iter().filter_map(|watch| entries.get(watch.entry as usize));
            1 + inner.map(|inner| rank(inner, entries, depth + 1)).fold(SOCKETS, u32::max).min(LAST - 1)
        }
        _ => 0,
    }
}

/// What needs all sockets to be open.
fn complete(opener: &mut Opener<'_>) -> Result<()> {
    for (i, entry) in (0_u32..).zip(opener.entries) {
        if let State::Unix(state) = &entry.state {
            opener.actor.go(&Spaces::HOME, &entry.spaces)?;
            let done = unix::finish(state, i, opener);
            opener.actor.go(&entry.spaces, &Spaces::HOME)?;
            done?;
        }
    }
    // After every queue is filled, and every name is taken.
    for (entry, fd) in opener.entries.iter().zip(&opener.open) {
        match (&entry.state, fd) {
            (State::Unix(state), Some(fd)) => unix::shut(state, fd)?,
            (State::Inet(state), Some(fd)) => inet::settle(state, fd),
            _ => {}
        }
    }
    Ok(())
}

/// What every description has: locks, owner, flags.
fn finish(entry: &Entry, fd: &OwnedFd) -> Result<()> {
    if entry.flags & libc::O_PATH != 0 || matches!(entry.state, State::External(_)) {
        return Ok(());
    }
    for lock in &entry.locks {
        lock::restore(lock, fd)?;
    }
    if let Some(owner) = &entry.owner {
        owner::restore(owner, fd)?;
    }
    // After the owner, or the first signal would go astray.
    let wanted = entry.flags & SETTABLE;
    let now = descriptor::fcntl(fd.as_fd(), FcntlNumber::GetFlags, 0)
        .context(KIND, format_args!("reading flags"))?;
    if now & SETTABLE != wanted {
        descriptor::fcntl(fd.as_fd(), FcntlNumber::SetFlags, wanted)
            .context(KIND, format_args!("setting flags"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};
    use std::process::{Child, Command, Stdio};

    use super::{Captured, Request, capture, floor, required, restore};
    use crate::config::Config;
    use crate::file::testing::{Own, directory};
    use crate::file::{Scope, State};
    use crate::sorted::Map;

    /// A process that sleeps and has these as 0, 1 and 2.
    fn sleeper(input: OwnedFd, output: OwnedFd, errors: OwnedFd) -> Child {
        sleeper_of("sleep", input, output, errors)
    }

    fn sleeper_of(program: &str, input: OwnedFd, output: OwnedFd, errors: OwnedFd) -> Child {
        let mut command = Command::new(program);
        command.arg("100").stdin(Stdio::from(input)).stdout(Stdio::from(output)).stderr(Stdio::from(errors));
        let child = command.spawn().unwrap();
        // Its loader opens libraries first.
        let wchan = format!("/proc/{}/wchan", child.id());
        while !std::fs::read_to_string(&wchan).unwrap().contains("nanosleep") {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child
    }

    fn take(tasks: &[&Child], externals: &[&OwnedFd]) -> Captured {
        take_with("", tasks, externals)
    }

    fn take_with(config: &str, tasks: &[&Child], externals: &[&OwnedFd]) -> Captured {
        let tables: Vec<_> = tasks.iter().map(|task| (task.id(), "sleep".to_owned())).collect();
        let mut processes: Vec<_> = tasks.iter().map(|task| task.id()).collect();
        processes.sort_unstable();
        let externals: Vec<_> = externals.iter().map(AsFd::as_fd).collect();
        let config = Config::parse(config, &[]);
        let request = Request {
            scope: Scope::Tree,
            root: "",
            tables: &tables,
            processes: &processes,
            tasks: &Map::new(),
            ahead: Default::default(),
            externals: &externals,
            config: &config,
            seen: &crate::task::namespace::Seen::default(),
        };
        capture(&request).unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Closes what came from whoever runs the tests, or every child would have it.
    fn alone() {
        let fds: Vec<_> = std::fs::read_dir("/proc/self/fd").unwrap().flatten().collect();
        for fd in fds {
            let number: i32 = fd.file_name().to_str().unwrap().parse().unwrap();
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
            let flags = crate::proc::fdinfo::parse(&info).flags;
            if number > 2 && !info.is_empty() && flags & libc::O_CLOEXEC == 0 {
                nix::unistd::close(number).unwrap();
            }
        }
    }

    fn null() -> OwnedFd {
        crate::file::place::open("/dev/null", libc::O_RDWR, "test").unwrap()
    }

    fn pipe() -> (OwnedFd, OwnedFd) {
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap()
    }

    #[test]
    fn tables_of_several_processes() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--test-threads=1", "file::table::tests::"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    #[test]
    #[ignore = "run apart by the first test: other tests fork, and would hold the same descriptors"]
    fn shared_descriptions_are_found_across_processes() {
        alone();
        let (out, into) = pipe();
        let errors = null();
        let first = sleeper(null(), into.try_clone().unwrap(), errors.try_clone().unwrap());
        let second = sleeper(out, into, errors);
        let captured = take(&[&first, &second], &[]);
        assert_eq!(captured.obstacles, []);
        let fds =
            |task: &Child| captured.fds[&task.id()].iter().map(|fd| (fd.fd, fd.entry)).collect::<Vec<_>>();
        let (one, two) = (fds(&first), fds(&second));
        assert_eq!((one.len(), two.len()), (3, 3));
        // Output and errors are shared, the inputs are not.
        assert_eq!(one[1..], two[1..]);
        assert_ne!(one[0].1, two[0].1);
        assert_eq!(captured.entries.len(), 4);
        assert!(captured.fds[&first.id()].iter().all(|fd| !fd.cloexec));
        assert_eq!(floor(&captured.entries, captured.fds.values().flatten()), 3);
        assert_eq!(required(&captured.entries), ["devices/virtual/mem/null"]);
        let open = restore(&captured.entries, Vec::new(), Map::new(), &mut Own, 600).unwrap();
        let (read, write) = (&open[two[0].1 as usize], &open[two[1].1 as usize]);
        nix::unistd::write(write, b"through").unwrap();
        assert_eq!(nix::unistd::read(read, &mut [0; 20]).unwrap(), 7);
        end(first);
        end(second);
    }

    #[test]
    #[ignore = "run apart by the first test: other tests fork, and would hold the same descriptors"]
    fn holder_outside_is_named() {
        alone();
        let (out, into) = pipe();
        let inside = sleeper(out, into.try_clone().unwrap(), null());
        let outside = sleeper(null(), into, null());
        let captured = take(&[&inside], &[]);
        let reasons: Vec<_> = captured.obstacles.iter().map(ToString::to_string).collect();
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert!(reasons[0].contains(&format!("sleep[{}], which is outside", outside.id())), "{reasons:?}");
        assert!(
            reasons[0].starts_with(&format!("obstacle: pipe: sleep[{}]: fd 0 pipe:", inside.id())),
            "{reasons:?}"
        );
        end(inside);
        end(outside);
    }

    #[test]
    #[ignore = "run apart by the first test: other tests fork, and would hold the same descriptors"]
    fn shared_offset_of_a_plain_file_counts_as_shared_with_the_outside() {
        alone();
        let dir = directory();
        let path = format!("{dir}/file");
        std::fs::write(&path, "text").unwrap();
        let file = crate::file::place::open(&path, libc::O_RDONLY, "test").unwrap();
        let inside = sleeper(file.try_clone().unwrap(), null(), null());
        let apart = crate::file::place::open(&path, libc::O_RDONLY, "test").unwrap();
        let other = sleeper(apart, null(), null());
        assert_eq!(take(&[&inside], &[]).obstacles, []);
        assert_eq!(take(&[&inside], &[]).inputs, [path]);
        let outside = sleeper(file, null(), null());
        assert_eq!(take(&[&inside], &[]).obstacles.len(), 1);
        for child in [inside, other, outside] {
            end(child);
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    #[ignore = "run apart by the first test: other tests fork, and would hold the same descriptors"]
    fn externals_are_taken_from_the_caller() {
        alone();
        let (out, into) = pipe();
        let task = sleeper(out.try_clone().unwrap(), null(), null());
        let captured = take(&[&task], &[&into, &out]);
        assert_eq!(captured.obstacles, []);
        let entry = captured.fds[&task.id()][0].entry as usize;
        assert_eq!(captured.entries[entry].state, State::External(1));
        let given = vec![into.try_clone().unwrap(), out.try_clone().unwrap()];
        let open = restore(&captured.entries, given, Map::new(), &mut Own, 600).unwrap();
        nix::unistd::write(&into, b"x").unwrap();
        assert_eq!(nix::unistd::read(&open[entry], &mut [0; 4]).unwrap(), 1);
        end(task);
    }

    #[test]
    #[ignore = "run apart by the first test: other tests fork, and would hold the same descriptors"]
    fn file_open_for_writing_on_persistent_storage_is_refused_unless_appended_or_allowed() {
        alone();
        let dir = directory();
        let path = format!("{dir}/log");
        std::fs::write(&path, "").unwrap();
        let file = |flags| crate::file::place::open(&path, libc::O_WRONLY | flags, "test").unwrap();
        let task = sleeper(null(), file(libc::O_APPEND), file(0));
        let captured = take(&[&task], &[]);
        if std::fs::read_to_string("/proc/mounts")
            .unwrap()
            .lines()
            .any(|line| line.starts_with("tmpfs /tmp "))
        {
            end(task);
            return;
        }
        assert_eq!(captured.obstacles.len(), 1);
        assert!(captured.obstacles[0].object.starts_with("fd 2 "), "{:?}", captured.obstacles);
        let line = captured.obstacles[0].remedy.split_once(": ").unwrap().1;
        let name = std::fs::read_link(format!("/proc/{}/exe", task.id())).unwrap();
        assert_eq!(line, format!("writable = {}: {path}", name.to_str().unwrap()));
        assert_eq!(take_with(line, &[&task], &[]).obstacles, []);
        assert_eq!(take_with("writable = /bin/x: /", &[&task], &[]).obstacles, captured.obstacles);
        // Of two holders both must be allowed.
        let shared = file(0);
        let copy = format!("{dir}/sleep");
        std::fs::copy(&name, &copy).unwrap();
        let first = sleeper(null(), null(), shared.try_clone().unwrap());
        let second = sleeper_of(&copy, null(), null(), shared);
        let both = [&first, &second];
        assert_eq!(
            take(&both, &[]).obstacles[0].remedy.split_once(": ").unwrap().1,
            format!("writable = {path}")
        );
        let other = format!("writable = {copy}: {path}\n");
        for (config, count) in
            [(line, 1), (&other, 1), (&[&other, line].concat(), 0), (&format!("writable = {path}"), 0)]
        {
            assert_eq!(take_with(config, &both, &[]).obstacles.len(), count, "{config}");
        }
        for child in [task, first, second] {
            end(child);
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
