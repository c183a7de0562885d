//! What this process has, for whom, and with which lease.
//!
//! Promises: a lock that a client has is in here until the client gives it up or is told that it is lost,
//! once; and the lease that a lock ought to have follows from who claims it: bound while any scope is open
//! on it, else the one it was asked for with, else (a detached lock that scopes only borrowed) its own
//! again, else it goes.

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
    end_us: Option<u64>,
    claims: Vec<Claim>,
    /// The lease that it has apart from scopes; `None` if only scopes claim it.
    apart: Option<Lease>,
    /// The lease that it had of its own, detached, before a scope borrowed it.
    borrowed: Option<Lease>,
}

/// What one client wants with a lock.
#[derive(Debug)]
struct Claim {
    client: ClientId,
    scopes: u32,
    is_plain: bool,
}

/// What ought to become of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It stays as it is.
    AsIs,
    /// It stays, with this lease, tied to this process or detached.
    Held {
        /// The lease.
        lease: Lease,
        /// Whether the lease alone is to end it.
        detached: bool,
    },
    /// Nobody here wants it any more.
    Gone,
}

impl Holding {
    /// The clients that have it.
    pub fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.claims.iter().map(|claim| claim.client)
    }

    /// Whether this client alone has it.
    pub fn is_only(&self, client: ClientId) -> bool {
        self.claims.iter().all(|claim| claim.client == client)
    }

    /// Whether this claim, a scope or the plain one, is the last on it.
    pub fn is_last_claim(&self, client: ClientId, scoped: bool) -> bool {
        self.claims.iter().all(|claim| {
            let (scopes, is_plain) = match (claim.client == client, scoped) {
                (false, _) => (claim.scopes, claim.is_plain),
                (true, true) => (claim.scopes.saturating_sub(1), claim.is_plain),
                (true, false) => (claim.scopes, false),
            };
            scopes == 0 && !is_plain
        })
    }

    /// Whether a scope is open on it.
    pub fn is_scoped(&self) -> bool {
        self.claims.iter().any(|claim| claim.scopes > 0)
    }

    /// The lease that it is to have once no scope is open, if it is to have one.
    pub fn set_apart(&mut self, lease: Lease) {
        if self.apart.is_some() {
            self.apart = Some(lease);
        }
    }

    /// What ought to become of it. `is_ours` tells whether this process's life stands behind it.
    pub fn wanted(&self, is_ours: bool) -> Wanted {
        let is_detached = self.record.detached;
        if !is_ours && !is_detached {
            // Another process of the same story took it, and looks after it.
            return if self.claims.is_empty() { Wanted::Gone } else { Wanted::AsIs };
        }
        let lease = if self.is_scoped() { Some(Lease::Bound) } else { self.apart };
        let (lease, detached) = match (lease, self.borrowed) {
            (Some(Lease::Bound), _) if self.is_scoped() => (Lease::Bound, false),
            (_, Some(own)) => (own, true),
            (Some(lease), None) => (lease, is_detached),
            (None, None) => return Wanted::Gone,
        };
        if self.record.lease() == lease && is_detached == detached {
            return Wanted::AsIs;
        }
        Wanted::Held { lease, detached }
    }

    /// Whether it is to be forgotten without being given up: another's, or detached.
    pub fn is_borrowed(&self, is_ours: bool) -> bool {
        !is_ours || self.borrowed.is_some()
    }

    /// The report that this lock is lost, now that `successor` stands in its place.
    pub fn lost(&self, successor: Option<&Record>, is_removed: bool, clock: &dyn Clock) -> Error {
        let record = &self.record;
        let ended = record.is_over(clock);
        let successor = successor.filter(|next| next.token != record.token);
        let how = match successor {
            Some(next) => format!("{} has it now", next.story_id),
            None if is_removed => "the lock folder was removed".to_owned(),
            None if ended => "its lease ended".to_owned(),
            None => "it was given up elsewhere, or its process ended".to_owned(),
        };
        let path = record.file_path.display();
        let message = format!("{path} is no longer locked by {}: {how}.", record.story_id);
        let error = Error::new(Code::Compromised, message)
            .at(&record.file_path)
            .by(record.story_id.as_str())
            .hint(
                "Do not write it. Acquire it again and read it anew: others may have changed it.",
            );
        match successor {
            Some(next) => error.held_by(Holder::of(next.clone(), clock)),
            None => error,
        }
    }
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

    /// The lock on a key if it is this grant.
    pub fn grant_mut(&mut self, key: &Key, token: u64) -> Option<&mut Holding> {
        self.held.get_mut(key).filter(|holding| holding.record.token == token)
    }

    /// A client was granted this, or found that its story has it already. Answers the lock that stood in
    /// its place, if that was another grant: it is lost.
    pub fn claim(
        &mut self,
        client: ClientId,
        grant: &Grant,
        scoped: bool,
        asked: Lease,
        clock: &dyn Clock,
    ) -> Option<Holding> {
        let is_same = self.grant_mut(&grant.key, grant.record.token).is_some();
        let displaced = if is_same { None } else { self.remove(&grant.key) };
        let holding = self.held.entry(grant.key).or_insert_with(|| Holding {
            record: grant.record.clone(),
            end_us: None,
            claims: Vec::new(),
            apart: None,
            borrowed: None,
        });
        let at = holding.claims.iter().position(|claim| claim.client == client);
        let at = at.unwrap_or_else(|| {
            holding.claims.push(Claim { client, scopes: 0, is_plain: false });
            holding.claims.len() - 1
        });
        if scoped {
            holding.claims[at].scopes += 1;
            if grant.record.detached {
                holding.borrowed = Some(grant.record.lease());
            }
        } else {
            holding.claims[at].is_plain = true;
            let is_bound_by_scope = holding.is_scoped();
            holding.apart.get_or_insert(if is_bound_by_scope {
                asked
            } else {
                grant.record.lease()
            });
        }
        self.refresh(&grant.key, &grant.record, clock);
        displaced
    }

    /// A client gives its plain claim up, or one of its scopes.
    pub fn unclaim(&mut self, client: ClientId, key: &Key, token: u64, scoped: bool) {
        let Some(holding) = self.grant_mut(key, token) else { return };
        for claim in holding.claims.iter_mut().filter(|claim| claim.client == client) {
            if scoped {
                claim.scopes = claim.scopes.saturating_sub(1);
            } else {
                claim.is_plain = false;
            }
        }
        holding.settle_claims();
    }

    /// A client gives everything up; answers what it had.
    pub fn leave(&mut self, client: ClientId) -> Vec<Key> {
        let mut left = Vec::new();
        for (key, holding) in &mut self.held {
            let before = holding.claims.len();
            holding.claims.retain(|claim| claim.client != client);
            if holding.claims.len() != before {
                holding.settle_claims();
                left.push(*key);
            }
        }
        left
    }

    /// A record has another lease, or holder.
    pub fn refresh(&mut self, key: &Key, record: &Record, clock: &dyn Clock) {
        if let Some(holding) = self.held.get_mut(key) {
            if let Some(end) = holding.end_us {
                self.ends.remove(&(end, *key));
            }
            holding.end_us = record
                .deadline()
                .map(|end| clock.monotonic_us().saturating_add(end.remaining_us(clock)));
            self.ends.extend(holding.end_us.map(|end| (end, *key)));
            let is_other = record.lease() != holding.record.lease();
            holding.record = record.clone();
            // What another process of the story made of the lease is what it is from now on.
            if is_other && !holding.is_scoped() {
                holding.set_apart(record.lease());
            }
        }
    }

    /// The lock on a key is no more.
    pub fn remove(&mut self, key: &Key) -> Option<Holding> {
        let holding = self.held.remove(key)?;
        if let Some(end) = holding.end_us {
            self.ends.remove(&(end, *key));
        }
        Some(holding)
    }

    /// Takes everything out.
    pub fn take(&mut self) -> Vec<(Key, Holding)> {
        self.ends.clear();
        self.held.drain().collect()
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

impl Holding {
    fn settle_claims(&mut self) {
        self.claims.retain(|claim| claim.scopes > 0 || claim.is_plain);
        if !self.claims.iter().any(|claim| claim.is_plain) {
            self.apart = None;
        }
    }
}
