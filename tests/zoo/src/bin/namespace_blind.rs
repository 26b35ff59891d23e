//! Kind `namespace`: what is refused by name: a mount namespace in which there is no /proc to look at.

use zoo::mount::private;
use zoo::{Outcome, Zoo, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let child = zoo.fork(|zoo| {
        private()?;
        let proc = c"/proc".as_ptr();
        // There may be several, one over the other, and the lowest is that of others.
        while sys!(umount2(proc, libc::MNT_DETACH)).is_ok() {}
        zoo.keep("whether there is a /proc", || std::path::Path::new("/proc/self").exists().to_string());
        zoo.arrive();
        zoo.wait();
        zoo.verify();
        Ok(())
    })?;
    zoo.ready();
    zoo.reap("the child", child);
    Ok(())
}
