//! Standing in line: how a story joins the queues of its paths, leaves them, and learns of its turn.
//!
//! Promises: one who joins is in all its queues under one number or in none; a request that would close a
//! circle of living stories is refused before it joins; one who leaves has no place any more and holds
//! nothing of what it waited for, unless its turn came first and it keeps that. What a turn is and whose it
//! is, `turns` says.

use std::collections::{BTreeMap, BTreeSet};

use crate::circles::Now;
use crate::error::{Arm, Code, Error, Line};
use crate::graph;
use crate::guard::Held;
use crate::history::What;
use crate::holder::{self, Holder};
use crate::key::Key;
use crate::kind::Extent;
use crate::lease::spoken;
use crate::queue::{Waiter, WaiterId};
use crate::record::{HolderId, Process, Record};
use crate::room::{Blocker, Want};
use crate::session::{Life, Session};
use crate::shelf::{Freed, Own, Shelf, Why};
use crate::standing::Standing;
use crate::store::{Done, Grant};
use crate::story::Story;
use crate::wake::Neighbour;

/// The soonest that a lease which has not begun is looked at, in µs.
const SOON_US: u64 = 100_000;

impl Shelf {
    /// Lines these candidates up, one an extent, as one waiter.
    pub(crate) fn line_up(
        &mut self,
        held: &mut Held<'_>,
        candidates: Vec<Waiter>,
        extents: Vec<Extent>,
        limit: usize,
    ) -> Result<Done, Error> {
        let keys: Vec<Key> = extents.iter().map(|extent| extent.key).collect();
        for (candidate, key) in candidates.iter().zip(&keys) {
            let waiters = match self.index.queue(key).len() {
                few if few < limit => few,
                _ => self.living_queue(key).len(),
            };
            if waiters >= limit {
                let path = candidate.file_path.display();
                let message = format!("{waiters} wait for {path} already, as many as may.");
                return Err(Error::new(Code::QueueFull, message)
                    .at(&candidate.file_path)
                    .in_line(Line { waiters, ..Line::default() })
                    .hint("Nothing was queued. Work on something else and try again later."));
            }
        }
        if let Some(first) = candidates.first()
            && let Some(error) = self.deadlock(&first.story_id, &extents)?
        {
            return Err(error.at(&first.file_path));
        }
        self.hang_bell()?;
        let id = held.note_grants(&keys)?;
        for (number, key) in keys.iter().enumerate() {
            let mut candidate = candidates[number].clone();
            candidate.id = id;
            candidate.set = if keys.len() > 1 { keys.clone() } else { Vec::new() };
            let mut waiters = self.index.queue(key).to_vec();
            waiters.push(candidate);
            if let Err(error) = self.write_queue(key, waiters) {
                let _ = self.unqueue(id, &keys[..number]);
                return Err(error);
            }
        }
        for candidate in &candidates {
            self.tell_waiter(What::Queued, candidate, None);
        }
        if let Some(candidate) = candidates.into_iter().next() {
            self.waiting.insert(id, Own { story: candidate.story_id, extents });
        }
        // That this one waits now may open the way for somebody who was kept back for its sake.
        if self.index.is_tangled() {
            self.pass_on(held, Freed::new(), &[]);
        }
        Ok(Done::Queued(id))
    }

    /// The refusal of a request that would close a circle of living stories.
    fn deadlock(&mut self, story: &Story, extents: &[Extent]) -> Result<Option<Error>, Error> {
        let mut now = Now { shelf: self, freed: &Freed::new() };
        let circle = graph::circle(&mut now, story, extents);
        Ok(circle.map(|circle| self.refusal_of(story, &circle)))
    }

    fn refusal_of(&self, story: &Story, circle: &[graph::Link]) -> Error {
        let arms: Vec<Arm> = circle
            .iter()
            .map(|link| Arm {
                story: link.story.to_string(),
                path: self
                    .index
                    .get(&link.key)
                    .first()
                    .map(|at| at.file_path.clone())
                    .unwrap_or_default(),
                holder: link.holder.to_string(),
            })
            .collect();
        let root = &self.ground.root;
        let told: Vec<String> = arms
            .iter()
            .map(|arm| {
                let path = arm.path.strip_prefix(root).unwrap_or(&arm.path).display();
                format!("{} waits for {path}, held by {}", arm.story, arm.holder)
            })
            .collect();
        let message = format!("{story} would wait for ever: {}.", told.join("; "));
        Error::new(Code::Deadlock, message).by(story.as_str()).around(arms).hint(
            "Nothing was queued. Release what the others wait for, then ask for everything at once with acquireAll.",
        )
    }

    /// What waiters of this process want, each path once, and the last of those who want it.
    fn wanted(&self) -> BTreeMap<Key, (Extent, WaiterId)> {
        let mut wanted: BTreeMap<Key, (Extent, WaiterId)> = BTreeMap::new();
        for (id, own) in &self.waiting {
            for extent in &own.extents {
                let entry = wanted.entry(extent.key).or_insert_with(|| (extent.clone(), *id));
                entry.0.kind = entry.0.kind.joined(extent.kind);
                entry.1 = *id;
            }
        }
        wanted
    }

    /// Who stands in front of this process's waiters, and in how many µs a lease in front may end.
    pub(crate) fn in_front_of_us(&self) -> (Vec<Neighbour>, Option<u64>) {
        let mine = self.session.as_ref().map(Session::id);
        let mut neighbours: BTreeMap<HolderId, Neighbour> = BTreeMap::new();
        let mut soonest: Option<u64> = None;
        let mut add = |holder, pid, process: &Process, end_us: Option<u64>| {
            soonest = [soonest, end_us].into_iter().flatten().min();
            if Some(holder) != mine && holder != 0 {
                let neighbour = || Neighbour { holder, pid, process: process.clone() };
                neighbours.entry(holder).or_insert_with(neighbour);
            }
        };
        for (extent, last) in self.wanted().values() {
            for key in self.index.near(extent) {
                for record in self.index.get(&key) {
                    let end = record.deadline().map(|deadline| deadline.remaining_us(&*self.clock));
                    add(record.holder, record.pid, &record.process, end);
                }
                // Whoever is let in meanwhile has the path for as long as its lease at most.
                for waiter in self.index.queue(&key).iter().filter(|one| one.id < *last) {
                    let end = waiter.timeout.map(|ms| ms.saturating_mul(1000).max(SOON_US));
                    add(waiter.holder, waiter.pid, &waiter.process, end);
                }
            }
        }
        (neighbours.into_values().collect(), soonest)
    }

    /// Gives turns where this process waits for one who has ended unnoticed.
    pub(crate) fn unstick_ours(&mut self, held: &mut Held<'_>) {
        // What cannot be asked now is asked again at the next look.
        let wanted: Vec<Extent> = self.wanted().into_values().map(|(extent, _)| extent).collect();
        let _ = self.unstick(held, &wanted);
    }

    /// The turns that came for this process's waiters, and those that lost their places.
    pub(crate) fn collect(
        &mut self,
        held: &mut Held<'_>,
    ) -> (Vec<(WaiterId, Vec<Grant>)>, Vec<WaiterId>) {
        // What cannot be written now is written before the record goes.
        let _ = self.exorcise(&self.index.haunted());
        let (mut granted, mut displaced) = (Vec::new(), Vec::new());
        let own: Vec<(WaiterId, Vec<Key>)> =
            self.waiting.iter().map(|(id, own)| (*id, own.keys())).collect();
        for (id, keys) in own {
            let is_in = |key: &Key| self.index.queue(key).iter().any(|waiter| waiter.id == id);
            if keys.iter().any(is_in) {
                continue;
            }
            let grants = self.grants_of(id);
            self.waiting.remove(&id);
            match grants {
                Some(mut grants) => {
                    if self.detach(held, &mut grants).is_err() {
                        // It stays tied to this process, which is less than was asked but no lie: it is held.
                        self.touched.extend(&keys);
                    }
                    granted.push((id, grants));
                }
                None => displaced.push(id),
            }
        }
        (granted, displaced)
    }

    /// The locks of a waiter that is in no queue any more; `None` if its story has not got them.
    fn grants_of(&mut self, id: WaiterId) -> Option<Vec<Grant>> {
        let Own { story, extents } = self.waiting.get(&id)?.clone();
        let mut grants = Vec::with_capacity(extents.len());
        for extent in extents {
            let record = self.index.of_story(&extent.key, &story)?.clone();
            // Its story may have it by another process, which has died since.
            if self.standing(&record) != Ok(Standing::Holds) || !record.kind().covers(extent.kind) {
                return None;
            }
            let is_fresh = record.waiter == Some(id) && record.raised.is_none();
            grants.push(Grant { key: extent.key, record, is_fresh });
        }
        Some(grants)
    }

    /// Takes a waiter of this process out of the queues.
    ///
    /// # Errors
    /// What the system says; the place is then left to whoever finds it.
    pub(crate) fn leave(
        &mut self,
        held: &mut Held<'_>,
        id: WaiterId,
        keep: bool,
    ) -> Result<Done, Error> {
        let called_off = || Error::new(Code::Aborted, "The request was called off.");
        let Some(own) = self.waiting.get(&id) else { return Ok(Done::Left(called_off())) };
        let (keys, extents) = (own.keys(), own.extents.clone());
        self.unstick(held, &extents)?;
        let entry = |key: &Key| self.index.queue(key).iter().find(|one| one.id == id).cloned();
        let Some(waiter) = keys.iter().find_map(entry) else {
            let grants = self.grants_of(id);
            self.waiting.remove(&id);
            return match grants {
                Some(mut grants) if keep => {
                    if self.detach(held, &mut grants).is_err() {
                        self.touched.extend(&keys);
                    }
                    Ok(Done::Granted(grants))
                }
                Some(_) => {
                    self.give_back(held, id, &keys)?;
                    Ok(Done::Left(called_off()))
                }
                None => Ok(Done::Left(called_off())),
            };
        };
        let refusal = self.refusal_in_line(&waiter, &extents)?;
        self.strike(held, &waiter, &keys)?;
        self.waiting.remove(&id);
        let error = keep.then_some(&refusal);
        self.tell_waiter(if keep { What::Refused } else { What::Left }, &waiter, error);
        // A turn that a killed process had half given is given back.
        self.give_back(held, id, &keys)?;
        self.unstick(held, &extents)?;
        if self.index.is_tangled() {
            self.pass_on(held, Freed::new(), &[]);
        }
        Ok(Done::Left(refusal))
    }

    /// Gives back what was granted to this place in line: a new lock goes, a raised one is what it was.
    fn give_back(&mut self, held: &mut Held<'_>, id: WaiterId, keys: &[Key]) -> Result<(), Error> {
        let of_place = |key: &Key| {
            let record = self.index.get(key).iter().find(|record| record.waiter == Some(id));
            record.map(|record| (*key, record.clone()))
        };
        let given: Vec<(Key, Record)> = keys.iter().filter_map(of_place).collect();
        let (raised, fresh): (Vec<_>, Vec<_>) =
            given.into_iter().partition(|(_, record)| record.raised.is_some());
        for (key, record) in raised {
            if let Some(raised) = &record.raised {
                self.lower_to(held, key, record.token, raised.from)?;
            }
        }
        let fresh: Vec<(Key, u64)> =
            fresh.into_iter().map(|(key, record)| (key, record.token)).collect();
        self.vacate(held, &fresh, &Why::Released)
    }

    /// Those of a queue whose processes live, as far as can be known.
    pub(crate) fn living_queue(&mut self, key: &Key) -> Vec<Waiter> {
        let mut queue = self.index.queue(key).to_vec();
        let holders: BTreeSet<HolderId> = queue.iter().map(|waiter| waiter.holder).collect();
        let is_dead = |holder: &HolderId| matches!(self.life(*holder), Ok(Life::Dead));
        let dead: BTreeSet<HolderId> = holders.into_iter().filter(is_dead).collect();
        queue.retain(|waiter| !dead.contains(&waiter.holder));
        queue
    }

    /// What an asker is told whose patience ran out.
    fn refusal_in_line(&mut self, waiter: &Waiter, extents: &[Extent]) -> Result<Error, Error> {
        let want = Want { story: &waiter.story_id, id: waiter.id, extents };
        let blocker = self.openings(&want, &Freed::new())?.err();
        let waited = self.clock.wall_ms().saturating_sub(waiter.since);
        let key = blocker.as_ref().map_or(extents[0].key, Blocker::key);
        let queue = self.living_queue(&key);
        let place = queue.iter().position(|one| one.id == waiter.id).map(|place| place + 1);
        let line = Line { waiters: queue.len(), place, waited_ms: Some(waited) };
        let entry = queue.iter().find(|one| one.id == waiter.id).unwrap_or(waiter);
        let path = entry.file_path.clone();
        let shown = path.strip_prefix(&self.ground.root).unwrap_or(&path).display().to_string();
        let error = match blocker {
            Some(blocker) => self.refusal(blocker, &path, &shown, line),
            None => Holder::advised(
                Error::new(Code::Locked, format!("{shown} is locked by nobody any more."))
                    .at(&path),
                &shown,
                line,
            ),
        };
        Ok(error.by(waiter.story_id.as_str()))
    }

    /// The refusal that a blocker means.
    pub(crate) fn refusal(
        &self,
        blocker: Blocker,
        path: &std::path::Path,
        shown: &str,
        line: Line,
    ) -> Error {
        match blocker {
            Blocker::Held(wanted, holders) => {
                let part = holders.iter().find(|(key, _)| *key != wanted);
                let part = part.map(|(_, record)| record.file_path.clone());
                let part = part.map(|path| {
                    path.strip_prefix(&self.ground.root).unwrap_or(&path).display().to_string()
                });
                let holders = holders.into_iter();
                let holders = holders.map(|(_, record)| Holder::of(record, &*self.clock)).collect();
                holder::refusal(holders, path, shown, part, line)
            }
            Blocker::Unreadable(_, key, found) => {
                found.refusal(path, shown, &self.record_path(&key))
            }
            Blocker::Kept(_, waiter) => {
                let since = spoken(self.clock.wall_ms().saturating_sub(waiter.since));
                let count = waiter.set.len().max(1);
                let message = format!(
                    "{shown} is locked by the queue: it is kept for {} (pid {}, waiting for {count} path{} for {since}).",
                    waiter.story_id,
                    waiter.pid,
                    if count == 1 { "" } else { "s" },
                );
                Holder::advised(Error::new(Code::Locked, message).at(path), shown, line)
            }
        }
    }
}
