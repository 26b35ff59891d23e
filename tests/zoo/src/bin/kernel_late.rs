//! Kind `regular`: what is refused by name: files of /proc of descriptors, which are not there yet when files are opened.

use zoo::{Outcome, Zoo, fd, proc, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let null = sys!(open(c"/dev/null".as_ptr(), libc::O_RDWR))?;
    let open = |name: String, flags| {
        let path = std::ffi::CString::new(format!("/proc/self/{name}")).map_err(|_| "NUL in a path")?;
        sys!(open(path.as_ptr(), flags))
    };
    let info = open(format!("fdinfo/{null}"), libc::O_RDONLY)?;
    let of_task = open(format!("task/{}/fdinfo/{null}", sys::gettid()), libc::O_RDONLY)?;
    for file in [info, of_task] {
        zoo.keep(&format!("flags and offset of {file}"), move || fd::flags(file));
        zoo.keep(&format!("name of {file}"), move || proc::link(&format!("/proc/self/fd/{file}")));
    }
    zoo.ready();
    for file in [info, of_task] {
        zoo.check("a descriptor's flags", fd::read_text(file).contains("flags:"));
    }
    Ok(())
}
