//! What this process has, for whom, and with which lease.
//!
//! Promises: a lock that a client has is in here until the client gives it up or is told that it is lost,
//! once. What ought to become of it, `claims` says.

use std::collections::{BTreeMap, BTreeSet};

use crate::claims::{Claimed, ClientId, End, Holding};
use crate::clock::Clock;
use crate::key::Key;
use crate::kind::Mode;
use crate::record::Record;
use crate::store::Grant;
use crate::story::Story;

/// Names a lock: what is locked, and the grant.
pub type LockId = (Key, u64);

/// The locks of this process's clients.
#[derive(Debug, Default)]
pub struct Holdings {
    held: BTreeMap<LockId, Holding>,
    /// When leases end, on the clock that does not jump, in µs.
    ends: BTreeSet<(u64, LockId)>,
}

impl Holdings {
    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// A lock.
    pub fn get(&self, lock: &LockId) -> Option<&Holding> {
        self.held.get(lock)
    }

    /// A lock.
    pub fn get_mut(&mut self, lock: &LockId) -> Option<&mut Holding> {
        self.held.get_mut(lock)
    }

    /// The locks on a key: several where several stories of this process share it.
    pub fn of_key(&self, key: &Key) -> impl Iterator<Item = (LockId, &Holding)> {
        let of_key = self.held.range((*key, 0)..=(*key, u64::MAX));
        of_key.map(|(lock, holding)| (*lock, holding))
    }

    /// A story's lock on a key.
    pub fn of_story(&self, key: &Key, story: &Story) -> Option<&Holding> {
        let mut of_key = self.of_key(key).map(|(_, holding)| holding);
        of_key.find(|holding| holding.record.story_id == *story)
    }

    /// A client was granted this, or found that its story has it already. Answers the locks that stood in
    /// its place, if those were other grants: they are lost.
    pub fn claim(
        &mut self,
        client: ClientId,
        grant: &Grant,
        want: Claimed,
        clock: &dyn Clock,
    ) -> Vec<(LockId, Holding)> {
        let lock = (grant.key, grant.record.token);
        let is_alone = grant.record.mode == Mode::Exclusive;
        let is_in_its_place =
            |holding: &Holding| is_alone || holding.record.story_id == grant.record.story_id;
        let displaced = self.of_key(&grant.key).filter(|(other, _)| *other != lock);
        let displaced = displaced.filter(|(_, holding)| is_in_its_place(holding));
        let displaced: Vec<LockId> = displaced.map(|(other, _)| other).collect();
        let displaced =
            displaced.into_iter().filter_map(|other| Some((other, self.remove(&other)?))).collect();
        let holding = self.held.entry(lock);
        holding.or_insert_with(|| Holding::new(grant.record.clone())).claim(client, grant, want);
        self.refresh(&lock, &grant.record, clock);
        displaced
    }

    /// A client gives up its plain claim or a scope.
    pub fn unclaim(&mut self, client: ClientId, lock: &LockId, end: End) {
        if let Some(holding) = self.held.get_mut(lock) {
            holding.unclaim(client, end);
        }
    }

    /// A client gives everything up; answers what it had.
    pub fn leave(&mut self, client: ClientId) -> Vec<LockId> {
        let left = self.held.iter_mut().filter_map(|(lock, it)| it.leave(client).then_some(*lock));
        left.collect()
    }

    /// A record has another lease, or holder.
    pub fn refresh(&mut self, lock: &LockId, record: &Record, clock: &dyn Clock) {
        if let Some(holding) = self.held.get_mut(lock) {
            if let Some(end) = holding.end_us {
                self.ends.remove(&(end, *lock));
            }
            holding.end_us = record
                .deadline()
                .map(|end| clock.monotonic_us().saturating_add(end.remaining_us(clock)));
            self.ends.extend(holding.end_us.map(|end| (end, *lock)));
            let is_other = record.lease() != holding.record.lease();
            holding.record = record.clone();
            // What another process of the story made of the lease is what it is from now on.
            if is_other && !holding.is_scoped() {
                holding.set_apart(record.lease());
            }
        }
    }

    /// A lock is no more.
    pub fn remove(&mut self, lock: &LockId) -> Option<Holding> {
        let holding = self.held.remove(lock)?;
        if let Some(end) = holding.end_us {
            self.ends.remove(&(end, *lock));
        }
        Some(holding)
    }

    /// Takes everything out.
    pub fn take(&mut self) -> Vec<(LockId, Holding)> {
        self.ends.clear();
        std::mem::take(&mut self.held).into_iter().collect()
    }

    /// All locks.
    pub fn locks(&self) -> Vec<LockId> {
        self.held.keys().copied().collect()
    }

    /// The locks whose leases have ended by the last known record.
    pub fn ended(&self, clock: &dyn Clock) -> Vec<LockId> {
        let now = clock.monotonic_us();
        self.ends.iter().take_while(|(end, _)| *end <= now).map(|(_, lock)| *lock).collect()
    }

    /// Microseconds until the next lease ends.
    pub fn next_end_us(&self, clock: &dyn Clock) -> Option<u64> {
        self.ends.first().map(|(end, _)| end.saturating_sub(clock.monotonic_us()))
    }
}
