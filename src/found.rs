//! What stands at a record's name, read without trusting it.
//!
//! Promises: a link, a FIFO, a device or a giant is told apart from a record, and is never followed, waited
//! on or read beyond its cap; what cannot be understood is told as far as it can be.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Code, Error};
use crate::key::Key;
use crate::record::{HolderId, MAX_BYTES, MAX_TOKEN, Record};
use crate::sys::Dir;

/// What stands at a record's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing: the path is free.
    Nothing,
    /// The records of those who have the path: at least one, several only if they share it.
    Held(Vec<Record>),
    /// Something that cannot be read as a record, and so counts as one that holds.
    Unreadable(Unreadable),
}

/// Something at a record's name that is no record known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// What is wrong with it.
    pub why: String,
    /// When it last changed, in ms since 1970.
    pub changed_ms: u64,
    /// The holder file that it names, if that much of it can be read.
    pub holder: Option<HolderId>,
    /// The lease in ms that it names, if that much of it can be read.
    pub timeout_ms: Option<u64>,
    /// The path that it names, if that much of it can be read.
    pub path: Option<PathBuf>,
}

impl Unreadable {
    /// The refusal of a path whose record this is.
    pub fn refusal(&self, path: &Path, shown: &str, file: &Path) -> Error {
        let message = format!(
            "{shown} is locked by something that cannot be read: {} is {}.",
            file.display(),
            self.why
        );
        Error::new(Code::BadRecord, message).at(path).hint(
            "Nothing was taken. It counts as held until it has not changed for 30 s, and is then moved aside; if you know that it is rubbish, remove it.",
        )
    }
}

/// As many characters of why something cannot be read are told.
const MOST_SAID: usize = 512;

/// Reads what stands at a key's name.
///
/// # Errors
/// What the system says, other than that nothing is there.
pub fn read(dir: &Dir, key: &Key) -> io::Result<Found> {
    let name = key.file_name();
    let mut file = match dir.open_read(&name) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(cause) => {
            // A link, a socket or the like cannot be opened so; a file that may not be read is an error.
            let entry = dir.entry(&name)?;
            if entry.is_file {
                return Err(cause);
            }
            return Ok(unreadable("not a regular file", entry.changed_ms, None));
        }
    };
    let entry = Dir::entry_of(&file)?;
    if !entry.is_file {
        return Ok(unreadable("not a regular file", entry.changed_ms, None));
    }
    if entry.len > MAX_BYTES {
        let why = format!("{} bytes long, longer than any record", entry.len);
        return Ok(unreadable(why, entry.changed_ms, None));
    }
    let bytes = capped(&mut file)?;
    Ok(match Record::from_bytes(&bytes) {
        Ok(holds) => Found::Held(holds),
        Err(why) => unreadable(why, entry.changed_ms, serde_json::from_slice(&bytes).ok()),
    })
}

fn capped(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(1024);
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(why: impl Into<String>, changed_ms: u64, json: Option<serde_json::Value>) -> Found {
    // A later version's record is not understood, but whom and how long it names may be.
    let number = |name: &str| json.as_ref()?.get(name)?.as_u64();
    Found::Unreadable(Unreadable {
        why: why.into().chars().take(MOST_SAID).collect(),
        changed_ms,
        holder: number("holder").filter(|holder| *holder <= MAX_TOKEN),
        timeout_ms: number("timeout"),
        path: json.as_ref().and_then(|json| json.get("filePath")?.as_str().map(PathBuf::from)),
    })
}
