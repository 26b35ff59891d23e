//! A pipe (pipe(7)): one object, and often more than two descriptions of it.
//!
//! What: one end; the bytes in the pipe, with packet boundaries (O_DIRECT), and its size.
//! Reads: F_GETPIPE_SZ; the bytes by tee(2) into a pipe of our own, which takes nothing away.
//! Rebuilds: pipe2(2), the size, the bytes; then every description by opening the pipe once more through
//!   /proc/self/fd, so that it does not matter how many ends there are and in which direction they look.
//! Loses: how the bytes were spread over the pipe's buffers.
//! Refuses: a pipe whose other end is held outside the image. In a whole system that is a rerun service, and
//!   counts as closed.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::{Description, Opener, World};
use crate::error::{Context, Error, Refusal, Result};
use crate::sys::descriptor::{self, FcntlNumber};
use crate::sys::{abi, ioctl};

const KIND: &str = "pipe";

crate::section! {
    /// One end of a pipe in the image.
    pub struct State {
        /// The entry of the pipe's first end: ends with the same number are one pipe.
        pub first: u32,
        /// What is in it and how large it is; only with the first end of the file table.
        pub body: Option<Body>,
    }
}

crate::section! {
    /// What all ends of a pipe share.
    pub struct Body {
        /// F_GETPIPE_SZ.
        pub size: i32,
        /// The bytes; more than one element if they are packets, the last of which may then be empty.
        pub packets: Vec<Vec<u8>>,
        /// Owner of the inode: who may open it again through /proc.
        pub uid: u32,
        /// Group.
        pub gid: u32,
        /// Permissions.
        pub mode: u32,
    }
}

/// Reads one end, and with the first end the contents.
///
/// # Errors
/// A refusal if an end is outside the image.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Box<State>, Refusal> {
    Ok(Box::new(State { first: world.first(desc), body: body(desc, world)? }))
}

/// What the ends of a pipe or FIFO share, if `desc` is its first end.
///
/// # Errors
/// A refusal if an end is outside the image.
pub fn body(desc: &Description, world: &World<'_>) -> Result<Option<Body>, Refusal> {
    let (mut reader, mut writer, mut direct) = (None, false, 0);
    for end in world.descriptions.iter().filter(|other| desc.shares_object(other)) {
        if end.external.is_some() {
            return Err(Refusal::new(
                "another end of it is the caller's own",
                "give each end as an external",
            ));
        }
        if reader.is_none() && end.reads() {
            reader = Some(end);
        }
        if end.writes() {
            writer = true;
            direct |= end.info.flags & libc::O_DIRECT;
        }
    }
    // Nobody at the other side shows as a hang-up; somebody whom we do not know does not. A FIFO that was
    // opened first shows none either, but who else has it can be told from its name.
    let named = desc.link.starts_with('/');
    let lonely = |flag| {
        Ok::<_, Error>(
            named
                || world.outside_ends()
                || alone(desc, flag).context(KIND, format_args!("looking for the other end"))?,
        )
    };
    if (!writer && !lonely(libc::POLLHUP)?) || (reader.is_none() && !lonely(libc::POLLERR)?) {
        return Err(Refusal::new(
            "its other end is outside the image",
            "start both owners after `rcsnap ready`",
        ));
    }
    if world.first(desc) != desc.entry {
        return Ok(None);
    }
    let size = descriptor::fcntl(desc.fd.as_fd(), FcntlNumber::GetPipeSize, 0)
        .context(KIND, format_args!("asking its size"))?;
    let mut packets = match reader {
        Some(reader) => peek(&reader.fd, size)?,
        // Nobody can read what is in it.
        None => Vec::new(),
    };
    // One alone would take in what is written next.
    if packets.len() == 1 && direct != 0 {
        packets.push(Vec::new());
    }
    let Description { stat, .. } = desc;
    Ok(Some(Body { size, packets, uid: stat.uid, gid: stat.gid, mode: stat.mode & 0o7777 }))
}

fn alone(desc: &Description, flag: i16) -> nix::Result<bool> {
    Ok(descriptor::ready(desc.fd.as_fd(), 0)? & flag != 0)
}

/// The contents, read from a copy that tee(2) made. A read ends at a packet's boundary.
fn peek(reader: &OwnedFd, size: i32) -> Result<Vec<Vec<u8>>> {
    let doing = format_args!("reading its contents");
    let total = ioctl::get(reader.as_fd(), &ioctl::UNREAD).context(KIND, doing)?;
    let mut left = usize::try_from(total).unwrap_or(0);
    let mut packets = Vec::new();
    if left == 0 {
        return Ok(packets);
    }
    let (out, scratch) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).context(KIND, doing)?;
    descriptor::fcntl(scratch.as_fd(), FcntlNumber::SetPipeSize, size).context(KIND, doing)?;
    if descriptor::tee(reader.as_fd(), scratch.as_fd(), left).context(KIND, doing)? != left {
        return Err(Error::new(KIND, doing.to_string(), "they did not fit a pipe of the same size"));
    }
    while left > 0 {
        let mut bytes = vec![0; left];
        let count = nix::unistd::read(&out, &mut bytes).context(KIND, doing)?;
        bytes.truncate(count);
        left = if count == 0 { 0 } else { left.saturating_sub(count) };
        packets.push(bytes);
    }
    Ok(packets)
}

/// Puts size, contents and ownership into a pipe or FIFO; `writer` is an end of our own.
///
/// # Errors
/// The errno of the calls.
pub fn fill(body: &Body, writer: &OwnedFd) -> Result<()> {
    // Before writing, because the contents may need the size.
    let now = descriptor::fcntl(writer.as_fd(), FcntlNumber::GetPipeSize, 0)
        .context(KIND, format_args!("asking its size"))?;
    if now != body.size {
        descriptor::fcntl(writer.as_fd(), FcntlNumber::SetPipeSize, body.size)
            .context(KIND, format_args!("setting its size to {}", body.size))?;
    }
    if body.packets.len() > 1 {
        descriptor::fcntl(writer.as_fd(), FcntlNumber::SetFlags, libc::O_DIRECT | libc::O_NONBLOCK)
            .context(KIND, format_args!("switching to packets"))?;
    }
    for packet in &body.packets {
        match nix::unistd::write(writer, packet) {
            Ok(count) if count == packet.len() => {}
            Ok(_) => return Err(Error::os(KIND, "writing its contents", Errno::EAGAIN)),
            Err(errno) => return Err(Error::os(KIND, "writing its contents", errno)),
        }
    }
    Ok(())
}

/// Opens one end; the first one makes the pipe.
///
/// # Errors
/// The errno of the calls.
pub fn restore(state: &State, opener: &mut Opener) -> Result<OwnedFd> {
    let key = (KIND, state.first);
    if !opener.ends.contains_key(&key) {
        let body = state
            .body
            .as_ref()
            .ok_or_else(|| Error::new(KIND, "opening an end", "its first end is missing"))?;
        let (out, into) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .context(KIND, format_args!("making one"))?;
        fill(body, &into)?;
        if (body.uid, body.gid) != (0, 0) {
            nix::unistd::fchown(&out, Some(body.uid.into()), Some(body.gid.into()))
                .context(KIND, format_args!("giving it away"))?;
        }
        opener.keep(key, out)?;
    }
    let flags = opener.flags();
    let Some(end) = opener.ends.get(&key) else {
        return Err(Error::new(KIND, "opening an end", "it is gone"));
    };
    // Packet mode cannot be asked for at open(2) here, and the wait flag must not make it wait.
    Opener::again(end.as_fd(), (flags & (libc::O_ACCMODE | abi::LARGE)) | libc::O_NONBLOCK, KIND)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use nix::fcntl::OFlag;
    use nix::unistd::{pipe2, read, write};

    use crate::file::testing::{refused, table};

    fn ends(flags: OFlag) -> (OwnedFd, OwnedFd) {
        pipe2(flags | OFlag::O_CLOEXEC).unwrap()
    }

    #[test]
    fn contents_stay_and_come_back() {
        let (out, into) = ends(OFlag::empty());
        write(&into, b"hello ").unwrap();
        write(&into, b"there").unwrap();
        let again = table(&[&out, &into]);
        let mut bytes = [0; 20];
        assert_eq!(read(&again[0], &mut bytes).unwrap(), 11);
        assert_eq!(&bytes[..11], b"hello there");
        write(&again[1], b"x").unwrap();
        assert_eq!(read(&again[0], &mut bytes).unwrap(), 1);
        assert_eq!(read(&out, &mut bytes).unwrap(), 11);
    }

    #[test]
    fn packets_keep_their_boundaries() {
        let (out, into) = ends(OFlag::O_DIRECT);
        write(&into, b"one").unwrap();
        write(&into, b"three").unwrap();
        let again = table(&[&out, &into]);
        let mut bytes = [0; 20];
        assert_eq!(read(&again[0], &mut bytes).unwrap(), 3);
        assert_eq!(read(&again[0], &mut bytes).unwrap(), 5);
        write(&again[1], b"ab").unwrap();
        write(&again[1], b"cd").unwrap();
        assert_eq!(read(&again[0], &mut bytes).unwrap(), 2);
    }

    #[test]
    fn full_large_pipe_comes_back() {
        use crate::sys::descriptor::{FcntlNumber, fcntl};
        use std::os::fd::AsFd;
        let (out, into) = ends(OFlag::O_NONBLOCK);
        fcntl(into.as_fd(), FcntlNumber::SetPipeSize, 1 << 18).unwrap();
        let data: Vec<u8> = (0..1_u32 << 18).map(|i| u8::try_from(i % 251).unwrap()).collect();
        assert_eq!(write(&into, &data).unwrap(), data.len());
        let again = table(&[&into, &out]);
        let mut bytes = vec![0; data.len()];
        assert_eq!(read(&again[1], &mut bytes).unwrap(), data.len());
        assert!(bytes == data);
    }

    #[test]
    fn reader_without_writer_reads_the_rest_and_then_the_end() {
        let (out, into) = ends(OFlag::empty());
        write(&into, b"rest").unwrap();
        drop(into);
        let again = table(&[&out]);
        let mut bytes = [0; 8];
        assert_eq!(read(&again[0], &mut bytes).unwrap(), 4);
        assert_eq!(read(&again[0], &mut bytes).unwrap(), 0);
    }

    #[test]
    fn three_descriptions_are_one_pipe() {
        let (out, into) = ends(OFlag::empty());
        let both = crate::file::Opener::again(std::os::fd::AsFd::as_fd(&out), libc::O_RDWR, "pipe").unwrap();
        let again = table(&[&into, &both, &out]);
        write(&again[1], b"m").unwrap();
        let mut bytes = [0; 8];
        assert_eq!(read(&again[2], &mut bytes).unwrap(), 1);
    }

    #[test]
    fn other_end_outside_is_refused() {
        let (out, _into) = ends(OFlag::empty());
        let refusal = refused(&[&out]);
        assert!(refusal.reason.contains("outside"), "{refusal:?}");
    }
}
