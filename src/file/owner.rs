//! Who gets the signals of a description (F_SETOWN_EX, F_SETSIG of fcntl(2)).
//!
//! What: the process, thread or group for SIGIO and SIGURG, and which signal is sent instead.
//! Reads: F_GETOWN_EX, F_GETSIG, F_GETOWNER_UIDS.
//! Rebuilds: after every puppet exists, under the ids that the kernel noted the first time.
//! Loses: those ids, on kernels without CONFIG_CHECKPOINT_RESTORE: root's are noted.
//! Refuses: an owner outside the image; a thread of init that does not lead it, which is made last.

use std::os::fd::{AsFd, OwnedFd};

use super::{Description, World};
use crate::error::{Context, Refusal, Result};
use crate::sys::descriptor::{self, FcntlNumber, OwnerEx};

const KIND: &str = "owner";
/// F_OWNER_PGRP.
const GROUP: i32 = 2;

crate::section! {
    /// An owner in the image.
    pub struct State {
        /// F_OWNER_TID 0, F_OWNER_PID 1, F_OWNER_PGRP 2.
        pub kind: i32,
        /// The thread, process or process group; 0 if only the signal is set.
        pub id: i32,
        /// The signal; 0 means SIGIO.
        pub signal: i32,
        /// uid and euid of who set it: what the permission to signal is checked against.
        pub uids: [u32; 2],
    }
}

/// Reads the owner, if there is one.
///
/// # Errors
/// A refusal if it is outside the image.
pub fn capture(desc: &Description, world: &World<'_>) -> Result<Option<State>, Refusal> {
    let fd = desc.fd.as_fd();
    let owner = descriptor::owner(fd).context(KIND, format_args!("reading it"))?;
    let signal =
        descriptor::fcntl(fd, FcntlNumber::GetSignal, 0).context(KIND, format_args!("reading the signal"))?;
    if owner.id == 0 && signal == 0 {
        return Ok(None);
    }
    let id = u32::try_from(owner.id).unwrap_or(0);
    if id != 0 && owner.kind != GROUP && !world.has_task(id) {
        let reason = format!("its signals go to {id}, a thread of init or outside the image");
        return Err(Refusal::new(reason, "start its owner after `rcsnap ready`"));
    }
    let uids = descriptor::owner_uids(fd).unwrap_or_default();
    Ok(Some(State { kind: owner.kind, id: owner.id, signal, uids }))
}

/// Names the owner again.
///
/// # Errors
/// The errno of the calls: `ESRCH` if the process is missing.
pub fn restore(state: &State, fd: &OwnedFd) -> Result<()> {
    if state.id != 0 {
        let owner = OwnerEx { kind: state.kind, id: state.id };
        descriptor::set_owner_as(fd.as_fd(), owner, state.uids)
            .context(KIND, format_args!("naming {}", state.id))?;
    }
    if state.signal != 0 {
        descriptor::fcntl(fd.as_fd(), FcntlNumber::SetSignal, state.signal)
            .context(KIND, format_args!("setting the signal"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use crate::file::testing::{beside, describe, world};
    use crate::sys::descriptor::{FcntlNumber, OwnerEx, fcntl, set_owner_as};

    #[test]
    fn owner_signal_and_uids_come_back() {
        let (fd, _into) = nix::unistd::pipe().unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        set_owner_as(fd.as_fd(), OwnerEx { kind: 1, id: me }, [0, 0]).unwrap();
        fcntl(fd.as_fd(), FcntlNumber::SetSignal, 40).unwrap();
        let desc = describe(&fd);
        let state = world(&[], |world| super::capture(&desc, world)).unwrap().unwrap();
        assert_eq!((state.kind, state.id, state.signal, state.uids), (1, me, 40, [0, 0]));
        let (again, _into) = nix::unistd::pipe().unwrap();
        super::restore(&state, &again).unwrap();
        let desc = describe(&again);
        assert_eq!(world(&[], |world| super::capture(&desc, world)).unwrap(), Some(state));
    }

    #[test]
    fn thread_outside_the_image_is_refused() {
        let (fd, _into) = nix::unistd::pipe().unwrap();
        beside(|tid| {
            let id = tid.cast_signed();
            set_owner_as(fd.as_fd(), OwnerEx { kind: 0, id }, [0, 0]).unwrap();
            let refusal = world(&[], |world| super::capture(&describe(&fd), world)).unwrap_err();
            assert!(refusal.reason.contains(&format!("go to {id}, a thread of init")), "{}", refusal.reason);
        });
    }
}
