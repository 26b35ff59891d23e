//! Kind `pty`: what is on its way between the ends: lines, a part of a line, ends of file, raw bytes, output.

use zoo::{Outcome, Zoo, fd, pty, sys};

fn main() {
    zoo::run(program)
}

fn mode(tty: i32, change: impl Fn(&mut libc::termios)) -> Outcome {
    let mut settings: libc::termios = sys::zeroed();
    sys!(tcgetattr(tty, &raw mut settings))?;
    change(&mut settings);
    sys!(tcsetattr(tty, libc::TCSANOW, &raw const settings))?;
    Ok(())
}

/// Bytes in the queue, as far as they can be read.
fn unread(zoo: &mut Zoo, what: &str, tty: i32) {
    zoo.keep(&format!("unread bytes of {what}"), move || format!("{:?}", pty::ask(tty, libc::FIONREAD).ok()));
}

/// Writes to a master, and waits until the terminal has taken it: it echoes.
fn typed(master: i32, bytes: &[u8], echo: &[u8]) -> Outcome {
    fd::write(master, bytes)?;
    let mut seen = Vec::new();
    while seen.len() < echo.len() {
        seen.extend(fd::read(master, 4096)?);
    }
    if seen == echo { Ok(()) } else { Err(format!("the echo is {seen:?}").into()) }
}

fn program(zoo: &mut Zoo) -> Outcome {
    let (lines, lines_slave, _) = pty::open()?;
    typed(lines, b"one\ntw\x04\x04i\x7f\x16\x03par", b"one\r\ntwi\x08 \x08^\x08^Cpar")?;
    unread(zoo, "lines", lines_slave);

    let (raw, raw_slave, _) = pty::open()?;
    // SAFETY: a live struct.
    mode(raw_slave, |settings| unsafe { libc::cfmakeraw(settings) })?;
    fd::write(raw, b"\x03\r\x04\x11\x13\0\xff")?;
    zoo.check(
        "raw bytes arrive",
        zoo::eventually(5000, || pty::ask(raw_slave, libc::FIONREAD).ok() == Some(7)),
    );
    unread(zoo, "a raw slave", raw_slave);

    let (output, output_slave, _) = pty::open()?;
    fd::write(output_slave, b"a\tb\n")?;
    fd::write(output, b"x")?;
    zoo.check("output arrives", zoo::eventually(5000, || pty::ask(output, libc::FIONREAD).ok() == Some(6)));
    unread(zoo, "a master", output);

    let (left, left_slave, _) = pty::open()?;
    fd::write(left_slave, b"last words")?;
    fd::close(left_slave);
    zoo.ready();

    for wanted in ["one\n", "tw", "", "\x03par!\n"] {
        if wanted.ends_with("!\n") {
            zoo.expect("more than whole lines", fd::polled(lines_slave, libc::POLLIN), 0);
            typed(lines, b"!\n", b"!\r\n")?;
        }
        zoo.expect("a line", fd::read_text(lines_slave), wanted.to_owned());
    }
    zoo.expect("more than one line", fd::polled(lines_slave, libc::POLLIN), 0);
    zoo.expect("raw bytes", fd::read(raw_slave, 100)?, b"\x03\r\x04\x11\x13\0\xff".to_vec());
    zoo.expect("output and echo", fd::read_text(output), "a\tb\r\nx".to_owned());
    fd::write(output, b"y\n")?;
    zoo.expect("what was echoed", fd::read_text(output_slave), "xy\n".to_owned());
    zoo.expect("what a closed slave left", fd::read_text(left), "last words".to_owned());
    zoo.check("its end", fd::read(left, 1).is_err() && sys::errno() == libc::EIO);
    Ok(())
}
