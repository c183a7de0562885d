//! Git-style unified diffs over many files, worked out to what each file shall be.
//!
//! Promises: parsing and the hunks themselves are a library's (`diffy`); every hunk of every file is
//! checked here before anything is written; a path that is absolute, leaves the project, or leads into
//! `.git` or `.ai/locks` is refused, and so are links and submodules, which are no files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use diffy::binary::BinaryPatch;
use diffy::patch_set::{FileMode, FileOperation, FilePatch, ParseOptions, PatchKind, PatchSet};

use crate::change::{Action, Base, Edit};
use crate::error::{Code, Error};
use crate::hunks;
use crate::key::Target;

/// What a file shall be once a diff is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    /// `None`: gone.
    content: Option<Vec<u8>>,
    executable: Option<bool>,
    /// What it is now.
    base: Base,
}

type Files<'a> = Vec<FilePatch<'a, [u8]>>;

/// The paths that a diff touches, absolute, in order and once each.
///
/// # Errors
/// `ERR_INVALID_ARG_VALUE` for what is no diff, or touches what must not be touched.
pub fn paths(diff: &[u8], root: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for file in parse(diff)? {
        for path in touched(&file)? {
            let path = within(&path, root)?;
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    Ok(paths)
}

/// The edits that a diff comes to, given what its files are now.
///
/// # Errors
/// As [`paths`]; `EHUNK` naming file, hunk and line for context that does not match; what the system says.
pub fn edits(diff: &[u8], root: &Path) -> Result<Vec<Edit>, Error> {
    let mut files: BTreeMap<PathBuf, Wanted> = BTreeMap::new();
    for file in parse(diff)? {
        let operation = operation(&file)?;
        match &operation {
            Operation::Create(path) => {
                let path = within(path, root)?;
                let old = load(&mut files, &path)?;
                if old.content.is_some() {
                    return Err(exists(&path, root));
                }
                let content = patched(&file, &[], &path, root)?;
                put(&mut files, path, Some(content), mode(&file)?);
            }
            Operation::Delete(path) => {
                let path = within(path, root)?;
                let old = content_of(load(&mut files, &path)?, &path, root)?;
                let left = patched(&file, &old, &path, root)?;
                if !left.is_empty() {
                    return Err(mismatch(&file, 1, &path, root));
                }
                put(&mut files, path, None, None);
            }
            Operation::Change { from, to, keep } => {
                let (from, to) = (within(from, root)?, within(to, root)?);
                let source = load(&mut files, &from)?.clone();
                let old = content_of(&source, &from, root)?;
                let content = patched(&file, &old, &from, root)?;
                if from != to {
                    if load(&mut files, &to)?.content.is_some() {
                        return Err(exists(&to, root));
                    }
                    if !keep {
                        put(&mut files, from.clone(), None, None);
                    }
                }
                let executable = mode(&file)?.or(if from == to { None } else { source.executable });
                put(&mut files, to, Some(content), executable);
            }
        }
    }
    let edit = |(path, wanted): (PathBuf, Wanted)| {
        let path = path.to_string_lossy().into_owned();
        let action = match wanted.content {
            Some(content) => Action::Write { content, executable: wanted.executable },
            None => Action::Remove,
        };
        Ok(Edit { target: Target::new(&path)?, action, base: wanted.base, make_parents: true })
    };
    let is_change = |(_, wanted): &(PathBuf, Wanted)| {
        // A file that came and went within the diff was never there.
        !(wanted.content.is_none() && wanted.base == Base::Absent)
    };
    files.into_iter().filter(is_change).map(edit).collect()
}

enum Operation {
    Create(Vec<u8>),
    Delete(Vec<u8>),
    Change { from: Vec<u8>, to: Vec<u8>, keep: bool },
}

fn parse(diff: &[u8]) -> Result<Files<'_>, Error> {
    let wrong = |why: String| Error::invalid("diff", format!("must be a git-style diff: {why}."));
    let set = PatchSet::parse_bytes(diff, ParseOptions::gitdiff());
    let files: Result<Files<'_>, _> = set.collect();
    let files = match files {
        Ok(files) if !files.is_empty() => files,
        // Without `diff --git` lines it may still be a plain unified diff.
        git => {
            let set = PatchSet::parse_bytes(diff, ParseOptions::unidiff());
            match set.collect::<Result<Files<'_>, _>>() {
                Ok(files) if !files.is_empty() => files,
                plain => {
                    let why = git.err().or(plain.err());
                    let why = why.map_or("it names no file".to_owned(), |why| why.to_string());
                    return Err(wrong(why));
                }
            }
        }
    };
    check(diff, &files).map_err(wrong)?;
    Ok(files)
}

/// Whether every line of the diff is in what the library understood.
fn check(diff: &[u8], files: &Files<'_>) -> Result<(), String> {
    let parts = hunks::parts(diff)?;
    if parts.len() != files.len() {
        return Err(format!("{} files are in it, {} are understood", parts.len(), files.len()));
    }
    for (part, file) in parts.iter().zip(files) {
        let understood = file.patch().as_text().map_or(0, |patch| patch.hunks().len());
        if part.hunks != understood {
            return Err(format!("a file has {} hunks, {understood} are understood", part.hunks));
        }
        if part.removes && !file.operation().is_delete() {
            return Err("a file is to be removed, but its lines are not".to_owned());
        }
    }
    Ok(())
}

fn operation(file: &FilePatch<'_, [u8]>) -> Result<Operation, Error> {
    let strip = |path: &[u8]| path.to_vec();
    Ok(match file.operation() {
        // The paths of these come without a/ and b/.
        FileOperation::Rename { from, to } => {
            Operation::Change { from: strip(from), to: strip(to), keep: false }
        }
        FileOperation::Copy { from, to } => {
            Operation::Change { from: strip(from), to: strip(to), keep: true }
        }
        other => match other.strip_prefix(1) {
            FileOperation::Create(path) => Operation::Create(strip(&path)),
            FileOperation::Delete(path) => Operation::Delete(strip(&path)),
            FileOperation::Modify { original, modified } => {
                Operation::Change { from: strip(&original), to: strip(&modified), keep: false }
            }
            _ => return Err(Error::invalid("diff", "has an operation that is not known here.")),
        },
    })
}

fn touched(file: &FilePatch<'_, [u8]>) -> Result<Vec<Vec<u8>>, Error> {
    mode(file)?;
    Ok(match operation(file)? {
        Operation::Create(path) | Operation::Delete(path) => vec![path],
        Operation::Change { from, to, .. } if from == to => vec![to],
        Operation::Change { from, to, .. } => vec![from, to],
    })
}

/// The mode that the diff gives, as far as a file has one.
fn mode(file: &FilePatch<'_, [u8]>) -> Result<Option<bool>, Error> {
    let mut executable = None;
    for mode in [file.old_mode(), file.new_mode()].into_iter().flatten() {
        executable = match mode {
            FileMode::Regular => Some(false),
            FileMode::Executable => Some(true),
            FileMode::Symlink | FileMode::Gitlink => {
                return Err(Error::invalid(
                    "diff",
                    "makes or changes a link or a submodule, which this does not do.",
                ));
            }
        };
    }
    Ok(file.new_mode().and(executable))
}

/// The file that a path of a diff names, if it may be touched.
fn within(path: &[u8], root: &Path) -> Result<PathBuf, Error> {
    let text = std::str::from_utf8(path)
        .map_err(|_| Error::invalid("diff", "names a path that is not UTF-8."))?;
    let refuse =
        |why: &str| Err(Error::invalid("diff", format!("must not touch {text:?}: {why}.")));
    let path = Path::new(text);
    let parts: Vec<Component<'_>> = path.components().collect();
    if text.is_empty() || parts.is_empty() {
        return refuse("it is no path");
    }
    if !parts.iter().all(|part| matches!(part, Component::Normal(_))) {
        return refuse("it leaves the project");
    }
    if parts.iter().any(|part| part.as_os_str().eq_ignore_ascii_case(".git")) {
        return refuse("that is git's own");
    }
    let target = Target::new(&root.join(path).to_string_lossy())?;
    let canonical = target.clone().canonical()?;
    let root =
        std::fs::canonicalize(root).map_err(|cause| Error::system("resolve", root, &cause))?;
    let Ok(inside) = canonical.strip_prefix(&root) else {
        return refuse("a link leads out of the project");
    };
    if inside.starts_with(".ai/locks") || inside.starts_with(".git") {
        return refuse("that is the state of locks or of git");
    }
    // Two names of one file are one file.
    Ok(canonical)
}

/// What a file shall be so far; what it is, if nothing has touched it yet.
fn load<'a>(
    files: &'a mut BTreeMap<PathBuf, Wanted>,
    path: &Path,
) -> Result<&'a mut Wanted, Error> {
    if !files.contains_key(path) {
        let now = match std::fs::read(path) {
            Ok(content) => Wanted {
                base: Base::Hash(crate::change::hash(&content)),
                executable: Some(crate::sys::is_executable(path)),
                content: Some(content),
            },
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                Wanted { content: None, executable: None, base: Base::Absent }
            }
            Err(cause) => return Err(Error::system("read", path, &cause)),
        };
        files.insert(path.to_owned(), now);
    }
    files.get_mut(path).ok_or_else(Error::defect)
}

fn put(
    files: &mut BTreeMap<PathBuf, Wanted>,
    path: PathBuf,
    content: Option<Vec<u8>>,
    executable: Option<bool>,
) {
    if let Some(wanted) = files.get_mut(&path) {
        wanted.content = content;
        if executable.is_some() {
            wanted.executable = executable;
        }
    }
}

fn content_of(wanted: &Wanted, path: &Path, root: &Path) -> Result<Vec<u8>, Error> {
    wanted.content.clone().ok_or_else(|| {
        let shown = shown(path, root);
        Error::new(Code::Hunk, format!("{shown} is to be changed, but does not exist."))
            .at(path)
            .hint("Nothing was written. Make the diff against the files as they are.")
    })
}

fn patched(
    file: &FilePatch<'_, [u8]>,
    old: &[u8],
    path: &Path,
    root: &Path,
) -> Result<Vec<u8>, Error> {
    match file.patch() {
        PatchKind::Text(patch) if patch.hunks().is_empty() => Ok(old.to_vec()),
        PatchKind::Text(patch) => {
            // The library answers for all hunks at once; which one it was is found one by one.
            diffy::apply_bytes(old, patch).map_err(|cause| {
                let number = cause.to_string().rsplit('#').next().and_then(|n| n.parse().ok());
                mismatch(file, number.unwrap_or(1), path, root)
            })
        }
        PatchKind::Binary(BinaryPatch::Marker) => Err(Error::invalid(
            "diff",
            format!("leaves out what {} is to be: make it with --binary.", shown(path, root)),
        )),
        PatchKind::Binary(patch) => patch.apply(old).map_err(|cause| {
            Error::new(Code::Hunk, format!("{}: {cause}.", shown(path, root)))
                .at(path)
                .hint("Nothing was written. Make the diff against the files as they are.")
        }),
    }
}

fn mismatch(file: &FilePatch<'_, [u8]>, hunk: usize, path: &Path, root: &Path) -> Error {
    let line = file
        .patch()
        .as_text()
        .and_then(|patch| patch.hunks().get(hunk.saturating_sub(1)))
        .map_or(1, |hunk| hunk.old_range().start());
    let shown = shown(path, root);
    Error::new(
        Code::Hunk,
        format!("Hunk {hunk} of {shown} (at line {line}) does not match the file."),
    )
    .at(path)
    .in_hunk(hunk, line)
    .hint("Nothing was written. Read the file again and make the diff anew.")
}

fn exists(path: &Path, root: &Path) -> Error {
    Error::new(Code::Hunk, format!("{} is to be made, but exists.", shown(path, root)))
        .at(path)
        .hint("Nothing was written. Make the diff against the files as they are.")
}

fn shown(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
