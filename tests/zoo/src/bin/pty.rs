//! Kind `pty`: pairs of master and slave with settings, size, session and what waits in them.

use zoo::proc::stat;
use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

/// A new pair: (master, slave, the slave's number).
fn open() -> Outcome<(i32, i32, u32)> {
    let master = sys!(open(c"/dev/ptmx".as_ptr(), libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC))?;
    let mut number = 0_u32;
    sys!(ioctl(master, libc::TIOCGPTN as _, &raw mut number))?;
    let unlocked = 0_i32;
    sys!(ioctl(master, libc::TIOCSPTLCK as _, &raw const unlocked))?;
    let name = std::ffi::CString::new(format!("/dev/pts/{number}")).map_err(|_| "NUL")?;
    let slave = sys!(open(name.as_ptr(), libc::O_RDWR | libc::O_NOCTTY))?;
    Ok((master, slave, number))
}

fn settings(tty: i32) -> String {
    let mut settings: libc::termios = sys::zeroed();
    let mut size: libc::winsize = sys::zeroed();
    // SAFETY: live structs.
    unsafe {
        libc::tcgetattr(tty, &raw mut settings);
        libc::ioctl(tty, libc::TIOCGWINSZ as _, &raw mut size);
        format!(
            "{:#x} {:#x} {:#x} {:#x} {:?} {} {}x{}",
            settings.c_iflag,
            settings.c_oflag,
            settings.c_cflag,
            settings.c_lflag,
            &settings.c_cc[..19],
            libc::cfgetospeed(&raw const settings),
            size.ws_row,
            size.ws_col
        )
    }
}

fn configure(tty: i32, raw: bool) -> Outcome {
    let mut settings: libc::termios = sys::zeroed();
    sys!(tcgetattr(tty, &raw mut settings))?;
    if raw {
        // SAFETY: live structs.
        unsafe { libc::cfmakeraw(&raw mut settings) };
    }
    settings.c_cc[libc::VINTR] = 7;
    settings.c_lflag &= !libc::ECHO;
    // SAFETY: as above.
    unsafe { libc::cfsetspeed(&raw mut settings, libc::B57600) };
    sys!(tcsetattr(tty, libc::TCSANOW, &raw const settings))?;
    let size = libc::winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
    sys!(ioctl(tty, libc::TIOCSWINSZ as _, &raw const size))?;
    Ok(())
}

fn program(zoo: &mut Zoo) -> Outcome {
    let (spare, spare_slave, _) = open()?;
    let (master, slave, number) = open()?;
    let (raw_master, raw_slave, _) = open()?;
    fd::close(spare);
    fd::close(spare_slave);
    configure(slave, false)?;
    configure(raw_slave, true)?;
    for tty in [slave, raw_slave] {
        zoo.keep(&format!("settings of {tty}"), move || settings(tty));
        zoo.keep(&format!("name of {tty}"), move || zoo::proc::link(&format!("/proc/self/fd/{tty}")));
        zoo.keep(&format!("flags of {tty}"), move || fd::flags(tty));
    }
    for tty in [master, raw_master] {
        zoo.keep(&format!("flags of {tty}"), move || fd::flags(tty));
        zoo.keep(&format!("number of {tty}"), move || {
            let mut number = 0_u32;
            // SAFETY: a live int.
            unsafe { libc::ioctl(tty, libc::TIOCGPTN as _, &raw mut number) };
            number.to_string()
        });
    }
    let shell = zoo.fork(move |zoo| shell(zoo, slave, number))?;
    zoo.ready();

    fd::write(master, b"a line\n")?;
    zoo.reap("the process with a controlling terminal", shell);
    zoo.expect("its answer", fd::read_text(master), "got it\r\n".to_owned());
    fd::write(raw_master, b"raw\x07")?;
    zoo.expect("a raw slave", fd::read(raw_slave, 10)?, b"raw\x07".to_vec());
    fd::write(raw_slave, b"up\n")?;
    zoo.expect("its master", fd::read_text(raw_master), "up\n".to_owned());
    fd::close(raw_slave);
    zoo.check("a master without a slave", fd::read(raw_master, 1).is_err() && sys::errno() == libc::EIO);
    Ok(())
}

/// A session leader on the slave, with a foreground group of its own.
fn shell(zoo: &mut Zoo, slave: i32, number: u32) -> Outcome {
    sys!(setsid())?;
    sys!(ioctl(slave, libc::TIOCSCTTY as _, 0))?;
    let own = std::process::id().to_string();
    zoo.keep("tty and foreground group in stat", move || format!("{} {}", stat(&own, 7), stat(&own, 8)));
    zoo.keep("foreground group", move || format!("{:?}", sys!(tcgetpgrp(slave)).ok()));
    zoo.keep("session of the terminal", move || format!("{:?}", sys!(tcgetsid(slave)).ok()));
    zoo.expect("major and minor", stat("self", 7), (136 * 256 + number).to_string());
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    let tty = sys!(open(c"/dev/tty".as_ptr(), libc::O_RDWR))?;
    zoo.expect("a line by /dev/tty", fd::read_text(tty), "a line\n".to_owned());
    fd::write(slave, b"got it\n")
}
