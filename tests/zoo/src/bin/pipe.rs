//! Kind `pipe`: contents, size, flags and who holds which end.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let full = fd::pipe(libc::O_NONBLOCK)?;
    let room = sys!(fcntl(full.1, libc::F_GETPIPE_SZ))? as usize;
    let pattern: Vec<u8> = (0..room).map(|i| (i * 7 + i / 256) as u8).collect();
    fd::write(full.1, &pattern)?;
    let large = fd::pipe(libc::O_CLOEXEC)?;
    sys!(fcntl(large.1, libc::F_SETPIPE_SZ, 1 << 18))?;
    fd::write(large.1, &vec![b'l'; 200_000])?;
    let packets = fd::pipe(libc::O_DIRECT | libc::O_NONBLOCK)?;
    for packet in ["one", "three", "", "seven.."] {
        if !packet.is_empty() {
            fd::write(packets.1, packet.as_bytes())?;
        }
    }
    let packet = fd::pipe(libc::O_DIRECT | libc::O_NONBLOCK)?;
    fd::write(packet.1, b"only")?;
    let ended = fd::pipe(0)?;
    fd::write(ended.1, b"last words")?;
    fd::close(ended.1);
    let broken = fd::pipe(0)?;
    fd::close(broken.0);
    let both = reopened()?;
    let (up, down) = (fd::pipe(0)?, fd::pipe(0)?);
    let child = zoo.fork(move |zoo| {
        fd::close(up.0);
        fd::close(down.1);
        zoo.arrive();
        zoo.expect("what the parent sends", fd::read_text(down.0), "down".to_owned());
        zoo.expect("the end of what the parent sends", fd::read_text(down.0), String::new());
        fd::write(up.1, b"up")
    })?;
    fd::close(up.1);
    fd::close(down.0);
    for end in [full.0, full.1, large.0, large.1, packets.0, packets.1, ended.0, broken.1, both, up.0, down.1]
    {
        zoo.keep(&format!("flags of {end}"), move || fd::flags(end));
        zoo.keep(&format!("size of {end}"), move || {
            sys!(fcntl(end, libc::F_GETPIPE_SZ)).map_or_else(|problem| problem.0, |size| size.to_string())
        });
    }
    zoo.ready();

    zoo.check("a full pipe takes no more", fd::write(full.1, b"x").is_err());
    let mut got = Vec::new();
    while let Ok(bytes) = fd::read(full.0, 65536) {
        got.extend(bytes);
    }
    zoo.check("the contents of a full pipe", got == pattern);
    let got = fd::read(large.0, 1 << 18)?;
    zoo.expect("the length of a large pipe's contents", got.len(), 200_000);
    for packet in ["one", "three", "seven.."] {
        zoo.expect("a packet", fd::read_text(packets.0), packet.to_owned());
    }
    fd::write(packet.1, b"next")?;
    for text in ["only", "next"] {
        zoo.expect("a packet that was alone", fd::read_text(packet.0), text.to_owned());
    }
    zoo.expect("a pipe without writers", fd::read_text(ended.0), "last words".to_owned());
    zoo.expect("its end", fd::read_text(ended.0), String::new());
    zoo.check("a pipe without readers", fd::write(broken.1, b"x").is_err() && sys::errno() == libc::EPIPE);
    fd::write(both, b"echo")?;
    zoo.expect("an end that reads and writes", fd::read_text(both), "echo".to_owned());
    fd::write(down.1, b"down")?;
    zoo::time::nap(20);
    fd::close(down.1);
    zoo.expect("what the child sends", fd::read_text(up.0), "up".to_owned());
    zoo.reap("the child", child);
    zoo.expect("the end of what the child sends", fd::read_text(up.0), String::new());
    Ok(())
}

/// A pipe whose only holder has it open for both directions, by way of /proc.
fn reopened() -> Outcome<i32> {
    let (reader, writer) = fd::pipe(0)?;
    let name = std::ffi::CString::new(format!("/proc/self/fd/{reader}")).map_err(|_| "NUL")?;
    let both = sys!(open(name.as_ptr(), libc::O_RDWR))?;
    fd::close(reader);
    fd::close(writer);
    Ok(both)
}
