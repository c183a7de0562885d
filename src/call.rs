//! What can be asked of the engine, and what it answers.
//!
//! A [`Call`] is made of well-formed values only, so bad input never gets this far.

use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use crate::change::{Edit, Hash, Staged};
use crate::error::{Code, Error};
use crate::history::Limits;
use crate::holder::Holder;
use crate::key::{Key, Target};
use crate::kind::Kind;
use crate::lease::{Lease, MAX_TIMEOUT_MS};
use crate::store::{Grant, Pending, Status};
use crate::story::Story;

/// A question or a change asked for by a client.
#[derive(Clone, Debug)]
pub enum Call {
    /// Lock all targets or none: [`Reply::Locks`].
    Acquire(Ask),
    /// Give up the story's lock on the target: [`Reply::Released`].
    Release {
        /// What.
        target: Target,
        /// Whose.
        story: Story,
    },
    /// Give up these grants: [`Reply::LetGo`].
    LetGo {
        /// Which.
        grants: Vec<(Key, u64)>,
        /// Whether a scope ends: the last of a grant's scopes gives it up, or gives it the lease back
        /// that it had before the first.
        scope: bool,
        /// What kinds the scope asked for, grant by grant; the last scope's, if nothing is said.
        kinds: Vec<Kind>,
    },
    /// Want no more than this of a grant: [`Reply::Locks`] of one.
    Lower {
        /// The key.
        key: Key,
        /// The grant.
        token: u64,
        /// What is wanted.
        kind: Kind,
    },
    /// Give a grant to another story: [`Reply::Locks`] of one, that story's.
    Transfer {
        /// The key.
        key: Key,
        /// The grant.
        token: u64,
        /// Who gets it.
        story: Story,
    },
    /// Let whoever knows the secret of this digest take these grants over, once: [`Reply::Offered`].
    Offer {
        /// Which.
        grants: Vec<(Key, u64)>,
        /// SHA-256 of the secret in hex.
        digest: String,
    },
    /// Take grants over that were offered: [`Reply::Locks`].
    Adopt {
        /// Which.
        grants: Vec<(Key, u64)>,
        /// SHA-256 of the secret in hex.
        digest: String,
        /// The new length of their leases; `None` for the same.
        lease: Option<Lease>,
    },
    /// Take the locks of the target back from whoever has them: [`Reply::Forced`].
    Force {
        /// What.
        target: Target,
        /// Who does it, and why.
        order: Order,
    },
    /// Begin the lease of the story's lock anew: [`Reply::Locks`] of one.
    Renew {
        /// What.
        target: Target,
        /// Whose.
        story: Story,
        /// The new length; `None` for the same.
        lease: Option<Lease>,
    },
    /// Begin the lease of this grant anew: [`Reply::Locks`] of one.
    Extend {
        /// The key.
        key: Key,
        /// The grant.
        token: u64,
        /// The new length; `None` for the same.
        lease: Option<Lease>,
    },
    /// Whether this grant is current: [`Reply::Verified`].
    Verify {
        /// The key.
        key: Key,
        /// The grant.
        token: u64,
    },
    /// Who holds the target: [`Reply::Holder`].
    Check {
        /// What.
        target: Target,
    },
    /// Give up all locks of the story: [`Reply::Cleaned`].
    Cleanup {
        /// Whose.
        story: Story,
    },
    /// The paths that a diff touches: [`Reply::Paths`].
    Outline {
        /// The diff.
        diff: Vec<u8>,
        /// What its paths are relative to.
        root: PathBuf,
    },
    /// Change files under locks that are held: [`Reply::Changed`].
    Change(Change),
    /// Put a change in place that is ready.
    Commit(Ready),
    /// A change is in place and flushed.
    Done(Box<Result<Reply, Error>>),
    /// Call the acquisition with this ticket off if it still waits. Answered by that call's own answer,
    /// which is a grant if that came first.
    Cancel {
        /// Of the acquisition.
        ticket: u64,
    },
    /// Keep this much history from now on, or none: [`Reply::Released`].
    Keep(Option<Limits>),
    /// Everything that is held: [`Reply::Status`].
    Status,
    /// Give up every lock taken through this client: [`Reply::Closed`].
    Close,
}

/// A change of files under locks.
#[derive(Clone, Debug)]
pub struct Change {
    /// For whom.
    pub story: Story,
    /// The locks that it leans on: all of its paths must be among them.
    pub grants: Vec<(Key, u64)>,
    /// What is to change.
    pub what: What,
    /// Whether it must outlive the machine's power.
    pub durable: bool,
    /// Whether to look only whether it could be done.
    pub check: bool,
    /// Dropped when the change has come to its end, and nothing is left beside the files.
    pub under_way: Option<Sender<()>>,
}

/// What is to change.
#[derive(Clone, Debug)]
pub enum What {
    /// These files.
    Edits(Vec<Edit>),
    /// What a diff says.
    Diff {
        /// The diff.
        diff: Vec<u8>,
        /// What its paths are relative to.
        root: PathBuf,
    },
}

/// A change that is ready to be put in place.
#[derive(Clone, Debug)]
pub struct Ready {
    /// For whom.
    pub story: Story,
    /// The locks that it leans on.
    pub grants: Vec<(Key, u64)>,
    /// The change.
    pub change: Arc<Mutex<Staged>>,
}

/// Whose lock is to be taken back, by whom, and why.
#[derive(Clone, Debug)]
pub struct Order {
    /// Who does it, in their own words.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Only this story's.
    pub story: Option<Story>,
    /// Whether to tell only what would happen.
    pub is_dry: bool,
}

/// A set of targets to lock.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What, and in which kind; two spellings of one path count once.
    pub targets: Vec<(Target, Kind)>,
    /// For whom.
    pub story: Story,
    /// For how long.
    pub lease: Lease,
    /// Whether a scope begins: its lock is bound until [`Call::LetGo`] ends the scope.
    pub scope: bool,
    /// Whether the lease alone ends the lock, so that it outlives this process.
    pub detached: bool,
    /// Why, in the story's words.
    pub reason: Option<String>,
    /// How long to stand in line if it cannot be had at once.
    pub wait: Wait,
    /// Behind how many others at most on each path.
    pub queue_limit: usize,
}

/// The most that wait for one path unless told otherwise.
pub const QUEUE_LIMIT: usize = 1000;

/// How long to wait for a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: now or never.
    No,
    /// This many ms.
    For(u64),
    /// For ever.
    Ever,
}

impl Wait {
    /// The wait for a number of ms as JavaScript says it: 0 is to try once, `Infinity` for ever.
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE` for anything but a whole number from 0 to 2^53 - 1 or `Infinity`.
    pub fn from_ms(ms: f64) -> Result<Wait, Error> {
        if ms == f64::INFINITY {
            return Ok(Wait::Ever);
        }
        if ms.fract() != 0.0 || !(0.0..=MAX_TIMEOUT_MS as f64).contains(&ms) {
            let rule = "must be a whole number of milliseconds from 0 to 2^53 - 1, or Infinity.";
            return Err(Error::out_of_range("wait", format!("{rule} Received {ms}")));
        }
        Ok(if ms == 0.0 { Wait::No } else { Wait::For(ms as u64) })
    }
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The locks that the story has now.
    Locks(Vec<Grant>),
    /// The path is free of the story.
    Released,
    /// Whether each grant was still there.
    LetGo(Vec<bool>),
    /// Whether the grant is current.
    Verified(bool),
    /// Who holds, if anybody does: several where it is shared.
    Holders(Vec<Holder>),
    /// The grants can be taken over.
    Offered,
    /// Whose locks were taken back, or would be, and who waits for the path, in order.
    Forced(Vec<Holder>, Vec<Pending>),
    /// How many locks were removed.
    Cleaned(usize),
    /// The paths of a diff, absolute.
    Paths(Vec<PathBuf>),
    /// The files that were changed, or would be, with the hash of each; `None` for one that is gone.
    Changed(Vec<(PathBuf, Option<Hash>)>),
    /// Everything that is held.
    Status(Box<Status>),
    /// The client's locks are given up.
    Closed,
}

/// What a client is told.
#[derive(Clone, Debug)]
pub enum Message {
    /// The answer to the call with this ticket.
    Answer(u64, Result<Reply, Error>),
    /// A lock that the client took was given up at its own wish, by path or by story.
    GivenUp {
        /// What was locked.
        key: Key,
        /// The grant.
        token: u64,
    },
    /// A lock that the client took is lost; the error says how.
    Lost {
        /// What was locked.
        key: Key,
        /// The grant.
        token: u64,
        /// `ECOMPROMISED`, with the path, the story, and who has it now.
        error: Error,
    },
}

/// Where a client's messages go.
pub trait Port: Send + Sync + 'static {
    /// Takes all messages of one batch, in one wake-up. Must not wait.
    fn deliver(&self, messages: Vec<Message>);
}

/// What a call on a closed client is told, and one that waits when its client closes.
pub fn closed() -> Error {
    Error::new(Code::Closed, "This lock manager is closed.")
        .hint("Make a new one: new LockManager().")
}

/// What a call that waits is told when its asker called it off.
pub fn called_off() -> Error {
    Error::new(Code::Aborted, "The request was called off.")
}
