//! The steps of the protocol: acquire, release, renew, clean up. All under the guard, and nothing else.
//!
//! Promises, for a kill between any two system calls: a set that was not granted is not held (its records
//! name a holder that is dead); a path is never left without the record of a living holder; nothing has
//! to be cleaned by hand. Each step decides first, then notes the keys it will change, then changes them.

use std::collections::HashSet;
use std::io;

use crate::error::{Code, Error};
use crate::guard::Held;
use crate::holder::Holder;
use crate::key::{Key, Located};
use crate::lease::Lease;
use crate::publish;
use crate::record::{self, Found, HolderId, Record};
use crate::shelf::Shelf;
use crate::standing::Standing;
use crate::store::{Acquire, Done, Ended, Grant, Reclaimed, Step};
use crate::story::Story;
use crate::sys;

/// What a path is to a story that wants it.
enum Place {
    Free,
    Mine(Record),
    Over(Record, Ended),
    Rubbish,
}

impl Shelf {
    /// Decides one step.
    ///
    /// # Errors
    /// A refusal, or what the system says; then the step changed nothing, or [`Shelf::owed`] says what.
    pub fn step(&mut self, held: &mut Held<'_>, step: &Step) -> Result<Done, Error> {
        match step {
            Step::Acquire(ask) => self.acquire(held, ask).map(Done::Granted),
            Step::Release { path, story } => {
                self.release(held, path, story).map_err(|error| error.by(story.as_str()))
            }
            Step::LetGo(grants) => self.let_go(held, grants).map(Done::LetGo),
            Step::Renew { path, story, lease } => {
                self.renew(held, path, story, *lease).map_err(|error| error.by(story.as_str()))
            }
            Step::Extend { key, token, lease } => self.extend(held, key, *token, *lease),
            Step::Cleanup { story } => self.cleanup(held, story).map(Done::Cleaned),
        }
    }

    fn acquire(&mut self, held: &mut Held<'_>, ask: &Acquire) -> Result<Vec<Grant>, Error> {
        let mut wanted: Vec<(&Located, Key, Place)> = Vec::with_capacity(ask.paths.len());
        let mut seen = HashSet::with_capacity(ask.paths.len());
        for path in &ask.paths {
            if seen.insert(path.key) {
                let (key, place) =
                    self.place(path, &ask.story).map_err(|error| error.by(ask.story.as_str()))?;
                wanted.push((path, key, place));
            }
        }
        let is_free = |(_, _, place): &&(&Located, Key, Place)| !matches!(place, Place::Mine(_));
        let keys: Vec<Key> = wanted.iter().filter(is_free).map(|(_, key, _)| *key).collect();
        let mut making = None;
        let (mut token, mut holder) = (0, 0);
        if !keys.is_empty() {
            holder = if ask.detached {
                making.insert(self.begin_session(held)?).id()
            } else {
                self.own_session(held)?
            };
            token = held.note_grants(&keys)?;
        }
        let mut written = Vec::with_capacity(keys.len());
        let mut grants = Vec::with_capacity(wanted.len());
        for (path, key, place) in wanted {
            if let Place::Mine(record) = place {
                grants.push(Grant { key, record, is_fresh: false, reclaimed: None });
                continue;
            }
            let record = self.record(path, ask, token, holder);
            if let Err(error) = self.write(path, key, &record, &place) {
                self.undo(&written);
                return Err(error.by(ask.story.as_str()));
            }
            written.push((key, token));
            let reclaimed = match place {
                Place::Over(record, how) => Some(Reclaimed { record, how }),
                _ => None,
            };
            grants.push(Grant { key, record, is_fresh: true, reclaimed });
            token += 1;
        }
        // A detached grant becomes real in this one step: its records name a holder file that is gone.
        if let Some(Err(error)) = making.map(|session| session.end(&self.ground.holders)) {
            self.undo(&written);
            return Err(error);
        }
        Ok(grants)
    }

    /// What the path is to the story, under its identity and under the key the old module gives it.
    fn place(&mut self, path: &Located, story: &Story) -> Result<(Key, Place), Error> {
        if let Some(spelled) = path.spelled
            && let Place::Mine(record) = self.place_of(path, &spelled, story)?
        {
            return Ok((spelled, Place::Mine(record)));
        }
        Ok((path.key, self.place_of(path, &path.key, story)?))
    }

    fn place_of(&mut self, path: &Located, key: &Key, story: &Story) -> Result<Place, Error> {
        match self.found(key)? {
            Found::Nothing => Ok(Place::Free),
            Found::Record(record) => match self.standing(&record)? {
                Standing::Over(how) => Ok(Place::Over(*record, how)),
                Standing::Holds if record.story_id == *story => Ok(Place::Mine(*record)),
                Standing::Holds => Err(Holder::of(*record, &*self.clock).refusal(path)),
            },
            Found::Unreadable(found) => match self.standing_of_unreadable(&found)? {
                Standing::Over(_) => Ok(Place::Rubbish),
                Standing::Holds => Err(self.unreadable(path, key, &found)),
            },
        }
    }

    fn record(&self, path: &Located, ask: &Acquire, token: u64, holder: HolderId) -> Record {
        let mut record = Record {
            lock_id: format!("{}-{token}", ask.story),
            story_id: ask.story.clone(),
            file_path: path.path.clone(),
            acquired_at: self.clock.wall_ms(),
            timeout: None,
            pid: std::process::id(),
            version: record::VERSION,
            token,
            expires_at: None,
            deadline: None,
            boot: String::new(),
            holder,
            detached: ask.detached,
            host: sys::host().to_owned(),
            process: self.process.clone(),
            reason: ask.reason.clone(),
        };
        record.set_lease(ask.lease, &*self.clock);
        record
    }

    fn write(
        &mut self,
        path: &Located,
        key: Key,
        record: &Record,
        place: &Place,
    ) -> Result<(), Error> {
        let name = key.file_name();
        let locks = &self.ground.locks;
        let bytes = record.to_bytes();
        let written = match place {
            Place::Over(..) => publish::replace(locks, &name, &bytes),
            Place::Rubbish => {
                // Moved aside, not lost: whoever made it may want it back.
                let aside = format!("{key}.unreadable-{}", record.token);
                locks.rename_new(&name, &aside).and_then(|()| publish::create(locks, &name, &bytes))
            }
            Place::Free | Place::Mine(_) => publish::create(locks, &name, &bytes),
        };
        match written {
            Ok(()) => {}
            // Somebody who knows no guard, the old module perhaps, was a moment quicker.
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                self.place_of(path, &key, &record.story_id)?;
                return Err(self.system("create", &key, &cause));
            }
            Err(cause) => return Err(self.system("write", &key, &cause)),
        }
        self.changed(key, Some(record.clone()));
        Ok(())
    }

    /// Takes back what a set that fails midway has written. What cannot be removed now is owed.
    fn undo(&mut self, written: &[(Key, u64)]) {
        for (key, token) in written {
            if self.unlink(key).is_err() {
                self.owed.push((*key, *token));
            }
        }
    }

    fn release(
        &mut self,
        held: &mut Held<'_>,
        path: &Located,
        story: &Story,
    ) -> Result<Done, Error> {
        for key in [Some(path.key), path.spelled].into_iter().flatten() {
            match self.found(&key)? {
                Found::Nothing => {}
                Found::Record(record) if record.story_id == *story => {
                    held.note(&[key])?;
                    self.unlink(&key)?;
                }
                Found::Record(record) => {
                    if self.standing(&record)? == Standing::Holds {
                        let holder = Holder::of(*record, &*self.clock);
                        return Err(holder.not_yours("release", path, story));
                    }
                }
                Found::Unreadable(found) => return Err(self.unreadable(path, &key, &found)),
            }
        }
        Ok(Done::Released)
    }

    fn let_go(&mut self, held: &mut Held<'_>, grants: &[(Key, u64)]) -> Result<Vec<bool>, Error> {
        let keys: Vec<Key> = grants.iter().map(|(key, _)| *key).collect();
        held.note(&keys)?;
        let mut answer = Ok(Vec::with_capacity(grants.len()));
        for (key, token) in grants {
            let removed = match self.current(key, *token) {
                Ok(Some(record)) => {
                    // A lease that ended is over, though nobody has taken the path since.
                    let is_over = record.deadline().is_some_and(|end| end.is_over(&*self.clock));
                    self.unlink(key).map(|()| !is_over)
                }
                Ok(None) => Ok(false),
                Err(error) => Err(error),
            };
            match (&mut answer, removed) {
                (Ok(gone), Ok(removed)) => gone.push(removed),
                (Ok(_), Err(error)) => answer = Err(error),
                (Err(_), _) => {}
            }
        }
        answer
    }

    fn renew(
        &mut self,
        held: &mut Held<'_>,
        path: &Located,
        story: &Story,
        lease: Option<Lease>,
    ) -> Result<Done, Error> {
        let lost = |why: &str| {
            Error::new(Code::NotAcquired, format!("Cannot renew lock for {}: {why}.", path.named))
                .at(&path.path)
                .hint("Acquire it again, and read the file anew: others may have changed it.")
        };
        let key = match path.spelled {
            Some(spelled) if !matches!(self.found(&spelled)?, Found::Nothing) => spelled,
            _ => path.key,
        };
        match self.found(&key)? {
            Found::Nothing => Err(lost("nobody holds it")),
            Found::Unreadable(found) => Err(self.unreadable(path, &key, &found)),
            Found::Record(record) => match (self.standing(&record)?, record.story_id == *story) {
                (Standing::Holds, true) => self.begin_lease(held, key, *record, lease),
                (Standing::Holds, false) => {
                    Err(Holder::of(*record, &*self.clock).not_yours("renew", path, story))
                }
                (Standing::Over(_), true) => Err(lost("its lease has ended")),
                (Standing::Over(_), false) => Err(lost("nobody holds it")),
            },
        }
    }

    fn extend(
        &mut self,
        held: &mut Held<'_>,
        key: &Key,
        token: u64,
        lease: Option<Lease>,
    ) -> Result<Done, Error> {
        if let Some(record) = self.current(key, token)?
            && self.standing(&record)? == Standing::Holds
        {
            return self.begin_lease(held, *key, record, lease);
        }
        Err(Error::new(Code::Compromised, "Cannot renew a lock that was lost.")
            .hint("Acquire it again, and read the file anew: others may have changed it."))
    }

    fn begin_lease(
        &mut self,
        held: &mut Held<'_>,
        key: Key,
        mut record: Record,
        lease: Option<Lease>,
    ) -> Result<Done, Error> {
        let lease = lease.unwrap_or(record.lease());
        if lease == Lease::Bound && (record.detached || record.is_old()) {
            return Err(Error::out_of_range(
                "timeout",
                "must be finite for a lock that no living process holds. Received Infinity",
            ));
        }
        record.set_lease(lease, &*self.clock);
        held.note(&[key])?;
        publish::replace(&self.ground.locks, &key.file_name(), &record.to_bytes())
            .map_err(|cause| self.system("write", &key, &cause))?;
        self.changed(key, Some(record.clone()));
        Ok(Done::Renewed(Box::new(Grant { key, record, is_fresh: false, reclaimed: None })))
    }

    fn cleanup(&mut self, held: &mut Held<'_>, story: &Story) -> Result<usize, Error> {
        self.index.find_strays(&self.ground.locks, &*self.clock)?;
        let is_theirs = |(_, record): &(&Key, &Record)| record.story_id == *story;
        let keys: Vec<Key> = self.index.iter().filter(is_theirs).map(|(key, _)| *key).collect();
        self.remove(held, &keys)
    }
}
