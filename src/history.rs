//! What happened, one line of JSON an event: `.ai/progress/locks.history.jsonl`.
//!
//! Promises: events are appended under the guard, in the round that made them happen, in one writing, so
//! their order is the order in which things happened; a kill leaves one torn last line at most, which the
//! next writer closes off and readers skip; what a kill kept from being written is written by the next
//! round, marked `recovered`; the file is rotated by size and the oldest goes. A history that cannot be
//! written takes no lock from anybody and holds nobody up: the error is kept for `status`.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::key::Key;
use crate::kind::Mode;
use crate::record::{MAX_DRAWN, Record};
use crate::story::Story;
use crate::sys::{self, Dir};

/// The name of the file; rotated ones have `.1`, the youngest, to `.4` behind it.
pub const NAME: &str = "locks.history.jsonl";

/// How much of the end of the file is read to know what was written last, in bytes.
const TAIL: u64 = 256 * 1024;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The size in bytes at which a file is rotated.
    pub max_bytes: u64,
    /// How many rotated files stay.
    pub keep: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_bytes: 8 * 1024 * 1024, keep: 4 }
    }
}

/// What kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A lock was taken at once.
    Acquired,
    /// A lock was not to be had: held, no patience left, a circle, a full queue.
    Refused,
    /// A story stands in line.
    Queued,
    /// A waiter's turn came.
    Granted,
    /// A waiter was called off.
    Left,
    /// A lease began anew.
    Renewed,
    /// A lock was asked for in a stronger kind, and is of that now.
    Raised,
    /// A lock is of a weaker kind now.
    Lowered,
    /// A lock was given up.
    Released,
    /// A lock was given up with all of its story's.
    Cleaned,
    /// A lease ran out.
    Expired,
    /// A lock whose holder had died or let its lease run out went to another.
    Reclaimed,
    /// A lock went with the lock folder.
    Lost,
    /// A lock was taken back by force.
    Forced,
    /// A lock changed hands.
    Transferred,
    /// A file was changed under a lock.
    Patched,
}

/// One event. What does not apply is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Rises by one with every event of a project.
    pub seq: u64,
    /// Wall time, ms since 1970.
    pub time: u64,
    /// What happened.
    #[serde(rename = "type")]
    pub what: What,
    /// To whose lock.
    pub story_id: Story,
    /// The absolute path, or the name.
    pub path: PathBuf,
    /// The path's identity, where links make it another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical: Option<PathBuf>,
    /// The grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// Of its process.
    pub pid: u32,
    /// The machine or container.
    pub host: String,
    /// What kind of lock.
    #[serde(default)]
    pub mode: Mode,
    /// Whether everything below the path goes with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recursive: bool,
    /// How long it had been held, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_for: Option<u64>,
    /// How long it was waited for, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_for: Option<u64>,
    /// The story that it was refused for, went to, came from, or the name of who took it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why: the story's own words, or the words of who took it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of a refusal: its code. Of what ended by itself: `died` or `expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// SHA-256 in hex of what was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Written later, since whoever did it was killed before it could be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovered: bool,
}

impl Event {
    /// What happened to a record's lock at this wall time.
    pub fn of(what: What, record: &Record, now_ms: u64) -> Event {
        let ends = !matches!(what, What::Acquired | What::Granted);
        Event {
            seq: 0,
            time: now_ms,
            what,
            story_id: record.story_id.clone(),
            path: record.file_path.clone(),
            canonical: record.canonical.clone(),
            token: Some(record.token),
            pid: record.pid,
            host: record.host.clone(),
            mode: record.mode,
            recursive: record.recursive,
            held_for: ends.then(|| now_ms.saturating_sub(record.acquired_at)),
            waited_for: None,
            by: None,
            reason: if ends { None } else { record.reason.clone() },
            code: None,
            hash: None,
            recovered: false,
        }
    }

    /// Whether somebody has the lock from here on.
    fn begins(&self) -> bool {
        matches!(self.what, What::Acquired | What::Granted | What::Transferred)
    }

    /// Whether nobody has the lock by this grant any more.
    fn ends(&self) -> bool {
        use What::{Cleaned, Expired, Forced, Lost, Reclaimed, Released};
        matches!(self.what, Released | Cleaned | Expired | Reclaimed | Lost | Forced)
    }

    fn key(&self) -> Key {
        Key::of(self.canonical.as_ref().unwrap_or(&self.path))
    }
}

/// The history as one process writes it.
#[derive(Debug, Default)]
pub struct History {
    /// `None` while it is switched off.
    limits: Option<Limits>,
    /// The number of the last event, and how long the file was with it.
    last: Option<(u64, u64)>,
    error: Option<io::Error>,
}

impl History {
    /// One with these limits, or none.
    pub fn new(limits: Option<Limits>) -> History {
        History { limits, last: None, error: None }
    }

    /// Whether it is switched off.
    pub fn is_off(&self) -> bool {
        self.limits.is_none()
    }

    /// Why it could not be written last time.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// Whether its folder is gone.
    pub fn is_homeless(&self) -> bool {
        self.error.as_ref().is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
    }

    /// Appends these events. Call it under the guard. Whether they are written now.
    pub fn append(&mut self, progress: &Dir, events: &mut [Event]) -> bool {
        let Some(limits) = self.limits else { return true };
        if events.is_empty() {
            return true;
        }
        let written = self.write(progress, events, limits);
        if written.is_err() {
            self.last = None;
        }
        self.error = written.err();
        self.error.is_none()
    }

    fn write(&mut self, progress: &Dir, events: &mut [Event], limits: Limits) -> io::Result<()> {
        let mut file = progress.open_or_create(NAME)?;
        let mut entry = Dir::entry_of(&file)?;
        if !entry.is_file {
            return Err(io::Error::other("something that is no file has its name"));
        }
        if self.last.is_none_or(|(_, len)| len != entry.len) {
            let (seq, _) = last_of(progress)?;
            self.last = Some((seq, entry.len));
        }
        let (mut seq, _) = self.last.unwrap_or_default();
        if entry.len >= limits.max_bytes {
            rotate(progress, limits.keep)?;
            file = progress.open_or_create(NAME)?;
            entry = Dir::entry_of(&file)?;
        }
        let mut lines = Vec::with_capacity(events.len() * 256);
        let mut end = [b'\n'];
        if entry.len > 0 {
            sys::read_at(&file, &mut end, entry.len - 1)?;
        }
        if end != [b'\n'] {
            // Somebody was killed in the middle of a line.
            lines.push(b'\n');
        }
        for event in events {
            seq += 1;
            event.seq = seq;
            serde_json::to_writer(&mut lines, event).map_err(io::Error::other)?;
            lines.push(b'\n');
        }
        sys::write_at(&file, &lines, entry.len)?;
        self.last = Some((seq, entry.len + lines.len() as u64));
        Ok(())
    }
}

/// The events that a kill kept from being written: of these keys, given who has them now.
///
/// # Errors
/// What the system says.
pub fn missing<'a>(
    progress: &Dir,
    keys: &[Key],
    held: impl Fn(&Key) -> &'a [Record],
    now_ms: u64,
) -> io::Result<Vec<Event>> {
    let (_, tail) = last_of(progress)?;
    let mut missing = Vec::new();
    let begun: HashSet<u64> =
        tail.iter().filter(|event| event.begins()).filter_map(|event| event.token).collect();
    let ended: HashSet<u64> =
        tail.iter().filter(|event| event.ends()).filter_map(|event| event.token).collect();
    // What began before the end of the file that was read has been told.
    let oldest = begun.iter().min().copied().unwrap_or(0);
    let wanted: HashSet<&Key> = keys.iter().collect();
    let recovered = |event: Event| Event { recovered: true, ..event };
    for event in &tail {
        let (Some(token), key) = (event.token, event.key()) else { continue };
        let is_open = event.begins() && !ended.contains(&token) && wanted.contains(&key);
        if is_open && held(&key).iter().all(|record| record.token != token) {
            let held_for = Some(now_ms.saturating_sub(event.time));
            let over = Event { what: What::Released, time: now_ms, held_for, ..event.clone() };
            missing.push(recovered(Event { waited_for: None, by: None, reason: None, ..over }));
        }
    }
    for key in wanted {
        let new = held(key)
            .iter()
            .filter(|record| record.token >= oldest && !begun.contains(&record.token));
        missing.extend(new.map(|record| recovered(Event::of(What::Acquired, record, now_ms))));
    }
    Ok(missing)
}

/// The number of the last event, and the events at the end of the file.
fn last_of(progress: &Dir) -> io::Result<(u64, Vec<Event>)> {
    for name in [NAME.to_owned(), format!("{NAME}.1")] {
        let tail = tail(progress, &name)?;
        if let Some(last) = tail.last() {
            return Ok((last.seq, tail));
        }
    }
    Ok((0, Vec::new()))
}

fn tail(progress: &Dir, name: &str) -> io::Result<Vec<Event>> {
    let file = match progress.open_read(name) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(cause),
    };
    let entry = Dir::entry_of(&file)?;
    if !entry.is_file {
        return Ok(Vec::new());
    }
    let from = entry.len.saturating_sub(TAIL);
    let mut bytes = vec![0; (entry.len - from) as usize];
    sys::read_at(&file, &mut bytes, from)?;
    // The first line may be cut, and the last one torn: neither reads as an event.
    let lines = bytes.split(|byte| *byte == b'\n');
    let events = lines.filter_map(|line| serde_json::from_slice::<Event>(line).ok());
    // Nobody counts that far: such a number was planted.
    Ok(events.filter(|event| event.seq <= MAX_DRAWN).collect())
}

fn rotate(progress: &Dir, keep: u32) -> io::Result<()> {
    let name = |number: u32| if number == 0 { NAME.to_owned() } else { format!("{NAME}.{number}") };
    if keep == 0 {
        return progress.unlink(NAME);
    }
    for number in (0..keep).rev() {
        match progress.rename(&name(number), &name(number + 1)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
    }
    Ok(())
}
