//! Files that readers never see half of: written beside their place, then put there in one step.
//!
//! Promises: a reader sees the old content, the new, or no file; a failure or a kill leaves the old
//! content and at most one temporary file of a fixed name, which the next writer removes. The fixed
//! name is safe because every writer holds the guard, so there is one at a time. Nothing is flushed to
//! the disk: locks need not outlive the machine's power.

use std::io::{self, Write};

use crate::sys::Dir;

/// The name a file has until it is whole.
pub const TEMPORARY: &str = ".next";

/// Where something goes that stands in its way.
const ASIDE: &str = ".next.aside";

/// Puts a new file in its place.
///
/// # Errors
/// `AlreadyExists` when something has the name, which is then untouched; else what the system says.
pub fn create(dir: &Dir, name: &str, bytes: &[u8]) -> io::Result<()> {
    write_temporary(dir, bytes)?;
    place(dir, TEMPORARY, name).inspect_err(|_| remove_temporary(dir))
}

/// Gives a file another name that nothing has. Call it under the guard.
///
/// # Errors
/// As [`create`].
pub fn place(dir: &Dir, from: &str, to: &str) -> io::Result<()> {
    match dir.rename_new(from, to) {
        Err(cause) if lacks_flag(&cause) => match dir.entry(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => dir.rename(from, to),
        },
        placed => placed,
    }
}

/// Puts a file in its place, whatever was there.
///
/// # Errors
/// What the system says; what was there is then untouched.
pub fn replace(dir: &Dir, name: &str, bytes: &[u8]) -> io::Result<()> {
    write_temporary(dir, bytes)?;
    let placed = match dir.exchange(TEMPORARY, name) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound || lacks_flag(&cause) => {
            dir.rename(TEMPORARY, name)
        }
        placed => placed,
    };
    remove_temporary(dir);
    placed
}

fn write_temporary(dir: &Dir, bytes: &[u8]) -> io::Result<()> {
    let mut file = match dir.create_new(TEMPORARY) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            // What is no file was put there on purpose, and is moved out of the way.
            dir.unlink(TEMPORARY).or_else(|_| dir.rename(TEMPORARY, ASIDE))?;
            dir.create_new(TEMPORARY)?
        }
        answer => answer?,
    };
    file.write_all(bytes).inspect_err(|_| remove_temporary(dir))
}

/// What cannot be removed now is removed by the next writer.
fn remove_temporary(dir: &Dir) {
    let _ = dir.unlink(TEMPORARY);
}

/// Whether the file system does not know the kind of rename asked for.
fn lacks_flag(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_created_once_and_replaced_whole() {
        let temp = tempfile::tempdir().expect("tempdir");
        let dir = Dir::open(temp.path()).expect("open");
        std::fs::write(temp.path().join(TEMPORARY), "left by a kill").expect("write");
        create(&dir, "a", b"one").expect("created");
        let again = create(&dir, "a", b"two").expect_err("taken");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(temp.path().join("a")).expect("read"), b"one");
        replace(&dir, "a", b"three").expect("replaced");
        replace(&dir, "b", b"new").expect("created");
        assert_eq!(std::fs::read(temp.path().join("a")).expect("read"), b"three");
        let mut names = dir.names().expect("names");
        names.sort();
        assert_eq!(names, ["a", "b"], "no temporary file stays");
    }
}
