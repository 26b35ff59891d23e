//! Kind `sysvipc`: a process that has adjustments of semaphores to be made when it ends.

use zoo::{Outcome, Zoo, sys};

fn main() {
    zoo::run(program)
}

fn program(zoo: &mut Zoo) -> Outcome {
    let set = match sys!(semget(libc::IPC_PRIVATE, 1, libc::IPC_CREAT | 0o600)) {
        Err(_) if sys::errno() == libc::ENOSYS => zoo.skip("no System V IPC"),
        set => set?,
    };
    let child = zoo.fork_blocked(move |zoo| {
        let mut give = libc::sembuf { sem_num: 0, sem_op: 3, sem_flg: libc::SEM_UNDO as i16 };
        sys!(semop(set, &raw mut give, 1))?;
        zoo.arrive();
        zoo.wait();
        Ok(())
    })?;
    zoo.ready();
    // SAFETY: this command has no further argument.
    let value = || unsafe { libc::semctl(set, 0, libc::GETVAL) };
    zoo.reap("the child", child);
    zoo.expect("the semaphore after its end", value(), 0);
    sys!(semctl(set, 0, libc::IPC_RMID))?;
    Ok(())
}
