//! What must hold between the tasks that are captured, and between them and their surroundings.

use super::Eye;
use crate::config::{Key, Service};
use crate::error::{Obstacle, Refusal, Result};
use crate::file::Scope;
use crate::sorted::Listed;
use crate::task::freeze::Frozen;
use crate::task::tree::{Ids, Process, plan};
use crate::task::{namespace, process};

impl Eye<'_> {
    /// What the configuration refuses is in no image, whatever else it allows. A rerun service is not there.
    pub(super) fn check_services(&mut self, frozen: &Frozen) {
        if self.request.config.list(Key::Refuse).next().is_none() {
            return;
        }
        for p in frozen.processes.values() {
            let service = Service::of(p.pid);
            if self.request.config.refuses(&service) {
                let refusal = Refusal::new("the configuration refuses it", "rerun the service");
                self.refuse("process", p.pid, &p.stat.comm, service.name().to_owned(), refusal);
            }
        }
    }

    /// Tasks must live in namespaces that can be made, and under the label that a security module gave to the root;
    /// in a tree, to the caller, who will restore there.
    pub(super) fn check_surroundings(&mut self, frozen: &Frozen) -> Result<()> {
        let home = match self.request.scope {
            Scope::System => self.request.root,
            Scope::Tree => std::process::id(),
        };
        let mut told = Vec::new();
        self.seen = namespace::find(frozen, home, self.request.root, &mut |p, object, refusal| {
            told.push(Obstacle::process("namespace", p.pid, &*p.stat.comm, object, refusal));
        })?;
        self.obstacles.append(&mut told);
        self.shared.home = self.seen.home();
        let label = process::label(home, home);
        for p in frozen.processes.values() {
            for tid in p.threads.iter().map(|t| t.tid) {
                let theirs = process::label(p.pid, tid);
                if !theirs.is_empty() && theirs != "unconfined" && theirs != label {
                    let reason = "a security module gave it a label of its own";
                    let refusal = Refusal::new(reason, "rerun the service");
                    self.refuse("creds", p.pid, &p.stat.comm, format!("label {theirs}"), refusal);
                }
            }
        }
        Ok(())
    }

    /// There must be an order in which the processes can be made.
    pub(super) fn check_plan(&mut self, processes: &[Process]) {
        let ids: Vec<Ids> = processes.iter().map(|p| p.ids.clone()).list();
        if !self.obstacles.is_empty() {
            return; // the list is not complete
        }
        if let Err((pid, refusal)) = plan(&ids, self.request.root, self.request.scope == Scope::System) {
            let comm = processes.iter().find(|p| p.ids.pid == pid).map_or("", |p| &p.comm);
            self.obstacles.push(Obstacle::process("tree", pid, comm, "place in the process tree", refusal));
        }
    }

    /// Mapped files on storage, by their names in the first mount namespace.
    pub(super) fn mapped(&mut self, inputs: &mut Vec<String>) {
        for file in &self.shared.files {
            match self.seen.at_home(&file.path, &file.spaces) {
                Ok(path) if path.is_empty() => {}
                Ok(path) => inputs.push(path),
                Err(refusal) => self.obstacles.push(Obstacle::kernel("memory", &*file.path, refusal)),
            }
        }
    }
}
