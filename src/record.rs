//! The record of one held path, `.ai/locks/<sha256>.lock`: the truth, as JSON. Where several stories
//! share the path, the file is the first one's record and has the others' in `others`.
//!
//! Promises: what this version writes, this version reads; the old module's six-field records are read
//! and honoured; another version, half a file, or several who have what is not shared are no record.

use std::collections::HashSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::key::Key;
use crate::kind::{Extent, Kind, Mode};
use crate::lease::{DEFAULT_TIMEOUT_MS, Deadline, Lease};
use crate::story::Story;

/// The record format that this version writes.
pub const VERSION: u32 = 1;

/// No record file is longer, in bytes: room for a thousand who share a path.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// The largest token: the last whole number that JavaScript counts exactly. Tokens begin at the wall
/// clock's µs, so they get there in the year 2255.
pub const MAX_TOKEN: u64 = (1 << 53) - 1;

/// Nobody has drawn a token beyond this: a record that carries one was planted, and would leave no room
/// for others to rise.
pub const MAX_DRAWN: u64 = MAX_TOKEN - (1 << 40);

/// As much of a predecessor's id is told on: ours are a story's id and a number.
const MAX_ID_CHARS: usize = 512;

/// The number of a holder file: drawn from the sequence, so never used twice.
pub type HolderId = u64;

/// Which process took a lock, as exactly as a pid can be said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// When it started, in clock ticks since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// The pid namespace that its pid belongs to.
    #[serde(default)]
    pub namespace: u64,
}

/// One story's hold on one path. The first six fields are the old module's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Starts with the story id; one of its kind.
    pub lock_id: String,
    /// The story that holds.
    pub story_id: Story,
    /// The absolute path as the story named it.
    pub file_path: PathBuf,
    /// Wall time of the grant, ms since 1970.
    pub acquired_at: u64,
    /// The lease in ms; `null` for a bound one.
    #[serde(default = "old_timeout")]
    pub timeout: Option<u64>,
    /// The process that took it.
    #[serde(default)]
    pub pid: u32,

    /// The format; 0 for the old module's.
    #[serde(default)]
    pub version: u32,
    /// The fencing token: rises with every grant. 0 for the old module's.
    #[serde(default)]
    pub token: u64,
    /// Wall time of the lease's end, ms since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// The lease's end on the clock that does not jump, in µs of `boot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// The boot of `deadline`.
    #[serde(default)]
    pub boot: String,
    /// The holder file whose kernel lock tells whether the holder lives.
    #[serde(default)]
    pub holder: HolderId,
    /// Whether only the lease ends it: nobody's life stands behind it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
    /// The machine or container, for people.
    #[serde(default)]
    pub host: String,
    /// The process beyond its pid.
    #[serde(default)]
    pub process: Process,
    /// Why the story holds it, in its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether other stories may have the path too.
    #[serde(default)]
    pub mode: Mode,
    /// Whether everything below the path is locked with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recursive: bool,
    /// The path's identity, where links make it another than the one that the story named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical: Option<PathBuf>,
    /// What it was before somebody of the story asked for more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raised: Option<Raised>,
    /// SHA-256 in hex of the secret by which another process may take it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<String>,
    /// The token of the grant that it was handed over from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_from: Option<u64>,
    /// The place in the queue that it was granted to: whoever has it waits no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiter: Option<u64>,
    /// Whose it was before, if that one did not give it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaimed: Option<Reclaimed>,
    /// The other stories that share the path; only in the file, and only in the first one's record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Record>,
}

/// What a lock was before somebody of its story asked for more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raised {
    /// Whose process asked: it is for that one to lower it again.
    pub by: HolderId,
    /// What it was.
    pub from: Kind,
}

/// A predecessor that did not give its lock up: its work on the file may be half done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reclaimed {
    /// Its story.
    pub story_id: Story,
    /// Its lock.
    pub lock_id: String,
    /// Its process.
    pub pid: u32,
    /// Wall time of its grant, ms since 1970.
    pub acquired_at: u64,
    /// How it ended.
    pub how: Ended,
}

/// How a lock ended that nobody gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// Its process died.
    Died,
    /// Its lease ran out.
    Expired,
}

impl Ended {
    /// In one word, as JavaScript sees it.
    pub fn as_str(self) -> &'static str {
        match self {
            Ended::Died => "died",
            Ended::Expired => "expired",
        }
    }
}

impl Reclaimed {
    /// What the next holder is told of a record that ended like this.
    pub fn from(record: &Record, how: Ended) -> Reclaimed {
        Reclaimed {
            story_id: record.story_id.clone(),
            lock_id: record.lock_id.chars().take(MAX_ID_CHARS).collect(),
            pid: record.pid,
            acquired_at: record.acquired_at,
            how,
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's own type")]
fn old_timeout() -> Option<u64> {
    Some(DEFAULT_TIMEOUT_MS)
}

impl Record {
    /// The path as people read and JSON carries it.
    pub fn path_text(&self) -> String {
        self.file_path.to_string_lossy().into_owned()
    }

    /// Whether the old module wrote it: only its lease ends it.
    pub fn is_old(&self) -> bool {
        self.version == 0
    }

    /// The lease.
    pub fn lease(&self) -> Lease {
        self.timeout.map_or(Lease::Bound, Lease::Timed)
    }

    /// What kind of lock it is.
    pub fn kind(&self) -> Kind {
        Kind { mode: self.mode, recursive: self.recursive }
    }

    /// Makes it a lock of this kind.
    pub fn set_kind(&mut self, kind: Kind) {
        self.mode = kind.mode;
        self.recursive = kind.recursive;
    }

    /// What it is on, seen from its key.
    pub fn extent(&self, key: Key) -> Extent {
        let path = self.canonical.as_ref().unwrap_or(&self.file_path).clone();
        Extent { key, path, kind: self.kind() }
    }

    /// Gives the record this lease from now on.
    pub fn set_lease(&mut self, lease: Lease, clock: &dyn Clock) {
        let deadline = lease.deadline(clock);
        self.timeout = lease.timeout_ms();
        self.expires_at = deadline.as_ref().map(|deadline| deadline.wall_ms);
        self.deadline = deadline.map(|deadline| deadline.monotonic_us);
        self.boot = clock.boot();
    }

    /// When the lease ends; `None` for a bound one.
    pub fn deadline(&self) -> Option<Deadline> {
        let timeout = self.timeout?;
        let wall_ms = self.expires_at.unwrap_or(self.acquired_at.saturating_add(timeout));
        Some(match self.deadline {
            Some(monotonic_us) => Deadline { monotonic_us, wall_ms, boot: self.boot.clone() },
            None => Deadline { monotonic_us: 0, wall_ms, boot: String::new() },
        })
    }

    /// Whether the lease has ended; a bound one never has.
    pub fn is_over(&self, clock: &dyn Clock) -> bool {
        self.deadline().is_some_and(|deadline| deadline.is_over(clock))
    }

    /// The records of those who have a path, as the bytes of its file.
    pub fn to_bytes(holds: &[Record]) -> Vec<u8> {
        let file = holds
            .split_first()
            .map(|(first, others)| Record { others: others.to_vec(), ..first.clone() });
        serde_json::to_vec(&file).expect("a record is plain data, and its path came from a string")
    }

    /// Reads the bytes of a record's file: those who have the path, at least one.
    ///
    /// # Errors
    /// Says in a few words why these are not records of a version known here.
    pub fn from_bytes(bytes: &[u8]) -> Result<Vec<Record>, String> {
        let mut first: Record =
            serde_json::from_slice(bytes).map_err(|cause| format!("not a lock record: {cause}"))?;
        let others = std::mem::take(&mut first.others);
        let mut holds = vec![first.checked()?];
        let mut stories = HashSet::from([holds[0].story_id.clone()]);
        for other in others {
            let other = other.checked()?;
            if other.is_old() || !stories.insert(other.story_id.clone()) {
                return Err("not a lock record: a story has it twice".to_owned());
            }
            holds.push(other);
        }
        if holds.len() > 1 && holds.iter().any(|one| one.mode != Mode::Shared) {
            return Err("not a lock record: several have what is not shared".to_owned());
        }
        Ok(holds)
    }

    fn checked(mut self) -> Result<Record, String> {
        let record = &mut self;
        if record.version > VERSION {
            return Err(format!("written by a later version (format {})", record.version));
        }
        record.others.clear();
        if record.version == VERSION && (record.token == 0 || record.holder == 0) {
            return Err("not a lock record: its token or holder is missing".to_owned());
        }
        if record.token > MAX_DRAWN || record.holder > MAX_DRAWN {
            return Err("not a lock record: its token or holder was never drawn".to_owned());
        }
        if record.timeout.is_none() && record.is_old() {
            return Err("not a lock record: its timeout is not a number".to_owned());
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: &str = r#"{"lockId":"AH-1-x","storyId":"AH-1","filePath":"/p/a","acquiredAt":1000,"timeout":30000,"pid":7}"#;

    #[test]
    fn the_old_modules_record_is_read_and_ends_by_the_wall() {
        let holds = Record::from_bytes(OLD.as_bytes()).expect("readable");
        let [record] = holds.as_slice() else { unreachable!("one alone: {holds:?}") };
        assert!(record.is_old());
        assert_eq!(record.deadline().expect("timed").wall_ms, 31_000);
    }

    #[test]
    fn half_a_record_a_later_one_and_one_without_a_token_are_not_records() {
        for bytes in [
            &OLD.as_bytes()[..40],
            b"",
            b"null",
            &OLD.replace("\"pid\":7", "\"pid\":7,\"version\":2").into_bytes(),
            &OLD.replace("\"pid\":7", "\"pid\":7,\"version\":1").into_bytes(),
            &OLD.replace("30000", "null").into_bytes(),
        ] {
            let text = String::from_utf8_lossy(bytes);
            assert!(Record::from_bytes(bytes).is_err(), "{text} must not be read");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Record::from_bytes(&bytes);
        }
    }
}
