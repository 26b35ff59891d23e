//! What must hold between the tasks that are captured, and between them and their surroundings.

use super::Eye;
use crate::config::Service;
use crate::error::Refusal;
use crate::file::Scope;
use crate::task::freeze::Frozen;
use crate::task::process;

impl Eye<'_> {
    /// What the configuration refuses is in no image, whatever else it allows. A rerun service is not there.
    pub(super) fn check_services(&mut self, frozen: &Frozen) {
        for p in frozen.processes.values() {
            let service = Service::of(p.pid);
            if self.request.config.refuses(&service) {
                let refusal = Refusal::new("the configuration refuses it", "rerun the service");
                self.refuse("process", p.pid, &p.stat.comm, service.name().to_owned(), refusal);
            }
        }
    }

    /// Tasks must live in the namespaces of the root, and under its label of a security module; in a tree, of
    /// the caller, who will restore there. Only a time namespace is made anew: it is the root's.
    pub(super) fn check_namespaces(&mut self, frozen: &Frozen) {
        let home = match self.request.scope {
            Scope::System => self.request.root,
            Scope::Tree => std::process::id(),
        };
        let ours = process::NAMESPACES.map(|name| process::namespace(home, home, name));
        let time = process::namespace(self.request.root, self.request.root, "time");
        let label = process::label(home, home);
        for p in frozen.processes.values() {
            for tid in p.threads.iter().map(|t| t.tid) {
                let namespaces = process::NAMESPACES.iter().zip(&ours);
                let times = process::TIME_NAMESPACES.iter().zip([&time, &time]);
                for (name, ours) in namespaces.chain(times) {
                    let theirs = process::namespace(p.pid, tid, name);
                    if theirs != *ours {
                        let reason = format!("it has a {name} namespace of its own");
                        let refusal = Refusal::new(reason, "rerun the service");
                        self.refuse("namespace", p.pid, &p.stat.comm, theirs, refusal);
                    }
                }
                let theirs = process::label(p.pid, tid);
                if !theirs.is_empty() && theirs != "unconfined" && theirs != label {
                    let reason = "a security module gave it a label of its own";
                    let refusal = Refusal::new(reason, "rerun the service");
                    self.refuse("creds", p.pid, &p.stat.comm, format!("label {theirs}"), refusal);
                }
            }
        }
    }
}
