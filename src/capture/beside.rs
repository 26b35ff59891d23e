//! What the kernel has beside the tasks and their descriptions: its own state, control groups, namespaces.

use std::path::Path;

use super::Eye;
use crate::error::{Context, Result};
use crate::file::Scope;
use crate::kernel;
use crate::kernel::root::{Dir, is_machine};
use crate::task::namespace;
use crate::task::tree::Process;

impl Eye<'_> {
    /// What the scripts made, for the whole system.
    pub(super) fn kernel(&mut self) -> Result<Option<(kernel::State, kernel::tmpfs::State)>> {
        let Some((baseline, root)) = self.request.baseline else { return Ok(None) };
        let (state, tmpfs, mut obstacles) = kernel::capture(baseline, root)?;
        self.obstacles.append(&mut obstacles);
        Ok(Some((state, tmpfs)))
    }

    /// What is in namespaces that are not those of the first process.
    pub(super) fn namespaces(&mut self) -> Result<Vec<namespace::State>> {
        let (list, mut obstacles) = self.seen.capture()?;
        self.obstacles.append(&mut obstacles);
        Ok(list)
    }

    /// A cell and a tree share the groups of the machine with others.
    pub(super) fn groups(&mut self, processes: &[Process]) -> Result<kernel::cgroup::State> {
        let request = self.request;
        let proc = Dir::open(Path::new("/proc")).context("cgroup", format_args!("opening /proc"))?;
        let all = request.scope == Scope::System && is_machine(&proc);
        let (state, mut obstacles) = kernel::cgroup::capture(all, request.root, request.prefix, processes)?;
        self.obstacles.append(&mut obstacles);
        Ok(state)
    }
}
