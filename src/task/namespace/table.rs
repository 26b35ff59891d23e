//! Mount tables of namespaces as plans need them. Pure, but for a look at directories.

use nix::mount::MsFlags;

use super::KIND;
use crate::error::{Error, Result};
use crate::kernel::mount::fstype::{Class, class};
use crate::kernel::mount::plan::bits;
use crate::proc::mountinfo::{self, Mount, below, lookup};
use crate::sorted::Listed;
use crate::sys::stat::exists;
use crate::text;

/// The first table as a copy of it in this namespace would have it: with the numbers that its mounts have here, and
/// after MS_SLAVE or MS_PRIVATE where that brings it nearer. And whether it has the same root.
pub(super) fn copy(home: &[Mount], here: &[Mount]) -> (Vec<Mount>, u32, bool) {
    let mut copy: Vec<Mount> = Vec::new();
    let mut pairs: Vec<(&Mount, &Mount)> = Vec::new();
    let first = root_of(home);
    for mount in in_order(home) {
        let parent = pairs.iter().find(|(old, _)| old.id == mount.parent).map(|(_, new)| new.id);
        let mut same = here.iter().filter(|new| {
            (new.dev, &new.root, &new.point, &new.fstype)
                == (mount.dev, &mount.root, &mount.point, &mount.fstype)
                && parent.map_or(pairs.is_empty() && mount.id == first, |parent| parent == new.parent)
                && !pairs.iter().any(|(_, taken)| taken.id == new.id)
        });
        let mut entry = mount.clone();
        entry.parent = parent.unwrap_or(mount.parent);
        if let Some(new) = same.next() {
            (entry.id, entry.parent) = (new.id, new.parent);
            pairs.push((mount, new));
        }
        copy.push(entry);
    }
    type Groups = (Option<u32>, Option<u32>);
    let as_is = |old: &Mount| -> Groups { (old.shared, old.master) };
    let slave = |old: &Mount| -> Groups { (None, old.shared.or(old.master)) };
    let all = |made: &dyn Fn(&Mount) -> Groups| {
        pairs.iter().all(|(old, new)| made(old) == (new.shared, new.master))
    };
    // Most mounts of one with another root are new, and a root that spreads cannot be exchanged.
    let same = !pairs.is_empty();
    if same && all(&as_is) {
        return (copy, 0, same);
    }
    let slaves = same && all(&slave);
    for entry in &mut copy {
        (entry.shared, entry.master) = if slaves { slave(entry) } else { (None, None) };
    }
    let flag = if slaves { MsFlags::MS_SLAVE } else { MsFlags::MS_PRIVATE };
    (copy, bits(flag | MsFlags::MS_REC), same)
}

fn root_of(table: &[Mount]) -> u32 {
    mountinfo::root(table).map_or(0, |mount| mount.id)
}

/// The mounts of a table, each after the one that it is on: one that was moved may be listed before it.
fn in_order(table: &[Mount]) -> Vec<&Mount> {
    let mut rest: Vec<&Mount> = table.iter().list();
    let mut found: Vec<&Mount> = Vec::new();
    let root = root_of(table);
    while let Some(at) =
        rest.iter().position(|m| m.id == root || found.iter().any(|parent| parent.id == m.parent))
    {
        found.push(rest.remove(at));
    }
    found
}

/// Directories where another root can be mounted for a moment.
const SCRATCH: [&str; 6] = ["/mnt", "/media", "/srv", "/opt", "/home", "/tmp"];

/// One that is there at home, so that a restore finds it, and that hides no other mount.
pub(super) fn scratch(home: &[Mount], root: &str) -> Result<String> {
    let free = |path: &&&str| {
        !home.iter().any(|m| m.point != **path && below(&m.point, path)) && exists(format!("{root}{path}/."))
    };
    let found = SCRATCH.iter().find(free).map(|path| (*path).to_owned());
    found.ok_or_else(|| Error::new(KIND, "looking for a place for another root", "there is none"))
}

/// A file system in memory of which only a directory is in reach is taken for one that has nothing else: a sandbox
/// leaves behind what it was built with.
pub(super) fn widen(here: &mut [Mount], home: &[Mount]) {
    for at in 0..here.len() {
        let Mount { dev, root, fstype, .. } = here[at].clone();
        let covers = |m: &Mount| m.dev == dev && m.root != root && below(&root, &m.root);
        let volatile = class(&fstype) == Class::Volatile;
        if root == "/" || !volatile || home.iter().any(covers) || here.iter().any(covers) {
            continue;
        }
        for mount in here.iter_mut().filter(|m| m.dev == dev) {
            if let Some(rest) = mount.root.strip_prefix(&root) {
                mount.root = format!("/{}", text::without_start(rest, "/"));
            }
        }
    }
}

pub(super) fn under(pivot: &str, point: &str) -> String {
    if pivot.is_empty() {
        point.to_owned()
    } else {
        text::without_end(&format!("{pivot}{point}"), "/").to_owned()
    }
}

/// A table below a directory of another, as it is before it becomes the root.
pub(super) fn beside(home: &[Mount], here: &[Mount], pivot: &str) -> Vec<Mount> {
    let mut all = home.iter().cloned().list();
    let parent = lookup(&home.iter().list(), pivot).map_or(0, |mount| mount.id);
    let first = root_of(here);
    for mut mount in here.iter().cloned() {
        mount.point = under(pivot, &mount.point);
        if mount.id == first {
            mount.parent = parent;
        }
        all.push(mount);
    }
    all
}

/// The name in one table of a file that another table shows as `path`; an empty one, if it is in memory.
pub(super) fn other_name(path: &str, here: &[Mount], there: &[Mount]) -> Option<String> {
    let (here, there): (Vec<&Mount>, Vec<&Mount>) = (here.iter().list(), there.iter().list());
    let beyond = |path: &str, base: &str| Some(path.strip_prefix(text::without_end(base, "/"))?.to_owned());
    let mount = lookup(&here, path)?;
    if class(&mount.fstype) == Class::Volatile {
        return Some(String::new());
    }
    // From the root of the file system on.
    let inside = format!("{}{}", text::without_end(&mount.root, "/"), beyond(path, &mount.point)?);
    there.iter().find_map(|other| {
        if other.dev != mount.dev || !below(&inside, &other.root) {
            return None;
        }
        let name = format!("{}{}", text::without_end(&other.point, "/"), beyond(&inside, &other.root)?);
        (lookup(&there, &name)?.id == other.id).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::{beside, copy, other_name, widen};
    use crate::kernel::mount::plan::bits;
    use crate::proc::mountinfo::{Mount, parse};

    /// The second was moved onto the first, which is listed after it.
    const HOME: &str = "25 24 0:5 / /dev rw - devtmpfs d rw\n24 1 254:2 / / ro - ext4 /dev/vda ro\n\
                        26 24 0:30 / /run rw shared:4 - tmpfs t rw\n";

    fn table(text: &str) -> Vec<Mount> {
        parse(text).unwrap()
    }

    fn ids(table: &[Mount]) -> Vec<(u32, u32)> {
        table.iter().map(|mount| (mount.id, mount.parent)).collect()
    }

    #[test]
    fn copy_has_the_numbers_of_the_other_table() {
        let here = "70 69 254:2 / / ro - ext4 /dev/vda ro\n71 70 0:5 / /dev rw - devtmpfs d rw\n\
                    72 70 0:30 / /run rw master:4 - tmpfs t rw\n73 70 0:40 / /tmp rw - tmpfs t rw\n";
        let (before, flags, same) = copy(&table(HOME), &table(here));
        assert_eq!((ids(&before), same), (vec![(70, 69), (71, 70), (72, 70)], true));
        assert_eq!(flags, bits(nix::mount::MsFlags::MS_SLAVE | nix::mount::MsFlags::MS_REC));
        assert_eq!(before[2].master, Some(4));
        let (_, flags, _) = copy(&table(HOME), &table(&here.replace("master", "shared")));
        assert_eq!(flags, 0);
    }

    #[test]
    fn another_root_lies_beside_the_old_one() {
        let here = "90 89 0:50 /newroot / rw - tmpfs t rw\n91 90 0:5 / /dev rw - devtmpfs d rw\n";
        let mut here = table(here);
        let home = table(HOME);
        widen(&mut here, &home);
        assert_eq!(here[0].root, "/");
        let (before, _, same) = copy(&home, &here);
        assert!(!same);
        let all = beside(&before, &here, "/mnt");
        let points: Vec<_> = all.iter().skip(3).map(|m| (m.point.as_str(), m.id, m.parent)).collect();
        assert_eq!(points, [("/mnt", 90, 24), ("/mnt/dev", 91, 90)]);
    }

    #[test]
    fn file_is_found_under_its_other_name() {
        let here = table(
            "70 69 254:2 / / ro - ext4 d ro\n71 70 254:2 /srv/www /www rw - ext4 d ro\n\
                          72 70 0:40 / /tmp rw - tmpfs t rw\n73 70 254:9 / /data rw - ext4 d rw\n",
        );
        let home = table(HOME);
        let name = |path| other_name(path, &here, &home);
        assert_eq!(name("/www/page").as_deref(), Some("/srv/www/page"));
        assert_eq!(name("/tmp/x").as_deref(), Some(""));
        assert_eq!(name("/data/x"), None);
        // What another mount hides at home has no name there.
        assert_eq!(other_name("/run/x", &table("70 69 254:2 / / ro - ext4 d ro\n"), &home), None);
    }
}
