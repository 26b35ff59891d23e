//! System calls made from ARM and from Thumb code, with every register known.

use std::arch::global_asm;

use zoo::blocked::{Blocked, Case, blocked, only, open_mask, pair, word};
use zoo::time::{later_ms, slack_ms, steady};
use zoo::{Outcome, Zoo, fd, sys};

global_asm!(
    ".macro zoo_call name, state, label",
    ".balign 4",
    "\\state",
    ".global \\name",
    ".type \\name, %function",
    "\\label",
    "\\name:",
    "push {{r4-r11, lr}}",
    "sub sp, sp, #8",
    "str r0, [sp]",
    "ldr lr, [r0, #52]",
    "ldm.w r0, {{r0-r12}}",
    "svc #0",
    "str r0, [sp, #4]",
    "ldr r0, [sp]",
    "add.w r0, r0, #4",
    "stm.w r0, {{r1-r12}}",
    "str lr, [r0, #48]",
    "ldr r1, [sp, #4]",
    "str r1, [r0, #-4]",
    "add sp, sp, #8",
    "pop {{r4-r11, pc}}",
    ".endm",
    ".pushsection .text.zoo_calls, \"ax\", %progbits",
    ".syntax unified",
    "zoo_call zoo_call_arm, .arm, .arm",
    "zoo_call zoo_call_thumb, .thumb, .thumb_func",
    ".arm",
    ".popsection",
);

unsafe extern "C" {
    fn zoo_call_arm(registers: *mut u32);
    fn zoo_call_thumb(registers: *mut u32);
}

/// The whole program.
pub fn program(zoo: &mut Zoo) -> Outcome {
    let woken: [Case; 10] = [
        read::<false>,
        read::<true>,
        pause::<false>,
        pause::<true>,
        epoll::<false>,
        epoll::<true>,
        sigwait::<false>,
        sigwait::<true>,
        receive::<false>,
        receive::<true>,
    ];
    let timed: [Case; 10] = [
        sleep::<false>,
        sleep::<true>,
        poll::<false>,
        poll::<true>,
        futex::<false>,
        futex::<true>,
        select::<false>,
        select::<true>,
        epoll_until::<false>,
        epoll_until::<true>,
    ];
    let mut all = woken.to_vec();
    all.extend(timed);
    zoo::blocked::run(zoo, &all, true)
}

/// Makes a call: its result, if every other register is what it was.
fn call<const THUMB: bool>(number: libc::c_long, args: &[usize]) -> Outcome<i32> {
    // r0 to r12 and lr.
    let mut registers: [u32; 14] = std::array::from_fn(|i| (i as u32 + 1).wrapping_mul(0x9e37_79b9));
    for (into, arg) in registers.iter_mut().zip(args) {
        *into = *arg as u32;
    }
    registers[7] = number as u32;
    let before = registers;
    // SAFETY: the functions follow the C convention and change 14 words; the arguments are those of the call.
    unsafe {
        if THUMB { zoo_call_thumb(registers.as_mut_ptr()) } else { zoo_call_arm(registers.as_mut_ptr()) }
    };
    if registers[1..] != before[1..] {
        return Err(format!("registers after call {number}: {registers:x?}, not {before:x?}").into());
    }
    Ok(registers[0] as i32)
}

fn name<const THUMB: bool>(arm: &'static str, thumb: &'static str) -> &'static str {
    if THUMB { thumb } else { arm }
}

/// ERESTARTSYS.
fn read<const THUMB: bool>(zoo: &Zoo) -> Outcome<Blocked> {
    let (reader, writer) = fd::pipe(0)?;
    let sleep = move |zoo: &mut Zoo| {
        let mut bytes = [0_u8; 16];
        let got = call::<THUMB>(libc::SYS_read, &[reader as usize, bytes.as_mut_ptr() as usize, 16])?;
        zoo.expect("bytes", (got, &bytes[..4]), (4, b"wake"));
        Ok(())
    };
    blocked(zoo, name::<THUMB>("read (ARM)", "read (Thumb)"), sleep, move || fd::write(writer, b"wake"))
}

extern "C" fn nothing(_: i32) {}

fn signalled(zoo: &Zoo, name: &'static str, sleep: impl FnOnce(&mut Zoo) -> Outcome) -> Outcome<Blocked> {
    let mut case = blocked(zoo, name, sleep, || Ok(()))?;
    let pid = case.pid;
    case.wake = Box::new(move || sys!(kill(pid, libc::SIGUSR1)).map(|_| ()));
    Ok(case)
}

/// ERESTARTNOHAND, and EINTR when a handler has run.
fn pause<const THUMB: bool>(zoo: &Zoo) -> Outcome<Blocked> {
    signalled(zoo, name::<THUMB>("pause (ARM)", "pause (Thumb)"), |zoo| {
        // SAFETY: a handler that does nothing.
        unsafe { libc::signal(libc::SIGUSR1, nothing as extern "C" fn(i32) as libc::sighandler_t) };
        zoo.expect("result", call::<THUMB>(libc::SYS_pause, &[])?, -libc::EINTR);
        Ok(())
    })
}

/// EINTR after any stop.
fn epoll<const THUMB: bool>(zoo: &Zoo) -> Outcome<Blocked> {
    let (reader, writer) = fd::pipe(0)?;
    let sleep = move |zoo: &mut Zoo| {
        let epoll = sys!(epoll_create1(0))?;
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 77 };
        sys!(epoll_ctl(epoll, libc::EPOLL_CTL_ADD, reader, &raw mut event))?;
        let args = [epoll as usize, (&raw mut event) as usize, 1, usize::MAX];
        zoo.expect("count", call::<THUMB>(libc::SYS_epoll_wait, &args)?, 1);
        Ok(())
    };
    let name = name::<THUMB>("epoll_wait (ARM)", "epoll_wait (Thumb)");
    blocked(zoo, name, sleep, move || fd::write(writer, b"wake"))
}

/// EINTR after any stop, with the older form.
fn sigwait<const THUMB: bool>(zoo: &Zoo) -> Outcome<Blocked> {
    signalled(zoo, name::<THUMB>("sigtimedwait (ARM)", "sigtimedwait (Thumb)"), |zoo| {
        let set = only(libc::SIGUSR1);
        let args = [(&raw const set) as usize, 0, 0, 8];
        zoo.expect("signal", call::<THUMB>(libc::SYS_rt_sigtimedwait, &args)?, libc::SIGUSR1);
        Ok(())
    })
}

/// EINTR after any stop, because of the time-out of the socket.
fn receive<const THUMB: bool>(zoo: &Zoo) -> Outcome<Blocked> {
    let [ours, theirs] = pair()?;
    let sleep = move |zoo: &mut Zoo| {
        let limit = zoo::time::val(600_000);
        let length = size_of::<libc::timeval>() as libc::socklen_t;
        sys!(setsockopt(theirs, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const limit).cast(), length))?;
        let mut bytes = [0_u8; 16];
        let args = [theirs as usize, bytes.as_mut_ptr() as usize, 16, 0];
        zoo.expect("bytes", call::<THUMB>(libc::SYS_recv, &args)?, 4);
        Ok(())
    };
    blocked(zoo, name::<THUMB>("recv (ARM)", "recv (Thumb)"), sleep, move || fd::write(ours, b"wake"))
}

/// A call that must return `wanted` when its time is over, and not before.
fn late(
    zoo: &Zoo,
    name: &'static str,
    wanted: i32,
    call: impl FnOnce(&[i32; 2]) -> Outcome<i32> + 'static,
) -> Outcome<Blocked> {
    let sleep = move |zoo: &mut Zoo| {
        let due = steady() + later_ms() * 1_000_000;
        let got = call(&[(later_ms() / 1000) as i32, (later_ms() % 1000 * 1_000_000) as i32])?;
        zoo.due(name, steady(), due, later_ms() + slack_ms());
        zoo.expect(name, got, wanted);
        Ok(())
    };
    blocked(zoo, name, sleep, || Ok(()))
}

/// ERESTART_RESTARTBLOCK.
fn sleep<const THUMB: bool>(zoo: &Zoo) -> Outcome<Blocked> {
    late(zoo, name::<THUMB>("nanosleep (ARM)", "nanosleep (Thumb)"), 0, |limit| {
        call::<THUMB>(libc::SYS_nanosleep, &[limit.as_ptr() as usize, 0])
    })
}

/// ERESTART_RESTARTBLOCK.
fn poll<const THUMB: bool>(zoo: &Zoo) -> Outcome<Blocked> {
    late(zoo, name::<THUMB>("poll (ARM)", "poll (Thumb)"), 0, |_| {
        call::<THUMB>(libc::SYS_poll, &[0, 0, later_ms() as usize])
    })
}

/// ERESTART_RESTARTBLOCK.
fn futex<const THUMB: bool>(zoo: &Zoo) -> Outcome<Blocked> {
    let word = word()? as usize;
    late(zoo, name::<THUMB>("futex (ARM)", "futex (Thumb)"), -libc::ETIMEDOUT, move |limit| {
        call::<THUMB>(libc::SYS_futex, &[word, libc::FUTEX_WAIT as usize, 0, limit.as_ptr() as usize])
    })
}

/// ERESTARTNOHAND.
fn select<const THUMB: bool>(zoo: &Zoo) -> Outcome<Blocked> {
    late(zoo, name::<THUMB>("pselect6 (ARM)", "pselect6 (Thumb)"), 0, |limit| {
        let mask = open_mask();
        let sigmask = [(&raw const mask) as usize, 8];
        let args = [0, 0, 0, 0, limit.as_ptr() as usize, sigmask.as_ptr() as usize];
        call::<THUMB>(libc::SYS_pselect6, &args)
    })
}

/// EINTR after any stop, with a time-out.
fn epoll_until<const THUMB: bool>(zoo: &Zoo) -> Outcome<Blocked> {
    late(zoo, name::<THUMB>("timed epoll_wait (ARM)", "timed epoll_wait (Thumb)"), 0, |_| {
        let epoll = sys!(epoll_create1(0))?;
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let args = [epoll as usize, (&raw mut event) as usize, 1, later_ms() as usize];
        call::<THUMB>(libc::SYS_epoll_wait, &args)
    })
}
