//! The seam between the engine and where locks are kept.
//!
//! The engine turns calls into [`Step`]s and keeps what belongs to this process: who asked, which scopes
//! are open, when its own leases end. A [`Store`] decides the steps against the state that all processes
//! share. The file store is the one there is; one for several machines would stand behind the same trait.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::change::Staged;
use crate::clock::Clock;
use crate::error::{Code, Error, Forced, Writer};
use crate::history::Limits;
use crate::holder::Holder;
use crate::index::Changed;
use crate::key::{Key, Located};
use crate::kind::{Extent, Kind};
use crate::lease::Lease;
use crate::queue::{Waiter, WaiterId};
use crate::record::{HolderId, Record};
use crate::story::Story;
use crate::sys::Dir;

/// One change asked for.
#[derive(Clone, Debug)]
pub enum Step {
    /// Lock all of these paths for the story, or none. What it already holds it keeps as it is.
    Acquire(Acquire),
    /// Give up whatever lock the story has on the path; none is no error, another story's is.
    Release {
        /// The path.
        path: Located,
        /// The story.
        story: Story,
    },
    /// Give up exactly these grants; one that is gone or has a successor is left alone.
    LetGo(Vec<(Key, u64)>),
    /// Begin the story's lease anew, with its own length or a new one.
    Renew {
        /// The path.
        path: Located,
        /// The story.
        story: Story,
        /// The new length; `None` for the same.
        lease: Option<Lease>,
    },
    /// Begin exactly this grant's lease anew.
    Extend {
        /// The key.
        key: Key,
        /// The grant.
        token: u64,
        /// The new length; `None` for the same.
        lease: Option<Lease>,
        /// Whether the lease alone is to end it from now on, or this process's life too; `None` as it is.
        detached: Option<bool>,
    },
    /// Give up every lock of the story.
    Cleanup {
        /// The story.
        story: Story,
    },
    /// Put a change in place if every one of these grants is current, or nothing of it.
    Commit {
        /// The locks that it leans on.
        grants: Vec<(Key, u64)>,
        /// For whom.
        story: Story,
        /// The change; taken out when it is tried.
        change: Arc<Mutex<Staged>>,
    },
    /// Make exactly this grant weaker.
    Lower {
        /// The key.
        key: Key,
        /// The grant.
        token: u64,
        /// What it is to be.
        kind: Kind,
    },
    /// Give exactly this grant to another story.
    Transfer {
        /// The key.
        key: Key,
        /// The grant.
        token: u64,
        /// Who gets it.
        story: Story,
    },
    /// Let whoever knows the secret of this digest take these grants over, once.
    Offer {
        /// The grants.
        grants: Vec<(Key, u64)>,
        /// SHA-256 of the secret in hex.
        digest: String,
    },
    /// Take grants over that were offered, all or none.
    Adopt {
        /// The grants.
        grants: Vec<(Key, u64)>,
        /// SHA-256 of the secret in hex.
        digest: String,
        /// The new length of their leases; `None` for the same.
        lease: Option<Lease>,
    },
    /// Take the locks of a path back from whoever has them.
    Force(Force),
    /// Leave the queues. What was granted meanwhile is kept if `keep`, else passed on.
    Leave {
        /// Who.
        waiter: WaiterId,
        /// Whether a grant that came first counts.
        keep: bool,
    },
}

/// Taking the locks of a path back.
#[derive(Clone, Debug)]
pub struct Force {
    /// The path.
    pub path: Located,
    /// Only this story's.
    pub story: Option<Story>,
    /// Who does it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Whether to tell only what would happen.
    pub is_dry: bool,
}

/// A set of paths to lock.
#[derive(Clone, Debug)]
pub struct Acquire {
    /// The paths, each with the kind of lock; two spellings of one count once, as what covers both.
    pub paths: Vec<(Located, Kind)>,
    /// Who asks.
    pub story: Story,
    /// For how long.
    pub lease: Lease,
    /// Whether the lease alone ends it, so that it outlives this process.
    pub detached: bool,
    /// Why, in the story's words.
    pub reason: Option<String>,
    /// Whether to stand in line if it cannot be had at once, and behind how many at most on each path.
    pub queue: Option<usize>,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The locks, in the order asked for.
    Granted(Vec<Grant>),
    /// Not yet: the asker waits under this number, until [`Round::granted`] names it.
    Queued(WaiterId),
    /// The change is in place.
    Committed,
    /// They can be taken over.
    Offered,
    /// Who had the path, and who waits for it, in order.
    Forced(Vec<Holder>, Vec<Pending>),
    /// It waits no more; the refusal that an asker gets whose patience ran out.
    Left(Error),
    /// Whether each grant was still there to let go of.
    LetGo(Vec<bool>),
    /// Whose path is free now, whether it was locked or not.
    Released,
    /// The lock with its new lease.
    Renewed(Box<Grant>),
    /// How many locks were removed.
    Cleaned(usize),
}

/// A lock that the asking story has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What is locked.
    pub key: Key,
    /// The record as it stands.
    pub record: Record,
    /// Whether it was granted to this asker; otherwise the story had it already.
    pub is_fresh: bool,
}

/// What a round of steps did.
#[derive(Debug, Default)]
pub struct Round {
    /// One answer a step, in order.
    pub answers: Vec<Result<Done, Error>>,
    /// Which records others, or these steps, may have changed.
    pub changed: Changed,
    /// Waiters of this process whose turn came.
    pub granted: Vec<(WaiterId, Vec<Grant>)>,
    /// Waiters of this process that have lost their places and must line up again.
    pub displaced: Vec<WaiterId>,
    /// Whether the shared state was lost and made anew, and every earlier lock with it.
    pub is_new_ground: bool,
}

/// One held path as `status` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Who holds it.
    pub holder: Holder,
    /// Whether its lease has ended or its process died, so that the next comer gets it.
    pub is_stale: bool,
    /// Where its record stands.
    pub lock_file: PathBuf,
}

/// One who waits, as `status` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Who waits.
    pub waiter: Waiter,
    /// Its place in the queue of this path, from 1.
    pub place: usize,
    /// How long it has waited, in ms.
    pub waited_ms: u64,
    /// In how many ms the lease in front ends, if that is known.
    pub estimate_ms: Option<u64>,
}

impl Pending {
    /// One who waits at this place, as of now.
    pub fn of(
        waiter: Waiter,
        place: usize,
        estimate_ms: Option<u64>,
        clock: &dyn Clock,
    ) -> Pending {
        let waited_ms = clock.wall_ms().saturating_sub(waiter.since);
        Pending { waiter, place, waited_ms, estimate_ms }
    }
}

/// Everything that is held, read from the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The locks, oldest first.
    pub locks: Vec<Listed>,
    /// Who waits, by path and place.
    pub waiting: Vec<Pending>,
    /// Files at a record's name that are no records known here: each counts as held.
    pub unreadable: Vec<PathBuf>,
    /// Where the records stand.
    pub lock_directory: PathBuf,
    /// What could not be looked at, or written.
    pub error: Option<String>,
}

/// Where a change is prepared.
#[derive(Debug)]
pub struct Workshop {
    /// The folder of notes.
    pub notes: Dir,
    /// The name of the change's note.
    pub name: String,
    /// What the change may be on.
    pub covers: Vec<Extent>,
}

/// Wakes whoever tends a store.
pub type Wake = std::sync::Arc<dyn Fn() + Send + Sync>;

/// The shared state, and the rules by which it changes.
pub trait Store: Send {
    /// Decides the steps in order, in one go; each is whole or not at all. Locks for which the answer
    /// is an error are not held.
    fn run(&mut self, steps: &[Step]) -> Round;

    /// Looks after what has ended: leases that ran out, leftovers of the dead, a view that is behind.
    /// Cheap when there is nothing to do.
    fn tend(&mut self) -> Round;

    /// How long until [`Store::tend`] has something to do that nobody will ask for.
    fn tend_in(&self) -> Option<Duration>;

    /// Whether this process's life stands behind a record.
    fn is_ours(&self, record: &Record) -> bool;

    /// Where a change under these grants is prepared, and the name that what it makes begins with.
    ///
    /// # Errors
    /// What the system says.
    fn begin_change(&mut self, grants: &[(Key, u64)]) -> (Result<Workshop, Error>, Round);

    /// Keeps this much history from now on, or none.
    fn keep_history(&mut self, limits: Option<Limits>);

    /// Who wrote a path last through a lock.
    fn writer(&self, key: &Key) -> Option<Writer>;

    /// The records of a key as of the last round.
    fn known(&self, key: &Key) -> &[Record];

    /// Who took a grant back by force, if somebody did.
    fn forced(&self, key: &Key, token: u64) -> Option<Forced>;

    /// Whether a grant was handed on: to another story or another process.
    fn handed_on(&self, key: &Key, token: u64) -> bool;

    /// The number under which this process lives in records, once it does.
    fn session(&self) -> Option<HolderId>;

    /// Who holds a path, by a lock on it or on a folder above it: all of them, if anybody living does.
    ///
    /// # Errors
    /// What the system says.
    fn check(&self, path: &Located) -> Result<Vec<Holder>, Error>;

    /// Whether this grant is still current and its lease runs.
    ///
    /// # Errors
    /// What the system says; then nothing is certain.
    fn verify(&self, key: &Key, token: u64) -> Result<bool, Error>;

    /// Everything that is held.
    fn status(&self) -> Status;

    /// Calls `wake` whenever [`Store::tend`] has something to do that time alone does not tell: a turn
    /// that came, a holder that died.
    fn on_wake(&mut self, wake: Wake);

    /// A file that keeps this process's locks alive while any process has it open, if there is one.
    fn life_line(&self) -> Option<&std::fs::File>;

    /// Leaves: nothing of this process may stay behind. Its locks have been let go of.
    fn leave(&mut self);
}

/// A grant on ground that vanished while it was made is none.
pub(crate) fn refuse_grant(answer: &mut Result<Done, Error>, locks: &Path) {
    if matches!(answer, Ok(Done::Granted(_) | Done::Renewed(_))) {
        let message = format!("{} was removed while the lock was being taken.", locks.display());
        *answer = Err(Error::new(Code::Compromised, message)
            .at(locks)
            .hint("Nothing was granted. Try again, and keep `git clean -x` away from .ai."));
    }
}
