//! The seam between the engine and where locks are kept.
//!
//! The engine turns calls into [`Step`]s and keeps what belongs to this process: who asked, which scopes
//! are open, when its own leases end. A [`Store`] decides the steps against the state that all processes
//! share. The file store is the one there is; one for several machines would stand behind the same trait.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::holder::Holder;
use crate::index::Changed;
use crate::key::{Key, Located};
use crate::lease::Lease;
use crate::record::Record;
use crate::story::Story;

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
    },
    /// Give up every lock of the story.
    Cleanup {
        /// The story.
        story: Story,
    },
}

/// A set of paths to lock.
#[derive(Clone, Debug)]
pub struct Acquire {
    /// The paths; two spellings of one count once.
    pub paths: Vec<Located>,
    /// Who asks.
    pub story: Story,
    /// For how long.
    pub lease: Lease,
    /// Whether the lease alone ends it, so that it outlives this process.
    pub detached: bool,
    /// Why, in the story's words.
    pub reason: Option<String>,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The locks, in the order asked for.
    Granted(Vec<Grant>),
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
    /// Whether this step granted it; otherwise the story had it already.
    pub is_fresh: bool,
    /// Whose it was, if its predecessor did not give it up.
    pub reclaimed: Option<Reclaimed>,
}

/// A predecessor that did not give its lock up: its work on the file may be half done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reclaimed {
    /// Its record.
    pub record: Record,
    /// How it ended.
    pub how: Ended,
}

/// How a lock ended that nobody gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What a round of steps did.
#[derive(Debug)]
pub struct Round {
    /// One answer a step, in order.
    pub answers: Vec<Result<Done, Error>>,
    /// Which records others, or these steps, may have changed.
    pub changed: Changed,
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

/// Everything that is held, read from the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The locks, oldest first.
    pub locks: Vec<Listed>,
    /// Files at a record's name that are no records known here: each counts as held.
    pub unreadable: Vec<PathBuf>,
    /// Where the records stand.
    pub lock_directory: PathBuf,
    /// What could not be looked at, or written.
    pub error: Option<String>,
}

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

    /// The record of a key as of the last round.
    fn known(&self, key: &Key) -> Option<&Record>;

    /// Who holds a path, if anybody living does.
    ///
    /// # Errors
    /// What the system says.
    fn check(&self, path: &Located) -> Result<Option<Holder>, Error>;

    /// Whether this grant is still current and its lease runs.
    ///
    /// # Errors
    /// What the system says; then nothing is certain.
    fn verify(&self, key: &Key, token: u64) -> Result<bool, Error>;

    /// Everything that is held.
    fn status(&self) -> Status;

    /// A file that keeps this process's locks alive while any process has it open, if there is one.
    fn life_line(&self) -> Option<&std::fs::File>;

    /// Leaves: nothing of this process may stay behind. Its locks have been let go of.
    fn leave(&mut self);
}
