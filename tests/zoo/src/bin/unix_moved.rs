//! Kind `unix`: a listener whose file was moved to another directory, and kept the last part of its name.

use std::os::unix::net::{UnixListener, UnixStream};

use zoo::{Outcome, Zoo};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let (old, new) = (zoo.path("old"), zoo.path("new"));
    for folder in [&old, &new] {
        std::fs::create_dir(folder)?;
    }
    let listener = UnixListener::bind(old.join("socket"))?;
    std::fs::rename(old.join("socket"), new.join("socket"))?;
    zoo.ready();
    zoo.check("nothing is where it was bound", !old.join("socket").exists());
    let _client = UnixStream::connect(new.join("socket"))?;
    zoo.check("it is where it was moved to", listener.accept().is_ok());
    for folder in [&old, &new] {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}
