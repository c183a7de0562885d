//! Who waits for whom here and now: the facts that deadlock detection and the queue's rules go by.
//!
//! Promises: of the living alone; what cannot be asked about counts as alive and as held; the same rules of
//! what conflicts as for grants.

use crate::error::Error;
use crate::graph::{self, Arms, Facts};
use crate::key::Key;
use crate::kind::{Extent, Mode};
use crate::queue::WaiterId;
use crate::record::Record;
use crate::room::{Blocker, Room, Want};
use crate::shelf::{Freed, Shelf};
use crate::standing::Standing;
use crate::story::Story;

/// What is so now, as far as waiting goes: of the living alone. `freed` are being given up.
pub(crate) struct Now<'a> {
    pub(crate) shelf: &'a mut Shelf,
    pub(crate) freed: &'a Freed,
}

impl Facts for Now<'_> {
    fn waits(&mut self, story: &Story) -> Vec<(WaiterId, Extent)> {
        let waits = self.shelf.index.waits_of(story);
        let entry = |(id, key): (WaiterId, Key)| {
            let waiter = self.shelf.index.queue(&key).iter().find(|one| one.id == id).cloned()?;
            let lives = self.shelf.lives(&waiter).unwrap_or(true);
            lives.then(|| (id, waiter.extent(key)))
        };
        waits.into_iter().filter_map(entry).collect()
    }

    fn holders(&mut self, story: &Story, extent: &Extent) -> Vec<(Key, Story)> {
        let wish = self.shelf.wish(extent, story, self.freed);
        let against = self.shelf.index.against(&wish, story).into_iter();
        let held = against.filter(|(key, record)| !self.freed.contains(&(*key, record.token)));
        let held: Vec<(Key, Record)> = held.map(|(key, record)| (key, record.clone())).collect();
        // What cannot be asked about counts as held.
        let mut is_over =
            |record: &Record| matches!(self.shelf.standing(record), Ok(Standing::Over(_)));
        let holding = held.into_iter().filter(|(_, record)| !is_over(record));
        holding.map(|(key, record)| (key, record.story_id)).collect()
    }

    fn in_front(&mut self, story: &Story, extent: &Extent, id: WaiterId) -> Vec<(Key, Story)> {
        let wish = self.shelf.wish(extent, story, self.freed);
        let extent = &wish;
        let mut ahead = self.shelf.waiters_against(extent, story, self.freed);
        ahead.retain(|(_, waiter)| waiter.id < id);
        ahead.sort_by_key(|(_, waiter)| std::cmp::Reverse(waiter.id));
        let mut front = Vec::new();
        for (key, waiter) in ahead {
            if self.shelf.lives(&waiter).unwrap_or(true) {
                // Whoever stands in front of this one too is reached through it.
                let hides = self.shelf.index.near(extent).len() == 1
                    && waiter.mode == Mode::Exclusive
                    && waiter.kind().covers(extent.kind);
                front.push((key, waiter.story_id));
                if hides {
                    break;
                }
            }
        }
        front
    }
}

impl Shelf {
    /// A story that waits elsewhere must not be given what would close a circle through there.
    pub(crate) fn circle_by_grant(
        &mut self,
        want: &Want<'_>,
        rooms: &[Room],
        freed: &Freed,
    ) -> Result<Option<Blocker>, Error> {
        if self.index.waits_of(want.story).iter().all(|(id, _)| *id == want.id) {
            return Ok(None);
        }
        let waited_for = graph::reach(&mut Now { shelf: self, freed }, want.story, Arms::Held);
        for (extent, room) in want.extents.iter().zip(rooms) {
            if room.is_mine(extent.kind) {
                continue;
            }
            for (_, waiter) in self.waiters_against(extent, want.story, freed) {
                if waited_for.contains(&waiter.story_id) && self.lives(&waiter)? {
                    return Ok(Some(Blocker::Kept(extent.key, Box::new(waiter))));
                }
            }
        }
        Ok(None)
    }

    /// Whether one living story waits for another, directly, through others, or through places in line.
    pub(crate) fn waits_for(&mut self, from: &Story, to: &Story, freed: &Freed) -> bool {
        if !self.reach.contains_key(from) {
            let reach = graph::reach(&mut Now { shelf: self, freed }, from, Arms::HeldAndQueued);
            self.reach.insert(from.clone(), reach);
        }
        self.reach.get(from).is_some_and(|reach| reach.contains(to))
    }
}
