//! What JavaScript is told: the engine's messages as plain objects.

use napi_derive::napi;

use crate::call::{Message, Reply};
use crate::error::{Arm, Error};
use crate::holder::Holder;
use crate::record::{Reclaimed, Record};
use crate::store::{Grant, Listed, Pending, Status};

/// A message of the engine.
#[napi(discriminant = "kind", discriminant_case = "lowercase", object_from_js = false)]
pub enum Answer {
    /// The locks that the story has now, in the order asked for.
    Granted {
        /// Of the call.
        ticket: f64,
        /// Each with its lease.
        locks: Vec<LockInfo>,
    },
    /// The path is free of the story.
    Released {
        /// Of the call.
        ticket: f64,
    },
    /// Whether each grant was still there to let go of.
    LetGo {
        /// Of the call.
        ticket: f64,
        /// In the order asked for.
        released: Vec<bool>,
    },
    /// Whether the grant is current.
    Verified {
        /// Of the call.
        ticket: f64,
        /// It is.
        current: bool,
    },
    /// Who holds the path.
    Checked {
        /// Of the call.
        ticket: f64,
        /// Nobody if absent.
        holder: Option<HolderInfo>,
    },
    /// How many locks were removed.
    Cleaned {
        /// Of the call.
        ticket: f64,
        /// That many.
        count: u32,
    },
    /// Everything that is held.
    Status {
        /// Of the call.
        ticket: f64,
        /// As read from the records.
        status: StatusInfo,
    },
    /// The client's locks are given up.
    Closed {
        /// Of the call.
        ticket: f64,
    },
    /// The call was refused or failed.
    Failed {
        /// Of the call.
        ticket: f64,
        /// Why.
        failure: Failure,
    },
    /// An event: a lock of this client was given up by path or by story, at its own wish.
    GivenUp {
        /// What was locked.
        key: String,
        /// The grant.
        token: f64,
    },
    /// An event: a lock of this client is lost.
    Lost {
        /// What was locked.
        key: String,
        /// The grant.
        token: f64,
        /// How.
        failure: Failure,
    },
}

/// Why something was refused or failed.
#[napi(object, object_from_js = false)]
pub struct Failure {
    /// As `LockError.code`.
    pub code: String,
    /// What happened, to which path, who holds it, what to do next.
    pub message: String,
    /// The absolute path that the call was about.
    pub path: Option<String>,
    /// The story that asked.
    pub story_id: Option<String>,
    /// Who is in the way.
    pub holder: Option<HolderInfo>,
    /// What to do next.
    pub hint: Option<String>,
    /// How many wait for the path.
    pub waiters: u32,
    /// The place in line that the asker had, from 1.
    pub place: Option<u32>,
    /// How long the asker waited.
    pub waited_ms: Option<f64>,
    /// The circle that waiting would close.
    pub cycle: Vec<ArmInfo>,
}

/// One arm of a circle of stories.
#[napi(object, object_from_js = false)]
pub struct ArmInfo {
    /// Who waits.
    pub story_id: String,
    /// For what.
    pub path: String,
    /// Who holds it.
    pub held_by: String,
}

/// Names one grant.
#[napi(object)]
pub struct GrantId {
    /// What is locked.
    pub key: String,
    /// The fencing token.
    pub token: f64,
}

/// A lock that the asking story has. Times in ms; `timeout` is `Infinity` for a bound lease.
#[napi(object, object_from_js = false)]
pub struct LockInfo {
    /// What is locked, as the engine names it.
    pub key: String,
    /// The fencing token: rises with every grant.
    pub token: f64,
    /// Starts with the story id.
    pub lock_id: String,
    /// The story.
    pub story_id: String,
    /// The absolute path.
    pub file_path: String,
    /// Since 1970.
    pub acquired_at: f64,
    /// The lease.
    pub timeout: f64,
    /// The process that took it.
    pub pid: u32,
    /// The lease's end by the wall, since 1970; absent for a bound lease.
    pub expires_at: Option<f64>,
    /// `exclusive`.
    pub mode: String,
    /// Whether this call was granted it; otherwise the story had it already.
    pub fresh: bool,
    /// Whether the lease alone ends it.
    pub detached: bool,
    /// Why, in the story's words.
    pub reason: Option<String>,
    /// Whose it was, if its predecessor did not give it up.
    pub reclaimed: Option<ReclaimedInfo>,
}

/// A predecessor that did not give its lock up.
#[napi(object, object_from_js = false)]
pub struct ReclaimedInfo {
    /// Its story.
    pub story_id: String,
    /// Its lock.
    pub lock_id: String,
    /// Its process.
    pub pid: u32,
    /// Since 1970, in ms.
    pub acquired_at: f64,
    /// `died` or `expired`.
    pub how: String,
}

/// Who holds a path, as seen at one moment. Times in ms.
#[napi(object, object_from_js = false)]
pub struct HolderInfo {
    /// Starts with the story id.
    pub lock_id: String,
    /// The story.
    pub story_id: String,
    /// The absolute path as the story named it.
    pub file_path: String,
    /// Since 1970.
    pub acquired_at: f64,
    /// The lease; `Infinity` for a bound one.
    pub timeout: f64,
    /// Its process.
    pub pid: u32,
    /// The fencing token; 0 for the old module's.
    pub token: f64,
    /// The machine or container.
    pub host: String,
    /// `exclusive`.
    pub mode: String,
    /// How long it has held.
    pub held_for: f64,
    /// How long its lease still runs; absent for a bound one.
    pub remaining: Option<f64>,
    /// The lease's end by the wall, since 1970; absent for a bound one.
    pub expires_at: Option<f64>,
    /// Whether the lease alone ends it.
    pub detached: bool,
    /// Why, in the story's words.
    pub reason: Option<String>,
}

/// Everything that is held.
#[napi(object, object_from_js = false)]
pub struct StatusInfo {
    /// Oldest first.
    pub locks: Vec<ListedInfo>,
    /// Who waits, by path and place.
    pub waiting: Vec<PendingInfo>,
    /// Files at a record's name that cannot be read as records; each counts as held.
    pub unreadable: Vec<String>,
    /// Where the records stand.
    pub lock_directory: String,
    /// What could not be looked at, or written.
    pub error: Option<String>,
}

/// One held path.
#[napi(object, object_from_js = false)]
pub struct ListedInfo {
    /// Who holds it.
    pub holder: HolderInfo,
    /// Whether the next comer gets it.
    pub is_stale: bool,
    /// Where its record stands.
    pub lock_file: String,
}

/// One who waits.
#[napi(object, object_from_js = false)]
pub struct PendingInfo {
    /// The absolute path as the story named it.
    pub file_path: String,
    /// The story.
    pub story_id: String,
    /// Its process.
    pub pid: u32,
    /// The machine or container.
    pub host: String,
    /// Since 1970.
    pub since: f64,
    /// How long.
    pub waited: f64,
    /// Its place in the queue of this path, from 1.
    pub place: u32,
    /// In how many ms the lease in front ends, if that is known.
    pub estimate: Option<f64>,
    /// How many paths it wants at once.
    pub paths: u32,
    /// Why, in the story's words.
    pub reason: Option<String>,
}

const MODE: &str = "exclusive";

impl From<Message> for Answer {
    fn from(message: Message) -> Answer {
        match message {
            Message::Answer(ticket, outcome) => answer(ticket as f64, outcome),
            Message::GivenUp { key, token } => {
                Answer::GivenUp { key: key.to_string(), token: token as f64 }
            }
            Message::Lost { key, token, error } => {
                Answer::Lost { key: key.to_string(), token: token as f64, failure: failure(&error) }
            }
        }
    }
}

fn answer(ticket: f64, outcome: Result<Reply, Error>) -> Answer {
    match outcome {
        Ok(Reply::Locks(grants)) => {
            Answer::Granted { ticket, locks: grants.iter().map(lock).collect() }
        }
        Ok(Reply::Released) => Answer::Released { ticket },
        Ok(Reply::LetGo(released)) => Answer::LetGo { ticket, released },
        Ok(Reply::Verified(current)) => Answer::Verified { ticket, current },
        Ok(Reply::Holder(found)) => {
            Answer::Checked { ticket, holder: found.as_deref().map(holder) }
        }
        Ok(Reply::Cleaned(count)) => Answer::Cleaned { ticket, count: self::count(count) },
        Ok(Reply::Status(told)) => Answer::Status { ticket, status: status(&told) },
        Ok(Reply::Closed) => Answer::Closed { ticket },
        Err(error) => Answer::Failed { ticket, failure: failure(&error) },
    }
}

/// An error as JavaScript is told it.
pub fn failure(error: &Error) -> Failure {
    Failure {
        code: error.code.as_str().to_owned(),
        message: error.message.clone(),
        path: error.path.as_ref().map(|path| path.to_string_lossy().into_owned()),
        story_id: error.story.clone(),
        holder: error.holder.as_ref().map(holder),
        hint: error.hint.clone(),
        waiters: count(error.line.waiters),
        place: error.line.place.map(count),
        waited_ms: error.line.waited_ms.map(|ms| ms as f64),
        cycle: error.circle.iter().map(arm).collect(),
    }
}

fn arm(arm: &Arm) -> ArmInfo {
    ArmInfo {
        story_id: arm.story.clone(),
        path: arm.path.to_string_lossy().into_owned(),
        held_by: arm.holder.clone(),
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn timeout(record: &Record) -> f64 {
    record.timeout.map_or(f64::INFINITY, |ms| ms as f64)
}

fn lock(grant: &Grant) -> LockInfo {
    let record = &grant.record;
    LockInfo {
        key: grant.key.to_string(),
        token: record.token as f64,
        lock_id: record.lock_id.clone(),
        story_id: record.story_id.as_str().to_owned(),
        file_path: record.path_text(),
        acquired_at: record.acquired_at as f64,
        timeout: timeout(record),
        pid: record.pid,
        expires_at: record.expires_at.map(|ms| ms as f64),
        mode: MODE.to_owned(),
        fresh: grant.is_fresh,
        detached: record.detached,
        reason: record.reason.clone(),
        reclaimed: grant.record.reclaimed.as_ref().map(reclaimed),
    }
}

fn reclaimed(reclaimed: &Reclaimed) -> ReclaimedInfo {
    ReclaimedInfo {
        story_id: reclaimed.story_id.as_str().to_owned(),
        lock_id: reclaimed.lock_id.clone(),
        pid: reclaimed.pid,
        acquired_at: reclaimed.acquired_at as f64,
        how: reclaimed.how.as_str().to_owned(),
    }
}

fn holder(holder: &Holder) -> HolderInfo {
    let record = &holder.record;
    HolderInfo {
        lock_id: record.lock_id.clone(),
        story_id: record.story_id.as_str().to_owned(),
        file_path: record.path_text(),
        acquired_at: record.acquired_at as f64,
        timeout: timeout(record),
        pid: record.pid,
        token: record.token as f64,
        host: record.host.clone(),
        mode: MODE.to_owned(),
        held_for: holder.held_for_ms as f64,
        remaining: holder.remaining_ms.map(|ms| ms as f64),
        expires_at: record.deadline().map(|deadline| deadline.wall_ms as f64),
        detached: record.detached,
        reason: record.reason.clone(),
    }
}

fn status(status: &Status) -> StatusInfo {
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let listed = |listed: &Listed| ListedInfo {
        holder: holder(&listed.holder),
        is_stale: listed.is_stale,
        lock_file: text(&listed.lock_file),
    };
    StatusInfo {
        locks: status.locks.iter().map(listed).collect(),
        waiting: status.waiting.iter().map(pending).collect(),
        unreadable: status.unreadable.iter().map(|path| text(path)).collect(),
        lock_directory: text(&status.lock_directory),
        error: status.error.clone(),
    }
}

fn pending(pending: &Pending) -> PendingInfo {
    let waiter = &pending.waiter;
    PendingInfo {
        file_path: waiter.file_path.to_string_lossy().into_owned(),
        story_id: waiter.story_id.as_str().to_owned(),
        pid: waiter.pid,
        host: waiter.host.clone(),
        since: waiter.since as f64,
        waited: pending.waited_ms as f64,
        place: count(pending.place),
        estimate: pending.estimate_ms.map(|ms| ms as f64),
        paths: count(waiter.set.len().max(1)),
        reason: waiter.reason.clone(),
    }
}
