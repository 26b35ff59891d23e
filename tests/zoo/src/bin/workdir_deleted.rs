//! Kind `workdir`: a working directory that was deleted.

use zoo::proc::link;
use zoo::{Outcome, Zoo, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let gone = zoo.path("gone");
    std::fs::create_dir(&gone)?;
    std::env::set_current_dir(&gone)?;
    std::fs::remove_dir(&gone)?;
    zoo.keep("deleted cwd", || link("/proc/self/cwd"));
    zoo.ready();
    zoo.check("nothing can be made in a deleted directory", sys!(mkdir(c"x".as_ptr(), 0o700)).is_err());
    zoo.check("a deleted directory has no name", std::env::current_dir().is_err());
    Ok(())
}
