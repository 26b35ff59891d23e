//! A set of watched descriptions (epoll(7)).
//!
//! What: every watch: the number it was added under, events, data, and the description behind it.
//! Reads: fdinfo lines `tfd: events: data:`. A number may have been closed or reused since it was added,
//!   and two watches may have the same number, so the description is found with kcmp(KCMP_EPOLL_TFD).
//! Rebuilds: each target is put for a moment at the watch's own number and added: the kernel knows a watch
//!   by description and number. A watch that has fired as EPOLLONESHOT is made to fire again, because
//!   adding always asks for errors and hang-ups too. Inner epolls come first.
//! Loses: the order of the ready list; an edge-triggered watch sees one more edge, never one less. A fired
//!   one-shot watch whose target is not ready reports a hang-up, should one come before it is armed.
//! Refuses: a watch whose description nobody in the image holds.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::{Description, Opener, World};
use crate::error::{Context, Error, Refusal, Result};
use crate::sorted;
use crate::sys::{anonymous, descriptor};

const KIND: &str = "epoll";
/// EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE: what a fired one-shot watch keeps.
const PRIVATE: u32 = 0xf000_0000;
const ONESHOT: u32 = 1 << 30;
/// EPOLLIN | EPOLLOUT | EPOLLRDHUP: something of it is nearly always ready.
const ANY: u32 = 0x2005;

crate::section! {
    /// One watch.
    pub struct Watch {
        /// The number it was added under.
        pub fd: i32,
        /// Which description.
        pub entry: u32,
        /// Events and modes.
        pub events: u32,
        /// The owner's data.
        pub data: u64,
    }
}

crate::section! {
    /// An epoll in the image.
    pub struct State {
        /// Its watches.
        pub watches: Vec<Watch>,
    }
}

/// A line of fdinfo: number, events, data, inode.
struct Line {
    fd: i32,
    events: u32,
    data: u64,
    inode: Option<u64>,
}

/// `tfd: 5 events: 19 data: 5 pos:0 ino:61ef sdev:d`; values after the number are hexadecimal.
fn line(text: &str) -> Option<Line> {
    let value = |name: &str| {
        let (_, rest) = crate::text::split(text, name)?;
        rest.split_ascii_whitespace().next()
    };
    Some(Line {
        fd: value("tfd:")?.parse().ok()?,
        events: u64::from_str_radix(value("events:")?, 16).ok()?.try_into().ok()?,
        data: u64::from_str_radix(value("data:")?, 16).ok()?,
        inode: value("ino:").and_then(|ino| u64::from_str_radix(ino, 16).ok()),
    })
}

/// Reads the watches and finds their descriptions.
///
/// # Errors
/// A refusal if nobody in the image holds one of them.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    let &(pid, epoll) =
        desc.holders.first().ok_or_else(|| Error::new(KIND, "reading the watches", "it has no holder"))?;
    let mut watches: Vec<Watch> = Vec::new();
    for text in desc.info.rest.iter().filter(|text| text.starts_with("tfd:")) {
        let line =
            line(text).ok_or_else(|| Error::new(KIND, "reading the watches", format!("odd line {text}")))?;
        let offset = watches.iter().filter(|watch| watch.fd == line.fd).count();
        let slot = descriptor::EpollSlot {
            epoll: u32::try_from(epoll).unwrap_or(0),
            target: u32::try_from(line.fd).unwrap_or(0),
            offset: u32::try_from(offset).unwrap_or(0),
        };
        let entry = target(&line, pid, &slot, world)?.ok_or_else(|| {
            let reason =
                format!("it watches number {}, which nobody in the image has open any more", line.fd);
            Refusal::new(reason, "remove a descriptor from the epoll before closing it")
        })?;
        watches.push(Watch { fd: line.fd, entry, events: line.events, data: line.data });
    }
    // fdinfo lists them by address.
    sorted::sort_by_key(&mut watches, |watch| (watch.fd, watch.entry));
    Ok(Box::new(State { watches }))
}

/// The description behind a watch of `pid`'s epoll: first the one that has the number now, then any with
/// the same inode.
fn target(line: &Line, pid: u32, slot: &descriptor::EpollSlot, world: &World<'_>) -> Result<Option<u32>> {
    let is = |&(holder, fd): &(u32, i32)| {
        descriptor::kcmp_epoll((holder, fd), pid, slot)
            .context(KIND, format_args!("comparing the watch of number {}", line.fd))
    };
    let number = (pid, line.fd);
    let same_number = world.descriptions.iter().filter(|other| other.holders.contains(&number));
    let same_inode =
        world.descriptions.iter().filter(|other| line.inode.is_none_or(|ino| ino == other.stat.ino));
    for other in same_number.chain(same_inode) {
        if let Some(holder) = other.holders.first()
            && is(holder)?
        {
            return Ok(Some(other.entry));
        }
    }
    Ok(None)
}

/// Whether a watch has fired once and waits to be armed again.
fn spent(events: u32) -> bool {
    events & ONESHOT != 0 && events & !PRIVATE == 0
}

/// Makes it with all its watches. Their targets are open already, inner epolls too.
///
/// # Errors
/// The errno of the calls; a number that is not free in this process.
pub fn restore(state: &State, opener: &mut Opener) -> Result<OwnedFd> {
    let epoll = anonymous::epoll().context(KIND, format_args!("making one"))?;
    // Out of the way of the numbers that are needed below.
    let epoll = descriptor::raise(epoll, opener.base).context(KIND, format_args!("moving it"))?;
    // The spent ones first: firing them must not take an event from another watch.
    let (first, second): (Vec<&Watch>, Vec<&Watch>) =
        state.watches.iter().partition(|watch| spent(watch.events));
    for watch in first.into_iter().chain(second) {
        let target = opener.get(watch.entry).ok_or_else(|| {
            Error::new(KIND, format!("watching number {}", watch.fd), "its description is not open yet")
        })?;
        descriptor::with_number(target, watch.fd, |target| add(&epoll, target, watch))
            .context(KIND, format_args!("watching number {}", watch.fd))?;
    }
    Ok(epoll)
}

fn add(epoll: &OwnedFd, target: std::os::fd::BorrowedFd<'_>, watch: &Watch) -> Result<(), Errno> {
    if !spent(watch.events) {
        return anonymous::epoll_add(epoll.as_fd(), target, watch.events, watch.data);
    }
    anonymous::epoll_add(epoll.as_fd(), target, watch.events | ANY, watch.data)?;
    if !anonymous::epoll_take(epoll.as_fd())? {
        anonymous::epoll_change(epoll.as_fd(), target, watch.events, watch.data)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};

    use nix::unistd::{read, write};

    use super::{ONESHOT, line};
    use crate::file::testing::{States, high, refused, states_alone};
    use crate::file::{State, epoll};
    use crate::sys::anonymous;
    use crate::sys::descriptor::copy;

    fn watches(state: &State) -> &[epoll::Watch] {
        match state {
            State::Epoll(state) => &state.watches,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn line_is_read() {
        let line =
            line("tfd:        5 events: c0000019 data: ffffffffffffffff  pos:0 ino:61ef sdev:d").unwrap();
        assert_eq!((line.fd, line.events, line.data, line.inode), (5, 0xc000_0019, u64::MAX, Some(0x61ef)));
    }

    fn event() -> OwnedFd {
        high(anonymous::eventfd(false).unwrap())
    }

    fn pipe() -> (OwnedFd, OwnedFd) {
        let (out, into) = nix::unistd::pipe().unwrap();
        (high(out), high(into))
    }

    fn epoll_of(targets: &[(&OwnedFd, u32, u64)]) -> OwnedFd {
        let epoll = high(anonymous::epoll().unwrap());
        for (target, events, data) in targets {
            anonymous::epoll_add(epoll.as_fd(), target.as_fd(), *events, *data).unwrap();
        }
        epoll
    }

    #[test]
    fn watches_come_back_with_number_events_and_data() {
        let (out, into) = pipe();
        let event = event();
        let epoll = epoll_of(&[(&out, 1, 77), (&event, 0x9000_0001, 78)]);
        let States { before, after, open } = states_alone(vec![epoll, out, into, event]);
        assert_eq!(before[0], after[0]);
        assert_eq!(watches(&before[0]).len(), 2);
        assert!(!anonymous::epoll_take(open[0].as_fd()).unwrap());
        write(&open[2], b"x").unwrap();
        assert!(anonymous::epoll_take(open[0].as_fd()).unwrap());
    }

    #[test]
    fn number_that_was_closed_and_reused_leads_to_both_descriptions() {
        let old = event();
        let kept = high(old.try_clone().unwrap());
        let number = old.as_raw_fd();
        let epoll = epoll_of(&[(&old, 1, 1)]);
        drop(old);
        let new = copy(anonymous::eventfd(false).unwrap().as_fd(), number).unwrap();
        assert_eq!(new.as_raw_fd(), number);
        anonymous::epoll_add(epoll.as_fd(), new.as_fd(), 1, 2).unwrap();
        let States { before, after, open } = states_alone(vec![epoll, kept, new]);
        assert_eq!(before[0], after[0]);
        let mut found: Vec<(u64, u32)> = watches(&before[0]).iter().map(|w| (w.data, w.entry)).collect();
        found.sort_unstable();
        assert_eq!(found, [(1, 1), (2, 2)]);
        write(&open[1], &1_u64.to_ne_bytes()).unwrap();
        assert!(anonymous::epoll_take(open[0].as_fd()).unwrap());
    }

    #[test]
    fn spent_one_shot_watch_stays_spent() {
        let (out, into) = pipe();
        let epoll = epoll_of(&[(&out, ONESHOT | 1, 5)]);
        write(&into, b"x").unwrap();
        assert!(anonymous::epoll_take(epoll.as_fd()).unwrap());
        let States { before, after, open } = states_alone(vec![epoll, out, into]);
        assert_eq!(watches(&before[0])[0].events, ONESHOT);
        assert_eq!(before[0], after[0]);
        assert!(!anonymous::epoll_take(open[0].as_fd()).unwrap());
        let mut byte = [0];
        read(&open[1], &mut byte).unwrap();
    }

    #[test]
    fn inner_epoll_is_watched() {
        let event = event();
        let inner = epoll_of(&[(&event, 1, 1)]);
        let outer = epoll_of(&[(&inner, 1, 2)]);
        let open = states_alone(vec![outer, inner, event]).open;
        write(&open[2], &1_u64.to_ne_bytes()).unwrap();
        assert!(anonymous::epoll_take(open[0].as_fd()).unwrap());
    }

    #[test]
    fn watch_of_something_outside_is_refused() {
        let event = event();
        let epoll = epoll_of(&[(&event, 1, 1)]);
        assert!(refused(&[&epoll]).reason.contains("watches number"));
    }
}
