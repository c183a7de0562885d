//! The steps of a change that is being put in place, so that a kill in the middle can be made good.
//!
//! Promises: one step is one rename or exchange of two names of a folder, and can be taken back; while
//! several are made, under the guard, the journal names them all, so whoever holds the guard next and finds
//! it makes those that are missing. What a change makes beside its files is noted before it is made, so
//! that it can be removed when its maker was killed.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::publish;
use crate::sys::{self, Dir};

/// One file's change, ready to be put in place. Names are of files in one folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The folder, resolved.
    pub folder: PathBuf,
    /// The file.
    pub name: String,
    /// The new content beside it; where the old content goes.
    pub beside: String,
    /// Whether the file is there now.
    pub exists: bool,
    /// Whether it is to be there afterwards.
    pub stays: bool,
    /// The inode of the new content: in its place, the step is done.
    pub inode: u64,
}

impl Move {
    fn dir(&self) -> io::Result<Dir> {
        Dir::open(&self.folder)
    }

    /// Makes the step.
    ///
    /// # Errors
    /// What the system says; it is not made then.
    pub fn make(&self) -> io::Result<()> {
        let dir = self.dir()?;
        match (self.exists, self.stays) {
            (true, true) => dir.exchange(&self.beside, &self.name),
            (false, _) => publish::place(&dir, &self.beside, &self.name),
            (true, false) => publish::place(&dir, &self.name, &self.beside),
        }
    }

    /// Takes the step back.
    ///
    /// # Errors
    /// What the system says; it stands then.
    pub fn take_back(&self) -> io::Result<()> {
        let dir = self.dir()?;
        match (self.exists, self.stays) {
            (true, true) => dir.exchange(&self.beside, &self.name),
            (false, _) => publish::place(&dir, &self.name, &self.beside),
            (true, false) => publish::place(&dir, &self.beside, &self.name),
        }
    }

    fn is_made(&self) -> io::Result<bool> {
        match self.dir()?.entry(&self.name) {
            Ok(entry) => Ok(self.stays && entry.identity.1 == self.inode),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(!self.stays),
            Err(cause) => Err(cause),
        }
    }

    fn is_ours(&self, root: &Path) -> bool {
        let is_name = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('/');
        let real = std::fs::canonicalize(&self.folder);
        let inside = self.folder.strip_prefix(root);
        let is_free = |inside: &Path| {
            let is_git = |part: &std::ffi::OsStr| part.eq_ignore_ascii_case(".git");
            let target = inside.join(&self.name);
            let is_state = [".ai", ".ai/progress"].iter().any(|state| target == Path::new(state));
            !is_state && !target.starts_with(".ai/locks") && !inside.iter().any(is_git)
        };
        let is_file = |name: &str| match self.dir().and_then(|dir| dir.entry(name)) {
            Ok(entry) => entry.is_file,
            Err(cause) => cause.kind() == io::ErrorKind::NotFound,
        };
        real.is_ok_and(|real| real == self.folder)
            && inside.is_ok_and(is_free)
            && !self.name.eq_ignore_ascii_case(".git")
            && self.beside.starts_with(".storylock-")
            && is_name(&self.name)
            && is_name(&self.beside)
            && is_file(&self.name)
            && is_file(&self.beside)
    }
}

/// What the journal says.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Journal {
    /// The boot in which it was written: what a repository carries names another, and is not followed.
    boot: String,
    moves: Vec<Move>,
}

/// The name of the journal: there while several files are being put in place, under the guard.
pub const JOURNAL: &str = ".journal";

/// Notes the steps before the first is made.
///
/// # Errors
/// What the system says.
pub fn begin(locks: &Dir, moves: &[Move]) -> Result<(), Error> {
    let journal = Journal { boot: sys::boot_id().to_owned(), moves: moves.to_vec() };
    let bytes = serde_json::to_vec(&journal).map_err(io::Error::other);
    bytes
        .and_then(|bytes| publish::create(locks, JOURNAL, &bytes))
        .map_err(|cause| Error::system("write", &locks.path().join(JOURNAL), &cause))
}

/// Every step is made, or none.
pub fn end(locks: &Dir, moves: usize) {
    if moves > 1 {
        // If it stays, whoever finds it sees that every step is made, or none, and removes it.
        let _ = locks.unlink(JOURNAL);
    }
}

/// Finishes a change that was killed between two steps. Call it holding the guard, before anything else:
/// whoever made a journal that is there now is dead.
///
/// # Errors
/// What the system says, with the remedy; the journal stays.
pub fn recover(locks: &Dir, root: &Path) -> Result<(), Error> {
    let path = locks.path().join(JOURNAL);
    let failed = |cause: io::Error| {
        Error::system("finish the change that is noted in", &path, &cause).hint(
            "Nothing was granted. Make its files writable again, or remove it if it is not yours.",
        )
    };
    let mut file = match locks.open_read(JOURNAL) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(failed(cause)),
    };
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(&mut file, MAX_JOURNAL), &mut bytes)
        .map_err(failed)?;
    let root = std::fs::canonicalize(root).map_err(failed)?;
    let Journal { boot, moves } = serde_json::from_slice(&bytes).unwrap_or_default();
    if boot == sys::boot_id() && moves.iter().all(|one| one.is_ours(&root)) {
        for one in &moves {
            if one.is_made().map_err(failed)? {
                continue;
            }
            match one.make() {
                // Somebody cleaned away what was made beside it: that file stays as it is.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                made => made.map_err(failed)?,
            }
        }
        for one in &moves {
            let _ = std::fs::remove_file(one.folder.join(&one.beside));
        }
    }
    locks.unlink(JOURNAL).map_err(failed)
}

/// No note is longer, in bytes.
const MAX_NOTE: u64 = 4 * 1024 * 1024;

/// No journal is longer, in bytes.
const MAX_JOURNAL: u64 = 64 * 1024 * 1024;

/// Removes what changes of dead processes left behind in a project; `is_dead` tells of a holder's number.
/// What was made outside of it, or beyond a link, is left: a note may have come with a repository.
pub fn sweep(notes: &Dir, root: &Path, mut is_dead: impl FnMut(u64) -> bool) {
    let Ok(root) = std::fs::canonicalize(root) else { return };
    for name in notes.names().unwrap_or_default() {
        let holder = name.split('-').next().and_then(|number| number.parse().ok());
        if !holder.is_some_and(&mut is_dead) {
            continue;
        }
        let prefix = format!(".storylock-{name}-");
        let mut bytes = Vec::new();
        let read = notes.open_read(&name).and_then(|file| {
            io::Read::read_to_end(&mut io::Read::take(file, MAX_NOTE), &mut bytes)
        });
        let left: Vec<PathBuf> =
            read.ok().and_then(|_| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        for path in left {
            let is_its =
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
            let folder = path.parent().filter(|folder| folder.starts_with(&root));
            let is_real =
                |folder: &Path| std::fs::canonicalize(folder).is_ok_and(|real| real == folder);
            if is_its && folder.is_some_and(is_real) {
                let _ = std::fs::remove_file(path);
            }
        }
        let _ = notes.unlink(&name);
    }
}

/// Notes what a change is about to make beside its files.
///
/// # Errors
/// What the system says.
pub fn note(notes: &Dir, name: &str, beside: &[PathBuf]) -> Result<(), Error> {
    let path = notes.path().join(name);
    let failed = |cause: io::Error| Error::system("write", &path, &cause);
    let bytes = serde_json::to_vec(beside).map_err(io::Error::other).map_err(failed)?;
    let mut file = notes.create_new(name).map_err(failed)?;
    file.write_all(&bytes).map_err(|cause| {
        let _ = notes.unlink(name);
        failed(cause)
    })
}
