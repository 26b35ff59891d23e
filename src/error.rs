//! How things go wrong: [`Error`] for an operation, [`Refusal`] and [`Obstacle`] for what cannot be
//! captured faithfully, [`Failure`] for a restore, split at the commit.
//!
//! A line reads `rcsnap: <kind>: <doing>: <cause>`: lower case, no full stop, `doing` is a gerund phrase.

use std::borrow::Cow;
use std::fmt;

use nix::errno::Errno;

/// Shorthand used by the whole crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One operation that did not work. It is one word wide, because a `?` costs code for each word that it passes on,
/// and there are more than a thousand of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Box<Fault>);

/// What an [`Error`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind or module that was at work: `route`, `store`, `memory`.
    pub kind: &'static str,
    /// A gerund phrase with the object: `adding default via eth0`.
    pub doing: Cow<'static, str>,
    /// Why it did not work.
    pub cause: Cause,
}

/// Why an operation did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A system call said so.
    Errno(Errno),
    /// Something we found out ourselves.
    Said(Cow<'static, str>),
}

impl Error {
    /// An error with a cause in our own words.
    #[inline(never)]
    pub fn new(
        kind: &'static str,
        doing: impl Into<Cow<'static, str>>,
        cause: impl Into<Cow<'static, str>>,
    ) -> Error {
        Error::because(kind, doing.into(), Cause::Said(cause.into()))
    }

    /// An error with the errno of a system call.
    #[inline(never)]
    pub fn os(kind: &'static str, doing: impl Into<Cow<'static, str>>, errno: Errno) -> Error {
        Error::because(kind, doing.into(), Cause::Errno(errno))
    }

    #[cold]
    #[inline(never)]
    fn because(kind: &'static str, doing: Cow<'static, str>, cause: Cause) -> Error {
        Error(Box::new(Fault { kind, doing, cause }))
    }

    /// The same error of something else that was being done.
    #[must_use]
    pub fn while_doing(self, doing: &'static str) -> Error {
        let Fault { kind, cause, .. } = *self.0;
        Error::because(kind, doing.into(), cause)
    }

    /// The errno, if a system call was the cause.
    pub fn errno(&self) -> Option<Errno> {
        match self.cause {
            Cause::Errno(errno) => Some(errno),
            Cause::Said(_) => None,
        }
    }
}

impl std::ops::Deref for Error {
    type Target = Fault;

    fn deref(&self) -> &Fault {
        &self.0
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Errno(errno) => f.write_str(name(*errno)),
            Cause::Said(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.kind, self.doing, self.cause)
    }
}

impl std::error::Error for Error {}

/// The names of errno(3) from 1 on, the same on all architectures here: one text, where nix has two tables. `-` is what
/// streams and file systems that Linux does not have any more would give.
const ERRNO: &str = "EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY \
     EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK \
     EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP - ENOMSG EIDRM - - - - - - - - - - - - \
     - - - - - ENODATA - - ENONET - - - - - - EPROTO - - EBADMSG EOVERFLOW - EBADFD - - - - - - EILSEQ ERESTART \
     - EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP \
     EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET \
     ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY \
     EINPROGRESS ESTALE EUCLEAN - - - EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED \
     EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON";

/// The symbolic name of an errno.
#[must_use]
pub fn name(errno: Errno) -> &'static str {
    let before = usize::try_from(errno as i32).unwrap_or(0).wrapping_sub(1);
    ERRNO.split(' ').nth(before).filter(|name| *name != "-").unwrap_or("an unknown error")
}

/// Puts a kind and a phrase to the result of a system call.
pub trait Context<T> {
    /// Names what was being done: `format_args!("adding {route}")`, which becomes text only when it is needed.
    ///
    /// # Errors
    /// The same failure, as an [`Error`].
    fn context(self, kind: &'static str, doing: fmt::Arguments<'_>) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, Errno> {
    fn context(self, kind: &'static str, doing: fmt::Arguments<'_>) -> Result<T> {
        self.map_err(|errno| wrapped(kind, doing, errno))
    }
}

#[cold]
#[inline(never)]
fn wrapped(kind: &'static str, doing: fmt::Arguments<'_>, errno: Errno) -> Error {
    Error::because(kind, doing.to_string().into(), Cause::Errno(errno))
}

/// A kind's reason for not capturing an object. The caller, who knows the owner, makes it an [`Obstacle`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(Box<Reason>);

/// What a [`Refusal`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What stands in the way: `its peer is outside the image`.
    pub reason: Cow<'static, str>,
    /// What would allow a capture: a line for the configuration, or advice.
    pub remedy: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with its remedy.
    #[inline(never)]
    pub fn new(reason: impl Into<Cow<'static, str>>, remedy: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::because(reason.into(), remedy.into())
    }

    /// The reason alone.
    #[must_use]
    pub fn into_reason(self) -> Cow<'static, str> {
        self.0.reason
    }

    #[cold]
    #[inline(never)]
    fn because(reason: Cow<'static, str>, remedy: Cow<'static, str>) -> Refusal {
        Refusal(Box::new(Reason { reason, remedy }))
    }
}

impl std::ops::Deref for Refusal {
    type Target = Reason;

    fn deref(&self) -> &Reason {
        &self.0
    }
}

impl From<Error> for Refusal {
    /// What cannot be read cannot be carried.
    fn from(error: Error) -> Refusal {
        Refusal::new(error.to_string(), "none: this is an error, please report it")
    }
}

/// Something that cannot be captured faithfully, with its owner and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The kind that refuses.
    pub kind: Cow<'static, str>,
    /// The process that owns the object; 0 for state of the kernel.
    pub pid: u32,
    /// The process's name (comm), or `kernel`.
    pub process: String,
    /// The object: `fd 7 anon_inode:[io_uring]`, `mount /mnt`.
    pub object: String,
    /// Why.
    pub reason: Cow<'static, str>,
    /// What would allow a capture.
    pub remedy: Cow<'static, str>,
}

impl Obstacle {
    /// An obstacle in the state of the kernel, which no process owns.
    pub fn kernel(kind: &'static str, object: impl Into<String>, refusal: Refusal) -> Obstacle {
        let Reason { reason, remedy } = *refusal.0;
        Obstacle {
            kind: kind.into(),
            pid: 0,
            process: "kernel".into(),
            object: object.into(),
            reason,
            remedy,
        }
    }

    /// An obstacle that a process owns.
    pub fn process(
        kind: &'static str,
        pid: u32,
        process: impl Into<String>,
        object: impl Into<String>,
        refusal: Refusal,
    ) -> Obstacle {
        let Reason { reason, remedy } = *refusal.0;
        Obstacle { kind: kind.into(), pid, process: process.into(), object: object.into(), reason, remedy }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == 0 {
            write!(f, "obstacle: {}: {}: {} (remedy: {})", self.kind, self.object, self.reason, self.remedy)
        } else {
            write!(
                f,
                "obstacle: {}: {}[{}]: {}: {} (remedy: {})",
                self.kind, self.process, self.pid, self.object, self.reason, self.remedy
            )
        }
    }
}

/// How a restore failed, split at the commit: the moment PID 1's memory is replaced.
#[derive(Debug)]
pub enum Failure {
    /// Nothing of the kernel was changed: the same boot goes on cold.
    Clean(Error),
    /// Before the commit, but kernel state was changed: note "next boot cold" and reboot.
    Before(Error),
    /// After the commit: burn the slot and reboot.
    After(Error),
}

impl Failure {
    /// The error inside.
    pub fn error(&self) -> &Error {
        match self {
            Failure::Clean(error) | Failure::Before(error) | Failure::After(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Error;
    use nix::errno::Errno;

    #[test]
    fn error_reads_kind_doing_cause() {
        let line = Error::os("route", "adding default via eth0", Errno::ENETUNREACH).to_string();
        assert_eq!(line, "route: adding default via eth0: ENETUNREACH");
    }

    #[test]
    fn errnos_have_their_names() {
        // Those of streams, shared libraries and Xenix.
        const UNTOLD: [i32; 39] = [
            41, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 62, 63, 65, 66, 67, 68,
            69, 70, 72, 73, 76, 78, 79, 80, 81, 82, 83, 86, 118, 119, 120,
        ];
        for number in 1..=133 {
            let errno = Errno::from_raw(number);
            if errno == Errno::UnknownErrno || UNTOLD.contains(&number) {
                assert_eq!(super::name(errno), "an unknown error", "{number}");
            } else {
                assert_eq!(super::name(errno), format!("{errno:?}"));
            }
        }
    }
}
