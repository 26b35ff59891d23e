//! Kind `freeze`: a process whose leader has exited while another thread lives: /proc shows a zombie.

use zoo::proc::stat;
use zoo::{Outcome, Zoo, raw};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let go = zoo.go();
    let child = zoo.fork(move |zoo| {
        zoo.arrive();
        std::thread::spawn(move || {
            zoo::wait_for(go.as_ref());
            raw!(SYS_exit_group, 0)
        });
        raw!(SYS_exit, 0).map(drop)
    })?;
    let is_gone = || stat(&child.to_string(), 3) == "Z";
    zoo.check("the leader is a zombie", zoo::eventually(2000, is_gone));
    zoo.ready();
    zoo.reap("the process without its leader", child);
    Ok(())
}
