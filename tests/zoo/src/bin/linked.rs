//! Kind `linked`: a file opened by a name that is gone, while another name of it is left.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let (path, kept) = (zoo.cpath("linked")?, zoo.path("kept"));
    let file = sys!(open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600))?;
    fd::write(file, b"linked")?;
    std::fs::hard_link(zoo.path("linked"), &kept)?;
    sys!(unlink(path.as_ptr()))?;
    zoo.keep("flags and offset", move || fd::flags(file));
    zoo.ready();
    fd::write(file, b" more")?;
    zoo.expect("the file by its other name", std::fs::read(kept)?, b"linked more".to_vec());
    Ok(())
}
