//! Kind `epoll`: targets with their data and modes, nested sets, fired one-shots, exclusive and reused numbers.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

const IN: u32 = libc::EPOLLIN as u32;

fn add(epoll: i32, target: i32, events: u32, data: u64) -> Outcome {
    let mut event = libc::epoll_event { events, u64: data };
    sys!(epoll_ctl(epoll, libc::EPOLL_CTL_ADD, target, &raw mut event))?;
    Ok(())
}

/// What is ready now: (events, data), sorted.
fn ready(epoll: i32) -> Vec<(u32, u64)> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 16];
    // SAFETY: room for 16 events.
    let n = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 16, 0) };
    let mut found: Vec<_> =
        events.iter().take(usize::try_from(n).unwrap_or(0)).map(|e| (e.events, e.u64)).collect();
    found.sort_unstable_by_key(|(_, data)| *data);
    found
}

fn targets(epoll: i32) -> String {
    let all = zoo::proc::text(&format!("/proc/self/fdinfo/{epoll}"));
    let mut lines: Vec<String> = all
        .lines()
        .filter(|line| line.starts_with("tfd:"))
        .map(|line| line.split_whitespace().take(6).collect::<Vec<_>>().join(" "))
        .collect();
    lines.sort();
    lines.join("; ")
}

fn program(zoo: &mut Zoo) -> Outcome {
    let set = sys!(epoll_create1(libc::EPOLL_CLOEXEC))?;
    let inner = sys!(epoll_create1(0))?;
    let (level, level_in) = fd::pipe(0)?;
    let (edge, edge_in) = fd::pipe(0)?;
    let (fired, fired_in) = fd::pipe(0)?;
    let (waiting, waiting_in) = fd::pipe(0)?;
    let (nested, nested_in) = fd::pipe(0)?;
    let exclusive = sys!(eventfd(0, 0))?;
    add(set, level, IN, 0x1111_2222_3333_4444)?;
    add(set, edge, IN | libc::EPOLLET as u32 | libc::EPOLLRDHUP as u32, 2)?;
    add(set, fired, IN | libc::EPOLLONESHOT as u32, 3)?;
    add(set, waiting, IN | libc::EPOLLONESHOT as u32, 4)?;
    add(set, exclusive, IN | libc::EPOLLEXCLUSIVE as u32, 5)?;
    add(set, inner, IN, 6)?;
    add(inner, nested, IN, 7)?;
    add(set, level_in, libc::EPOLLOUT as u32 | libc::EPOLLET as u32, 9)?;
    fd::write(fired_in, b"x")?;
    zoo.expect("before", ready(set), vec![(IN, 3), (libc::EPOLLOUT as u32, 9)]);
    let lost = reused(set)?;
    zoo.keep("flags", move || fd::flags(set));
    zoo.keep("targets", move || targets(set));
    zoo.keep("targets of the inner set", move || targets(inner));
    let (told, tell) = fd::pipe(0)?;
    let child = zoo.fork_blocked(move |zoo| {
        zoo.arrive();
        // Whoever looks takes edges away from the other: one after the other.
        fd::read(told, 1)?;
        // The same set, seen by a process that shares it: an eventfd made ready there is seen here.
        zoo.check("a shared set", zoo::eventually(5000, || ready(set).contains(&(IN, 5))));
        Ok(())
    })?;
    zoo.ready();

    // A restore may give one more edge, which costs nothing; it may not lose one.
    let again: Vec<_> = ready(set).into_iter().filter(|(_, data)| *data != 9).collect();
    zoo.expect("a fired one-shot stays silent", again, vec![]);
    fd::write(level_in, b"x")?;
    fd::write(edge_in, b"x")?;
    fd::write(waiting_in, b"x")?;
    let mut wanted = vec![(IN, 2), (IN, 4), (IN, 0x1111_2222_3333_4444)];
    zoo.expect("level, edge and a waiting one-shot", ready(set), wanted.clone());
    wanted.drain(..2);
    zoo.expect("only the level is still up", ready(set), wanted);
    fd::read(level, 1)?;
    fd::write(nested_in, b"x")?;
    zoo.expect("a nested set", ready(set), vec![(IN, 6)]);
    zoo.expect("in the nested set", ready(inner), vec![(IN, 7)]);
    fd::read(nested, 1)?;
    let mut event = libc::epoll_event { events: IN, u64: 33 };
    sys!(epoll_ctl(set, libc::EPOLL_CTL_MOD, fired, &raw mut event))?;
    zoo.expect("a one-shot set again", ready(set), vec![(IN, 33)]);
    fd::read(fired, 1)?;
    fd::write(lost, b"x")?;
    zoo.expect("the description behind a closed number", ready(set), vec![(IN, 8)]);
    fd::read(lost + 1, 1)?;
    fd::write(exclusive, &1_u64.to_ne_bytes())?;
    fd::write(tell, b"x")?;
    zoo.reap("the child that shares the set", child);
    Ok(())
}

/// Adds a pipe under a number that is then closed and used for something else, while a duplicate keeps the pipe
/// open. Returns the write end; the duplicate of the read end has the next number.
fn reused(set: i32) -> Outcome<i32> {
    let (reader, writer) = fd::pipe(0)?;
    add(set, reader, IN, 8)?;
    let write_to = sys!(fcntl(writer, libc::F_DUPFD, 100))?;
    let kept = sys!(fcntl(reader, libc::F_DUPFD, write_to + 1))?;
    sys!(dup2(2, reader))?;
    fd::close(writer);
    if kept == write_to + 1 { Ok(write_to) } else { Err("the numbers are in use".into()) }
}
