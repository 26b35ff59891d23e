//! Kind `directory`: an open directory leads to the same place, also when its name is gone.

use zoo::{Outcome, Zoo, fd, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let home = zoo.path("home");
    std::fs::create_dir(&home)?;
    std::fs::write(home.join("file"), b"in home")?;
    std::fs::create_dir(zoo.path("gone"))?;
    let (name, gone_name) = (zoo.cpath("home")?, zoo.cpath("gone")?);
    let open = sys!(open(name.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC))?;
    let path = sys!(open(name.as_ptr(), libc::O_PATH | libc::O_DIRECTORY))?;
    let gone = sys!(open(gone_name.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY))?;
    sys!(rmdir(gone_name.as_ptr()))?;
    let root = sys!(open(c"/".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY))?;
    for dir in [open, path, gone, root] {
        zoo.keep(&format!("name of {dir}"), move || zoo::proc::link(&format!("/proc/self/fd/{dir}")));
        // The offset of a directory is the file system's own affair.
        zoo.keep(&format!("flags of {dir}"), move || {
            fd::flags(dir).split(" offset").next().unwrap_or_default().to_owned()
        });
    }
    zoo.ready();
    for dir in [open, path] {
        let file = sys!(openat(dir, c"file".as_ptr(), libc::O_RDONLY))?;
        zoo.expect("a file by its directory", fd::read_text(file), "in home".to_owned());
        fd::close(file);
    }
    zoo.expect("the entries", entries(open)?, vec![".".to_owned(), "..".into(), "file".into()]);
    zoo.check("no file in a deleted directory", sys!(mkdirat(gone, c"x".as_ptr(), 0o700)).is_err());
    sys!(fchdir(path))?;
    zoo.expect("going there", zoo::proc::text("file"), "in home".to_owned());
    Ok(())
}

fn entries(dir: i32) -> Outcome<Vec<String>> {
    // SAFETY: a directory of our own; readdir's entries live until the next call.
    unsafe {
        let stream = libc::fdopendir(dir);
        if stream.is_null() {
            return Err("fdopendir".into());
        }
        libc::rewinddir(stream);
        let mut found = Vec::new();
        while let Some(entry) = libc::readdir(stream).as_ref() {
            found.push(std::ffi::CStr::from_ptr(entry.d_name.as_ptr()).to_string_lossy().into_owned());
        }
        found.sort();
        Ok(found)
    }
}
