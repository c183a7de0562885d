//! The steps of the protocol: acquire, release, renew, clean up. All under the guard, and nothing else.
//!
//! Promises, for a kill between any two system calls: a set that was not granted is not held (its records
//! name a holder that is dead); a path is never left without the record of a living holder; nothing has
//! to be cleaned by hand. Each step decides first, then notes the keys it will change, then changes them.

use std::sync::PoisonError;

use crate::error::{Code, Error, Line};
use crate::found::Found;
use crate::grant::lost;
use crate::guard::Held;
use crate::history::What;
use crate::holder::Holder;
use crate::key::{Key, Located};
use crate::kind::{Extent, Kind, Mode};
use crate::lease::Lease;
use crate::queue::WaiterId;
use crate::record::Record;
use crate::room::{Blocker, Want};
use crate::shelf::{Freed, Shelf, Why};
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
                let answer = self.acquire(held, ask);
                answer.map_err(|error| error.by(ask.story.as_str())).inspect_err(|error| {
                    self.tell_refused(ask, error);
                })
            }
            Step::Release { path, story } => {
                self.release(held, path, story).map_err(|error| error.by(story.as_str()))
            }
            Step::LetGo(grants) => self.let_go(held, grants).map(Done::LetGo),
            Step::Renew { path, story, lease } => self
                .renew(held, path, story, *lease)
                .map(|done| self.renewed(done))
                .map_err(|error| error.by(story.as_str())),
            Step::Extend { key, token, lease, detached: None } => {
                self.extend(held, key, *token, *lease, None).map(|done| self.renewed(done))
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
            Step::Lower { key, token, kind } => self.lower(held, *key, *token, *kind),
            Step::Transfer { key, token, story } => {
                self.transfer(held, *key, *token, story).map_err(|error| error.by(story.as_str()))
            }
            Step::Offer { grants, digest } => self.offer(held, grants, digest),
            Step::Adopt { grants, digest, lease } => self.adopt(held, grants, digest, *lease),
            Step::Force(force) => self.force(held, force),
        }
    }

    fn renewed(&mut self, done: Done) -> Done {
        if let Done::Renewed(grant) = &done {
            self.tell(self.event(What::Renewed, &grant.record));
        }
        done
    }

    fn acquire(&mut self, held: &mut Held<'_>, ask: &Acquire) -> Result<Done, Error> {
        let mut paths: Vec<(&Located, Extent)> = Vec::with_capacity(ask.paths.len());
        for (path, kind) in &ask.paths {
            match paths.iter_mut().find(|(known, _)| known.key == path.key) {
                Some((_, extent)) => extent.kind = extent.kind.joined(*kind),
                None => paths.push((path, Extent::of(path, *kind))),
            }
        }
        for (path, extent) in &mut paths {
            extent.key = self.key_of(path, &ask.story)?;
        }
        let extents: Vec<Extent> = paths.iter().map(|(_, extent)| extent.clone()).collect();
        self.unstick(held, &extents)?;
        let want = Want { story: &ask.story, id: WaiterId::MAX, extents: &extents };
        match self.openings(&want, &Freed::new())? {
            Ok(rooms) => {
                let grants = self.take(held, ask, &paths, rooms)?;
                // What its story waits for elsewhere may be more by now, and others may pass it.
                if self.index.is_tangled() && !self.index.waits_of(&ask.story).is_empty() {
                    self.pass_on(held, Freed::new(), &[]);
                }
                Ok(Done::Granted(grants))
            }
            Err(blocker) => match (ask.queue, blocker) {
                (Some(limit), blocker @ (Blocker::Held(..) | Blocker::Kept(..))) => {
                    if let Blocker::Held(_, holders) = &blocker {
                        // The old module's, which nobody noted: their ends are watched from now on.
                        for key in holders.iter().map(|(key, _)| *key).collect::<Vec<_>>() {
                            if self.index.get(&key).is_empty() {
                                self.reload(&key)?;
                            }
                        }
                    }
                    let holder = self.own_session(held)?;
                    let candidate = |(path, extent): &(&Located, Extent)| {
                        self.candidate(path, extent, ask, holder)
                    };
                    let candidates = paths.iter().map(candidate).collect();
                    self.line_up(held, candidates, extents, limit)
                }
                (_, blocker) => Err(self.refused(&paths, blocker)),
            },
        }
    }

    /// The key that the path goes by: its identity, unless that is free and the story holds its spelling
    /// (a record of the old module, or of a time before a link was made).
    fn key_of(&mut self, path: &Located, story: &Story) -> Result<Key, Error> {
        let Some(spelled) = path.spelled else { return Ok(path.key) };
        for record in self.held_at(&path.key)? {
            if self.standing(&record)? == Standing::Holds {
                return Ok(path.key);
            }
        }
        for record in self.held_at(&spelled)? {
            if self.standing(&record)? == Standing::Holds {
                if record.story_id == *story {
                    return Ok(spelled);
                }
                let extent = Extent { key: spelled, ..Extent::of(path, Kind::default()) };
                let blocker = Blocker::Held(spelled, vec![(spelled, record)]);
                return Err(self.refused(&[(path, extent)], blocker));
            }
        }
        match self.found(&spelled)? {
            Found::Unreadable(found) if self.standing_of_unreadable(&found)? == Standing::Holds => {
                Err(self.unreadable(&spelled, &found, path))
            }
            _ => Ok(path.key),
        }
    }

    /// The records of a key; none where something else stands.
    fn held_at(&self, key: &Key) -> Result<Vec<Record>, Error> {
        Ok(match self.found(key)? {
            Found::Held(holds) => holds,
            Found::Nothing | Found::Unreadable(_) => Vec::new(),
        })
    }

    fn refused(&mut self, paths: &[(&Located, Extent)], blocker: Blocker) -> Error {
        let key = blocker.key();
        let of_it = paths.iter().find(|(_, extent)| extent.key == key).or(paths.first());
        let Some((path, _)) = of_it else { return Error::defect() };
        let line = Line { waiters: self.living_queue(&key).len(), ..Line::default() };
        self.refusal(blocker, &path.path, &path.named, line)
    }

    fn release(
        &mut self,
        held: &mut Held<'_>,
        path: &Located,
        story: &Story,
    ) -> Result<Done, Error> {
        for key in [Some(path.key), path.spelled].into_iter().flatten() {
            let holds = match self.found(&key)? {
                Found::Nothing => continue,
                Found::Held(holds) => holds,
                Found::Unreadable(found) => return Err(self.unreadable(&key, &found, path)),
            };
            if let Some(record) = holds.iter().find(|record| record.story_id == *story) {
                self.vacate(held, &[(key, record.token)], &Why::Released)?;
                continue;
            }
            for record in holds {
                if self.standing(&record)? == Standing::Holds {
                    let holder = Holder::of(record, &*self.clock);
                    return Err(holder.not_yours("release", path, story));
                }
            }
        }
        Ok(Done::Released)
    }

    fn let_go(&mut self, held: &mut Held<'_>, grants: &[(Key, u64)]) -> Result<Vec<bool>, Error> {
        let mut standing = Vec::with_capacity(grants.len());
        let mut released = Vec::with_capacity(grants.len());
        for (key, token) in grants {
            let record = self.current(key, *token)?;
            standing.extend(record.as_ref().map(|_| (*key, *token)));
            // A lease that ended is over, though nobody has taken the path since.
            let runs = |record: &Record| !record.is_over(&*self.clock);
            released.push(record.as_ref().is_some_and(runs));
        }
        self.vacate(held, &standing, &Why::Released)?;
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
        let holds = match self.found(&key)? {
            Found::Nothing => return Err(lost("nobody holds it")),
            Found::Unreadable(found) => return Err(self.unreadable(&key, &found, path)),
            Found::Held(holds) => holds,
        };
        for record in holds {
            let is_theirs = record.story_id == *story;
            match self.standing(&record)? {
                Standing::Holds if is_theirs => return self.begin_lease(held, key, record, lease),
                Standing::Over(_) if is_theirs => return Err(lost("its lease has ended")),
                Standing::Holds if record.mode == Mode::Exclusive => {
                    let holder = Holder::of(record, &*self.clock);
                    return Err(holder.not_yours("renew", path, story));
                }
                _ => {}
            }
        }
        Err(lost("the story does not hold it"))
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
                let extent = record.extent(*key);
                let done = self.begin_lease(held, *key, record, lease)?;
                self.alert(&extent);
                Ok(done)
            }
            Some(true) if !record.detached => {
                // Written under a holder of its own, it is detached in the moment that this one goes.
                let making = self.begin_session(held)?;
                record.detached = true;
                record.holder = making.id();
                let before = self.current(key, token)?.ok_or_else(lost)?;
                let done = self.begin_lease(held, *key, record, lease)?;
                if let Err(error) = making.end(&self.ground.holders) {
                    // While that file stands, its life is what holds it: it goes back to what it was.
                    self.rewrite(*key, token, &before)?;
                    return Err(error);
                }
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
        self.rewrite(key, record.token, &record)?;
        Ok(Done::Renewed(Box::new(Grant { key, record, is_fresh: false })))
    }

    fn cleanup(&mut self, held: &mut Held<'_>, story: &Story) -> Result<usize, Error> {
        self.index.find_strays(&self.ground, &*self.clock)?;
        let is_theirs = |(_, record): &(&Key, &Record)| record.story_id == *story;
        let known: Vec<Key> = self.index.iter().filter(is_theirs).map(|(key, _)| *key).collect();
        let mut gone = Vec::with_capacity(known.len());
        for key in known {
            match self.held_at(&key)?.iter().find(|record| record.story_id == *story) {
                Some(record) => gone.push((key, record.token)),
                // Somebody who knows no guard has changed it.
                None => self.reload(&key)?,
            }
        }
        self.vacate(held, &gone, &Why::Cleaned)?;
        Ok(gone.len())
    }
}
