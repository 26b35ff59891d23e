//! Kind `unix`: descriptors and credentials on their way in sockets of all types.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn pair(kind: i32) -> Outcome<[i32; 2]> {
    let mut ends = [0; 2];
    sys!(socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()))?;
    Ok(ends)
}

const WORD: usize = size_of::<usize>();

/// Sends bytes with descriptors, and in somebody's name if one is given.
fn send(socket: i32, text: &[u8], fds: &[i32], who: Option<[i32; 3]>) -> Outcome {
    let mut control = Vec::new();
    let mut put = |kind: i32, numbers: &[i32]| {
        control.extend_from_slice(&(WORD + 8 + 4 * numbers.len()).to_ne_bytes());
        for number in [libc::SOL_SOCKET, kind].iter().chain(numbers) {
            control.extend_from_slice(&number.to_ne_bytes());
        }
        control.resize(control.len().next_multiple_of(WORD), 0_u8);
    };
    if let Some(who) = who {
        put(libc::SCM_CREDENTIALS, &who);
    }
    if !fds.is_empty() {
        put(libc::SCM_RIGHTS, fds);
    }
    let mut part = libc::iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: text.len() };
    let mut message: libc::msghdr = sys::zeroed();
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    if !control.is_empty() {
        (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), control.len() as _);
    }
    sys!(sendmsg(socket, &raw const message, 0))?;
    Ok(())
}

/// What a read of so many bytes brings: bytes, descriptors, the sender.
fn receive(socket: i32, len: usize) -> Outcome<(String, Vec<i32>, Option<[i32; 3]>)> {
    let mut text = vec![0_u8; len];
    let mut control = vec![0_u8; 256];
    let mut part = libc::iovec { iov_base: text.as_mut_ptr().cast(), iov_len: len };
    let mut message: libc::msghdr = sys::zeroed();
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), control.len() as _);
    let got = sys!(recvmsg(socket, &raw mut message, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC))?;
    text.truncate(got as usize);
    control.truncate(message.msg_controllen as usize);
    let (mut fds, mut who) = (Vec::new(), None);
    let mut rest = control.as_slice();
    while rest.len() >= WORD + 8 {
        let len = usize::from_ne_bytes(rest[..WORD].try_into().unwrap_or_default());
        let numbers: Vec<i32> = rest[WORD..len]
            .chunks_exact(4)
            .map(|four| i32::from_ne_bytes(four.try_into().unwrap_or_default()))
            .collect();
        match numbers[1] {
            libc::SCM_RIGHTS => fds = numbers[2..].to_vec(),
            libc::SCM_CREDENTIALS => who = Some([numbers[2], numbers[3], numbers[4]]),
            other => return Err(format!("control message {other}").into()),
        }
        rest = rest.get(len.next_multiple_of(WORD)..).unwrap_or(&[]);
    }
    Ok((String::from_utf8_lossy(&text).into_owned(), fds, who))
}

fn program(zoo: &mut Zoo) -> Outcome {
    let path = zoo.cpath("sent")?;
    let file = sys!(open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, 0o600))?;
    fd::write(file, b"0123456789")?;
    sys!(lseek(file, 4, libc::SEEK_SET))?;
    let held = sys!(open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC))?;
    let (out, into) = fd::pipe(libc::O_CLOEXEC)?;
    fd::write(into, b"in the pipe")?;
    // A stream: bytes, then bytes with descriptors, then bytes; one of the descriptors stays open here.
    let stream = pair(libc::SOCK_STREAM)?;
    send(stream[0], b"plain", &[], None)?;
    send(stream[0], b"with", &[file, held], None)?;
    send(stream[0], b"after", &[], None)?;
    send(stream[0], b"again", &[out], None)?;
    // Packets, in the name of somebody.
    let packet = pair(libc::SOCK_SEQPACKET)?;
    let on = 1_i32;
    sys!(setsockopt(packet[1], libc::SOL_SOCKET, libc::SO_PASSCRED, (&raw const on).cast(), 4))?;
    // SAFETY: takes nothing.
    let own = unsafe { libc::getpid() };
    send(packet[0], b"mine", &[into], Some([own, 5, 6]))?;
    send(packet[0], b"", &[], None).err();
    let datagram = pair(libc::SOCK_DGRAM)?;
    send(datagram[0], b"", &[held], None)?;
    // A socket on its way, whose own queue has a descriptor; its other end stays here.
    let inner = pair(libc::SOCK_STREAM)?;
    send(inner[0], b"deep", &[held], None)?;
    send(datagram[0], b"nested", &[inner[1]], None)?;
    // One that is on its way in itself.
    let ring = pair(libc::SOCK_STREAM)?;
    send(ring[0], b"round", &[ring[1]], None)?;
    // One whose other end is gone.
    let left = pair(libc::SOCK_STREAM)?;
    send(left[0], b"last", &[held, left[1]], None)?;
    for fd in [file, out, into, inner[1], left[0]] {
        fd::close(fd);
    }
    zoo.ready();
    let (text, fds, _) = receive(stream[1], 100)?;
    zoo.expect("the bytes up to the descriptors", text.as_str(), "plainwith");
    zoo.check("two descriptors come", fds.len() == 2);
    zoo.expect("reading on in the first", fd::read_text(fds[0]), "456789".into());
    sys!(lseek(held, 7, libc::SEEK_SET))?;
    zoo.expect("the second is that which was kept", fd::read_text(fds[1]), "789".into());
    let (text, fds, _) = receive(stream[1], 100)?;
    zoo.expect("the bytes behind", text.as_str(), "afteragain");
    zoo.expect("the pipe", fd::read_text(fds[0]), "in the pipe".into());
    let (text, ends, who) = receive(packet[1], 100)?;
    zoo.expect("a packet", (text.as_str(), who), ("mine", Some([own, 5, 6])));
    fd::write(ends[0], b"more")?;
    zoo.expect("both ends of the pipe", fd::read_text(fds[0]), "more".into());
    let (text, fds, _) = receive(datagram[1], 100)?;
    zoo.expect("a datagram without bytes", (text.as_str(), fds.len()), ("", 1));
    let (text, fds, _) = receive(datagram[1], 100)?;
    zoo.expect("the next", (text.as_str(), fds.len()), ("nested", 1));
    let (text, deep, _) = receive(fds[0], 100)?;
    zoo.expect("what is in the socket in it", (text.as_str(), deep.len()), ("deep", 1));
    fd::write(inner[0], b"still")?;
    zoo.expect("its other end", fd::read_text(fds[0]), "still".into());
    let (text, fds, _) = receive(ring[1], 100)?;
    fd::write(ring[0], b"same")?;
    zoo.expect("a socket that was in itself", (text, fd::read_text(fds[0])), ("round".into(), "same".into()));
    let (text, fds, _) = receive(left[1], 100)?;
    zoo.expect("what came before the end", (text.as_str(), fds.len()), ("last", 2));
    zoo.expect("the end", fd::read_text(fds[1]), String::new());
    Ok(())
}
