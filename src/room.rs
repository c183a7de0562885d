//! What a path is to a story that wants it: free, its own already, shared with others, or in somebody's way.
//!
//! Promises: whoever decides reads the records themselves; whatever is doubtful is in the way; looking
//! changes nothing. A plain path costs one look, and one more for each lock above it that is in the way.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::found::{Found, Unreadable};
use crate::key::Key;
use crate::kind::{Extent, Kind, Mode};
use crate::queue::{Waiter, WaiterId};
use crate::record::{Ended, Record};
use crate::shelf::{Freed, Shelf};
use crate::standing::Standing;
use crate::story::Story;

/// What stands at a record's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    /// Nothing.
    Nothing,
    /// Records.
    Records,
    /// What is no record, and has not changed for long enough.
    Rubbish,
}

/// A path that a story can have.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    /// The story's own lock there, as it is.
    pub(crate) mine: Option<Record>,
    /// Those who have it too, and stay.
    pub(crate) others: Vec<Record>,
    /// Who had it last and did not give it up.
    pub(crate) ended: Option<(Record, Ended)>,
    /// What stands there.
    pub(crate) stands: Stands,
    /// The records as they stand.
    pub(crate) before: Vec<Record>,
}

impl Room {
    /// Whether the story has all that it wants there already.
    pub(crate) fn is_mine(&self, kind: Kind) -> bool {
        self.mine.as_ref().is_some_and(|mine| mine.kind().covers(kind))
    }

    /// The records of the path once this one is among them.
    pub(crate) fn with(&self, record: Record) -> Vec<Record> {
        let mut holds = self.others.clone();
        holds.push(record);
        holds.sort_by_key(|one| one.token);
        holds
    }
}

/// What keeps a story from a path; the key is that of the path.
#[derive(Debug)]
pub enum Blocker {
    /// Other stories hold it, or something above or below it.
    Held(Key, Vec<(Key, Record)>),
    /// Another story stands in front of it in a queue.
    Kept(Key, Box<Waiter>),
    /// Something stands at a record's name that cannot be read: at that of the second key.
    Unreadable(Key, Key, Unreadable),
}

impl Blocker {
    /// What is wanted.
    pub fn key(&self) -> Key {
        match self {
            Blocker::Held(key, _) | Blocker::Kept(key, _) | Blocker::Unreadable(key, ..) => *key,
        }
    }
}

/// Who wants what: `id` is its place in the order of arrival, the last of all for one who just came.
pub(crate) struct Want<'a> {
    pub(crate) story: &'a Story,
    pub(crate) id: WaiterId,
    pub(crate) extents: &'a [Extent],
}

impl Shelf {
    /// What a story would have: what it asks for, joined with its own living lock there.
    pub(crate) fn wish(&mut self, extent: &Extent, story: &Story, freed: &Freed) -> Extent {
        let own = self.index.of_story(&extent.key, story).cloned();
        let own = own.filter(|own| !freed.contains(&(extent.key, own.token)));
        match own {
            Some(own) if !matches!(self.standing(&own), Ok(Standing::Over(_))) => {
                Extent { kind: own.kind().joined(extent.kind), ..extent.clone() }
            }
            _ => extent.clone(),
        }
    }

    /// The waiters of other stories who would have what conflicts with this extent.
    pub(crate) fn waiters_against(
        &mut self,
        extent: &Extent,
        story: &Story,
        freed: &Freed,
    ) -> Vec<(Key, Waiter)> {
        let near = self.index.near(extent).into_iter();
        let waiters = near.flat_map(|key| self.index.queue(&key).iter().map(move |one| (key, one)));
        let others = waiters.filter(|(_, waiter)| waiter.story_id != *story);
        let mut against: Vec<(Key, Waiter)> = others.map(|(key, one)| (key, one.clone())).collect();
        against.retain(|(key, waiter)| {
            self.wish(&waiter.extent(*key), &waiter.story_id, freed).conflicts(extent)
        });
        against
    }

    /// What an extent is to a story, as far as records go.
    ///
    /// # Errors
    /// What the system says: then nothing is certain.
    pub(crate) fn room_of(
        &mut self,
        extent: &Extent,
        story: &Story,
        freed: &Freed,
    ) -> Result<Result<Room, Blocker>, Error> {
        let key = extent.key;
        let (holds, stands) = match self.found(&key)? {
            Found::Nothing => (Vec::new(), Stands::Nothing),
            Found::Held(holds) => (holds, Stands::Records),
            Found::Unreadable(found) => match self.standing_of_unreadable(&found)? {
                Standing::Over(_) => (Vec::new(), Stands::Rubbish),
                Standing::Holds => return Ok(Err(Blocker::Unreadable(key, key, found))),
            },
        };
        let before = holds.clone();
        let mut room = Room { mine: None, others: Vec::new(), ended: None, stands, before };
        let mut in_the_way = Vec::new();
        for record in holds.into_iter().filter(|one| !freed.contains(&(key, one.token))) {
            match self.standing(&record)? {
                // A reader leaves nothing half done.
                Standing::Over(how) if record.mode == Mode::Exclusive => {
                    room.ended = Some((record, how));
                }
                Standing::Over(_) => {}
                Standing::Holds if record.story_id == *story => room.mine = Some(record),
                Standing::Holds => {
                    let is_shared = extent.kind.mode == Mode::Shared && record.mode == Mode::Shared;
                    if is_shared {
                        room.others.push(record);
                    } else {
                        in_the_way.push((key, record));
                    }
                }
            }
        }
        if room.is_mine(extent.kind) {
            // Whoever else is there is told apart from those in the way.
            room.others.extend(in_the_way.into_iter().map(|(_, record)| record));
            return Ok(Ok(room));
        }
        Ok(self.overlapped(extent, story, freed, in_the_way)?.map_or(Ok(room), Err))
    }

    /// What keeps an extent from a story above and below its path, after what does at its path.
    fn overlapped(
        &mut self,
        extent: &Extent,
        story: &Story,
        freed: &Freed,
        mut in_the_way: Vec<(Key, Record)>,
    ) -> Result<Option<Blocker>, Error> {
        if extent.kind.recursive {
            // Records that nobody noted count too: those of the old module.
            self.index.find_strays(&self.ground, &*self.clock)?;
        }
        let against = self.index.against(extent, story).into_iter().map(|(key, _)| key);
        let keys: BTreeSet<Key> = against.filter(|key| *key != extent.key).collect();
        for key in keys {
            let Found::Held(holds) = self.found(&key)? else { continue };
            for record in holds {
                let is_in_the_way = record.story_id != *story
                    && !freed.contains(&(key, record.token))
                    && self.index.extent(key, &record).conflicts(extent);
                if is_in_the_way && self.standing(&record)? == Standing::Holds {
                    in_the_way.push((key, record));
                }
            }
        }
        if !in_the_way.is_empty() {
            return Ok(Some(Blocker::Held(extent.key, in_the_way)));
        }
        for (key, found) in self.index.unreadable_near(extent) {
            if self.standing_of_unreadable(&found)? == Standing::Holds {
                return Ok(Some(Blocker::Unreadable(extent.key, key, found)));
            }
        }
        Ok(None)
    }
}
