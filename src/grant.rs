//! How a path is taken: what stands there, and the record that takes its place.
//!
//! Promises: a set is written whole or taken back; a record is never longer than what can be read back; a
//! detached lock becomes real in one step, after all its records are written.

use crate::error::Error;
use crate::guard::Held;
use crate::key::{Key, Located};
use crate::publish;
use crate::queue::{Waiter, WaiterId};
use crate::record::{self, Ended, Found, HolderId, Reclaimed, Record, Unreadable};
use crate::shelf::Shelf;
use crate::standing::Standing;
use crate::store::{Acquire, Grant};
use crate::story::Story;
use crate::sys;

/// What a path is to a story that wants it.
#[derive(Debug)]
pub(crate) enum Place {
    /// Nothing is there.
    Free,
    /// The story has it.
    Mine(Box<Record>),
    /// Somebody had it who did not give it up.
    Over(Box<Record>, Ended),
    /// Somebody is giving it up right now.
    Passed,
    /// What is there is no record, and has not changed for long enough.
    Rubbish,
}

/// What keeps a story from its paths.
#[derive(Debug)]
pub enum Blocker {
    /// Another story holds one.
    Held(Key, Box<Record>),
    /// Another story stands in front of it in a queue.
    Kept(Key, Box<Waiter>),
    /// Something stands at a record's name that cannot be read.
    Unreadable(Key, Unreadable),
}

impl Blocker {
    /// Where it stands.
    pub fn key(&self) -> Key {
        match self {
            Blocker::Held(key, _) | Blocker::Kept(key, _) | Blocker::Unreadable(key, _) => *key,
        }
    }
}

/// Who wants what: `id` is its place in the order of arrival, the last of all for one who just came.
pub(crate) struct Want<'a> {
    pub(crate) story: &'a Story,
    pub(crate) id: WaiterId,
    pub(crate) keys: &'a [Key],
}

impl Shelf {
    /// What stands at a key, as seen by a story.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn place_of(
        &mut self,
        key: &Key,
        story: &Story,
    ) -> Result<Result<Place, Blocker>, Error> {
        Ok(match self.found(key)? {
            Found::Nothing => Ok(Place::Free),
            Found::Record(record) => match self.standing(&record)? {
                Standing::Over(how) => Ok(Place::Over(record, how)),
                Standing::Holds if record.story_id == *story => Ok(Place::Mine(record)),
                Standing::Holds => Err(Blocker::Held(*key, record)),
            },
            Found::Unreadable(found) => match self.standing_of_unreadable(&found)? {
                Standing::Over(_) => Ok(Place::Rubbish),
                Standing::Holds => Err(Blocker::Unreadable(*key, found)),
            },
        })
    }

    /// Writes the records of a set that is open, all of them or none.
    pub(crate) fn take(
        &mut self,
        held: &mut Held<'_>,
        ask: &Acquire,
        paths: &[(&Located, Key)],
        places: Vec<Place>,
    ) -> Result<Vec<Grant>, Error> {
        let is_open = |place: &Place| !matches!(place, Place::Mine(_));
        let mut making = None;
        let (mut token, mut holder) = (0, 0);
        if places.iter().any(is_open) {
            holder = if ask.detached {
                making.insert(self.begin_session(held)?).id()
            } else {
                self.own_session(held)?
            };
            let open = paths.iter().zip(&places).filter(|(_, place)| is_open(place));
            token = held.note_grants(&open.map(|((_, key), _)| *key).collect::<Vec<_>>())?;
        }
        let mut written = Vec::with_capacity(paths.len());
        let mut grants = Vec::with_capacity(paths.len());
        for ((path, key), place) in paths.iter().zip(places) {
            if let Place::Mine(record) = place {
                let record = self.with_token(held, *key, *record)?;
                grants.push(Grant { key: *key, record, is_fresh: false });
                continue;
            }
            let record = self.record(&self.candidate(path, ask, holder), token, None, &place);
            if let Err(error) = self.write(*key, &record, &place) {
                self.undo(&written);
                return Err(error);
            }
            written.push((*key, token));
            grants.push(Grant { key: *key, record, is_fresh: true });
            token += 1;
        }
        // A detached grant becomes real in this one step: its records name a holder file that is gone.
        if let Some(Err(error)) = making.map(|session| session.end(&self.ground.holders)) {
            self.undo(&written);
            return Err(error);
        }
        Ok(grants)
    }

    /// Gives a record of the old module a token, so that nothing done in its name hits a successor's.
    fn with_token(
        &mut self,
        held: &mut Held<'_>,
        key: Key,
        mut record: Record,
    ) -> Result<Record, Error> {
        if record.is_old() {
            record.token = held.note_grants(&[key])?;
            // No process stands behind it: a number that no holder file has.
            record.holder = record.token;
            record.detached = true;
            record.version = record::VERSION;
            record.boot = String::new();
            self.write(key, &record, &Place::Passed)?;
        }
        Ok(record)
    }

    /// Frees detached locks that came through a queue from the life of the process that waited.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn detach(
        &mut self,
        held: &mut Held<'_>,
        grants: &mut [Grant],
    ) -> Result<(), Error> {
        let is_tied = |grant: &&mut Grant| grant.is_fresh && grant.record.detached;
        let mut tied: Vec<&mut Grant> = grants.iter_mut().filter(is_tied).collect();
        if tied.is_empty() {
            return Ok(());
        }
        let making = self.begin_session(held)?;
        held.note(&tied.iter().map(|grant| grant.key).collect::<Vec<_>>())?;
        for grant in &mut tied {
            grant.record.holder = making.id();
            self.write(grant.key, &grant.record, &Place::Passed)?;
        }
        making.end(&self.ground.holders)
    }

    /// What an asker looks like in a queue, and its record is made from.
    pub(crate) fn candidate(&self, path: &Located, ask: &Acquire, holder: HolderId) -> Waiter {
        Waiter {
            id: 0,
            story_id: ask.story.clone(),
            file_path: path.path.clone(),
            since: self.clock.wall_ms(),
            timeout: ask.lease.timeout_ms(),
            pid: std::process::id(),
            holder,
            boot: self.clock.boot(),
            host: sys::host().to_owned(),
            process: self.process.clone(),
            detached: ask.detached,
            reason: ask.reason.clone(),
            set: Vec::new(),
        }
    }

    /// The record by which a candidate holds its path from now on.
    pub(crate) fn record(
        &self,
        candidate: &Waiter,
        token: u64,
        waiter: Option<WaiterId>,
        place: &Place,
    ) -> Record {
        let mut record = Record {
            lock_id: format!("{}-{token}", candidate.story_id),
            story_id: candidate.story_id.clone(),
            file_path: candidate.file_path.clone(),
            acquired_at: self.clock.wall_ms(),
            timeout: None,
            pid: candidate.pid,
            version: record::VERSION,
            token,
            expires_at: None,
            deadline: None,
            boot: String::new(),
            holder: candidate.holder,
            detached: candidate.detached,
            host: candidate.host.clone(),
            process: candidate.process.clone(),
            reason: candidate.reason.clone(),
            waiter,
            reclaimed: match place {
                Place::Over(record, how) => Some(Reclaimed::from(record, *how)),
                _ => None,
            },
        };
        record.set_lease(candidate.lease(), &*self.clock);
        record
    }

    /// Writes a record in its place.
    ///
    /// # Errors
    /// What the system says; what was there is untouched then.
    pub(crate) fn write(&mut self, key: Key, record: &Record, place: &Place) -> Result<(), Error> {
        self.exorcise(&[key])?;
        let name = key.file_name();
        let locks = &self.ground.locks;
        let bytes = record.to_bytes();
        if bytes.len() as u64 > record::MAX_BYTES {
            // It could not be read back, and would count as rubbish one day.
            return Err(Error::invalid("path", "and reason make a record longer than any may be."));
        }
        let written = match place {
            Place::Over(..) | Place::Passed => publish::replace(locks, &name, &bytes),
            Place::Rubbish => {
                // Moved aside, not lost: whoever made it may want it back.
                let aside = format!("{key}.unreadable-{}", record.token);
                locks.rename_new(&name, &aside).and_then(|()| publish::create(locks, &name, &bytes))
            }
            Place::Free | Place::Mine(_) => publish::create(locks, &name, &bytes),
        };
        // If the name is taken, somebody who knows no guard was a moment quicker: the old module, perhaps.
        written.map_err(|cause| self.system("write", &key, &cause))?;
        self.changed(key, Some(record.clone()));
        Ok(())
    }

    /// Takes back what a set that fails midway has written. What cannot be removed now is owed.
    pub(crate) fn undo(&mut self, written: &[(Key, u64)]) {
        for (key, token) in written {
            if self.unlink(key).is_err() {
                self.owed.push((*key, *token));
            }
        }
    }
}
