//! What the system says, by its name, and what can be done about it.

use std::io;

/// What to do about it, where that can be said.
pub fn remedy(cause: &io::Error) -> Option<&'static str> {
    use io::ErrorKind as Kind;
    Some(match cause.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => {
            "Nothing was changed. Free some space on that disk, then try again."
        }
        Kind::ReadOnlyFilesystem => {
            "Nothing was changed. Make that file system writable, or, if it is the lock folder's, set STORYLOCK_ROOT to a project that is."
        }
        Kind::PermissionDenied => {
            "Nothing was changed. Give this user write access there, or run as the owner of the project."
        }
        Kind::NotFound => "Nothing was changed. Check that the project folder still exists.",
        _ if name(cause) == "EMFILE" => {
            "Nothing was changed. This process has too many open files: close some, or raise `ulimit -n`."
        }
        _ => return None,
    })
}

/// The C name of a system error, as Node.js reports it in `code`.
pub fn name(error: &io::Error) -> &'static str {
    #[cfg(unix)]
    if let Some(raw) = error.raw_os_error() {
        use rustix::io::Errno;
        let known = [
            (Errno::ACCESS, "EACCES"),
            (Errno::AGAIN, "EAGAIN"),
            (Errno::BADF, "EBADF"),
            (Errno::BUSY, "EBUSY"),
            (Errno::DQUOT, "EDQUOT"),
            (Errno::EXIST, "EEXIST"),
            (Errno::FBIG, "EFBIG"),
            (Errno::INTR, "EINTR"),
            (Errno::INVAL, "EINVAL"),
            (Errno::IO, "EIO"),
            (Errno::ISDIR, "EISDIR"),
            (Errno::LOOP, "ELOOP"),
            (Errno::MFILE, "EMFILE"),
            (Errno::NAMETOOLONG, "ENAMETOOLONG"),
            (Errno::NFILE, "ENFILE"),
            (Errno::NODEV, "ENODEV"),
            (Errno::NOENT, "ENOENT"),
            (Errno::NOLCK, "ENOLCK"),
            (Errno::NOMEM, "ENOMEM"),
            (Errno::NOSPC, "ENOSPC"),
            (Errno::NOSYS, "ENOSYS"),
            (Errno::NOTDIR, "ENOTDIR"),
            (Errno::NOTEMPTY, "ENOTEMPTY"),
            (Errno::NOTSUP, "ENOTSUP"),
            (Errno::NXIO, "ENXIO"),
            (Errno::PERM, "EPERM"),
            (Errno::ROFS, "EROFS"),
            (Errno::STALE, "ESTALE"),
            (Errno::TIMEDOUT, "ETIMEDOUT"),
            (Errno::XDEV, "EXDEV"),
        ];
        if let Some((_, name)) = known.iter().find(|(errno, _)| errno.raw_os_error() == raw) {
            return name;
        }
    }
    match error.kind() {
        io::ErrorKind::NotFound => "ENOENT",
        io::ErrorKind::PermissionDenied => "EACCES",
        io::ErrorKind::AlreadyExists => "EEXIST",
        io::ErrorKind::WouldBlock => "EAGAIN",
        io::ErrorKind::StorageFull => "ENOSPC",
        io::ErrorKind::ReadOnlyFilesystem => "EROFS",
        io::ErrorKind::NotADirectory => "ENOTDIR",
        io::ErrorKind::IsADirectory => "EISDIR",
        io::ErrorKind::Unsupported => "ENOTSUP",
        _ => "EIO",
    }
}
