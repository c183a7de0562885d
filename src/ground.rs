//! The folders of a project that locks live in, opened so that nothing planted there is trusted.
//!
//! Promises: no link is followed on the way (a repository can carry a `.ai` or `.ai/locks` that points
//! elsewhere); what is missing is made; and before a lock is granted it is proven here that the kernel's
//! file locks are enforced, since everything rests on them. A network or user-space file system is
//! refused rather than trusted.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::errno;
use crate::error::{Code, Error};
use crate::key::Key;
use crate::sys::{self, Dir};

/// The folder that orchestrators keep their state in.
pub const STATE: &str = ".ai";
/// Which files the changes that are under way have made.
pub const STAGED: &str = "staged";
/// The folder of words left for those whose locks were taken back by force.
pub const FORCED: &str = "forced";
/// The folder of grants that were handed on.
pub const HANDED: &str = "handed";
/// Who wrote which file last.
pub const WRITTEN: &str = "written";
/// The file that the guard's kernel lock is taken on.
pub const GUARD: &str = ".guard";

/// No note is longer, in bytes.
const MOST_NOTED: u64 = 64 * 1024;

/// The open folders of a project.
#[derive(Debug)]
pub struct Ground {
    /// The project.
    pub root: PathBuf,
    /// `.ai/locks`
    pub locks: Dir,
    /// `.ai/locks/holders`
    pub holders: Dir,
    /// `.ai/locks/queue`
    pub queue: Dir,
    /// `.ai/progress`
    pub progress: Dir,
}

impl Ground {
    /// Opens the folders of a project, making what is missing.
    ///
    /// # Errors
    /// What the system says, with the path; `ENOTDIR` with advice for a link or file in a folder's
    /// place; `ENOTSUP` on a file system whose locks are not to be relied on.
    pub fn open(root: &Path) -> Result<Ground, Error> {
        Ground::opened(root).map_err(|(path, cause)| trouble(&path, &cause))
    }

    fn opened(root: &Path) -> Result<Ground, (PathBuf, io::Error)> {
        let top = Dir::open(root).map_err(|cause| (root.to_owned(), cause))?;
        let state = child(&top, STATE, true)?;
        let locks = child(&state, "locks", true)?;
        let holders = child(&locks, "holders", true)?;
        let queue = child(&locks, "queue", true)?;
        let progress = child(&state, "progress", true)?;
        Ok(Ground { root: root.to_owned(), locks, holders, queue, progress })
    }

    /// Opens the folders beside the guard anew, where somebody removed one of them alone.
    ///
    /// # Errors
    /// As [`Ground::open`].
    pub fn mend(&mut self) -> Result<(), Error> {
        let told = |(path, cause): (PathBuf, io::Error)| trouble(&path, &cause);
        self.holders = child(&self.locks, "holders", true).map_err(told)?;
        self.queue = child(&self.locks, "queue", true).map_err(told)?;
        let top = Dir::open(&self.root).map_err(|cause| trouble(&self.root, &cause))?;
        let state = child(&top, STATE, true).map_err(told)?;
        self.progress = child(&state, "progress", true).map_err(told)?;
        Ok(())
    }

    /// What is noted of a key in one of the folders beside the records.
    pub fn noted<T: serde::de::DeserializeOwned>(&self, folder: &str, key: &Key) -> Option<T> {
        let file = self.annex_if_there(folder).ok()??.open_read(&key.to_string()).ok()?;
        serde_json::from_reader(io::Read::take(file, MOST_NOTED)).ok()
    }

    /// A folder beside the records that only some need, made if it is missing.
    ///
    /// # Errors
    /// As [`Ground::open`].
    pub fn annex(&self, name: &str) -> Result<Dir, Error> {
        child(&self.locks, name, true).map_err(|(path, cause)| trouble(&path, &cause))
    }

    /// The same if it is there.
    ///
    /// # Errors
    /// As [`Ground::open`].
    pub fn annex_if_there(&self, name: &str) -> Result<Option<Dir>, Error> {
        if_there(child(&self.locks, name, false))
    }

    /// Opens the guard's file and keeps the lock files out of version control.
    ///
    /// # Errors
    /// As [`Ground::open`].
    pub fn guard_file(&self) -> Result<File, Error> {
        let path = self.locks.path().join(GUARD);
        if let Some(kind) = sys::unsuited_filesystem(&self.locks)
            .map_err(|cause| Error::system("look at the file system of", &path, &cause))?
        {
            return Err(unsuited(self.locks.path(), &format!("is on {kind}")));
        }
        let opened = |cause: io::Error| trouble(&path, &cause);
        let file = self.locks.open_or_create(GUARD).map_err(opened)?;
        if !Dir::entry_of(&file).map_err(opened)?.is_file {
            return Err(trouble(&path, &io::Error::other("not a regular file")));
        }
        if let Ok(mut ignore) = self.locks.create_new(".gitignore") {
            // A convenience: without it the lock files merely show up in `git status`.
            let _ = io::Write::write_all(&mut ignore, b"*\n");
        }
        Ok(file)
    }

    /// Proves that a second handle is kept out while the guard is held by this one. A guard that was
    /// removed meanwhile proves nothing either way; that is for [`Ground::is_in_place`] to notice.
    ///
    /// # Errors
    /// `ENOTSUP` where the second handle is let in.
    pub fn prove_locks(&self, guard: &File) -> Result<(), Error> {
        let path = self.locks.path().join(GUARD);
        let failed = |cause: io::Error| Error::system("try the lock of", &path, &cause);
        let second = match self.locks.open_read(GUARD) {
            Err(cause) if is_gone(&cause) => return Ok(()),
            opened => opened.map_err(failed)?,
        };
        let identity = |file: &File| Dir::entry_of(file).map(|entry| entry.identity);
        let is_guard = identity(&second).map_err(failed)? == identity(guard).map_err(failed)?;
        if is_guard && sys::try_lock(&second).map_err(failed)? {
            return Err(unsuited(self.locks.path(), "is on a file system that does not enforce"));
        }
        Ok(())
    }

    /// Whether the guard's name still leads to this open file: false once somebody removed or replaced
    /// the folder, and everything in it with it.
    ///
    /// # Errors
    /// What the system says, other than that nothing is there.
    pub fn is_in_place(&self, guard: &File) -> Result<bool, Error> {
        let path = self.locks.path().join(GUARD);
        let failed = |cause: io::Error| Error::system("look at", &path, &cause);
        let mine = Dir::entry_of(guard).map_err(failed)?.identity;
        match Dir::entry_at(&path) {
            Ok(there) => Ok(there.identity == mine),
            Err(cause) if is_gone(&cause) => Ok(false),
            Err(cause) => Err(failed(cause)),
        }
    }
}

/// The folders as far as they exist, for looking only.
#[derive(Debug)]
pub struct Sight {
    /// `.ai/locks`
    pub locks: Dir,
    /// `.ai/locks/holders`
    pub holders: Option<Dir>,
    /// `.ai/locks/queue`
    pub queue: Option<Dir>,
}

impl Sight {
    /// Opens what is there of a project's folders; `None` where no lock was ever taken.
    ///
    /// # Errors
    /// As [`Ground::open`], but a folder that is missing is no error, the project's own excepted.
    pub fn open(root: &Path) -> Result<Option<Sight>, Error> {
        let top = Dir::open(root).map_err(|cause| trouble(root, &cause))?;
        let locks = child(&top, STATE, false).and_then(|state| child(&state, "locks", false));
        let Some(locks) = if_there(locks)? else { return Ok(None) };
        let holders = if_there(child(&locks, "holders", false))?;
        let queue = if_there(child(&locks, "queue", false))?;
        Ok(Some(Sight { locks, holders, queue }))
    }
}

fn if_there(opened: Result<Dir, (PathBuf, io::Error)>) -> Result<Option<Dir>, Error> {
    match opened {
        Ok(dir) => Ok(Some(dir)),
        Err((_, cause)) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err((path, cause)) => Err(trouble(&path, &cause)),
    }
}

fn child(dir: &Dir, name: &str, create: bool) -> Result<Dir, (PathBuf, io::Error)> {
    dir.child(name, create).map_err(|cause| (dir.path().join(name), cause))
}

/// Whether the error says that the folder is not there any more.
pub fn is_gone(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || errno::name(cause) == "ELOOP"
}

fn unsuited(locks: &Path, is: &str) -> Error {
    let message = format!(
        "{} {is} kernel file locks as storylock needs them, so two stories could hold one file.",
        locks.display()
    );
    Error::new(Code::System("ENOTSUP"), message).at(locks).hint(
        "Nothing was granted. Keep the project on a local disk (ext4, xfs, btrfs, tmpfs, overlayfs), or set STORYLOCK_ROOT to a folder on one that all stories share.",
    )
}

fn trouble(path: &Path, cause: &io::Error) -> Error {
    let error = Error::system("open", path, cause);
    match Dir::entry_at(path) {
        Ok(_) if is_in_the_way(cause) => error.hint(
            "Storylock keeps its state there and follows no links: remove or rename what stands in its place, then try again.",
        ),
        _ => error,
    }
}

/// Whether the error says that something else stands where a folder or file is to be.
fn is_in_the_way(cause: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    !matches!(cause.kind(), Kind::PermissionDenied | Kind::ReadOnlyFilesystem | Kind::StorageFull)
}
