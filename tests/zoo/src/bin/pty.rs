//! Kind `pty`: pairs of master and slave with settings, size, session, and ends that are closed.

use zoo::proc::stat;
use zoo::pty::{ask, number, open, tell};
use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
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
    odd_speed(zoo, slave)?;
    for tty in [slave, raw_slave] {
        zoo.keep(&format!("settings of {tty}"), move || settings(tty));
        observe(zoo, tty);
    }
    let again = others(zoo, raw_master, raw_slave)?;
    for tty in [master, raw_master] {
        observe(zoo, tty);
    }
    let locked = lonely(zoo)?;
    let shell = zoo.fork(move |zoo| shell(zoo, slave, number))?;
    zoo.ready();

    fd::write(master, b"a line\n")?;
    zoo.reap("the process with a controlling terminal", shell);
    zoo.expect("its answer", fd::read_text(master), "got it\r\n".to_owned());
    fd::write(raw_master, b"raw\x07")?;
    zoo.expect("a raw slave", fd::read(raw_slave, 10)?, b"raw\x07".to_vec());
    fd::write(again, b"up\n")?;
    zoo.expect("its master, with the byte of packet mode", fd::read_text(raw_master), "\0up\n".to_owned());
    fd::close(raw_slave);
    zoo.expect("a master with one slave left", fd::polled(raw_master, libc::POLLIN), 0);
    fd::close(again);
    zoo.check("a master without a slave", fd::read(raw_master, 1).is_err() && sys::errno() == libc::EIO);
    tell(locked, libc::TIOCSPTLCK, 0)?;
    let opened = zoo::pty::slave(locked, libc::O_RDWR)?;
    fd::write(opened, b"first")?;
    zoo.expect("the first words of a slave that was locked", fd::read_text(locked), "first".to_owned());
    Ok(())
}

/// A speed that has no name.
fn odd_speed(zoo: &mut Zoo, tty: i32) -> Outcome {
    const TCGETS2: u32 = 0x802c_542a;
    const TCSETS2: u32 = 0x402c_542b;
    let mut settings = [0_u32; 11];
    sys!(ioctl(tty, TCGETS2 as _, settings.as_mut_ptr()))?;
    settings[2] = settings[2] & !libc::CBAUD | 0o10000;
    settings[9..].fill(12345);
    sys!(ioctl(tty, TCSETS2 as _, settings.as_ptr()))?;
    zoo.keep("speed", move || {
        let mut settings = [0_u32; 11];
        // SAFETY: room for a struct termios2.
        unsafe { libc::ioctl(tty, TCGETS2 as _, settings.as_mut_ptr()) };
        format!("{:?}", &settings[9..])
    });
    Ok(())
}

/// What any end shows of itself.
fn observe(zoo: &mut Zoo, tty: i32) {
    zoo.keep(&format!("name of {tty}"), move || zoo::proc::link(&format!("/proc/self/fd/{tty}")));
    zoo.keep(&format!("flags of {tty}"), move || fd::flags(tty));
    zoo.keep(&format!("events of {tty}"), move || {
        format!("{:#x}", fd::polled(tty, libc::POLLIN | libc::POLLPRI))
    });
    zoo.keep(&format!("number of {tty}"), move || format!("{:?}", number(tty).ok()));
    zoo.keep(&format!("lock and packet mode of {tty}"), move || {
        format!("{:?} {:?}", ask(tty, libc::TIOCGPTLCK).ok(), ask(tty, libc::TIOCGPKT).ok())
    });
}

/// Pairs of which one end is not open: never opened, opened and closed, hung up. Returns the master of the first.
fn lonely(zoo: &mut Zoo) -> Outcome<i32> {
    let locked = zoo::pty::master()?;
    tell(locked, libc::TIOCSPTLCK, 1)?;
    configure(locked, false)?;
    let size = libc::winsize { ws_row: 11, ws_col: 22, ws_xpixel: 33, ws_ypixel: 44 };
    sys!(ioctl(locked, libc::TIOCSWINSZ as _, &raw const size))?;
    zoo.keep("settings of a slave that was never opened", move || settings(locked));
    let (left, slave, _) = open()?;
    fd::close(slave);
    let (master, hung_up, number) = open()?;
    let reader = zoo::pty::slave(master, libc::O_RDONLY)?;
    fd::close(master);
    zoo.expect("the number of a hung-up slave", zoo::pty::minor(hung_up), number);
    for tty in [locked, left, hung_up, reader] {
        observe(zoo, tty);
    }
    for tty in [hung_up, reader] {
        zoo.keep(&format!("device of {tty}"), move || zoo::pty::minor(tty).to_string());
        zoo.keep(&format!("answer of {tty}"), move || {
            format!("{} {}", fd::outcome_of(ask(tty, libc::TIOCGWINSZ)), fd::read_text(tty))
        });
    }
    Ok(locked)
}

/// What one pair can have beside: a second description, packets, a node that belongs to somebody, and no other
/// openers. Returns the second description.
fn others(zoo: &mut Zoo, master: i32, slave: i32) -> Outcome<i32> {
    let again = zoo::pty::slave(master, libc::O_WRONLY | libc::O_NONBLOCK)?;
    observe(zoo, again);
    tell(master, libc::TIOCPKT, 1)?;
    sys!(ioctl(slave, libc::TIOCEXCL as _))?;
    zoo.keep("exclusive", move || format!("{:?}", ask(slave, libc::TIOCGEXCL).ok()));
    let mut fixed: [u32; 9] = [0; 9];
    fixed[3] = libc::ICANON;
    sys!(ioctl(slave, libc::TIOCSLCKTRMIOS as _, fixed.as_ptr()))?;
    zoo.keep("fixed modes", move || {
        let mut fixed = [0_u32; 9];
        // SAFETY: a live struct termios of the kernel.
        unsafe { libc::ioctl(slave, libc::TIOCGLCKTRMIOS as _, fixed.as_mut_ptr()) };
        format!("{fixed:x?}")
    });
    sys!(fchown(slave, 3, 4))?;
    sys!(fchmod(slave, 0o640))?;
    zoo.keep("node", move || {
        let mut stat: libc::stat = sys::zeroed();
        // SAFETY: a live struct.
        unsafe { libc::fstat(slave, &raw mut stat) };
        format!("{} {} {:o}", stat.st_uid, stat.st_gid, stat.st_mode)
    });
    Ok(again)
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
    let dev_tty = sys!(open(c"/dev/tty".as_ptr(), libc::O_RDWR | libc::O_APPEND))?;
    zoo.keep("what /dev/tty stands for", move || format!("{:x?}", ask(dev_tty, libc::TIOCGDEV).ok()));
    zoo.keep("its flags", move || fd::flags(dev_tty));
    zoo.arrive();
    zoo.wait();
    zoo.verify();
    let tty = sys!(open(c"/dev/tty".as_ptr(), libc::O_RDWR))?;
    fd::write(dev_tty, b"")?;
    zoo.expect("a line by /dev/tty", fd::read_text(tty), "a line\n".to_owned());
    fd::write(slave, b"got it\n")
}
