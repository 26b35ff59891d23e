//! Falsified images: one thing of one kind is changed, and the program of that kind must notice.
//!
//! The change is made in the image, so the rcsnap that is tested is the one that is shipped: what it then
//! restores is what a restore with a mistake in that kind would have made.

use std::path::Path;

use anyhow::Result;
use picture::Picture;
use serde_json::Value;

/// A way to falsify an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mutation {
    /// What is falsified.
    pub name: &'static str,
    /// The program that must notice.
    pub program: &'static str,
    /// Where it is: names, `[]` for every element of a list, `[n]` for one.
    path: &'static str,
    how: How,
}

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// A number gets another lowest bit, a truth its contrary, a string another letter, a list loses its last.
    Other,
    /// A number grows by this.
    Add(u64),
    /// It becomes nothing: an empty list, zero, none.
    Nothing,
    /// It stays as it is: the control, which must go unnoticed.
    Same,
}

const fn wrong(program: &'static str, name: &'static str, path: &'static str, how: How) -> Mutation {
    Mutation { name, program, path, how }
}

use How::{Add, Nothing, Other};

const ALL: &[Mutation] = &[
    wrong("registers", "rbx", "tree.processes[0].body.threads[1].regs.rbx", Other),
    wrong("registers", "flags", "tree.processes[0].body.threads[1].regs.eflags", Add(1 << 10)),
    wrong("registers", "xmm0", "tree.processes[0].body.threads[3].sets[0].bytes[160]", Other),
    wrong("registers", "ymm0", "tree.processes[0].body.threads[4].sets[0].bytes[576]", Other),
    wrong("registers", "gs-base", "tree.processes[0].body.threads[0].regs.gs_base", Add(4096)),
    wrong("memory", "pages", "pages.runs[]", Nothing),
    wrong("memory", "protection", "tree.processes[0].body.memory.vmas[].prot", Nothing),
    wrong("sealed", "flags", "tree.processes[0].body.memory.vmas[].flags", Nothing),
    wrong("memory", "flags", "tree.processes[0].body.memory.vmas[].flags", Nothing),
    wrong("memory", "guards", "tree.processes[0].body.memory.guards", Nothing),
    wrong("memory", "brk", "tree.processes[0].body.memory.layout.start_brk", Add(4096)),
    wrong("huge", "pages", "pages.runs[]", Nothing),
    wrong("huge", "zeros", "pages.zeros", Nothing),
    wrong("huge", "sizes", "tree.processes[].body.memory.vmas[].flags", Nothing),
    wrong("huge", "protection", "tree.processes[].body.memory.vmas[].prot", Nothing),
    wrong("huge", "shared", "tree.objects[].huge", Nothing),
    wrong("huge", "memfd", "files[].state.Memfd.body.huge", Nothing),
    wrong("huge", "seals", "files[].state.Memfd.body.seals", Nothing),
    wrong("huge", "offset", "files[].state.Memfd.offset", Other),
    wrong("huge", "contents", "files[].state.Memfd.body.content.runs", Nothing),
    wrong("huge_file", "files", "tree.namespaces[].body.Mount[1].tmpfs.list[].nodes", Nothing),
    wrong("huge_file", "pages", "pages.runs[]", Nothing),
    wrong("huge_file", "offset", "files[].state.Regular.offset", Other),
    wrong("huge_file", "protection", "tree.processes[].body.memory.vmas[].prot", Nothing),
    wrong("thread", "comm", "tree.processes[0].body.threads[].comm", Other),
    wrong("thread", "mask", "tree.processes[0].body.threads[].mask", Add(1 << 40)),
    wrong("thread", "clear-tid", "tree.processes[0].body.threads[].clear_tid", Nothing),
    wrong("thread", "robust", "tree.processes[0].body.threads[].robust[0]", Nothing),
    wrong("thread", "affinity", "tree.processes[0].body.threads[].sched.affinity[0]", Add(2)),
    wrong("tree", "subreaper", "tree.processes[0].ids.subreaper", Other),
    wrong("tree", "exit", "tree.processes[].ids.exit", Add(256)),
    wrong("signal", "flags", "tree.processes[0].body.actions[].flags", Other),
    wrong("signal", "mask-of-action", "tree.processes[0].body.actions[].mask", Other),
    wrong("signal", "queue", "tree.processes[0].body.queue", Other),
    wrong("signal", "thread-queue", "tree.processes[0].body.threads[0].queue", Nothing),
    wrong("signal", "mask", "tree.processes[0].body.threads[0].mask", Other),
    wrong("signal", "altstack", "tree.processes[0].body.threads[0].altstack.address", Add(64)),
    wrong("timer", "intervals", "tree.processes[0].body.timers.intervals[0]", Nothing),
    wrong("timer", "setting", "tree.processes[0].body.timers.posix[].setting", Nothing),
    wrong("timer", "signal", "tree.processes[0].body.timers.posix[].signal", Other),
    wrong("timer", "read", "tree.processes[0].body.timers.read[]", Add(2_000_000_000)),
    wrong("timer", "clock", "tree.processes[0].body.timers.posix[].clock", Other),
    wrong("timer", "id", "tree.processes[0].body.timers.posix[0].id", Add(100)),
    wrong("creds", "uid", "tree.processes[].body.threads[].creds.uid[1]", Add(7)),
    wrong("creds", "groups", "tree.processes[].body.threads[].creds.groups", Other),
    wrong("creds", "caps", "tree.processes[].body.threads[].creds.caps[]", Nothing),
    wrong("creds", "death-signal", "tree.processes[].body.threads[].creds.death_signal", Nothing),
    wrong("creds", "dumpable", "tree.processes[].body.dumpable", Other),
    wrong("seccomp", "filters", "tree.processes[].body.threads[].seccomp.filters", Other),
    wrong("seccomp", "answers", "tree.filters[].code[3]", Add(1 << 32)),
    wrong("seccomp", "strict", "tree.processes[].body.threads[].seccomp.strict", Nothing),
    wrong("limit", "soft", "tree.processes[0].body.limits.limits[7][0]", Other),
    wrong("limit", "hard", "tree.processes[0].body.limits.limits[1][1]", Other),
    wrong("sched", "nice", "tree.processes[].body.threads[].sched.attr.nice", Add(1)),
    wrong("sched", "io-priority", "tree.processes[].body.threads[].sched.io_priority", Other),
    wrong("sched", "timer-slack", "tree.processes[].body.threads[].sched.timer_slack", Other),
    wrong("sched", "personality", "tree.processes[].body.sched.personality", Other),
    wrong("sched", "oom", "tree.processes[].body.sched.oom_score_adj", Add(1)),
    wrong("sched", "no-thp", "tree.processes[].body.no_thp", Other),
    wrong("workdir", "umask", "tree.processes[].body.workdir.umask", Other),
    wrong("workdir_deleted", "mode", "tree.processes[].body.workdir.cwd.deleted.mode", Other),
    wrong("workdir_thread", "own", "tree.processes[].body.threads[1].workdir", Nothing),
    wrong("workdir_thread", "umask", "tree.processes[].body.threads[1].workdir.umask", Other),
    wrong("sharing", "files", "tree.processes[0].ids.sharing.files", Other),
    wrong("sharing", "directories", "tree.processes[0].ids.sharing.directories", Other),
    wrong("memory_shared", "memory", "tree.processes[0].ids.sharing.memory", Other),
    wrong("memory_shared", "files", "tree.processes[0].ids.sharing.files", Add(1)),
    wrong("memory_shared", "directories", "tree.processes[0].ids.sharing.directories", Add(1)),
    wrong("memory_shared", "pages", "pages.runs[]", Nothing),
    wrong("memory_shared", "dumpable", "tree.processes[].body.dumpable", Other),
    wrong("memory_shared", "clear-tid", "tree.processes[].body.threads[1].clear_tid", Nothing),
    wrong("memory_shared", "altstack", "tree.processes[1].body.threads[0].altstack.address", Add(64)),
    wrong("memory_shared", "mask", "tree.processes[1].body.threads[0].mask", Nothing),
    wrong("memory_shared", "stop", "tree.processes[].body.stop", Nothing),
    wrong("memory_shared", "handlers", "tree.processes[1].body.actions", Nothing),
    wrong("shared_handlers", "actions", "tree.processes[0].ids.sharing.actions", Other),
    wrong("shared_handlers", "handlers", "tree.processes[].body.actions", Nothing),
    wrong("shared_handlers", "mask", "tree.processes[1].body.threads[0].mask", Nothing),
    wrong("namespace", "names", "tree.namespaces[].body.Uts.host", Other),
    wrong("namespace", "queues", "tree.namespaces[].body.Ipc[0].queues", Other),
    wrong("namespace", "parameters", "tree.namespaces[].body.Ipc[1].values", Nothing),
    wrong("namespace", "place", "tree.processes[].spaces.of[0]", Nothing),
    wrong("namespace", "handle", "files[].state.Nsfs.number", Nothing),
    wrong("namespace", "segment", "tree.objects[].spaces.of[1]", Nothing),
    wrong("namespace_net", "parameters", "tree.namespaces[].body.Network[1].values", Nothing),
    wrong("namespace_net", "flags", "tree.namespaces[].body.Network[0].link.list[].flags[1]", Nothing),
    wrong("namespace_net", "sockets", "files[].spaces.of[2]", Nothing),
    wrong("namespace_mount", "steps", "tree.namespaces[].body.Mount[0].steps", Other),
    wrong("namespace_mount", "files", "tree.namespaces[].body.Mount[1].tmpfs.list[].nodes", Nothing),
    wrong("namespace_mount", "place", "tree.processes[].spaces.of[3]", Nothing),
    wrong("namespace_root", "pivot", "tree.namespaces[].body.Mount[1].pivot", Nothing),
    wrong("namespace_mount", "open", "files[].spaces.of[3]", Nothing),
    wrong("names", "comm", "tree.processes[].body.threads[].comm", Other),
    wrong("names", "arguments", "tree.processes[].body.memory.layout.arg_end", Add(1)),
    wrong("names", "auxv", "tree.processes[].body.memory.auxv", Nothing),
    wrong("rseq", "registration", "tree.processes[].body.threads[].rseq", Nothing),
    wrong("eventfd", "count", "files[].state.Eventfd.count", Other),
    wrong("eventfd", "semaphore", "files[].state.Eventfd.semaphore", Other),
    wrong("epoll", "watches", "files[].state.Epoll.watches", Other),
    wrong("epoll", "events", "files[].state.Epoll.watches[].events", Other),
    wrong("epoll", "data", "files[].state.Epoll.watches[].data", Other),
    wrong("timerfd", "value", "files[].state.Timerfd.value[0]", Nothing),
    wrong("timerfd", "read", "files[].state.Timerfd.read", Add(2_000_000_000)),
    wrong("timerfd", "interval", "files[].state.Timerfd.interval[0]", Other),
    wrong("timerfd", "ticks", "files[].state.Timerfd.ticks", Other),
    wrong("signalfd", "mask", "files[].state.Signalfd.mask", Nothing),
    wrong("pipe", "contents", "files[].state.Pipe.body.packets", Other),
    wrong("pipe", "size", "files[].state.Pipe.body.size", Add(1 << 20)),
    wrong("fifo", "contents", "files[].state.Fifo.body.packets", Other),
    wrong("regular", "offset", "files[].state.Regular.offset", Other),
    wrong("regular", "flags", "files[].flags", Nothing),
    wrong("regular", "owner", "files[].owner", Nothing),
    wrong("regular", "cloexec", "tree.processes[].body.fds[].cloexec", Other),
    wrong("deleted", "offset", "files[].state.Deleted.offset", Other),
    wrong("deleted", "mode", "files[].state.Deleted.body.mode", Other),
    wrong("memfd", "seals", "files[].state.Memfd.body.seals", Nothing),
    wrong("memfd", "offset", "files[].state.Memfd.offset", Other),
    wrong("lock", "range", "files[].locks[].start", Add(1)),
    wrong("lock", "posix", "tree.processes[].body.locks", Nothing),
    wrong("unix", "contents", "files[].state.Unix.queue", Nothing),
    wrong("unix", "shutdown", "files[].state.Unix.shutdown", Nothing),
    wrong("unix", "credentials", "files[].state.Unix.peer[1]", Add(5)),
    wrong("unix", "options", "files[].state.Unix.options.settings", Nothing),
    wrong("inet", "unread", "files[].state.Inet.role.Pair.unread", Nothing),
    wrong("inet", "over", "files[].state.Inet.role.Over.unread", Nothing),
    wrong("inet", "options", "files[].state.Inet.options.settings", Nothing),
    wrong("udp", "filter", "files[].state.Inet.options.filter", Nothing),
    wrong("udp", "options", "files[].state.Inet.options.settings", Nothing),
    wrong("raw", "options", "files[].state.Inet.options.settings", Nothing),
    wrong("raw", "protocol", "files[].state.Inet.protocol", Other),
    wrong("multicast", "groups", "files[].state.Inet.groups", Nothing),
    wrong("multicast", "interface", "files[].state.Inet.groups[].interface", Other),
    wrong("multicast", "filter", "files[].state.Inet.groups[].filter", Nothing),
    wrong("multicast", "source", "files[].state.Inet.groups[].filter[155]", Other),
    wrong("multicast", "options", "files[].state.Inet.options.settings", Nothing),
    wrong("netlink", "groups", "files[].state.Netlink.groups", Nothing),
    wrong("netlink", "names", "files[].state.Netlink.names", Other),
    wrong("netlink", "options", "files[].state.Netlink.options.settings", Nothing),
    wrong("inotify", "watches", "files[].state.Inotify.watches", Other),
    wrong("inotify", "mask", "files[].state.Inotify.watches[].mask", Other),
    wrong("pidfd", "pid", "files[].state.Pidfd.pid", Other),
    wrong("thread_handle", "thread", "files[].state.Pidfd.pid", Other),
    wrong("thread_handle", "ended", "files[].state.Pidfd.pid", Nothing),
    wrong("thread_handle", "sort", "files[].state.Pidfd.thread", Other),
    wrong("thread_owner", "thread", "files[].owner.id", Other),
    wrong("thread_owner", "sort", "files[].owner.kind", Add(1)),
    wrong("thread_owner", "signal", "files[].owner.signal", Add(1)),
    wrong("thread_owner", "owner", "files[].owner", Nothing),
    wrong("deleted", "contents", "files[].state.Deleted.body.content.runs", Nothing),
    wrong("memfd", "contents", "files[].state.Memfd.body.content.runs", Nothing),
    wrong("memory_deleted", "pages", "pages.runs[]", Nothing),
    wrong("memory_deleted", "name", "tree.objects[].path", Other),
    wrong("memfd_closed", "name", "tree.objects[].path", Other),
    wrong("memfd_closed", "pages", "pages.runs[]", Nothing),
    wrong("linked", "offset", "files[].state.Regular.offset", Other),
    wrong("packet", "protocol", "files[].state.Packet.protocol", Other),
    wrong("packet", "interface", "files[].state.Packet.interface", Nothing),
    wrong("packet", "memberships", "files[].state.Packet.members", Nothing),
    wrong("packet", "count", "files[].state.Packet.members[].count", Add(1)),
    wrong("packet", "filter", "files[].state.Packet.options.filter", Nothing),
    wrong("packet", "options", "files[].state.Packet.options.settings", Nothing),
    wrong("unix_rights", "rights", "files[].state.Unix.queue[].rights", Other),
    wrong("unix_rights", "bytes", "files[].state.Unix.queue[].bytes", Other),
    wrong("unix_rights", "sender", "files[].state.Unix.queue[].who[1]", Other),
    wrong("unix_rights", "offset", "files[].state.Regular.offset", Other),
    wrong("sysvipc", "mode", "tree.objects[].segment.mode", Other),
    wrong("sysvipc", "owner", "tree.objects[].segment.uid", Other),
    wrong("sysvipc", "maker", "tree.objects[].segment.cgid", Add(1)),
    wrong("sysvipc", "mark", "tree.objects[].segment.mode", Add(0o1000)),
    wrong("sysvipc", "writing", "tree.processes[].body.memory.vmas[].backing.Segment.writable", Other),
    wrong("sysvipc", "pages", "pages.runs[]", Nothing),
    wrong("fifo_half", "flags", "files[].flags", Nothing),
    wrong("device", "flags", "files[].flags", Nothing),
    wrong("directory", "cloexec", "tree.processes[].body.fds[].cloexec", Other),
    wrong("vdso", "place", "tree.processes[0].body.memory.vdso", Nothing),
    wrong("blocked", "mask", "tree.processes[].body.threads[].mask", Add(1 << 11)),
    wrong("pty", "window", "files[].state.Pty.body.live.settings.window[0]", Other),
    wrong("pty", "chars", "files[].state.Pty.body.live.settings.chars[0]", Other),
    wrong("pty", "modes", "files[].state.Pty.body.live.settings.modes[3]", Other),
    wrong("pty", "speed", "files[].state.Pty.body.live.settings.speed[1]", Other),
    wrong("pty", "fixed", "files[].state.Pty.body.live.settings.fixed", Nothing),
    wrong("pty", "exclusive", "files[].state.Pty.body.live.settings.exclusive", Other),
    wrong("pty", "packet", "files[].state.Pty.body.live.packet", Nothing),
    wrong("pty", "lock", "files[].state.Pty.body.live.locked", Nothing),
    wrong("pty", "node", "files[].state.Pty.body.live.node[1]", Other),
    wrong("pty", "opened", "files[].state.Pty.body.live.opened", Other),
    wrong("pty", "index", "files[].state.Pty.body.index", Add(40)),
    wrong("pty_queue", "lines", "files[].state.Pty.body.live.queue.lines", Other),
    wrong("pty_queue", "rest", "files[].state.Pty.body.live.queue.rest", Nothing),
    wrong("pty_queue", "output", "files[].state.Pty.body.live.queue.output", Other),
    wrong("pty_session", "terminal", "tree.processes[].body.terminal[0]", Other),
    wrong("pty_session", "foreground", "tree.processes[].body.terminal[1]", Add(1)),
    wrong("stopped", "stop", "tree.processes[].body.stop", Nothing),
    wrong("stopped", "signal", "tree.processes[].body.stop.signal", Other),
    wrong("stopped", "seen", "tree.processes[].body.stop.seen", Other),
    wrong("cgroup", "mode", "tree.groups.hierarchies[].groups[].mode", Other),
    wrong("cgroup", "owner", "tree.groups.hierarchies[].groups[].uid", Other),
    wrong("cgroup", "files", "tree.groups.hierarchies[].files", Other),
    wrong("cgroup", "group", "tree.groups.hierarchies[].groups", Other),
    wrong("cgroup", "settings", "tree.groups.hierarchies[].settings", Nothing),
    wrong("cgroup", "processes", "tree.groups.hierarchies[].members", Nothing),
    wrong("cgroup", "thread", "tree.groups.hierarchies[].members", Other),
    wrong("cgroup_v1", "group", "tree.groups.hierarchies[].groups", Other),
    wrong("cgroup_v1", "settings", "tree.groups.hierarchies[].settings", Nothing),
    wrong("cgroup_v1", "last-setting", "tree.groups.hierarchies[].settings", Other),
    wrong("cgroup_v1", "processes", "tree.groups.hierarchies[].members", Nothing),
    wrong("cgroup_v1", "thread", "tree.groups.hierarchies[].members", Other),
    wrong("kernel_files", "offset", "files[].state.Regular.offset", Other),
    wrong("kernel_files", "start", "files[].state.Regular.offset", Nothing),
    wrong("kernel_files", "path", "files[].state.Regular.place.path", Other),
    wrong("kernel_files", "flags", "files[].flags", Nothing),
    wrong("kernel_files", "names", "tree.namespaces[].body.Uts.host", Other),
    wrong("kernel_thread", "offset", "files[].state.Regular.offset", Other),
    wrong("kernel_thread", "path", "files[].state.Regular.place.path", Other),
    wrong("kernel_thread", "folder", "files[].state.Directory.place.path", Other),
    wrong("kernel_thread", "flags", "files[].flags", Nothing),
    wrong("kmsg", "flags", "files[].flags", Nothing),
    wrong("kmsg", "name", "files[].state.Device.place.path", Other),
    wrong("kmsg", "cloexec", "tree.processes[].body.fds[].cloexec", Other),
    wrong("console", "flags", "files[].flags", Nothing),
    wrong("console", "cloexec", "tree.processes[].body.fds[].cloexec", Other),
    wrong("tty", "lines", "files[].state.Tty.extra[1][0]", Nothing),
    wrong("numbers", "group", "tree.processes[].ids.pgrp", Add(1)),
    wrong("numbers", "session", "tree.processes[].ids.session", Add(1)),
    wrong("numbers", "number", "tree.processes[5].ids.pid", Add(100)),
    wrong("numbers", "handle", "files[].state.Pidfd.pid", Other),
    wrong("exec", "umask", "tree.processes[].body.workdir.umask", Other),
];

/// An image that is read and written again as it is: if a program notices this, its other mutations prove nothing.
pub const CONTROL: Mutation = wrong("", "nothing", "", How::Same);

/// The mutations that a program must notice, after the control that it must not notice.
pub fn of(program: &str) -> impl Iterator<Item = Mutation> + '_ {
    let own = ALL.iter().copied().filter(move |mutation| mutation.program == program);
    let mut own = own.peekable();
    let control = own.peek().map(|_| CONTROL);
    control.into_iter().chain(own)
}

/// Writes a falsified copy; false when the image has nothing that could be falsified so.
pub fn falsify(program: &str, name: &str, image: &Path, copy: &Path) -> Result<bool> {
    let Some(mutation) = of(program).find(|mutation| mutation.name == name) else { return Ok(false) };
    let picture = Picture::read(image)?;
    let mut values = picture.values()?;
    if mutation != CONTROL && !change(&mut values, mutation.path, mutation.how) {
        return Ok(false);
    }
    picture.write(values, copy)?;
    Ok(true)
}

/// Changes all values that the path leads to; false when there are none.
fn change(value: &mut Value, path: &str, how: How) -> bool {
    let path = path.trim_start_matches('.');
    if path.is_empty() {
        return falsified(value, how);
    }
    if let Some((index, rest)) = path.strip_prefix('[').and_then(|path| path.split_once(']')) {
        let Value::Array(items) = value else { return false };
        if index.is_empty() {
            // All of them, not only the first that can be changed.
            return items.iter_mut().filter_map(|item| change(item, rest, how).then_some(())).count() > 0;
        }
        let item = index.parse::<usize>().ok().and_then(|index| items.get_mut(index));
        return item.is_some_and(|item| change(item, rest, how));
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (name, rest) = path.split_at(end);
    value.get_mut(name).is_some_and(|value| change(value, rest, how))
}

fn falsified(value: &mut Value, how: How) -> bool {
    let before = value.clone();
    match (&mut *value, how) {
        (Value::Null, _) => {}
        (Value::Bool(truth), _) => *truth = !*truth,
        (Value::Number(number), how) => {
            let changed = |number: u64| match how {
                Other => number ^ 1,
                Add(more) => number.wrapping_add(more),
                Nothing => 0,
                How::Same => number,
            };
            *value = match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => changed(number).into(),
                (None, Some(number)) => changed(number.cast_unsigned()).cast_signed().into(),
                (None, None) => return false,
            };
        }
        (Value::String(text), _) => text.push('x'),
        (Value::Array(items), Nothing) if items.iter().all(Value::is_number) && items.len() == 4 => {
            items.iter_mut().for_each(|item| *item = 0.into());
        }
        (Value::Array(items), Nothing) => items.clear(),
        (Value::Array(items), _) => drop(items.pop()),
        (Value::Object(run), Nothing) if run.contains_key("first") => shuffle(run),
        (Value::Object(_), _) => *value = Value::Null,
    }
    *value != before
}

/// A run of pages gets the contents of another one.
fn shuffle(run: &mut serde_json::Map<String, Value>) {
    if let Some(first) = run["first"].as_u64().filter(|first| *first > 8) {
        run["first"] = (first ^ 1).into();
    }
}

#[cfg(test)]
mod tests {
    use super::{Add, Nothing, Other, change};
    use serde_json::json;

    #[test]
    fn paths_lead_to_every_element() {
        let mut value = json!({"a": [{"b": 2}, {"b": 3}, {"c": 4}]});
        assert!(change(&mut value, "a[].b", Other));
        assert_eq!(value, json!({"a": [{"b": 3}, {"b": 2}, {"c": 4}]}));
        assert!(change(&mut value, "a[1].b", Add(8)));
        assert!(change(&mut value, "a[0]", Nothing));
        assert_eq!(value, json!({"a": [null, {"b": 10}, {"c": 4}]}));
        assert!(!change(&mut value, "a[].d", Other));
        assert!(!change(&mut value, "a[7].b", Other));
    }
}
