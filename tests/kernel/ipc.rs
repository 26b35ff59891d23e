//! System V IPC that no process has attached.

use rcsnap::kernel;
use rcsnap::proc::sysvipc::{OPERATED, parse};
use rcsnap::sys::fs::write_at;
use rcsnap::sys::ipc::{self, Table, attach, message, send, set_value, touch, value};

use crate::world::{capture, restore, with_world};

fn script() -> [i32; 5] {
    // A first one of each that goes, so that no id is the one that comes by itself.
    for table in [Table::Shm, Table::Msg, Table::Sem] {
        let first = table.make(0, 1, 0o600, [0, 0]).unwrap();
        let second = table.make(0, 1, 0o600, [0, 0]).unwrap();
        table.remove(first).unwrap();
        table.remove(second).unwrap();
    }
    let segment = Table::Shm.make(0x51, 9000, 0o640, [3, 4]).unwrap();
    let (_attached, file) = attach(segment, 9000, true).unwrap();
    write_at(&file, 8990, b"the end").unwrap();
    Table::Shm.set(segment, [1, 2, 0o604], 0).unwrap();
    let queue = Table::Msg.make(0x52, 0, 0o600, [0, 9]).unwrap();
    for (kind, bytes) in [(7, &b"first"[..]), (2, b""), (i64::from(i32::MAX), &[5; 8000])] {
        send(queue, kind, bytes).unwrap();
    }
    // Less than it holds.
    Table::Msg.set(queue, [0, 5, 0o602], 4096).unwrap();
    let empty = Table::Msg.make(0, 0, 0o666, [0, 0]).unwrap();
    let set = Table::Sem.make(0x53, 3, 0o660, [8, 0]).unwrap();
    set_value(set, 1, 32767).unwrap();
    set_value(set, 0, 3).unwrap();
    touch(set).unwrap();
    let idle = Table::Sem.make(0, 1, 0o600, [0, 0]).unwrap();
    [segment, queue, empty, set, idle]
}

#[test]
fn objects_of_system_v_come_back_under_their_ids() {
    let (state, tmpfs, ids) = with_world(|root| {
        let before = kernel::baseline(root).unwrap();
        let ids = script();
        let (state, tmpfs, obstacles) = capture(&before, root);
        assert_eq!(obstacles, []);
        assert_eq!(message(ids[1], 2, 8000).unwrap().1.len(), 8000);
        (state, tmpfs, ids)
    });
    with_world(move |root| {
        let before = kernel::baseline(root).unwrap();
        restore(&state, &tmpfs, root, || {});
        let (again, _, obstacles) = capture(&before, root);
        assert_eq!(obstacles, []);
        assert_eq!(again.sysvipc, state.sysvipc);
        let [_, queue, _, set, idle] = ids;
        assert_eq!(message(queue, 0, 100).unwrap(), (7, b"first".to_vec()));
        assert_eq!(ipc::limit(queue).unwrap(), 4096);
        assert_eq!([0, 1, 2].map(|at| value(set, at).unwrap()), [3, 32767, 0]);
        let sets = parse(&root.proc.read("sysvipc/sem").unwrap());
        let operated = |id| sets.iter().find(|one| one.perm.id == id).unwrap().rest[OPERATED] != 0;
        assert!(operated(set) && !operated(idle));
    });
}

#[test]
fn taken_id_or_key_of_system_v_ends_the_restore() {
    let (state, tmpfs) = with_world(|root| {
        let before = kernel::baseline(root).unwrap();
        script();
        let (state, tmpfs, _) = capture(&before, root);
        (state, tmpfs)
    });
    with_world(move |root| {
        Table::Msg.make(0x52, 0, 0o600, [0, 0]).unwrap();
        kernel::check(&state, root, crate::world::soon()).unwrap();
        let error = kernel::restore(&state, &tmpfs, root, crate::world::soon(), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("making msg"), "{error}");
    });
}
