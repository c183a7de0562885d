//! What a file contains, told by its hash, and what it must be for a change to it to make sense.
//!
//! Promises: content is compared by all of its bytes, never by its time or size alone; a refusal says what
//! was expected and what is there. It does not say who wrote it: that is known where records are.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Code, Error};
use crate::key::Key;

/// SHA-256 of a file's content.
pub type Hash = [u8; 32];

/// The hash of this content.
pub fn hash(content: &[u8]) -> Hash {
    Sha256::digest(content).into()
}

/// What a file must be for a change to it to make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Whatever it is.
    Any,
    /// Not there.
    Absent,
    /// A file of this hash.
    Hash(Hash),
}

/// Whether a file is what it must be.
///
/// # Errors
/// `EBASE` where it is not, with what it is; what the system says.
pub fn check_base(base: Base, exists: bool, path: &Path) -> Result<(), Error> {
    let actual = match base {
        Base::Any => return Ok(()),
        Base::Absent if !exists => return Ok(()),
        _ if !exists => None,
        _ => {
            let content = std::fs::read(path);
            Some(hash(&content.map_err(|cause| Error::system("read", path, &cause))?))
        }
    };
    match (base, actual) {
        (Base::Hash(expected), Some(actual)) if expected == actual => Ok(()),
        (base, actual) => Err(wrong_base(base, actual, path)),
    }
}

fn wrong_base(base: Base, actual: Option<Hash>, path: &Path) -> Error {
    let expected = match base {
        Base::Hash(hash) => Some(hash),
        Base::Any | Base::Absent => None,
    };
    let told = |hash: Option<Hash>| {
        hash.map_or("no file".to_owned(), |hash| format!("content {}", Key(hash)))
    };
    let expected_text = match base {
        Base::Any => "what it was a moment ago".to_owned(),
        Base::Absent | Base::Hash(_) => told(expected),
    };
    let message = format!(
        "{} has changed: expected {expected_text}, found {}.",
        path.display(),
        told(actual)
    );
    Error::new(Code::Base, message)
        .at(path)
        .on_base(expected.map(hex), actual.map(hex))
        .hint("Nothing was written. Read it again and make the change anew.")
}

/// The refusal of a file that somebody who holds no lock wrote since it was looked at.
pub fn changed_meanwhile(base: Base, path: &Path) -> Error {
    wrong_base(base, std::fs::read(path).ok().map(|content| hash(&content)), path)
}

/// A hash as 64 hex digits.
pub fn hex(hash: Hash) -> String {
    Key(hash).to_string()
}
