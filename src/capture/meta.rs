//! What an image says of itself: versions, counts, and the clocks.

use super::KIND;
use crate::error::{Context, Result};
use crate::file::Scope;
use crate::image::{Clocks, Meta};
use crate::sys::{fs, time};
use crate::task::tree::Process;

/// The section META of these processes.
///
/// # Errors
/// The kernel does not tell its name.
pub fn meta(scope: Scope, clocks: Clocks, processes: &[Process]) -> Result<Meta> {
    let kernel = |what| fs::kernel(what).context(KIND, format_args!("asking for the kernel's name"));
    let ids = processes.iter().flat_map(|p| {
        let threads = p.body.iter().flat_map(|b| b.threads.iter().map(|t| t.tid));
        [p.ids.pid, p.ids.pgrp, p.ids.session].into_iter().chain(threads)
    });
    let threads = processes.iter().filter_map(|p| p.body.as_ref()).map(|b| b.threads.len()).sum::<usize>();
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(Meta {
        rcsnap: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_release: kernel("osrelease")?,
        kernel_version: kernel("version")?,
        whole_system: scope == Scope::System,
        clocks,
        highest_id: ids.max().unwrap_or(1),
        processes: number(processes.len()),
        threads: number(threads),
        stopped_ms: 0,
    })
}

/// The clocks as the captured processes see them: ours, with the offset of their time namespace.
///
/// # Errors
/// A clock cannot be read.
pub fn clocks(root: u32) -> Result<Clocks> {
    let read = |clock| time::nanoseconds(clock).context(KIND, format_args!("reading a clock"));
    let ahead = crate::task::clock::ahead(root)?;
    Ok(Clocks {
        monotonic: read(libc::CLOCK_MONOTONIC)? + ahead.monotonic,
        boottime: read(libc::CLOCK_BOOTTIME)? + ahead.boottime,
        realtime: read(libc::CLOCK_REALTIME)?,
    })
}
