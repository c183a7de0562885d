//! What JavaScript is told: the engine's messages as plain objects.

use std::path::Path;

use napi_derive::napi;

use crate::call::{Message, Reply};
use crate::change;
use crate::error::{Arm, Bases, Error};
use crate::holder::Holder;
use crate::record::{Reclaimed, Record};
use crate::shapes::{
    ArmInfo, BaseInfo, ChangedFile, Failure, ForcedInfo, HolderInfo, ListedInfo, LockInfo,
    PendingInfo, ReclaimedInfo, StatusInfo, WriterInfo,
};
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
    /// The paths that a diff touches.
    Paths {
        /// Of the call.
        ticket: f64,
        /// Absolute.
        paths: Vec<String>,
    },
    /// The files that were changed, or would be.
    Changed {
        /// Of the call.
        ticket: f64,
        /// Each with its hash.
        files: Vec<ChangedFile>,
    },
    /// Who holds the path, by a lock on it or on a folder above it.
    Checked {
        /// Of the call.
        ticket: f64,
        /// All of them; none if it is free.
        holders: Vec<HolderInfo>,
    },
    /// The grants can be taken over.
    Offered {
        /// Of the call.
        ticket: f64,
    },
    /// Locks were taken back, or would be.
    Forced {
        /// Of the call.
        ticket: f64,
        /// Whose.
        removed: Vec<HolderInfo>,
        /// Who waits for the path, in order.
        next: Vec<PendingInfo>,
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
        Ok(Reply::Holders(found)) => {
            Answer::Checked { ticket, holders: found.iter().map(holder).collect() }
        }
        Ok(Reply::Offered) => Answer::Offered { ticket },
        Ok(Reply::Forced(removed, next)) => Answer::Forced {
            ticket,
            removed: removed.iter().map(holder).collect(),
            next: next.iter().map(pending).collect(),
        },
        Ok(Reply::Cleaned(count)) => Answer::Cleaned { ticket, count: self::count(count) },
        Ok(Reply::Paths(paths)) => {
            Answer::Paths { ticket, paths: paths.iter().map(|path| text(path)).collect() }
        }
        Ok(Reply::Changed(files)) => Answer::Changed {
            ticket,
            files: files
                .into_iter()
                .map(|(path, hash)| ChangedFile { path: text(&path), hash: hash.map(change::hex) })
                .collect(),
        },
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
        holders: error.holders.iter().map(holder).collect(),
        forced: error.forced.as_ref().map(|forced| ForcedInfo {
            by: forced.by.clone(),
            reason: forced.reason.clone(),
            at: forced.at as f64,
        }),
        hint: error.hint.clone(),
        waiters: count(error.line.waiters),
        place: error.line.place.map(count),
        waited_ms: error.line.waited_ms.map(|ms| ms as f64),
        cycle: error.circle.iter().map(arm).collect(),
        base: error.base.as_ref().map(base),
        hunk: error.hunk.map(|(hunk, _)| count(hunk)),
        line: error.hunk.map(|(_, line)| count(line)),
    }
}

fn base(base: &Bases) -> BaseInfo {
    let writer = base.writer.clone().map(|writer| WriterInfo {
        story_id: writer.story_id,
        pid: writer.pid,
        token: writer.token as f64,
        at: writer.at as f64,
        hash: writer.hash,
    });
    BaseInfo { expected: base.expected.clone(), actual: base.actual.clone(), writer }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
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
        mode: record.mode.as_str().to_owned(),
        recursive: record.recursive,
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
        mode: record.mode.as_str().to_owned(),
        recursive: record.recursive,
        held_for: holder.held_for_ms as f64,
        remaining: holder.remaining_ms.map(|ms| ms as f64),
        expires_at: record.deadline().map(|deadline| deadline.wall_ms as f64),
        detached: record.detached,
        reason: record.reason.clone(),
    }
}

fn status(status: &Status) -> StatusInfo {
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
        mode: waiter.mode.as_str().to_owned(),
        recursive: waiter.recursive,
        reason: waiter.reason.clone(),
    }
}
