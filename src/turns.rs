//! Whose turn it is: the queue's rules, under the guard.
//!
//! # Fairness
//! Waiters are served in order of arrival over all processes. A waiter gets its paths as soon as none is
//! held by another story and nobody in front of it in their queues waits for them too. A waiter of a set
//! takes nothing until it can take everything; from the moment it lines up, its paths that are free are
//! kept for it, so singles cannot starve it; and as nobody is kept waiting for it by more than its place,
//! it cannot starve singles. Two exceptions: the dead are skipped, and a waiter may be passed by a story
//! that it is itself waiting for (directly or through others), since otherwise neither would ever go on.
//! Each such passing is by a story that holds, or will be handed before the waiter, what that one needs.
//! Where no story asks for more while it holds, as with sets asked for at once, there is no such passing;
//! where stories do, passings can follow one another for as long as they go on so.
//!
//! # Deadlock
//! Nobody is queued, and nobody let in, where that would close a circle of stories that hold what the next
//! one waits for. A circle through a place in a queue is opened by the second exception.
//!
//! # A kill in the middle
//! A turn is given by writing the records with the waiter's number, then taking the waiter out of the
//! queues. Whoever finds records with a number that still stands in other queues completes the turn, since
//! to that waiter what it has already is no obstacle.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::error::Error;
use crate::grant::{Blocker, Place, Want};
use crate::graph::{self, Arms, Facts};
use crate::guard::Held;
use crate::key::Key;
use crate::queue::{self, Waiter, WaiterId};
use crate::record::{Found, Record};
use crate::session::{self, Life};
use crate::shelf::Shelf;
use crate::standing::Standing;
use crate::story::Story;

/// What is so now, as far as waiting goes: of the living alone. `freed` are being given up.
pub(crate) struct Now<'a> {
    pub(crate) shelf: &'a mut Shelf,
    pub(crate) freed: &'a HashSet<Key>,
}

impl Facts for Now<'_> {
    fn waits(&mut self, story: &Story) -> Vec<(WaiterId, Key)> {
        let mut waits = self.shelf.index.waits_of(story);
        waits.retain(|(id, key)| {
            let waiter = self.shelf.index.queue(key).iter().find(|one| one.id == *id).cloned();
            waiter.is_some_and(|waiter| self.shelf.lives(&waiter).unwrap_or(true))
        });
        waits
    }

    fn holder(&mut self, key: &Key) -> Option<Story> {
        let record = self.shelf.index.get(key).filter(|_| !self.freed.contains(key))?.clone();
        // What cannot be asked about counts as held.
        let is_over = matches!(self.shelf.standing(&record), Ok(Standing::Over(_)));
        (!is_over).then_some(record.story_id)
    }

    fn in_front(&mut self, key: &Key, id: WaiterId) -> Option<Story> {
        let queue = self.shelf.index.queue(key).to_vec();
        let at = queue.iter().position(|waiter| waiter.id == id)?;
        let mut lives = |waiter: &Waiter| self.shelf.lives(waiter).unwrap_or(true);
        let others = queue[..at].iter().rev().filter(|one| one.story_id != queue[at].story_id);
        others.into_iter().find(|waiter| lives(waiter)).map(|waiter| waiter.story_id.clone())
    }
}

impl Shelf {
    /// What each path is to the story, or what keeps it from them. `freed` are being given up.
    ///
    /// # Errors
    /// What the system says: then nothing is certain.
    pub(crate) fn openings(
        &mut self,
        want: &Want<'_>,
        freed: &HashSet<Key>,
    ) -> Result<Result<Vec<Place>, Blocker>, Error> {
        let mut places = Vec::with_capacity(want.keys.len());
        for key in want.keys {
            let place = if freed.contains(key) {
                Place::Passed
            } else {
                match self.place_of(key, want.story)? {
                    Ok(place) => place,
                    Err(blocker) => return Ok(Err(blocker)),
                }
            };
            if !matches!(place, Place::Mine(_))
                && let Some(waiter) = self.in_front(key, want, freed)?
            {
                return Ok(Err(Blocker::Kept(*key, Box::new(waiter))));
            }
            places.push(place);
        }
        Ok(self.circle_by_grant(want, &places, freed)?.map_or(Ok(places), Err))
    }

    /// The living waiter of another story that keeps this one from a free path.
    fn in_front(
        &mut self,
        key: &Key,
        want: &Want<'_>,
        freed: &HashSet<Key>,
    ) -> Result<Option<Waiter>, Error> {
        let ahead = |waiter: &&Waiter| waiter.id < want.id && waiter.story_id != *want.story;
        let ahead: Vec<Waiter> = self.index.queue(key).iter().filter(ahead).cloned().collect();
        for waiter in ahead {
            if self.lives(&waiter)? && !self.waits_for(&waiter.story_id, want.story, freed) {
                return Ok(Some(waiter));
            }
        }
        Ok(None)
    }

    /// A story that waits elsewhere must not be given what would close a circle through there.
    fn circle_by_grant(
        &mut self,
        want: &Want<'_>,
        places: &[Place],
        freed: &HashSet<Key>,
    ) -> Result<Option<Blocker>, Error> {
        if self.index.waits_of(want.story).iter().all(|(id, _)| *id == want.id) {
            return Ok(None);
        }
        let waited_for = graph::reach(&mut Now { shelf: self, freed }, want.story, Arms::Held);
        for (key, place) in want.keys.iter().zip(places) {
            if matches!(place, Place::Mine(_)) {
                continue;
            }
            for waiter in self.index.queue(key).to_vec() {
                if waiter.story_id != *want.story
                    && waited_for.contains(&waiter.story_id)
                    && self.lives(&waiter)?
                {
                    return Ok(Some(Blocker::Kept(*key, Box::new(waiter))));
                }
            }
        }
        Ok(None)
    }

    /// Whether one living story waits for another, directly, through others, or through places in line.
    fn waits_for(&mut self, from: &Story, to: &Story, freed: &HashSet<Key>) -> bool {
        if !self.reach.contains_key(from) {
            let reach = graph::reach(&mut Now { shelf: self, freed }, from, Arms::HeldAndQueued);
            self.reach.insert(from.clone(), reach);
        }
        self.reach.get(from).is_some_and(|reach| reach.contains(to))
    }

    /// Whether a waiter's process lives.
    pub(crate) fn lives(&mut self, waiter: &Waiter) -> Result<bool, Error> {
        let life = match self.life(waiter.holder) {
            // Somebody removed its holder file: its process is asked about.
            Ok(Life::Unknown) => {
                let Waiter { pid, process, boot, .. } = waiter;
                session::life_of_process(*pid, process, boot, &*self.clock)
            }
            life => life.map_err(|cause| self.no_life(waiter.holder, &cause))?,
        };
        Ok(life != Life::Dead)
    }

    /// Gives turns where these keys have come free: `freed` still have the records of those who give
    /// them up, `open` have none that holds. Answers which of the freed have a new holder.
    pub(crate) fn pass_on(
        &mut self,
        held: &mut Held<'_>,
        mut freed: HashSet<Key>,
        open: &[Key],
    ) -> HashSet<Key> {
        let mut passed = HashSet::new();
        self.reach.clear();
        let mut open: BTreeSet<Key> = open.iter().copied().chain(freed.iter().copied()).collect();
        // A path that has a new holder is looked at again: others of its story wait no more.
        let mut looked_at = open.clone();
        'again: loop {
            let is_tangled = self.index.is_tangled();
            if is_tangled {
                open.extend(self.index.queued().copied());
                looked_at.extend(self.index.queued().copied());
            }
            for (key, waiter) in self.candidates(&looked_at) {
                let keys = waiter.keys(&key);
                let is_anothers = |record: &Record| record.story_id != waiter.story_id;
                let is_shut = !open.contains(&key) && self.index.get(&key).is_some_and(is_anothers);
                if keys.len() == 1 && is_shut {
                    continue;
                }
                // What cannot be asked now is asked again when somebody looks.
                let Ok(lives) = self.lives(&waiter) else { continue };
                if !lives {
                    if self.strike(held, &waiter, &keys).is_err() {
                        continue;
                    }
                } else {
                    let want = Want { story: &waiter.story_id, id: waiter.id, keys: &keys };
                    let Ok(Ok(places)) = self.openings(&want, &freed) else { continue };
                    if self.seat(held, &waiter, &keys, places).is_err() {
                        continue;
                    }
                    for key in &keys {
                        open.remove(key);
                        if freed.remove(key) {
                            passed.insert(*key);
                        }
                    }
                }
                if is_tangled {
                    continue 'again;
                }
            }
            self.reach.clear();
            return passed;
        }
    }

    /// The waiters of these keys in order of arrival, each with one of its keys.
    fn candidates(&self, keys: &BTreeSet<Key>) -> Vec<(Key, Waiter)> {
        let queues = keys.iter().map(|key| (key, self.index.queue(key)));
        let waiters = queues.flat_map(|(key, queue)| queue.iter().map(|one| (one.id, (*key, one))));
        let ordered: BTreeMap<WaiterId, (Key, &Waiter)> = waiters.collect();
        ordered.into_values().map(|(key, waiter)| (key, waiter.clone())).collect()
    }

    /// Gives a waiter its turn: the records first, then out of the queues.
    pub(crate) fn seat(
        &mut self,
        held: &mut Held<'_>,
        waiter: &Waiter,
        keys: &[Key],
        places: Vec<Place>,
    ) -> Result<(), Error> {
        let token = held.note_grants(keys)?;
        let mut written = Vec::with_capacity(keys.len());
        for ((token, key), place) in (token..).zip(keys).zip(&places) {
            if matches!(place, Place::Mine(_)) {
                continue;
            }
            let entry = self.index.queue(key).iter().find(|entry| entry.id == waiter.id);
            let entry = entry.unwrap_or(waiter).clone();
            let record = self.record(&entry, token, Some(waiter.id), place);
            if let Err(error) = self.write(*key, &record, place) {
                self.undo(&written);
                return Err(error);
            }
            written.push((*key, token));
        }
        // A queue that cannot be written now is put right by the number in the record.
        let _ = self.unqueue(waiter.id, keys);
        self.rung.insert(waiter.holder);
        Ok(())
    }

    /// Takes a dead waiter out of its queues.
    pub(crate) fn strike(
        &mut self,
        held: &mut Held<'_>,
        waiter: &Waiter,
        keys: &[Key],
    ) -> Result<(), Error> {
        held.note(keys)?;
        self.unqueue(waiter.id, keys)
    }

    pub(crate) fn unqueue(&mut self, id: WaiterId, keys: &[Key]) -> Result<(), Error> {
        let mut answer = Ok(());
        for key in keys {
            let waiters = self.index.queue(key).to_vec();
            let rest: Vec<Waiter> =
                waiters.iter().filter(|waiter| waiter.id != id).cloned().collect();
            if rest.len() < waiters.len() || self.index.is_haunted(key) {
                let written = self.write_queue(key, rest.clone());
                if written.is_err() {
                    // It waits no more, though the file says so; that is mended as soon as it can be.
                    self.index.haunt(*key, rest);
                    self.reach.clear();
                }
                answer = answer.and(written);
            }
        }
        answer
    }

    /// Writes the queues anew that still name one who has been served.
    ///
    /// # Errors
    /// What the system says; then the records of these keys must stay.
    pub(crate) fn exorcise(&mut self, keys: &[Key]) -> Result<(), Error> {
        for key in keys.iter().filter(|key| self.index.is_haunted(key)).copied().collect::<Vec<_>>()
        {
            self.write_queue(&key, self.index.queue(&key).to_vec())?;
        }
        Ok(())
    }

    pub(crate) fn write_queue(&mut self, key: &Key, waiters: Vec<Waiter>) -> Result<(), Error> {
        let mut written = queue::write(&self.ground.queue, key, waiters.clone());
        if written.as_ref().is_err_and(|cause| cause.kind() == std::io::ErrorKind::NotFound) {
            // Somebody removed the folder alone.
            self.ground.mend()?;
            written = queue::write(&self.ground.queue, key, waiters.clone());
        }
        let path = || self.ground.queue.path().join(key.to_string());
        written.map_err(|cause| Error::system("write the queue", &path(), &cause))?;
        self.touched.push(*key);
        self.reach.clear();
        self.index.line_up(*key, waiters);
        Ok(())
    }

    /// Gives turns on those of these keys whose holder has ended unnoticed.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn unstick(&mut self, held: &mut Held<'_>, keys: &[Key]) -> Result<(), Error> {
        let mut open = Vec::new();
        for key in keys.iter().copied() {
            if self.index.queue(&key).is_empty() {
                continue;
            }
            let is_open = match self.found(&key)? {
                Found::Nothing => true,
                // One of the holder's own story waits for nothing.
                Found::Record(record) => {
                    let story = &record.story_id;
                    let is_theirs = |waiter: &Waiter| waiter.story_id == *story;
                    self.index.queue(&key).iter().any(is_theirs)
                        || self.standing(&record)? != Standing::Holds
                }
                Found::Unreadable(found) => self.standing_of_unreadable(&found)? != Standing::Holds,
            };
            if is_open {
                open.push(key);
            }
        }
        if !open.is_empty() {
            self.pass_on(held, HashSet::new(), &open);
        }
        Ok(())
    }
}
