//! What is locked: the identity of a path.
//!
//! Promise: two spellings of one file are one key, whether the file exists yet or not. The identity is
//! the canonical form: the symbolic links of the deepest ancestor that exists are resolved, and a link
//! that dangles stands for what it points to. Where no link is involved that is the absolute path, and
//! the key is the one the old module used: SHA-256 of it.
//!
//! A path that begins with `@`, such as `@git/index`, names a thing that is no file: it is its own
//! identity, in this project. A file of that name is `./@git/index`.
//!
//! It does **not** see that two hard links are one file, and a path whose links change while it is
//! locked is another path from then on.

use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Longest path the system takes, in bytes without the closing NUL (Linux `PATH_MAX` - 1).
const MAX_PATH_BYTES: usize = 4095;
/// Longest name within a path, in bytes (`NAME_MAX` of every common file system).
const MAX_NAME_BYTES: usize = 255;
/// Links followed before a path is a loop, as in Linux.
const MAX_LINKS: usize = 40;
#[cfg(unix)]
const ELOOP: i32 = rustix::io::Errno::LOOP.raw_os_error();
/// `ERROR_CANT_RESOLVE_FILENAME`
#[cfg(not(unix))]
const ELOOP: i32 = 1921;

/// SHA-256 of a canonical path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(pub [u8; 32]);

impl Key {
    /// The key of this exact path, nothing resolved.
    pub fn of(path: &Path) -> Key {
        Key(Sha256::digest(path.as_os_str().as_encoded_bytes()).into())
    }

    /// The key that a record file's name spells, if it is a record file's name.
    pub fn from_file_name(name: &str) -> Option<Key> {
        Key::from_hex(name.strip_suffix(".lock")?)
    }

    /// The key that 64 lower-case hex digits spell.
    pub fn from_hex(hex: &str) -> Option<Key> {
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Key(bytes))
    }

    /// The name of the record file: `<sha256 hex>.lock`.
    pub fn file_name(&self) -> String {
        format!("{self}.lock")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0u8; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&hex).unwrap_or_default())
    }
}

impl TryFrom<String> for Key {
    type Error = &'static str;

    fn try_from(hex: String) -> Result<Key, &'static str> {
        Key::from_hex(&hex).ok_or("not a key")
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.to_string()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// What the names of things that are no files begin with.
const NAME_MARK: char = '@';

/// A well-formed absolute path: what the caller named, with `.` and `..` taken out as
/// `path.resolve` does, before any link is looked at. Or the name of a thing that is no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    absolute: PathBuf,
    named: String,
}

impl Target {
    /// The target that `path` names, seen from the working directory.
    ///
    /// # Errors
    /// `ERR_INVALID_ARG_VALUE` when it is empty, has a NUL, or is longer than the system takes.
    pub fn new(path: &str) -> Result<Target, Error> {
        let wrong = |rule: String| Err(Error::invalid("path", rule));
        if path.is_empty() {
            return wrong("must not be empty: name the file to lock.".to_owned());
        }
        if path.contains('\0') {
            return wrong(format!("must not contain NUL. Received {path:?}."));
        }
        let longest = Path::new(path).iter().map(|name| name.len()).max().unwrap_or(0);
        if longest > MAX_NAME_BYTES {
            return wrong(format!(
                "must have names of at most {MAX_NAME_BYTES} bytes. One has {longest} bytes."
            ));
        }
        let absolute = if is_name(Path::new(path)) {
            check_name(path)?;
            PathBuf::from(path)
        } else if Path::new(path).is_relative() {
            let here = std::env::current_dir();
            let here = here.map_err(|cause| Error::system("find", Path::new("."), &cause))?;
            lexical(&here.join(path))
        } else {
            lexical(Path::new(path))
        };
        let length = absolute.as_os_str().len();
        if length > MAX_PATH_BYTES {
            return wrong(format!(
                "must be at most {MAX_PATH_BYTES} bytes long. Received {length} bytes."
            ));
        }
        Ok(Target { absolute, named: printable(path) })
    }

    /// The absolute path as the caller named it.
    pub fn path(&self) -> &Path {
        &self.absolute
    }

    /// Whether it is the name of a thing that is no file.
    pub fn is_name(&self) -> bool {
        is_name(&self.absolute)
    }

    /// The canonical form: what the identity is made of.
    ///
    /// # Errors
    /// As [`Target::locate`].
    pub fn canonical(self) -> Result<PathBuf, Error> {
        if self.is_name() {
            return Ok(self.absolute);
        }
        canonical(&self.absolute).map_err(|cause| Error::system("resolve", &self.absolute, &cause))
    }

    /// Looks the identity up: follows the links of what exists.
    ///
    /// # Errors
    /// What the system says (`ELOOP`, `EACCES`, …), with the path. Nothing is guessed.
    pub fn locate(self) -> Result<Located, Error> {
        let canonical = self.clone().canonical()?;
        Ok(Located {
            key: Key::of(&canonical),
            spelled: (canonical != self.absolute).then(|| Key::of(&self.absolute)),
            path: self.absolute,
            named: self.named,
            canonical,
        })
    }
}

/// A target whose identity is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The absolute path as the caller named it.
    pub path: PathBuf,
    /// The path in the caller's words, fit to print.
    pub named: String,
    /// The identity.
    pub key: Key,
    /// What the identity is made of.
    pub canonical: PathBuf,
    /// The key of the path as it was spelled, where a link makes it another: the old module's key.
    pub spelled: Option<Key>,
}

/// Whether a path is the name of a thing that is no file.
pub fn is_name(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().first() == Some(&(NAME_MARK as u8))
}

fn check_name(name: &str) -> Result<(), Error> {
    let is_odd = |segment: &str| matches!(segment, "" | "." | "..");
    if name.trim_start_matches(NAME_MARK).split('/').any(is_odd) {
        let rule = "is the name of a thing, since it begins with '@': it must be '@' and words between slashes, such as @git/index. A file of that name is ./";
        return Err(Error::invalid("path", format!("{rule}{}.", printable(name))));
    }
    Ok(())
}

/// Control characters would garble a terminal or a log line.
fn printable(path: &str) -> String {
    if path.chars().any(char::is_control) {
        path.escape_debug().to_string()
    } else {
        path.to_owned()
    }
}

/// Resolves the links of the deepest existing ancestor, and dangling links too.
fn canonical(path: &Path) -> io::Result<PathBuf> {
    let mut links = MAX_LINKS;
    resolved(path, &mut links)
}

/// The same while so many links may still be followed one by one: it calls itself for a link only.
fn resolved(path: &Path, links: &mut usize) -> io::Result<PathBuf> {
    let mut missing = Vec::new();
    let mut at = path.to_owned();
    let mut real = loop {
        match std::fs::canonicalize(&at) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            // A name below a regular file: nothing there can exist, so the spelling is the identity.
            Err(cause) if cause.kind() == io::ErrorKind::NotADirectory => break at,
            answer => break answer?,
        }
        let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else { break at };
        if let Ok(link) = std::fs::read_link(&at) {
            *links = links.checked_sub(1).ok_or_else(|| io::Error::from_raw_os_error(ELOOP))?;
            break followed(resolved(parent, links)?, &link, links)?;
        }
        missing.push(name.to_owned());
        at = parent.to_owned();
    };
    real.extend(missing.iter().rev());
    Ok(real)
}

/// Where a link in this folder leads, name by name: what is above its target is above where that leads,
/// not above its spelling.
fn followed(folder: PathBuf, link: &Path, links: &mut usize) -> io::Result<PathBuf> {
    let mut at = folder;
    for part in link.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(at.pop()),
            Component::Normal(name) => at = resolved(&at.join(name), links)?,
            root => at.push(root),
        }
    }
    Ok(at)
}

/// Takes `.` and `..` out without looking at the disk, as `path.resolve` does.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn key(path: &Path) -> Key {
        let target = Target::new(path.to_str().expect("utf-8")).expect("well-formed");
        target.locate().expect("located").key
    }

    #[test]
    fn without_links_the_key_is_the_old_modules() {
        // printf /src/app.js | sha256sum
        let hex = "fdef1098cb23b8c493ce0586780e27d2918c435d4797caea4361b10388e1588b";
        assert_eq!(key(Path::new("/src/app.js")).to_string(), hex);
        let name = format!("{hex}.lock");
        assert_eq!(Key::from_file_name(&name), Some(key(Path::new("/src/app.js"))));
    }

    #[test]
    fn every_spelling_of_a_file_is_one_key() {
        let dir = tempfile::tempdir().expect("tempdir");
        let real = dir.path().canonicalize().expect("canonical");
        std::fs::create_dir(real.join("src")).expect("mkdir");
        symlink("src", real.join("link")).expect("symlink");
        symlink("new.js", real.join("src/dangling")).expect("symlink");
        symlink("../link/new.js", real.join("src/far")).expect("symlink");
        let wanted = key(&real.join("src/new.js"));
        for spelling in ["link/new.js", "src/./x/../new.js", "src/dangling", "src/far", "link/far"]
        {
            assert_eq!(key(&real.join(spelling)), wanted, "{spelling}");
        }
        std::fs::write(real.join("src/new.js"), "").expect("write");
        assert_eq!(key(&real.join("link/dangling")), wanted, "the same once the file exists");
    }

    #[test]
    fn a_loop_of_links_is_refused_and_a_name_below_a_file_is_not() {
        let dir = tempfile::tempdir().expect("tempdir");
        symlink("loop", dir.path().join("loop")).expect("symlink");
        let target = Target::new(dir.path().join("loop/x").to_str().unwrap()).expect("well-formed");
        assert_eq!(target.locate().expect_err("a loop").code.as_str(), "ELOOP");
        std::fs::write(dir.path().join("file"), "").expect("write");
        key(&dir.path().join("file/x"));
    }

    #[test]
    fn paths_that_cannot_be_are_refused() {
        for path in ["", "a\0b", &"x".repeat(256), &"y/".repeat(3000)] {
            assert!(Target::new(path).is_err(), "{path:?}");
        }
        assert!(Target::new(&"x".repeat(255)).is_ok());
    }
}
