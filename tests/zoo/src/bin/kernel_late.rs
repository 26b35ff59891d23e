//! Kind `regular`: what is refused by name: files of /proc of a thread and of a descriptor, which are not there yet when
//! files are opened.

use zoo::{Outcome, Zoo, fd, proc, sys, thread};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let thread = thread::waiting(zoo)?;
    let null = sys!(open(c"/dev/null".as_ptr(), libc::O_RDWR))?;
    let open = |name: String, flags| {
        let path = std::ffi::CString::new(format!("/proc/self/{name}")).map_err(|_| "NUL in a path")?;
        sys!(open(path.as_ptr(), flags))
    };
    let comm = open(format!("task/{thread}/comm"), libc::O_RDWR)?;
    let folder = open(format!("task/{thread}"), libc::O_RDONLY | libc::O_DIRECTORY)?;
    let info = open(format!("fdinfo/{null}"), libc::O_RDONLY)?;
    for file in [comm, folder, info] {
        zoo.keep(&format!("flags and offset of {file}"), move || fd::flags(file));
        zoo.keep(&format!("name of {file}"), move || proc::link(&format!("/proc/self/fd/{file}")));
    }
    zoo.ready();
    fd::write(comm, b"renamed")?;
    let again = sys!(openat(folder, c"comm".as_ptr(), libc::O_RDONLY))?;
    zoo.expect("a thread's name", fd::read_text(again), "renamed\n".to_owned());
    zoo.check("a descriptor's flags", fd::read_text(info).contains("flags:"));
    Ok(())
}
