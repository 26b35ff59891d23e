//! What: credentials of a thread: users, groups, capabilities, securebits, no_new_privs, pdeath signal.
//! Reads: /proc/PID/task/TID/status; securebits and the parent-death signal by prctl(2) inside.
//! Rebuilds: in an order where no step needs what an earlier one gave away (credentials(7),
//!   capabilities(7), "Effect of user ID changes").
//! Loses: keyrings (keyrings(7)): nobody but the thread itself can see which it has.
//! Refuses: a label of a security module that is not the one of PID 1, or, in a tree, of the caller (`capture.rs`,
//!   before anything is injected).

use crate::proc::status::Status;
use crate::sys::abi;
use crate::task::remote::Batch;

/// SECBIT_NO_SETUID_FIXUP: capabilities stay while user ids change.
const NO_SETUID_FIXUP: u64 = 1 << 2;

crate::section! {
    /// The credentials.
    #[derive(Default)]
    pub struct State {
        /// Real, effective, saved, file system.
        pub uid: [u32; 4],
        /// The same for groups.
        pub gid: [u32; 4],
        /// Supplementary groups.
        pub groups: Vec<u32>,
        /// Inheritable, permitted, effective, bounding, ambient.
        pub caps: [u64; 5],
        /// PR_GET_SECUREBITS.
        pub securebits: u32,
        /// PR_SET_NO_NEW_PRIVS.
        pub no_new_privs: bool,
        /// PR_SET_PDEATHSIG; 0 none.
        pub death_signal: i32,
    }
}

/// Asks for what /proc does not show: securebits and the parent-death signal.
pub fn ask(batch: &mut Batch) -> (usize, u64) {
    let bits = batch.call(libc::SYS_prctl, &[libc::PR_GET_SECUREBITS as u64, 0, 0, 0, 0]);
    let room = batch.room(8);
    batch.call(libc::SYS_prctl, &[libc::PR_GET_PDEATHSIG as u64, room, 0, 0, 0]);
    (bits, room)
}

/// The state from both sources.
#[must_use]
pub fn capture(status: &Status, batch: &Batch, asked: (usize, u64)) -> State {
    State {
        uid: status.uid,
        gid: status.gid,
        groups: status.groups.clone(),
        caps: status.caps,
        securebits: u32::try_from(batch.result(asked.0)).unwrap_or(0),
        no_new_privs: status.no_new_privs,
        death_signal: batch.half(asked.1).cast_signed(),
    }
}

/// Gives the thread its credentials; afterwards it may have no rights at all. `own` is what it has now.
pub fn restore(batch: &mut Batch, state: &State, own: &[u64; 5]) {
    let [ruid, euid, suid, fsuid] = state.uid.map(u64::from);
    let [rgid, egid, sgid, fsgid] = state.gid.map(u64::from);
    let mut groups = Vec::new();
    for group in &state.groups {
        groups.extend_from_slice(&group.to_ne_bytes());
    }
    let list = batch.bytes(&groups);
    batch.call(abi::SETGROUPS, &[state.groups.len() as u64, list]);
    batch.doing("setting groups");
    batch.call(libc::SYS_prctl, &[libc::PR_SET_SECUREBITS as u64, NO_SETUID_FIXUP, 0, 0, 0]);
    batch.call(abi::SETRESGID, &[rgid, egid, sgid]);
    batch.call(abi::SETFSGID, &[fsgid]);
    batch.call(abi::SETRESUID, &[ruid, euid, suid]);
    batch.call(abi::SETFSUID, &[fsuid]);
    batch.call(libc::SYS_prctl, &[libc::PR_SET_SECUREBITS as u64, u64::from(state.securebits), 0, 0, 0]);
    batch.doing("setting securebits");
    for cap in (0..64u64).filter(|c| own[3] & !state.caps[3] & (1 << c) != 0) {
        batch.call(libc::SYS_prctl, &[libc::PR_CAPBSET_DROP as u64, cap, 0, 0, 0]);
        batch.doing("dropping from the bounding set");
    }
    set_capabilities(batch, state);
    for cap in (0..64u64).filter(|c| state.caps[4] & (1 << c) != 0) {
        let raise = libc::PR_CAP_AMBIENT_RAISE as u64;
        batch.call(libc::SYS_prctl, &[libc::PR_CAP_AMBIENT as u64, raise, cap, 0, 0]);
    }
    if state.no_new_privs {
        batch.call(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS as u64, 1, 0, 0, 0]);
    }
    if state.death_signal != 0 {
        let signal = u64::from(state.death_signal.cast_unsigned());
        batch.call(libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG as u64, signal, 0, 0, 0]);
    }
}

/// capset(2) with _LINUX_CAPABILITY_VERSION_3: a header, then effective, permitted, inheritable in halves.
fn set_capabilities(batch: &mut Batch, state: &State) {
    const VERSION_3: u32 = 0x2008_0522;
    let [inheritable, permitted, effective, ..] = state.caps;
    let mut header = VERSION_3.to_ne_bytes().to_vec();
    header.extend_from_slice(&0u32.to_ne_bytes());
    let mut data = Vec::new();
    for shift in [0, 32] {
        for set in [effective, permitted, inheritable] {
            data.extend_from_slice(&(set >> shift & 0xffff_ffff).to_ne_bytes()[..4]);
        }
    }
    let header = batch.bytes(&header);
    let data = batch.bytes(&data);
    batch.call(libc::SYS_capset, &[header, data]);
    batch.doing("setting capabilities");
}
