//! The names of the system: hostname and NIS domain.
//!
//! # What
//! What sethostname(2) and setdomainname(2) have set.
//! # Reads
//! /proc/sys/kernel/hostname and domainname, which show the reader's UTS namespace.
//! # Rebuilds
//! The same names, by writing there.
//! # Loses
//! Nothing.
//! # Refuses
//! Nothing.

use super::root::Root;
use crate::error::{Context, Result};
use crate::section;
use crate::text;

section! {
    /// The two names.
    pub struct State {
        /// sethostname(2).
        pub host: String,
        /// setdomainname(2).
        pub domain: String,
    }
}

const HOST: &str = "sys/kernel/hostname";
const DOMAIN: &str = "sys/kernel/domainname";

/// Reads both.
///
/// # Errors
/// The errno of reading.
pub fn capture(root: &Root) -> Result<State> {
    let read = |path| root.proc.read(path).map(|text| text::without_end(&text, "\n").to_owned());
    Ok(State {
        host: read(HOST).context("hostname", format_args!("reading the name"))?,
        domain: read(DOMAIN).context("hostname", format_args!("reading the domain"))?,
    })
}

/// Sets both where they differ.
///
/// # Errors
/// The errno of writing.
pub fn restore(state: &State, root: &Root) -> Result<()> {
    let now = capture(root)?;
    for (path, was, is) in [(HOST, &state.host, &now.host), (DOMAIN, &state.domain, &now.domain)] {
        if was != is {
            // The line feed makes an empty name one write too.
            root.proc.write(path, &format!("{was}\n")).context("hostname", format_args!("setting {was}"))?;
        }
    }
    Ok(())
}
