//! The steps of the protocol: acquire, release, renew, clean up. All under the guard, and nothing else.
//!
//! Promises, for a kill between any two system calls: a set that was not granted is not held (its records
//! name a holder that is dead); a path is never left without the record of a living holder; nothing has
//! to be cleaned by hand. Each step decides first, then notes the keys it will change, then changes them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::PoisonError;

use crate::change::{self, Staged};
use crate::error::{Code, Error, Line, Writer};
use crate::grant::{Blocker, Place, Want};
use crate::ground::WRITTEN;
use crate::guard::Held;
use crate::holder::Holder;
use crate::key::{Key, Located};
use crate::lease::Lease;
use crate::publish;
use crate::queue::WaiterId;
use crate::record::{Found, Record};
use crate::shelf::Shelf;
use crate::standing::Standing;
use crate::store::{Acquire, Done, Grant, Step};
use crate::story::Story;
use crate::sys;

impl Shelf {
    /// Decides one step.
    ///
    /// # Errors
    /// A refusal, or what the system says; then the step changed nothing, or [`Shelf::owed`] says what.
    pub fn step(&mut self, held: &mut Held<'_>, step: &Step) -> Result<Done, Error> {
        match step {
            Step::Acquire(ask) => {
                self.acquire(held, ask).map_err(|error| error.by(ask.story.as_str()))
            }
            Step::Release { path, story } => {
                self.release(held, path, story).map_err(|error| error.by(story.as_str()))
            }
            Step::LetGo(grants) => self.let_go(held, grants).map(Done::LetGo),
            Step::Renew { path, story, lease } => {
                self.renew(held, path, story, *lease).map_err(|error| error.by(story.as_str()))
            }
            Step::Extend { key, token, lease, detached } => {
                self.extend(held, key, *token, *lease, *detached)
            }
            Step::Cleanup { story } => self.cleanup(held, story).map(Done::Cleaned),
            Step::Commit { grants, story, change } => {
                let mut change = change.lock().unwrap_or_else(PoisonError::into_inner);
                self.commit(grants, story, &mut change)
                    .map(|()| Done::Committed)
                    .map_err(|error| error.by(story.as_str()))
            }
            Step::Leave { waiter, keep } => self.leave(held, *waiter, *keep),
        }
    }

    fn acquire(&mut self, held: &mut Held<'_>, ask: &Acquire) -> Result<Done, Error> {
        let mut paths: Vec<(&Located, Key)> = Vec::with_capacity(ask.paths.len());
        let mut seen = HashSet::with_capacity(ask.paths.len());
        for path in ask.paths.iter().filter(|path| seen.insert(path.key)) {
            paths.push((path, self.key_of(path, &ask.story)?));
        }
        let keys: Vec<Key> = paths.iter().map(|(_, key)| *key).collect();
        self.unstick(held, &keys)?;
        let want = Want { story: &ask.story, id: WaiterId::MAX, keys: &keys };
        match self.openings(&want, &HashSet::new())? {
            Ok(places) => self.take(held, ask, &paths, places).map(Done::Granted),
            Err(blocker) => match (ask.queue, blocker) {
                (Some(limit), blocker @ (Blocker::Held(..) | Blocker::Kept(..))) => {
                    if let Blocker::Held(key, record) = blocker
                        && self.index.get(&key).is_none()
                    {
                        // The old module's, which nobody noted: its end is watched from now on.
                        self.index.put(key, *record, &*self.clock);
                    }
                    let holder = self.own_session(held)?;
                    let candidates =
                        paths.iter().map(|(path, _)| self.candidate(path, ask, holder)).collect();
                    self.line_up(held, candidates, &keys, limit)
                }
                (_, blocker) => Err(self.refused(&paths, blocker)),
            },
        }
    }

    /// The key that the path goes by: its identity, unless that is free and the story holds its spelling
    /// (a record of the old module, or of a time before a link was made).
    fn key_of(&mut self, path: &Located, story: &Story) -> Result<Key, Error> {
        let Some(spelled) = path.spelled else { return Ok(path.key) };
        if !matches!(self.place_of(&path.key, story)?, Ok(Place::Free | Place::Over(..))) {
            return Ok(path.key);
        }
        match self.place_of(&spelled, story)? {
            Ok(Place::Mine(_)) => Ok(spelled),
            Ok(_) => Ok(path.key),
            Err(blocker) => Err(self.refused(&[(path, spelled)], blocker)),
        }
    }

    fn refused(&mut self, paths: &[(&Located, Key)], blocker: Blocker) -> Error {
        let key = blocker.key();
        let (path, shown) = match paths.iter().find(|(_, of)| *of == key) {
            Some((path, _)) => (path.path.as_path(), path.named.as_str()),
            None => (paths[0].0.path.as_path(), paths[0].0.named.as_str()),
        };
        let line = Line { waiters: self.living_queue(&key).len(), ..Line::default() };
        self.refusal(blocker, path, shown, line)
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
                    self.vacate(held, &[key])?;
                }
                Found::Record(record) => {
                    if self.standing(&record)? == Standing::Holds {
                        let holder = Holder::of(*record, &*self.clock);
                        return Err(holder.not_yours("release", path, story));
                    }
                }
                Found::Unreadable(found) => return Err(self.unreadable(&key, &found, path)),
            }
        }
        Ok(Done::Released)
    }

    fn let_go(&mut self, held: &mut Held<'_>, grants: &[(Key, u64)]) -> Result<Vec<bool>, Error> {
        let mut standing = Vec::with_capacity(grants.len());
        let mut released = Vec::with_capacity(grants.len());
        for (key, token) in grants {
            let record = self.current(key, *token)?;
            standing.extend(record.as_ref().map(|_| *key));
            // A lease that ended is over, though nobody has taken the path since.
            let runs = |record: &Record| !record.is_over(&*self.clock);
            released.push(record.as_ref().is_some_and(runs));
        }
        self.vacate(held, &standing)?;
        Ok(released)
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
            Found::Unreadable(found) => Err(self.unreadable(&key, &found, path)),
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
        detached: Option<bool>,
    ) -> Result<Done, Error> {
        let Some(mut record) = self.current(key, token)? else { return Err(lost()) };
        if self.standing(&record)? != Standing::Holds {
            return Err(lost());
        }
        match detached {
            Some(false) if record.detached => {
                record.detached = false;
                record.holder = self.own_session(held)?;
                record.pid = std::process::id();
                record.process = self.process.clone();
                sys::host().clone_into(&mut record.host);
                self.begin_lease(held, *key, record, lease)
            }
            Some(true) if !record.detached => {
                // Written under a holder of its own, it is detached in the moment that this one goes.
                let making = self.begin_session(held)?;
                record.detached = true;
                record.holder = making.id();
                let done = self.begin_lease(held, *key, record, lease)?;
                making.end(&self.ground.holders)?;
                Ok(done)
            }
            _ => self.begin_lease(held, *key, record, lease),
        }
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
        self.write(key, &record, &Place::Passed)?;
        Ok(Done::Renewed(Box::new(Grant { key, record, is_fresh: false })))
    }

    /// Puts a change in place while every lock that it leans on is current.
    fn commit(
        &mut self,
        grants: &[(Key, u64)],
        story: &Story,
        change: &mut Staged,
    ) -> Result<(), Error> {
        for (key, token) in grants {
            let found = self.found(key)?;
            let record = match &found {
                Found::Record(record) if record.token == *token => Some(record),
                _ => None,
            };
            let holds = match record {
                Some(record) => {
                    record.story_id == *story && self.standing(record)? == Standing::Holds
                }
                None => false,
            };
            if !holds {
                let path = change.path_of(key);
                return Err(self.fenced(key, story, found, path));
            }
        }
        change.commit(&self.ground.locks)?;
        for (key, hash) in &change.hashes {
            let token = grants.iter().find(|(of, _)| of == key).map_or(0, |(_, token)| *token);
            let writer = Writer {
                story_id: story.to_string(),
                pid: std::process::id(),
                token,
                at: self.clock.wall_ms(),
                hash: hash.map(change::hex),
            };
            // For people alone: a change that is in place is not called failed for want of it.
            let bytes = serde_json::to_vec(&writer).unwrap_or_default();
            let written = self.ground.annex(WRITTEN);
            let _ = written.map(|dir| publish::replace(&dir, &key.to_string(), &bytes));
        }
        Ok(())
    }

    fn fenced(&self, key: &Key, story: &Story, found: Found, path: Option<PathBuf>) -> Error {
        let holder = match found {
            Found::Record(record) => Some(Holder::of(*record, &*self.clock)),
            Found::Nothing | Found::Unreadable(_) => None,
        };
        let held = holder.as_ref().map(|holder| holder.record.file_path.clone());
        let path = path.or(held).unwrap_or_else(|| self.record_path(key));
        let taken = holder.as_ref().filter(|holder| holder.record.story_id != *story);
        let how = match taken {
            Some(holder) => format!("{} has it now", holder.record.story_id),
            None => "its lease ended or it was given up".to_owned(),
        };
        let message = format!("{story} holds the lock on {} no more: {how}.", path.display());
        let error = Error::new(Code::Fenced, message).at(&path).hint(
            "Nothing was written. Acquire it again and read it anew: others may have changed it.",
        );
        match holder {
            Some(holder) => error.held_by(holder),
            None => error,
        }
    }

    fn cleanup(&mut self, held: &mut Held<'_>, story: &Story) -> Result<usize, Error> {
        self.index.find_strays(&self.ground, &*self.clock)?;
        let is_theirs = |(_, record): &(&Key, &Record)| record.story_id == *story;
        let known: Vec<Key> = self.index.iter().filter(is_theirs).map(|(key, _)| *key).collect();
        let mut keys = Vec::with_capacity(known.len());
        for key in known {
            match self.found(&key)? {
                Found::Record(record) if record.story_id == *story => keys.push(key),
                // Somebody who knows no guard has changed it.
                _ => self.reload(&key)?,
            }
        }
        self.vacate(held, &keys)?;
        Ok(keys.len())
    }
}

fn lost() -> Error {
    Error::new(Code::Compromised, "Cannot renew a lock that was lost.")
        .hint("Acquire it again, and read the file anew: others may have changed it.")
}
