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
use std::path::PathBuf;

use crate::error::Error;
use crate::found::Found;
use crate::guard::Held;
use crate::key::Key;
use crate::kind::{Extent, Kind, Mode};
use crate::queue::{self, Waiter, WaiterId};
use crate::room::{Blocker, Room, Want};
use crate::session::{self, Life};
use crate::shelf::{Freed, Shelf};
use crate::standing::Standing;
use crate::story::Story;

impl Shelf {
    /// What each extent is to the story, or what keeps it from them. `freed` are being given up.
    ///
    /// # Errors
    /// What the system says: then nothing is certain.
    pub(crate) fn openings(
        &mut self,
        want: &Want<'_>,
        freed: &Freed,
    ) -> Result<Result<Vec<Room>, Blocker>, Error> {
        let mut rooms = Vec::with_capacity(want.extents.len());
        let wishes = want.extents.iter().map(|extent| self.wish(extent, want.story, freed));
        let wishes: Vec<Extent> = wishes.collect();
        let want = &Want { extents: &wishes, ..*want };
        for extent in want.extents {
            let room = match self.room_of(extent, want.story, freed)? {
                Ok(room) => room,
                Err(blocker) => return Ok(Err(blocker)),
            };
            if !room.is_mine(extent.kind)
                && let Some(waiter) = self.in_front(extent, want, freed)?
            {
                return Ok(Err(Blocker::Kept(extent.key, Box::new(waiter))));
            }
            rooms.push(room);
        }
        Ok(self.circle_by_grant(want, &rooms, freed)?.map_or(Ok(rooms), Err))
    }

    /// The living waiter of another story that keeps this one from what is free.
    fn in_front(
        &mut self,
        extent: &Extent,
        want: &Want<'_>,
        freed: &Freed,
    ) -> Result<Option<Waiter>, Error> {
        let against = self.waiters_against(extent, want.story, freed).into_iter();
        let ahead = against.filter(|(_, waiter)| waiter.id < want.id);
        let mut ahead: Vec<Waiter> = ahead.map(|(_, waiter)| waiter).collect();
        ahead.sort_by_key(|waiter| waiter.id);
        for waiter in ahead {
            if self.lives(&waiter)? && !self.waits_for(&waiter.story_id, want.story, freed) {
                return Ok(Some(waiter));
            }
        }
        Ok(None)
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

    /// Gives turns where something has come free: `freed` still have the records of those who give them
    /// up, `open` are keys where what is noted may be over. Answers which of the keys have been written.
    pub(crate) fn pass_on(
        &mut self,
        held: &mut Held<'_>,
        mut freed: Freed,
        open: &[Key],
    ) -> HashSet<Key> {
        let mut passed = HashSet::new();
        self.reach.clear();
        let freed_keys: Vec<Key> = freed.iter().map(|(key, _)| *key).collect();
        let mut open: BTreeSet<Key> = open.iter().copied().chain(freed_keys).collect();
        // A path that has a new holder is looked at again: others of its story wait no more.
        let mut looked_at = open.clone();
        'again: loop {
            let is_tangled = self.index.is_tangled();
            if is_tangled {
                open.extend(self.index.queued().copied());
                looked_at.extend(self.index.queued().copied());
            }
            for (key, waiter) in self.candidates(&looked_at) {
                let extents = self.extents_of(&waiter, &key);
                if extents.len() == 1 && self.is_shut(&extents[0], &waiter.story_id, &open, &freed)
                {
                    continue;
                }
                // What cannot be asked now is asked again when somebody looks.
                let Ok(lives) = self.lives(&waiter) else { continue };
                if !lives {
                    if self.strike_dead(held, &waiter, &key).is_err() {
                        continue;
                    }
                } else {
                    let want = Want { story: &waiter.story_id, id: waiter.id, extents: &extents };
                    let Ok(Ok(rooms)) = self.openings(&want, &freed) else { continue };
                    if self.seat(held, &waiter, &extents, &rooms).is_err() {
                        continue;
                    }
                    for (extent, room) in extents.iter().zip(&rooms) {
                        if room.is_mine(extent.kind) {
                            // Nothing was written there: what is given up is still to be taken out.
                            continue;
                        }
                        open.remove(&extent.key);
                        let is_freed = |(key, _): &(Key, u64)| *key == extent.key;
                        if freed.iter().any(is_freed) {
                            freed.retain(|one| !is_freed(one));
                            passed.insert(extent.key);
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

    /// Whether another story has an extent for sure, as far as was noted: nobody needs to look.
    fn is_shut(
        &mut self,
        extent: &Extent,
        story: &Story,
        open: &BTreeSet<Key>,
        freed: &Freed,
    ) -> bool {
        let against = self.index.against(extent, story).into_iter();
        let mut sure = against
            .filter(|(key, record)| !open.contains(key) && !freed.contains(&(*key, record.token)));
        let first = sure.next().map(|(_, record)| record.clone());
        // The dead are in nobody's way, though nobody may have looked yet.
        first.is_some_and(|first| matches!(self.standing(&first), Ok(Standing::Holds)))
    }

    /// What a waiter wants, seen from one of its keys.
    pub(crate) fn extents_of(&self, waiter: &Waiter, key: &Key) -> Vec<Extent> {
        let entry = |key: Key| {
            let entry = self.index.queue(&key).iter().find(|entry| entry.id == waiter.id);
            // What a killed process has given it already stands in no queue any more.
            let given = self.index.get(&key).iter().find(|one| one.waiter == Some(waiter.id));
            let given = given.map(|record| self.index.extent(key, record));
            // An entry that somebody took away by hand tells neither path nor kind.
            let unknown = || Extent { key, path: PathBuf::new(), kind: Kind::default() };
            entry.map(|entry| entry.extent(key)).or(given).unwrap_or_else(unknown)
        };
        waiter.keys(key).into_iter().map(entry).collect()
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
        extents: &[Extent],
        rooms: &[Room],
    ) -> Result<(), Error> {
        let keys: Vec<Key> = extents.iter().map(|extent| extent.key).collect();
        let token = held.note_grants(&keys)?;
        let mut written = Vec::with_capacity(keys.len());
        let mut taken = Vec::with_capacity(keys.len());
        for ((token, extent), room) in (token..).zip(extents).zip(rooms) {
            if room.is_mine(extent.kind) {
                continue;
            }
            let key = extent.key;
            let entry = self.index.queue(&key).iter().find(|entry| entry.id == waiter.id);
            let entry = entry.unwrap_or(waiter).clone();
            let record = self.record(&entry, token, Some(waiter.id), room);
            taken.push((record.clone(), room, entry));
            if let Err(error) = self.settle_in(key, record, room, &mut written) {
                self.undo(written);
                return Err(error);
            }
        }
        // A queue that cannot be written now is put right by the number in the record.
        let _ = self.unqueue(waiter.id, &keys);
        self.rung.insert(waiter.holder);
        for (record, room, waiter) in taken {
            self.tell_taken(&record, room, Some(&waiter));
        }
        for extent in extents {
            self.alert_before(extent, waiter.id);
        }
        Ok(())
    }

    /// Has all who wait near an extent look again: somebody stands in front of them whom they know not.
    pub(crate) fn alert(&mut self, extent: &Extent) {
        self.alert_before(extent, WaiterId::MAX);
    }

    fn alert_before(&mut self, extent: &Extent, id: WaiterId) {
        if !self.index.is_waited_for() {
            return;
        }
        let near = self.index.near(extent).into_iter();
        let waiters = near.flat_map(|key| self.index.queue(&key));
        self.rung.extend(waiters.filter(|one| one.id < id).map(|waiter| waiter.holder));
    }

    /// Takes a dead waiter out of its queues, and all the dead of this queue who want nothing else.
    fn strike_dead(
        &mut self,
        held: &mut Held<'_>,
        waiter: &Waiter,
        key: &Key,
    ) -> Result<(), Error> {
        if !waiter.set.is_empty() {
            return self.strike(held, waiter, &waiter.keys(key));
        }
        let queue = self.index.queue(key).to_vec();
        let before = queue.len();
        let mut living = Vec::with_capacity(before);
        for one in queue {
            if !one.set.is_empty() || self.lives(&one).unwrap_or(true) {
                living.push(one);
            }
        }
        if living.len() == before {
            return Ok(());
        }
        held.note(&[*key])?;
        self.write_queue(key, living)
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

    /// Gives turns near these extents where a holder has ended unnoticed.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn unstick(&mut self, held: &mut Held<'_>, extents: &[Extent]) -> Result<(), Error> {
        if !self.index.is_waited_for() {
            return Ok(());
        }
        let near = extents.iter().flat_map(|extent| self.index.near(extent));
        let queued: BTreeSet<Key> = near.filter(|key| !self.index.queue(key).is_empty()).collect();
        let mut open = BTreeSet::new();
        for key in queued {
            let queue = self.index.queue(&key).to_vec();
            let kinds = queue.iter().map(Waiter::kind);
            let kind = kinds.fold(Kind::LEAST, Kind::joined);
            let widest = Extent { kind, ..queue[0].extent(key) };
            for key in self.index.near(&widest) {
                if self.is_open(&key, &queue)? {
                    open.insert(key);
                }
            }
        }
        if !open.is_empty() {
            self.pass_on(held, Freed::new(), &open.into_iter().collect::<Vec<_>>());
        }
        Ok(())
    }

    /// Whether something at a key is not in the way any more of those in a queue.
    fn is_open(&mut self, key: &Key, queue: &[Waiter]) -> Result<bool, Error> {
        Ok(match self.found(key)? {
            Found::Nothing => true,
            Found::Held(holds) => {
                let mut is_open = false;
                for record in &holds {
                    // One of the holder's own story may wait for nothing.
                    is_open |= queue.iter().any(|waiter| waiter.story_id == record.story_id)
                        || self.standing(record)? != Standing::Holds;
                }
                // Readers are let in beside readers.
                is_open || holds.iter().all(|record| record.mode == Mode::Shared)
            }
            Found::Unreadable(found) => self.standing_of_unreadable(&found)? != Standing::Holds,
        })
    }
}
