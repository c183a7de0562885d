//! Changes to the files themselves: written beside their places first, put there in one step each.
//!
//! Promises: until [`Staged::commit`] no target is touched; a reader sees the old file or the new, never a
//! mixture; mode bits are kept, the owner where the system allows it; a link is written through and stays.
//! Several files change all or none: every step can be taken back, and a journal tells whoever finds a
//! killed change how far it had come. What was made and not used is removed, by whoever is left to do it.
//!
//! Exchanging two names puts the new file in its place and the old one where the new one was: that is the
//! step, and doing it again takes it back.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

pub use crate::content::{Base, Hash, hash, hex};
use crate::content::{changed_meanwhile, check_base};
use crate::error::{Code, Error};
use crate::journal::{self, Move};
use crate::key::{Key, Target};
use crate::kind::Extent;
use crate::sys::{self, Dir, Identity};

/// What shall become of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It gets this content; `executable` where its mode is to change, too.
    Write {
        /// The whole of it.
        content: Vec<u8>,
        /// Whether it may be run; `None` as it is.
        executable: Option<bool>,
    },
    /// It goes.
    Remove,
}

/// One file's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Which file.
    pub target: Target,
    /// What becomes of it.
    pub action: Action,
    /// What it must be.
    pub base: Base,
    /// Whether to make the folders that it lies in.
    pub make_parents: bool,
}

/// A change that is ready.
#[derive(Debug)]
pub struct Staged {
    /// The number of its note in `staged`.
    pub note: String,
    /// The steps.
    pub moves: Vec<Move>,
    /// By key: what the file will be, `None` for gone.
    pub hashes: Vec<(Key, Option<Hash>)>,
    /// Everything that was made beside targets, or may have been.
    beside: Vec<PathBuf>,
    made_folders: Vec<PathBuf>,
    /// What each target was when it was looked at: anything else since then is somebody else's.
    seen: Vec<Option<(Identity, u64, u64)>>,
    /// What each target was to be.
    bases: Vec<Base>,
    durable: bool,
    is_used: bool,
    is_stuck: bool,
    /// Dropped with it: somebody may wait for that.
    pub under_way: Option<Sender<()>>,
    /// Why nothing is to be put in place, to be said once the locks are known to be current.
    refusal: Option<Error>,
}

/// The refusal of a file that no lock at hand is for.
pub fn not_locked(path: &Path) -> Error {
    let message = format!("{} is not what the lock is for.", path.display());
    Error::new(Code::Fenced, message)
        .at(path)
        .hint("Nothing was written. Give the lock of this very file, or of a folder above it with all below; if a link on the way was changed, acquire it again.")
}

impl Staged {
    /// Writes the new contents beside their places. `prefix` begins the names of what is made here; the
    /// note of them is in `notes` before they are.
    ///
    /// # Errors
    /// `EBASE` where a file is not what it must be; `EFENCED` where a path leads elsewhere than the keys
    /// that are held; what the system says. Nothing is left then.
    pub fn stage(
        edits: Vec<Edit>,
        covers: &[Extent],
        notes: &Dir,
        prefix: &str,
        durable: bool,
    ) -> Result<Staged, Error> {
        let mut staged = Staged {
            note: prefix.to_owned(),
            moves: Vec::new(),
            hashes: Vec::new(),
            beside: Vec::new(),
            made_folders: Vec::new(),
            seen: Vec::new(),
            bases: Vec::new(),
            durable,
            is_used: false,
            is_stuck: false,
            refusal: None,
            under_way: None,
        };
        let planned: Result<Vec<PathBuf>, Error> =
            edits.iter().map(|edit| edit.target.clone().canonical()).collect();
        let planned = planned?;
        let beside: Vec<PathBuf> = planned
            .iter()
            .enumerate()
            .map(|(number, path)| path.with_file_name(format!(".storylock-{prefix}-{number}")))
            .collect();
        journal::note(notes, prefix, &beside)?;
        staged.beside.clone_from(&beside);
        let locks = notes.path().parent().unwrap_or(notes.path());
        let locks = std::fs::canonicalize(locks).unwrap_or_else(|_| locks.to_owned());
        for ((edit, path), beside) in edits.into_iter().zip(planned).zip(&beside) {
            if let Err(error) = staged.add(edit, &path, beside, covers, &locks) {
                staged.discard(notes);
                // Who has lost the lock is to hear that first: reading again would not help.
                if error.code == Code::Base {
                    staged.refusal = Some(error);
                    return Ok(staged);
                }
                return Err(error);
            }
        }
        Ok(staged)
    }

    fn add(
        &mut self,
        edit: Edit,
        path: &Path,
        beside: &Path,
        covers: &[Extent],
        locks: &Path,
    ) -> Result<(), Error> {
        let failed = |verb: &str, cause: &io::Error| Error::system(verb, path, cause);
        let key = Key::of(path);
        if edit.target.is_name() {
            let rule = "names a thing that is no file: nothing can be written to it.";
            return Err(Error::invalid("path", rule).at(edit.target.path()));
        }
        if path.starts_with(locks) {
            let rule = "leads into .ai/locks: what stands there is for storylock alone to write.";
            return Err(Error::invalid("path", rule).at(edit.target.path()));
        }
        if !covers.iter().any(|it| it.key == key || it.contains(path)) {
            return Err(not_locked(edit.target.path()));
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed("write", &io::ErrorKind::IsADirectory.into()));
        };
        let entry = match Dir::entry_at(path) {
            Ok(entry) if entry.is_file => Some(entry),
            Ok(_) if path.is_dir() => {
                return Err(failed("write", &io::ErrorKind::IsADirectory.into()));
            }
            Ok(_) => return Err(failed("write", &io::Error::other("it is not a regular file"))),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
            Err(cause) => return Err(failed("look at", &cause)),
        };
        check_base(edit.base, entry.is_some(), path)?;
        self.bases.push(edit.base);
        self.seen.push(entry.map(|entry| (entry.identity, entry.changed_ms, entry.len)));
        if edit.make_parents && entry.is_none() {
            self.make_folders(folder)?;
        } else if !folder.is_dir() {
            let message = format!("{} does not exist.", folder.display());
            return Err(Error::new(Code::System("ENOENT"), message)
                .at(path)
                .hint("Nothing was written. Make the folder first, or allow it to be made with `parents: true`."));
        }
        let mut inode = 0;
        let stays = matches!(edit.action, Action::Write { .. });
        match edit.action {
            Action::Remove if entry.is_none() => {
                return Err(failed("remove", &io::ErrorKind::NotFound.into()));
            }
            Action::Remove => self.hashes.push((key, None)),
            Action::Write { content, executable } => {
                self.hashes.push((key, Some(hash(&content))));
                // Until it is dressed nobody else may read what may be private.
                let mode = sys::new_file_mode(entry.is_some());
                let file = write_beside(beside, &content, mode)
                    .map_err(|cause| failed("write beside", &cause))?;
                sys::dress(&file, entry.is_some().then_some(path), executable)
                    .map_err(|cause| failed("set the mode beside", &cause))?;
                if self.durable {
                    file.sync_all().map_err(|cause| failed("flush beside", &cause))?;
                }
                inode = Dir::entry_of(&file).map_err(|cause| failed("look at", &cause))?.identity.1;
            }
        }
        let text = |name: &std::ffi::OsStr| name.to_string_lossy().into_owned();
        self.moves.push(Move {
            folder: folder.to_owned(),
            name: text(name),
            beside: beside.file_name().map(text).unwrap_or_default(),
            exists: entry.is_some(),
            stays,
            inode,
        });
        Ok(())
    }

    fn make_folders(&mut self, folder: &Path) -> Result<(), Error> {
        let missing: Vec<&Path> = folder.ancestors().take_while(|one| !one.exists()).collect();
        for one in missing.into_iter().rev() {
            match std::fs::create_dir(one) {
                Ok(()) => self.made_folders.push(one.to_owned()),
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
                Err(cause) => return Err(Error::system("make the folder", one, &cause)),
            }
        }
        Ok(())
    }

    /// Puts everything in place, or nothing. Call it under the guard, once the locks are known to be
    /// current. `locks` is where the journal of several files stands meanwhile.
    ///
    /// # Errors
    /// `EBASE` where a file was changed since it was looked at; what the system says. All steps are taken
    /// back then.
    pub fn commit(&mut self, locks: &Dir) -> Result<(), Error> {
        if let Some(refusal) = self.refusal.take() {
            return Err(refusal);
        }
        for ((one, seen), base) in self.moves.iter().zip(&self.seen).zip(&self.bases) {
            let path = one.folder.join(&one.name);
            let now = Dir::entry_at(&path).ok();
            let now = now.map(|entry| (entry.identity, entry.changed_ms, entry.len));
            if now != *seen {
                return Err(changed_meanwhile(*base, &path));
            }
        }
        if self.moves.len() > 1 {
            journal::begin(locks, &self.moves)?;
        }
        self.is_used = true;
        for (number, one) in self.moves.iter().enumerate() {
            if let Err(cause) = one.make() {
                for done in self.moves[..number].iter().rev() {
                    let path = done.folder.join(&done.name);
                    if let Err(cause) = done.take_back() {
                        // The journal stays to tell, and what it names.
                        self.is_stuck = true;
                        return Err(Error::system("take back", &path, &cause).hint(
                            "The change is half made: the journal in .ai/locks knows the rest, and the next call finishes it once the files can be written.",
                        ));
                    }
                }
                journal::end(locks, self.moves.len());
                self.is_used = false;
                return Err(Error::system("put in place", &one.folder.join(&one.name), &cause));
            }
        }
        journal::end(locks, self.moves.len());
        Ok(())
    }

    /// The files with their keys.
    pub fn targets(&self) -> impl Iterator<Item = (Key, PathBuf)> {
        let paths = self.moves.iter().map(|one| one.folder.join(&one.name));
        self.hashes.iter().map(|(key, _)| *key).zip(paths)
    }

    /// The file that goes by a key, as far as it got here.
    pub fn path_of(&self, key: &Key) -> Option<PathBuf> {
        let at = self.hashes.iter().position(|(of, _)| of == key);
        let found = at.and_then(|at| self.moves.get(at)).map(|one| one.folder.join(&one.name));
        found.or_else(|| self.refusal.as_ref().and_then(|refusal| refusal.path.clone()))
    }

    /// Removes what is not needed any more: the old contents after a commit, the new ones without.
    pub fn discard(&mut self, notes: &Dir) {
        if self.is_stuck {
            return;
        }
        for beside in &self.beside {
            let _ = std::fs::remove_file(beside);
        }
        if !self.is_used {
            for folder in self.made_folders.iter().rev() {
                let _ = std::fs::remove_dir(folder);
            }
        }
        let _ = notes.unlink(&self.note);
    }

    /// Flushes the folders of what was put in place, so that it outlives the machine's power.
    ///
    /// # Errors
    /// What the system says. The files are in place all the same.
    pub fn flush(&self) -> Result<(), Error> {
        if !self.durable {
            return Ok(());
        }
        let mut folders: Vec<&Path> = self.moves.iter().map(|one| one.folder.as_path()).collect();
        let made = self.made_folders.iter().filter_map(|folder| folder.parent());
        folders.extend(made);
        folders.sort_unstable();
        folders.dedup();
        for folder in folders {
            sys::sync_folder(folder).map_err(|cause| Error::system("flush", folder, &cause))?;
        }
        Ok(())
    }
}

/// A new file, made by the library that knows how; it stays until it is discarded.
fn write_beside(path: &Path, content: &[u8], mode: std::fs::Permissions) -> io::Result<File> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut file = tempfile::Builder::new()
        .prefix(name)
        .rand_bytes(0)
        .permissions(mode)
        .tempfile_in(folder)?;
    file.write_all(content)?;
    let (file, path) = file.into_parts();
    path.keep().map_err(|kept| kept.error)?;
    Ok(file)
}
