//! Kind `cgroup`: a frozen group, which is not carried. Nobody is in it.

use zoo::group::{self, set};
use zoo::proc::text;
use zoo::{Outcome, Zoo};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let Some(ground) = zoo.ground("cgroup2") else { zoo.skip("no hierarchy of version 2 to make groups in") };
    let (own, frozen) = (ground.make("own")?, ground.make("frozen")?);
    if !frozen.join("cgroup.freeze").exists() {
        ground.leave()?;
        zoo.skip("groups of version 2 cannot be frozen");
    }
    set(&frozen, "cgroup.freeze", "1")?;
    group::enter(&own)?;
    let state = frozen.join("cgroup.freeze");
    zoo.keep("frozen", move || text(&state.to_string_lossy()));
    zoo.keep("own group", || group::of("self", &["cgroup2"]));
    zoo.ready();
    ground.leave()
}
