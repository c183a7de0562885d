//! The kinds of locks, and which of them can stand beside each other.
//!
//! Promise: this is the one place that says what conflicts; grants, queues, deadlock detection and the
//! fence of a change all ask here. Two locks of different stories:
//!
//! | one \ other | exclusive | shared |
//! |---|---|---|
//! | **exclusive** | conflict where they overlap | conflict where they overlap |
//! | **shared** | conflict where they overlap | stand together |
//!
//! They *overlap* if they are on the same path, or if one is recursive and the other's path lies below its
//! folder: `src` recursive overlaps `src/a/b.js` and not `src2`; two siblings never overlap; `src` that is
//! not recursive overlaps nothing but `src`. Locks of one story never conflict.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::key::{Key, Located};

/// Whether others may have the path too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One story alone.
    #[default]
    Exclusive,
    /// As many stories as ask for it shared.
    Shared,
}

impl Mode {
    /// In one word, as JavaScript and the records say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Exclusive => "exclusive",
            Mode::Shared => "shared",
        }
    }

    /// The mode of this name.
    ///
    /// # Errors
    /// `ERR_INVALID_ARG_VALUE` for any other word.
    pub fn from_name(name: &str) -> Result<Mode, Error> {
        match name {
            "exclusive" => Ok(Mode::Exclusive),
            "shared" => Ok(Mode::Shared),
            other => {
                let rule = format!("must be 'exclusive' or 'shared'. Received {other:?}");
                Err(Error::invalid("mode", rule))
            }
        }
    }
}

/// What kind of lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kind {
    /// Whether others may have the path too.
    #[serde(default)]
    pub mode: Mode,
    /// Whether everything below the path is locked with it.
    #[serde(default)]
    pub recursive: bool,
}

impl Kind {
    /// The least that can be held: of one path, beside others.
    pub const LEAST: Kind = Kind { mode: Mode::Shared, recursive: false };

    /// Whether who has this needs not ask for `other`.
    pub fn covers(self, other: Kind) -> bool {
        self.joined(other) == self
    }

    /// The least that covers both.
    #[must_use]
    pub fn joined(self, other: Kind) -> Kind {
        let is_shared = self.mode == Mode::Shared && other.mode == Mode::Shared;
        Kind {
            mode: if is_shared { Mode::Shared } else { Mode::Exclusive },
            recursive: self.recursive || other.recursive,
        }
    }
}

/// What a lock is on: a path, or a path and all below it. An empty path is one that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The identity of the path.
    pub key: Key,
    /// The canonical path.
    pub path: PathBuf,
    /// What kind of lock.
    pub kind: Kind,
}

impl Extent {
    /// What a lock of this kind on a path is on.
    pub fn of(path: &Located, kind: Kind) -> Extent {
        Extent { key: path.key, path: path.canonical.clone(), kind }
    }

    /// Whether some path is in both.
    pub fn overlaps(&self, other: &Extent) -> bool {
        self.key == other.key || self.contains(&other.path) || other.contains(&self.path)
    }

    /// Whether two stories cannot have both at one time.
    pub fn conflicts(&self, other: &Extent) -> bool {
        let is_exclusive = self.kind.mode == Mode::Exclusive || other.kind.mode == Mode::Exclusive;
        is_exclusive && self.overlaps(other)
    }

    /// Whether a path lies below this folder, which is locked with all below it.
    pub fn contains(&self, path: &Path) -> bool {
        self.kind.recursive
            && !self.path.as_os_str().is_empty()
            && path != self.path
            && path.starts_with(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(path: &str, mode: Mode, recursive: bool) -> Extent {
        Extent { key: Key::of(Path::new(path)), path: path.into(), kind: Kind { mode, recursive } }
    }

    #[test]
    fn a_folder_contains_what_is_below_it_and_no_namesake() {
        let folder = extent("/p/src/a", Mode::Exclusive, true);
        for (path, is_in) in [
            ("/p/src/a", true),
            ("/p/src/a/x", true),
            ("/p/src/a/x/y", true),
            ("/p/src/ab", false),
            ("/p/src", false),
            ("", false),
        ] {
            let file = extent(path, Mode::Exclusive, false);
            assert_eq!(folder.overlaps(&file), is_in, "{path:?}");
            assert_eq!(file.overlaps(&folder), is_in, "{path:?}");
        }
        assert!(folder.overlaps(&extent("/p/src", Mode::Exclusive, true)));
        let plain = extent("/p/src/a", Mode::Exclusive, false);
        assert!(!plain.overlaps(&extent("/p/src/a/x", Mode::Exclusive, false)));
    }

    #[test]
    fn only_the_shared_stand_together() {
        use Mode::{Exclusive, Shared};
        for (one, other, conflict) in [
            (Exclusive, Exclusive, true),
            (Exclusive, Shared, true),
            (Shared, Exclusive, true),
            (Shared, Shared, false),
        ] {
            let (one, other) = (extent("/p/a", one, true), extent("/p/a/b", other, false));
            assert_eq!(one.conflicts(&other), conflict);
            assert_eq!(other.conflicts(&one), conflict);
        }
    }

    #[test]
    fn the_stronger_covers_the_weaker() {
        let kind = |mode, recursive| Kind { mode, recursive };
        assert!(kind(Mode::Exclusive, true).covers(kind(Mode::Shared, false)));
        assert!(kind(Mode::Exclusive, false).covers(kind(Mode::Shared, false)));
        assert!(!kind(Mode::Exclusive, false).covers(kind(Mode::Shared, true)));
        assert!(!kind(Mode::Shared, true).covers(kind(Mode::Exclusive, false)));
        let both = kind(Mode::Shared, true).joined(kind(Mode::Exclusive, false));
        assert_eq!(both, kind(Mode::Exclusive, true));
    }
}
