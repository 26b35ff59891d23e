//! Addresses of unix sockets, and the files that path names stand for.
//!
//! A name may be relative to a directory that only the binder knew, its file may have been deleted or
//! moved, and an accepted socket shows the name of its listener. So the file behind the name is asked for
//! (SIOCUNIXFILE, 4.15), and both are kept.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::fchdir;

use super::{Description, Opener, Stat, State, World, place};
use crate::error::{Context, Error, Refusal, Result};
use crate::sorted::Map;
use crate::sys::path::{chdir, chmod, chown, rename, unlink};
use crate::sys::sockdiag::Unix;
use crate::sys::stat::lstat;
use crate::sys::{fs, ioctl, socket};
use crate::text;

const KIND: &str = "unix";
const LISTEN: u8 = 10;

crate::section! {
    /// The file that a path name stands for.
    pub struct Node {
        /// The directory that a relative name starts from; empty if the name is absolute.
        pub dir: String,
        /// Whether the file is still there and belongs to this socket. It does not if it was deleted, or if
        /// the socket was accepted and has the name of its listener.
        pub live: bool,
        /// Permissions, if it is live, as all below.
        pub mode: u32,
        /// Owner.
        pub uid: u32,
        /// Group.
        pub gid: u32,
        /// Its name in the same directory, if it was given another one after it was bound.
        pub renamed: String,
    }
}

impl Node {
    /// A file that is only there for a moment.
    #[must_use]
    pub fn passing(name: &[u8]) -> Node {
        // A relative name needs some directory where a file can be made.
        let dir = if name.first() == Some(&b'/') { "" } else { "/dev" };
        Node { dir: dir.to_owned(), live: false, mode: 0, uid: 0, gid: 0, renamed: String::new() }
    }
}

/// The address of a socket without the family.
///
/// # Errors
/// The errno of getsockname(2).
pub fn own(fd: &OwnedFd) -> Result<Vec<u8>> {
    let address = socket::name(fd.as_fd(), false).context(KIND, format_args!("asking its address"))?;
    Ok(address.get(2..).unwrap_or(&[]).to_vec())
}

/// The address that a peer had which is gone: empty if it had none, or if its directory is gone too.
#[must_use]
pub fn peer(fd: &OwnedFd, world: &World<'_>) -> Vec<u8> {
    let name = socket::name(fd.as_fd(), true).unwrap_or_default().get(2..).unwrap_or(&[]).to_vec();
    let path = text(&name);
    match text::split_last(&path, '/') {
        Some((dir, _)) if path.starts_with('/') && lstat(world.inside(&format!("{dir}/."))).is_err() => {
            Vec::new()
        }
        _ => name,
    }
}

/// A path name without the NUL at its end.
fn text(name: &[u8]) -> String {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

/// The name as the configuration has it: `unix:/run/x`, and with an @ for the NUL of an abstract one.
#[must_use]
pub fn shown(name: &[u8]) -> String {
    match name.split_first() {
        Some((0, name)) => format!("unix:@{}", text(name)),
        _ => "unix:".to_owned() + &text(name),
    }
}

/// Whether a name is a path.
fn is_path(name: &[u8]) -> bool {
    name.first().is_some_and(|&byte| byte != 0)
}

/// The whole sockaddr.
#[must_use]
pub fn address(name: &[u8]) -> Vec<u8> {
    let mut bytes = 1_u16.to_ne_bytes().to_vec();
    bytes.extend_from_slice(name);
    bytes
}

/// The description of the datagram socket with this address.
#[must_use]
pub fn holder<'a>(name: &[u8], world: &'a World<'_>) -> Option<&'a Description> {
    world.descriptions.iter().find(|desc| {
        desc.stat.format() == libc::S_IFSOCK
            && socket::name(desc.fd.as_fd(), false).is_ok_and(|found| found == address(name))
    })
}

/// Reads what file a name stands for.
///
/// # Errors
/// A refusal if a relative name does not lead to it.
pub fn node(
    fd: &OwnedFd,
    name: &[u8],
    found: &Unix,
    all: &Map<u64, Unix>,
    world: &World<'_>,
) -> Result<Option<Node>, Refusal> {
    if !is_path(name) {
        return Ok(None);
    }
    let file =
        ioctl::open(fd.as_fd(), &ioctl::UNIX_FILE).context(KIND, format_args!("asking for its file"))?;
    let stat = place::stat(&file, KIND)?;
    let link = fs::link(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .context(KIND, format_args!("asking for its file"))?;
    let link = link.to_string_lossy().into_owned();
    let live = stat.nlink > 0;
    let path = text(name);
    let real = if live { link.as_str() } else { link.strip_suffix(" (deleted)").unwrap_or(&link) };
    let dir = match path.starts_with('/') {
        true => "",
        false => match real.strip_suffix(path.as_str()) {
            Some(dir) => dir,
            None => {
                let reason = format!("it was bound to {path}, and its file is {real} now");
                return Err(Refusal::new(reason, "bind it to an absolute name"));
            }
        },
    };
    // What the kernel shows need not be a name that is there: the file may have been moved since, or its owner may have
    // had another root.
    let leads = |path: &str| {
        lstat(world.inside(path)).is_ok_and(|found| (found.dev, found.ino) == (stat.dev, stat.ino))
    };
    let mut renamed = String::new();
    if live && path.starts_with('/') && !leads(&path) {
        renamed = other_name(&path, &leads, world).ok_or_else(|| {
            let reason = format!("it was bound to {path}, and its file is {real} now");
            Refusal::new(reason, "do not move the file of a socket to another directory")
        })?;
    }
    let lent = |other: &Unix| other.state == LISTEN && other.file.is_some() && other.file == found.file;
    if !live || (found.state != LISTEN && found.peer.is_some() && all.values().any(lent)) {
        return Ok(Some(Node { dir: dir.to_owned(), ..Node::passing(name) }));
    }
    let Stat { mode, uid, gid, .. } = stat;
    Ok(Some(Node { dir: dir.to_owned(), live, mode: mode & 0o7777, uid, gid, renamed }))
}

/// The name that a file has in the directory of `path`: servers bind a passing name, and rename or link the file
/// when they are ready.
fn other_name(path: &str, leads: &dyn Fn(&str) -> bool, world: &World<'_>) -> Option<String> {
    let dir = text::split_last(path, '/')?.0;
    fs::names(world.inside(&format!("{dir}/"))).ok()?.iter().find_map(|name| {
        let path = format!("{dir}/{}", name.to_str()?);
        leads(&path).then_some(path)
    })
}

/// The sockaddr by which another process reaches a name for the moment in which it exists.
#[must_use]
pub fn reachable(name: &[u8], node: Option<&Node>) -> Vec<u8> {
    match node {
        Some(node) if !node.dir.is_empty() => {
            let path = format!("{}/{}\0", text::without_end(&node.dir, "/"), text(name));
            address(path.as_bytes())
        }
        _ => address(name),
    }
}

/// The sockaddr of a datagram server that is open already.
///
/// # Errors
/// If it has no file where one is needed.
pub fn of_server(server: u32, opener: &Opener) -> Result<Vec<u8>> {
    let state = match opener.entries.get(server as usize).map(|entry| &entry.state) {
        Some(State::Unix(state)) => state,
        _ => return Err(Error::new(KIND, "looking for a server", "it is not a unix socket")),
    };
    match opener.ends.get(&("unix node", server)) {
        Some(node) => Ok(address(format!("/proc/self/fd/{}\0", node.as_raw_fd()).as_bytes())),
        None => Ok(address(&state.name)),
    }
}

/// Binds a socket to a name, and runs `work` while the name leads to it, with the file's descriptor.
///
/// A name that is not the socket's own afterwards (deleted, or a listener's) is taken away again, and
/// whatever had it before gets it back.
///
/// # Errors
/// The errno of the calls.
pub fn bind(
    fd: &OwnedFd,
    name: &[u8],
    node: Option<&Node>,
    work: &mut dyn FnMut(Option<OwnedFd>) -> Result<()>,
) -> Result<()> {
    let (Some(node), true) = (node, is_path(name)) else {
        socket::bind(fd.as_fd(), &address(name))
            .context(KIND, format_args!("binding to {}", text(&name[1.min(name.len())..])))?;
        return work(None);
    };
    let path = text(name);
    let doing = format_args!("binding to {path}");
    let back = if node.dir.is_empty() {
        None
    } else {
        let back = place::open(".", libc::O_PATH | libc::O_DIRECTORY, KIND)?;
        chdir(&node.dir).context(KIND, format_args!("entering {}", node.dir))?;
        Some(back)
    };
    let done = bind_here(fd, name, &path, node, work, doing);
    if let Some(back) = back {
        fchdir(&back).context(KIND, format_args!("returning from a directory"))?;
    }
    done
}

fn bind_here(
    fd: &OwnedFd,
    name: &[u8],
    path: &str,
    node: &Node,
    work: &mut dyn FnMut(Option<OwnedFd>) -> Result<()>,
    doing: std::fmt::Arguments<'_>,
) -> Result<()> {
    let aside = format!("{path}.rcsnap");
    let last = if node.renamed.is_empty() { path } else { &node.renamed };
    if node.live {
        match lstat(last) {
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno).context(KIND, doing),
            // What the last boot left, or what came with the file system's contents.
            Ok(found) if found.format() == libc::S_IFSOCK => unlink(last).context(KIND, doing)?,
            Ok(_) => return Err(Error::new(KIND, doing.to_string(), "something else has the name")),
        }
    }
    let moved = lstat(path).is_ok();
    if moved {
        rename(path, &aside).context(KIND, doing)?;
    }
    socket::bind(fd.as_fd(), &address(name)).context(KIND, doing)?;
    // For the moment everybody may connect: who may is asked of the file at connect(2) only.
    chmod(path, 0o666).context(KIND, doing)?;
    let file = place::open(path, libc::O_PATH, KIND)?;
    let done = work(Some(file));
    if node.live {
        chown(path, node.uid, node.gid).context(KIND, doing)?;
        chmod(path, node.mode).context(KIND, doing)?;
        if last != path {
            rename(path, last).context(KIND, doing)?;
        }
    } else {
        unlink(path).context(KIND, doing)?;
    }
    if moved {
        rename(&aside, path).context(KIND, doing)?;
    }
    done
}
