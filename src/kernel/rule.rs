//! Rules that choose a routing table.
//!
//! # What
//! IPv4 and IPv6 rules that the scripts added or took away, the kernel's three own ones among them.
//! # Reads
//! RTM_GETRULE before and after the scripts.
//! # Rebuilds
//! The same rules with their attributes as they are; interfaces are named in them.
//! # Loses
//! Nothing.
//! # Refuses
//! Nothing.

use nix::errno::Errno;

use super::bytes::{Bytes, without};
use super::network::{only, unless};
use crate::error::{Context, Result};
use crate::section;
use crate::sorted::Listed;
use crate::sys::netlink::{CREATE, EXCLUSIVE, Socket, attributes, put, u32_at};

const NEW: u16 = 32;
const DELETE: u16 = 33;
const GET: u16 = 34;
/// struct fib_rule_hdr.
const INFO: usize = 12;
/// FIB_RULE_INVERT: the only flag that is set and not found out.
const INVERT: u32 = 2;

section! {
    /// The difference.
    pub struct State {
        /// Rules the scripts took away.
        pub removed: Vec<Rule>,
        /// Rules the scripts added.
        pub added: Vec<Rule>,
    }
}

section! {
    /// One rule.
    pub struct Rule {
        /// struct fib_rule_hdr without its flags.
        pub head: [u8; 8],
        /// FIB_RULE_INVERT.
        pub flags: u32,
        /// Attributes, as they are.
        pub rest: Vec<(u16, Bytes)>,
    }
}

/// All rules; none if the kernel has no policy routing.
///
/// # Errors
/// What the kernel answers.
pub fn baseline(socket: &mut Socket) -> Result<Vec<Rule>> {
    let answer = match socket.dump(GET, &[0; INFO]) {
        Err(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => return Ok(Vec::new()),
        answer => answer.context("rule", format_args!("listing rules"))?,
    };
    Ok(answer.iter().filter_map(|message| rule(&message.body)).list())
}

fn rule(body: &[u8]) -> Option<Rule> {
    let rest = without(&attributes(body, INFO), &[]);
    let head: [u8; 8] = body.get(..8)?.try_into().ok()?;
    // 2 AF_INET, 10 AF_INET6; multicast routing has rules too.
    (head[0] == 2 || head[0] == 10).then(|| Rule { head, flags: u32_at(body, 8) & INVERT, rest })
}

/// The difference of two lists.
#[must_use]
pub fn capture(before: &[Rule], now: &[Rule]) -> State {
    State { removed: only(before, now), added: only(now, before) }
}

fn message(rule: &Rule) -> Vec<u8> {
    let mut body = rule.head.to_vec();
    body.extend_from_slice(&rule.flags.to_ne_bytes());
    for (kind, value) in &rule.rest {
        put(&mut body, *kind, &value.0);
    }
    body
}

/// Adds and takes away rules; adds first, so that no packet falls between the old ones and the new.
///
/// # Errors
/// What the kernel answers.
pub fn restore(state: &State, socket: &mut Socket) -> Result<()> {
    for rule in &state.added {
        unless(socket.change(NEW, CREATE | EXCLUSIVE, &message(rule)), Errno::EEXIST)
            .context("rule", format_args!("adding a rule"))?;
    }
    for rule in &state.removed {
        unless(socket.change(DELETE, 0, &message(rule)), Errno::ENOENT)
            .context("rule", format_args!("removing a rule"))?;
    }
    Ok(())
}
