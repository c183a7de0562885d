//! Who waits for a path, in order: `.ai/locks/queue/<sha256>`, only while somebody does.
//!
//! Promises: the order is the order of arrival, by a number drawn from the sequence under the guard; a
//! waiter that wants a set stands in the queue of each of its paths under one number. A queue that cannot
//! be read counts as empty: that costs those in it their places (they line up again), never exclusion.

use std::io::{self, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::key::Key;
use crate::kind::{Extent, Kind, Mode};
use crate::lease::Lease;
use crate::publish;
use crate::record::{HolderId, MAX_DRAWN, Process};
use crate::story::Story;
use crate::sys::Dir;

/// Numbers the waiters of a project in order of arrival.
pub type WaiterId = u64;

/// No queue's file is longer, in bytes.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// One who waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiter {
    /// Its place in the order of arrival.
    pub id: WaiterId,
    /// The story.
    pub story_id: Story,
    /// The absolute path as the story named it.
    pub file_path: PathBuf,
    /// Wall time of its arrival, ms since 1970.
    pub since: u64,
    /// The lease in ms that it will get; `null` for a bound one.
    pub timeout: Option<u64>,
    /// Its process.
    pub pid: u32,
    /// The holder file of its process.
    pub holder: HolderId,
    /// The boot that its process belongs to.
    pub boot: String,
    /// The machine or container, for people.
    pub host: String,
    /// The process beyond its pid.
    pub process: Process,
    /// Whether the lock is to outlive its process.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
    /// Why, in the story's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether other stories may have the path too.
    #[serde(default)]
    pub mode: Mode,
    /// Whether it wants everything below the path with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recursive: bool,
    /// The path's identity, where links make it another than the one that the story named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical: Option<PathBuf>,
    /// All paths that it wants at once; empty for this one alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<Key>,
}

impl Waiter {
    /// The lease that it will get.
    pub fn lease(&self) -> Lease {
        self.timeout.map_or(Lease::Bound, Lease::Timed)
    }

    /// What kind of lock it wants.
    pub fn kind(&self) -> Kind {
        Kind { mode: self.mode, recursive: self.recursive }
    }

    /// What it wants here, seen from the queue of `key`.
    pub fn extent(&self, key: Key) -> Extent {
        let path = self.canonical.as_ref().unwrap_or(&self.file_path).clone();
        Extent { key, path, kind: self.kind() }
    }

    /// All keys that it wants, seen from the queue of `key`.
    pub fn keys(&self, key: &Key) -> Vec<Key> {
        if self.set.is_empty() { vec![*key] } else { self.set.clone() }
    }
}

/// The file of a queue.
#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    version: u32,
    waiters: Vec<Waiter>,
}

/// Reads the queue of a key, in order.
///
/// # Errors
/// What the system says, other than that there is none.
pub fn read(dir: &Dir, key: &Key) -> io::Result<Vec<Waiter>> {
    let file = match dir.open_read(&key.to_string()) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        // A link or the like, or another user's, closed to us.
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => return Ok(Vec::new()),
        Err(cause) => match dir.entry(&key.to_string()) {
            Ok(entry) if !entry.is_file => return Ok(Vec::new()),
            _ => return Err(cause),
        },
    };
    let entry = Dir::entry_of(&file)?;
    if !entry.is_file || entry.len > MAX_BYTES {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let File { mut waiters, .. } = serde_json::from_slice(&bytes).unwrap_or_default();
    // One whose set leaves this very path out was put there by hand.
    waiters.retain(|waiter| waiter.set.is_empty() || waiter.set.contains(key));
    // So was one whose numbers nobody ever drew.
    waiters.retain(|waiter| waiter.id <= MAX_DRAWN && waiter.holder <= MAX_DRAWN);
    waiters.sort_by_key(|waiter| waiter.id);
    waiters.dedup_by_key(|waiter| waiter.id);
    Ok(waiters)
}

/// Writes the queue of a key; none is left of an empty one.
///
/// # Errors
/// What the system says; the old queue then stands.
pub fn write(dir: &Dir, key: &Key, waiters: Vec<Waiter>) -> io::Result<()> {
    let name = key.to_string();
    if !waiters.is_empty() {
        let file = File { version: 1, waiters };
        let bytes = serde_json::to_vec(&file).map_err(io::Error::other)?;
        return publish::replace(dir, &name, &bytes);
    }
    match dir.unlink(&name) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}
