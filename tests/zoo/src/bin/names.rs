//! Kind `names`: what ps shows, and what the process itself finds: comm, command line, environment, auxv, exe.

use zoo::proc::{link, text};
use zoo::{Outcome, Zoo, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    rename_arguments()?;
    sys!(prctl(libc::PR_SET_NAME, c"odd (name) x".as_ptr()))?;
    for file in ["comm", "cmdline", "environ", "auxv"] {
        zoo.keep(file, move || text(&format!("/proc/self/{file}")));
    }
    zoo.keep("exe", || link("/proc/self/exe"));
    zoo.keep("name in stat", || text("/proc/self/stat").split_once(") ").unwrap_or_default().0.to_owned());
    // SAFETY: integers only.
    zoo.keep("AT_RANDOM, AT_EXECFN, AT_SECURE, AT_PHDR", || unsafe {
        [25, 31, 23, 3].map(|tag| format!("{:#x}", libc::getauxval(tag))).join(" ")
    });
    zoo.keep("the bytes of AT_RANDOM", || {
        // SAFETY: the kernel put 16 bytes there.
        unsafe { format!("{:x?}", *(libc::getauxval(25) as *const [u8; 16])) }
    });
    zoo.keep("a variable", || format!("{:?}", std::env::var("PATH")));
    zoo.expect("comm", text("/proc/self/comm"), "odd (name) x\n".to_owned());
    zoo.check("the changed command line", text("/proc/self/cmdline").starts_with("renamed"));
    zoo.ready();
    let own = std::fs::read(link("/proc/self/exe"))?;
    zoo.check("the executable is readable through the link", std::fs::read("/proc/self/exe")? == own);
    Ok(())
}

/// What setproctitle does: writes over the arguments where they lie.
fn rename_arguments() -> Outcome {
    let start: usize = zoo::proc::stat("self", 48).parse().map_err(|_| "no arg_start")?;
    let end: usize = zoo::proc::stat("self", 49).parse().map_err(|_| "no arg_end")?;
    let title = b"renamed";
    if start == 0 || end - start < title.len() {
        return Err("no room for another title".into());
    }
    for (i, byte) in title.iter().enumerate() {
        // SAFETY: between arg_start and arg_end; nobody reads the arguments any more.
        unsafe { std::ptr::write_volatile((start + i) as *mut u8, *byte) };
    }
    Ok(())
}
