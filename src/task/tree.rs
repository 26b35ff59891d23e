//! What: processes with their parents, process groups and sessions, zombies, subreapers; those that job control has
//!   stopped, and whether their parent knows (WUNTRACED of waitpid(2)).
//! Reads: /proc/PID/stat (ppid, pgrp, session, exit code), PR_GET_CHILD_SUBREAPER inside; the signal of a stop from
//!   PTRACE_EVENT_STOP, and what the parent knows from waitid(2) inside, with WNOWAIT.
//! Rebuilds: a plan of steps, computed from the ids alone: who makes whom and when it calls setsid(2) and
//!   setpgid(2). Leaders that are dead are made for a moment, so that members can join. What
//!   was stopped is stopped again as a puppet; batches run in it nevertheless, and the kernel stops it when it is let go.
//! Loses: resource usage of zombies; that a stopped process was continued, if its parent has not waited for that. On
//!   ARM, that a handler of SIGCONT ends the call in which a process was stopped: the call begins again.
//! Refuses: shapes that no order of fork(2), setsid(2) and exit(2) brings about from outside; a process of which only
//!   some threads are stopped.

use crate::error::Refusal;
use crate::file::Fd;
use crate::sorted::{self, Listed, Map, Set};
use crate::task::signal::Action;
use crate::task::{limit, memory, namespace, sched, sharing, thread, timer, workdir};

crate::section! {
    /// The ids of a process.
    pub struct Ids {
        /// Its id.
        pub pid: u32,
        /// Its parent; 0: outside the image.
        pub ppid: u32,
        /// Its process group; 0: that of the caller of restore.
        pub pgrp: u32,
        /// Its session; 0: that of the caller of restore.
        pub session: u32,
        /// PR_SET_CHILD_SUBREAPER.
        pub subreaper: bool,
        /// Wait status of a zombie.
        pub exit: Option<i32>,
        /// What it shares with other processes.
        pub sharing: sharing::State,
    }
}

crate::section! {
    /// A process that lives.
    pub struct Body {
        /// The threads, the leader first.
        pub threads: Vec<thread::State>,
        /// Its address space; without mappings if another process stands for it (`sharing`).
        pub memory: memory::State,
        /// Signal actions that are not the default; none if another process stands for them.
        pub actions: Vec<Action>,
        /// Signals queued for the process, raw siginfo_t.
        pub queue: Vec<Vec<u8>>,
        /// Timers.
        pub timers: timer::State,
        /// Resource limits.
        pub limits: limit::State,
        /// OOM score and the like.
        pub sched: sched::Process,
        /// Directories and umask.
        pub workdir: workdir::State,
        /// PR_GET_DUMPABLE.
        pub dumpable: u32,
        /// PR_GET_THP_DISABLE.
        pub no_thp: bool,
        /// Descriptors.
        pub fds: Vec<Fd>,
        /// Locks that belong to the process (F_SETLK).
        pub locks: Vec<crate::file::lock::Posix>,
        /// A session leader's controlling terminal: its path, and the foreground group.
        pub terminal: Option<(String, u32)>,
        /// Whether a signal has stopped it.
        pub stop: Option<Stop>,
    }
}

crate::section! {
    /// A process that job control has stopped.
    pub struct Stop {
        /// The signal that did it.
        pub signal: i32,
        /// Whether its parent has waited for that (WUNTRACED of waitpid(2)).
        pub seen: bool,
    }
}

crate::section! {
    /// A process of the image.
    pub struct Process {
        /// Its ids.
        pub ids: Ids,
        /// Its name.
        pub comm: String,
        /// The namespaces that it lives in.
        pub spaces: namespace::Spaces,
        /// What lives of it; none for a zombie.
        pub body: Option<Body>,
    }
}

/// One step of the plan. `None` as the maker is the conductor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `by` makes a child with this pid.
    Create {
        /// The maker.
        by: Option<u32>,
        /// The child.
        pid: u32,
    },
    /// The process calls prctl(PR_SET_CHILD_SUBREAPER).
    Subreaper(u32),
    /// The process calls setsid(2).
    Session(u32),
    /// The process joins or founds a group.
    Group {
        /// The process.
        pid: u32,
        /// The group.
        group: u32,
    },
    /// A process that was only needed for a moment exits, and its maker reaps it.
    End {
        /// The maker.
        by: Option<u32>,
        /// The process.
        pid: u32,
    },
}

/// A plan in the making.
struct Planner<'a> {
    all: &'a [Ids],
    steps: Vec<Step>,
    made: Set<u32>,
    /// Session and group that each process has so far.
    now: Map<u32, (u32, u32)>,
    /// Helpers to end: pid and maker.
    ghosts: Vec<(u32, Option<u32>)>,
    spare: u32,
}

/// Computes the steps. `root` is the first process; with `exists` it is there already (PID 1), its children
/// are made by the conductor, and it has called setsid(2) if it leads a session.
///
/// # Errors
/// The process whose place in the tree cannot be reached.
pub fn plan(all: &[Ids], root: u32, exists: bool) -> Result<Vec<Step>, (u32, Refusal)> {
    let top = all.iter().flat_map(|p| [p.pid, p.pgrp, p.session]).max().unwrap_or(1);
    let mut planner = Planner {
        all,
        steps: Vec::new(),
        made: Set::new(),
        now: Map::new(),
        ghosts: Vec::new(),
        spare: top + 1,
    };
    let Some(first) = all.iter().find(|p| p.pid == root) else { return Ok(Vec::new()) };
    if exists {
        planner.made.insert(root);
        planner.now.insert(root, (first.session, first.pgrp));
        planner.children(first, first.session, None)?;
    } else {
        planner.create(None, first, (0, 0))?;
    }
    planner.orphans(root, exists)?;
    if let Some(lost) = all.iter().find(|p| !planner.made.contains(&p.pid)) {
        let reason = format!("its session {} cannot be reached from its parent {}", lost.session, lost.ppid);
        return Err((lost.pid, Refusal::new(reason, "rerun the service")));
    }
    planner.groups()?;
    while let Some((pid, by)) = planner.ghosts.pop() {
        planner.steps.push(Step::End { by, pid });
    }
    Ok(planner.steps)
}

impl Planner<'_> {
    /// Makes a process and all below it. `from`: session and group of the maker at this moment.
    fn create(&mut self, by: Option<u32>, ids: &Ids, from: (u32, u32)) -> Result<(), (u32, Refusal)> {
        self.check_sharing(by, ids)?;
        self.steps.push(Step::Create { by, pid: ids.pid });
        self.made.insert(ids.pid);
        self.now.insert(ids.pid, from);
        if ids.subreaper {
            self.steps.push(Step::Subreaper(ids.pid));
        }
        self.children(ids, from.0, Some(ids.pid))
    }

    /// What a process shares it has from its maker: only the first of those that share comes without.
    fn check_sharing(&self, by: Option<u32>, ids: &Ids) -> Result<(), (u32, Refusal)> {
        let mut made = self.all.iter().filter(|p| self.made.contains(&p.pid));
        let from = self.all.iter().find(|p| Some(p.pid) == by);
        let has = from.map_or(0, |p| p.sharing.flags(&ids.sharing));
        match made.find(|p| p.sharing.flags(&ids.sharing) & !has != 0) {
            None => Ok(()),
            Some(p) => {
                Err((ids.pid, sharing::refusal(format!("it shares with {}, which does not make it", p.pid))))
            }
        }
    }

    /// Makes the children of a process: first those that need the session it was born in, then, after its
    /// own setsid(2), those that need its own or found their own.
    fn children(&mut self, ids: &Ids, born: u32, by: Option<u32>) -> Result<(), (u32, Refusal)> {
        let all = self.all;
        let mine = all.iter().filter(|p| p.ppid == ids.pid && p.pid != ids.pid);
        let (own, other): (Vec<&Ids>, Vec<&Ids>) =
            mine.partition(|p| p.session == ids.session || p.session == p.pid);
        let leads = ids.session == ids.pid && by.is_some();
        if leads {
            for child in other.iter().filter(|p| p.session == born) {
                let from = self.now[&ids.pid];
                self.create(by, child, from)?;
            }
            self.steps.push(Step::Session(ids.pid));
            self.now.insert(ids.pid, (ids.pid, ids.pid));
        }
        for child in own {
            let from = self.now[&ids.pid];
            self.create(by, child, from)?;
        }
        Ok(())
    }

    /// Children of a reaper whose session is not the reaper's: they were orphaned. A member of that session
    /// makes them, through a helper that exits, or the dead leader is made again for the purpose.
    fn orphans(&mut self, root: u32, exists: bool) -> Result<(), (u32, Refusal)> {
        loop {
            let all = self.all;
            let Some(orphan) = all.iter().find(|p| {
                let reaper = all.iter().find(|r| r.pid == p.ppid);
                !self.made.contains(&p.pid)
                    && reaper.is_some_and(|r| {
                        self.made.contains(&r.pid) && (r.subreaper || (exists && r.pid == root))
                    })
            }) else {
                return Ok(());
            };
            let reaper = if exists && orphan.ppid == root { None } else { Some(orphan.ppid) };
            let leader = orphan.session;
            if self.ghosts.iter().any(|(pid, _)| *pid == leader) {
                self.create(Some(leader), orphan, (leader, leader))?;
            } else if self.made.contains(&leader) {
                // Its leader lives: a child of it makes the orphan and exits.
                let helper = self.spare;
                self.spare += 1;
                let from = self.now[&leader];
                self.steps.push(Step::Create { by: Some(leader), pid: helper });
                self.now.insert(helper, from);
                self.create(Some(helper), orphan, from)?;
                self.ghosts.push((helper, Some(leader)));
            } else if all.iter().any(|p| p.pid == leader) {
                // Its leader is an orphan too, further on in the list, and founds its own session.
                let reason = format!("its session leader {leader} cannot be made before it");
                return Err((orphan.pid, Refusal::new(reason, "rerun the service")));
            } else {
                let from = reaper.and_then(|r| self.now.get(&r).copied()).unwrap_or((0, 0));
                self.ghost(reaper, leader, from);
                self.steps.push(Step::Session(leader));
                self.now.insert(leader, (leader, leader));
                self.create(Some(leader), orphan, (leader, leader))?;
            }
        }
    }

    fn ghost(&mut self, by: Option<u32>, pid: u32, from: (u32, u32)) {
        self.steps.push(Step::Create { by, pid });
        self.made.insert(pid);
        self.now.insert(pid, from);
        self.ghosts.push((pid, by));
    }

    /// Puts every process into its group: leaders first.
    fn groups(&mut self) -> Result<(), (u32, Refusal)> {
        let all = self.all;
        let mut wrong: Vec<&Ids> =
            all.iter().filter(|p| p.pgrp != 0 && self.now.get(&p.pid).is_some_and(|n| n.1 != p.pgrp)).list();
        sorted::sort_by_key(&mut wrong, |p| (p.pgrp != p.pid, p.pid));
        for process in wrong {
            if !self.now.contains_key(&process.pgrp) {
                // The leader is dead: a child of the first member takes its number for a moment.
                let from = self.now[&process.pid];
                self.ghost(Some(process.pid), process.pgrp, from);
                self.steps.push(Step::Group { pid: process.pgrp, group: process.pgrp });
            }
            self.steps.push(Step::Group { pid: process.pid, group: process.pgrp });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Ids, Step, plan};
    use crate::task::sharing::State;

    fn ids(pid: u32, ppid: u32, pgrp: u32, session: u32) -> Ids {
        let sharing = State { memory: pid, files: pid, directories: pid, actions: pid };
        Ids { pid, ppid, pgrp, session, subreaper: false, exit: None, sharing }
    }

    #[test]
    fn a_daemon_whose_leader_died_is_made_by_a_ghost() {
        let steps = plan(&[ids(1, 0, 1, 1), ids(30, 1, 29, 29), ids(40, 1, 40, 40)], 1, true).unwrap();
        assert_eq!(
            steps,
            [
                Step::Create { by: None, pid: 40 },
                Step::Session(40),
                Step::Create { by: None, pid: 29 },
                Step::Session(29),
                Step::Create { by: Some(29), pid: 30 },
                Step::End { by: None, pid: 29 },
            ]
        );
    }

    #[test]
    fn an_orphan_of_a_live_session_is_made_through_a_helper() {
        let steps = plan(&[ids(1, 0, 1, 1), ids(20, 1, 20, 20), ids(25, 1, 25, 20)], 1, true).unwrap();
        assert!(steps.contains(&Step::Create { by: Some(20), pid: 26 }));
        assert!(steps.contains(&Step::Create { by: Some(26), pid: 25 }));
        assert!(steps.contains(&Step::Group { pid: 25, group: 25 }));
        assert_eq!(steps.last(), Some(&Step::End { by: Some(20), pid: 26 }));
    }

    #[test]
    fn children_of_the_old_session_come_before_setsid() {
        let steps = plan(&[ids(10, 0, 0, 0), ids(11, 10, 11, 11), ids(12, 11, 0, 0)], 10, false).unwrap();
        let at = |step: &Step| steps.iter().position(|s| s == step).unwrap();
        assert!(at(&Step::Create { by: Some(11), pid: 12 }) < at(&Step::Session(11)));
    }

    #[test]
    fn a_dead_group_leader_is_made_for_a_moment() {
        let steps = plan(&[ids(10, 0, 10, 10), ids(12, 10, 11, 10), ids(13, 10, 11, 10)], 10, false).unwrap();
        assert!(steps.contains(&Step::Create { by: Some(12), pid: 11 }));
        assert!(steps.contains(&Step::Group { pid: 13, group: 11 }));
        assert_eq!(steps.last(), Some(&Step::End { by: Some(12), pid: 11 }));
    }

    #[test]
    fn sharing_past_the_maker_is_refused() {
        let mut all = [ids(10, 0, 10, 10), ids(11, 10, 10, 10), ids(12, 10, 10, 10)];
        (all[0].sharing.files, all[1].sharing.files) = (11, 11);
        assert!(plan(&all, 10, false).is_ok());
        // PID 1 is not made anew.
        assert_eq!(plan(&all, 10, true).unwrap_err().0, 11);
        (all[1].sharing.files, all[2].sharing.directories) = (12, 12);
        all[1].sharing.directories = 12;
        assert_eq!(plan(&all, 10, false).unwrap_err().0, 12);
        let mut all = [ids(10, 0, 10, 10), ids(11, 10, 10, 10), ids(12, 11, 10, 10), ids(13, 10, 10, 10)];
        (all[1].sharing.memory, all[2].sharing.memory) = (12, 12);
        assert!(plan(&all, 10, false).is_ok());
        all[2].ppid = 10;
        assert_eq!(plan(&all, 10, false).unwrap_err().0, 12);
    }

    #[test]
    fn an_unreachable_session_is_refused() {
        let all = [ids(10, 0, 10, 10), ids(11, 10, 11, 11), ids(12, 10, 12, 99)];
        assert_eq!(plan(&all, 10, false).unwrap_err().0, 12);
    }
}
