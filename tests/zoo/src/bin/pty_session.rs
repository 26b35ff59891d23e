//! Kind `pty`: a session on a slave, as a shell makes it: a leader that has closed its terminal, a foreground and a
//! background group; echo, ^C, a new size and the hang-up reach whom they must.

use std::sync::atomic::{AtomicU64, Ordering};

use zoo::{Outcome, Zoo, fd, proc, pty, sys};

static SEEN: AtomicU64 = AtomicU64::new(0);

extern "C" fn handler(signal: i32) {
    SEEN.fetch_or(1 << signal, Ordering::SeqCst);
}

fn main() {
    zoo::run(program)
}

fn catch(signals: &[i32]) -> Outcome {
    signals.iter().try_for_each(|signal| sys::handle(*signal, handler, 0).map(drop))
}

fn seen(signal: i32) -> bool {
    SEEN.load(Ordering::SeqCst) & 1 << signal != 0
}

/// Waits for a signal.
fn wait_for(zoo: &mut Zoo, what: &str, signal: i32) {
    zoo.check(what, zoo::eventually(10_000, || seen(signal)));
}

/// What stat says of session, group, terminal and foreground.
fn place(zoo: &mut Zoo, fields: &'static [usize]) {
    zoo.keep("group, session, terminal, foreground", || {
        fields.iter().map(|field| proc::stat("self", *field)).collect::<Vec<_>>().join(" ")
    });
}

/// Reads until the text has come.
fn until(zoo: &mut Zoo, master: i32, wanted: &str) {
    let mut text = String::new();
    while !text.ends_with(wanted)
        && zoo::eventually(10_000, || fd::polled(master, libc::POLLIN) & libc::POLLIN != 0)
    {
        text += &fd::read_text(master);
    }
    zoo.expect("what the master reads", text, wanted.to_owned());
}

fn program(zoo: &mut Zoo) -> Outcome {
    sys::set_prctl(libc::PR_SET_CHILD_SUBREAPER, 1)?;
    let (master, slave, _) = pty::open()?;
    let (verified, verifies) = fd::pipe(0)?;
    let leader = zoo.fork(move |zoo| {
        fd::close(master);
        leader(zoo, slave, verifies)
    })?;
    fd::close(slave);
    zoo.ready();

    // The foreground answers when it is there; the others say so, before the terminal is gone.
    for _ in 0..2 {
        fd::read(verified, 1)?;
    }

    fd::write(master, b"hello\n")?;
    until(zoo, master, "hello\r\nheard hello\r\n");
    fd::write(master, b"\x03")?;
    until(zoo, master, "^Cinterrupted\r\n");
    let size = libc::winsize { ws_row: 5, ws_col: 6, ws_xpixel: 0, ws_ypixel: 0 };
    sys!(ioctl(master, libc::TIOCSWINSZ as _, &raw const size))?;
    until(zoo, master, "resized\r\n");
    fd::close(master);
    zoo.reap("the leader", leader);
    for _ in 0..2 {
        let mut status = 0;
        let pid = sys!(waitpid(-1, &raw mut status, 0))?;
        zoo.expect(&format!("member {pid}"), status, 0);
    }
    Ok(())
}

/// The session leader. Like a daemon it keeps no descriptor of its terminal.
fn leader(zoo: &mut Zoo, slave: i32, verifies: i32) -> Outcome {
    sys!(setsid())?;
    sys!(ioctl(slave, libc::TIOCSCTTY as _, 0))?;
    catch(&[libc::SIGINT, libc::SIGWINCH, libc::SIGHUP])?;
    let background = zoo.fork(move |zoo| {
        sys!(setpgid(0, 0))?;
        member(zoo, verifies)?;
        zoo.check("no signal in the background", SEEN.load(Ordering::SeqCst) == 0);
        Ok(())
    })?;
    let foreground = zoo.fork(move |zoo| foreground(zoo, slave))?;
    fd::close(slave);
    place(zoo, &[5, 6, 7, 8]);
    zoo.expect("foreground group", proc::stat("self", 8), foreground.to_string());
    zoo.expect("background group", proc::stat(&background.to_string(), 5), background.to_string());
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    fd::write(verifies, b"v")?;
    wait_for(zoo, "a hang-up for the leader", libc::SIGHUP);
    zoo.check("no other signal for the leader", !seen(libc::SIGINT) && !seen(libc::SIGWINCH));
    zoo.expect("terminal after the hang-up", proc::stat("self", 7), "0".to_owned());
    Ok(())
}

/// A job in the background, until its leader is gone.
fn member(zoo: &mut Zoo, verifies: i32) -> Outcome {
    catch(&[libc::SIGINT, libc::SIGWINCH, libc::SIGHUP, libc::SIGTTIN])?;
    // The foreground is not chosen yet.
    place(zoo, &[5, 6, 7]);
    let leader = proc::stat("self", 4);
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    fd::write(verifies, b"v")?;
    zoo.check("the leader ends", zoo::eventually(20_000, || proc::stat("self", 4) != leader));
    Ok(())
}

/// The job in the foreground: answers on the terminal to what happens.
fn foreground(zoo: &mut Zoo, slave: i32) -> Outcome {
    catch(&[libc::SIGINT, libc::SIGWINCH, libc::SIGHUP])?;
    sys!(setpgid(0, 0))?;
    // Whoever is in the background may not take the foreground, unless it blocks this.
    // SAFETY: our own process.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
    let own = sys!(getpgrp())?;
    sys!(tcsetpgrp(slave, own))?;
    place(zoo, &[5, 6, 7, 8]);
    let tty = sys!(open(c"/dev/tty".as_ptr(), libc::O_RDWR))?;
    fd::close(slave);
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    let line = fd::read_text(tty);
    fd::write(tty, format!("heard {line}").as_bytes())?;
    wait_for(zoo, "^C", libc::SIGINT);
    fd::write(tty, b"interrupted\n")?;
    wait_for(zoo, "a new size", libc::SIGWINCH);
    fd::write(tty, b"resized\n")?;
    wait_for(zoo, "a hang-up for the foreground", libc::SIGHUP);
    Ok(())
}
