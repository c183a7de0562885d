//! What this process holds, for whom, and until when.
//!
//! Promise: a grant that reached a client is in here until it is given up or reported lost, so a loss is
//! told exactly once to each client that has the lock, and nothing is given up that a scope still needs.

use std::collections::{BTreeSet, HashMap};

use crate::clock::Clock;
use crate::error::{Code, Error};
use crate::holder::Holder;
use crate::key::Key;
use crate::lease::Lease;
use crate::record::Record;
use crate::store::Grant;

/// Numbers the clients of an engine.
pub type ClientId = u64;

/// The locks of this process's clients.
#[derive(Debug, Default)]
pub struct Holdings {
    held: HashMap<Key, Holding>,
    /// When leases end, on the clock that does not jump, in µs.
    ends: BTreeSet<(u64, Key)>,
}

/// One lock that clients of this process have.
#[derive(Debug)]
pub struct Holding {
    /// The record as last known.
    pub record: Record,
    /// Who has it.
    pub clients: Vec<ClientId>,
    /// Whether this process took it; otherwise another process of the same story did.
    pub is_ours: bool,
    /// How many scopes are open on it.
    pub scopes: u32,
    /// The lease that it has apart from scopes; `None` if only scopes need it.
    pub apart: Option<Lease>,
}

impl Holdings {
    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The lock on a key.
    pub fn get(&self, key: &Key) -> Option<&Holding> {
        self.held.get(key)
    }

    /// The lock on a key, to change.
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Holding> {
        self.held.get_mut(key)
    }

    /// The lock on a key if it is this grant.
    pub fn grant_mut(&mut self, key: &Key, token: u64) -> Option<&mut Holding> {
        self.held.get_mut(key).filter(|holding| holding.record.token == token)
    }

    /// A client was granted this, or found that its story has it already; `scoped` when a scope asked.
    /// Answers whether this process took the lock.
    pub fn add(&mut self, client: ClientId, grant: &Grant, scoped: bool, asked: Lease) -> bool {
        let is_same = |holding: &&mut Holding| holding.record.token == grant.record.token;
        if let Some(holding) = self.held.get_mut(&grant.key).filter(is_same) {
            if !holding.clients.contains(&client) {
                holding.clients.push(client);
            }
            if scoped {
                holding.scopes += 1;
            } else {
                holding.apart.get_or_insert(asked);
            }
        } else {
            let holding = Holding {
                record: grant.record.clone(),
                clients: vec![client],
                is_ours: grant.is_fresh,
                scopes: u32::from(scoped),
                // What another process took has a lease of its own, which no scope here ends.
                apart: (!scoped || !grant.is_fresh).then(|| grant.record.lease()),
            };
            self.remove(&grant.key);
            self.held.insert(grant.key, holding);
        }
        self.refresh(&grant.key, &grant.record);
        self.held.get(&grant.key).is_some_and(|holding| holding.is_ours)
    }

    /// A record has another lease.
    pub fn refresh(&mut self, key: &Key, record: &Record) {
        if let Some(holding) = self.held.get_mut(key) {
            if let Some(end) = end(&holding.record) {
                self.ends.remove(&(end, *key));
            }
            if let Some(end) = end(record) {
                self.ends.insert((end, *key));
            }
            holding.record = record.clone();
        }
    }

    /// The lock on a key is no more.
    pub fn remove(&mut self, key: &Key) -> Option<Holding> {
        let holding = self.held.remove(key)?;
        if let Some(end) = end(&holding.record) {
            self.ends.remove(&(end, *key));
        }
        Some(holding)
    }

    /// Takes everything out.
    pub fn take(&mut self) -> Vec<(Key, Holding)> {
        self.ends.clear();
        self.held.drain().collect()
    }

    /// Lets a client go; answers the grants of this process that nobody has any more.
    pub fn leave(&mut self, client: ClientId) -> Vec<(Key, u64)> {
        let mut left = Vec::new();
        for (key, holding) in &mut self.held {
            holding.clients.retain(|other| *other != client);
            if holding.clients.is_empty() {
                left.push((*key, holding.record.token, holding.is_ours));
            }
        }
        for (key, ..) in left.iter().filter(|(.., is_ours)| !is_ours) {
            self.remove(key);
        }
        left.retain(|(.., is_ours)| *is_ours);
        left.into_iter().map(|(key, token, _)| (key, token)).collect()
    }

    /// All keys held.
    pub fn keys(&self) -> Vec<Key> {
        self.held.keys().copied().collect()
    }

    /// The keys whose leases have ended by the last known record.
    pub fn ended(&self, clock: &dyn Clock) -> Vec<Key> {
        let now = clock.monotonic_us();
        self.ends.iter().take_while(|(end, _)| *end <= now).map(|(_, key)| *key).collect()
    }

    /// Microseconds until the next lease ends.
    pub fn next_end_us(&self, clock: &dyn Clock) -> Option<u64> {
        self.ends.first().map(|(end, _)| end.saturating_sub(clock.monotonic_us()))
    }
}

fn end(record: &Record) -> Option<u64> {
    record.deadline
}

impl Holding {
    /// The report that this lock is lost, now that `successor` stands in its place.
    pub fn lost(&self, successor: Option<&Record>, is_removed: bool, clock: &dyn Clock) -> Error {
        let record = &self.record;
        let ended = record.deadline().is_some_and(|deadline| deadline.is_over(clock));
        let how = match successor {
            Some(next) if next.token != record.token => {
                format!("{} has it now", next.story_id)
            }
            _ if is_removed => "the lock folder was removed".to_owned(),
            _ if ended => "its lease ended".to_owned(),
            _ => "somebody else gave it up".to_owned(),
        };
        let path = record.file_path.display();
        let error = Error::new(
            Code::Compromised,
            format!("{path} is no longer locked by {}: {how}.", record.story_id),
        )
        .at(&record.file_path)
        .by(record.story_id.as_str())
        .hint("Do not write it. Acquire it again and read it anew: others may have changed it.");
        match successor.filter(|next| next.token != record.token) {
            Some(next) => error.held_by(Holder::of(next.clone(), clock)),
            None => error,
        }
    }
}
