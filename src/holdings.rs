//! What this process has, for whom, and with which lease.
//!
//! Promises: a lock that a client has is in here until the client gives it up or is told that it is lost,
//! once; and the lease that a lock ought to have follows from who claims it: bound while any scope is open
//! on it, else the one it was asked for with, else (a detached lock that scopes only borrowed) its own
//! again, else it goes. Its kind is the least that covers what its claims want.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Clock;
use crate::error::{Code, Error, Forced};
use crate::holder::Holder;
use crate::key::Key;
use crate::kind::{Kind, Mode};
use crate::lease::Lease;
use crate::record::{HolderId, Record};
use crate::store::Grant;
use crate::story::Story;

/// Names a lock: what is locked, and the grant.
pub type LockId = (Key, u64);

/// Numbers the clients of an engine.
pub type ClientId = u64;

/// The locks of this process's clients.
#[derive(Debug, Default)]
pub struct Holdings {
    held: BTreeMap<LockId, Holding>,
    /// When leases end, on the clock that does not jump, in µs.
    ends: BTreeSet<(u64, LockId)>,
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
    /// What each open scope wants.
    scopes: Vec<Kind>,
    /// What it wants apart from scopes.
    plain: Option<Kind>,
}

/// Which claim ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one apart from scopes.
    Plain,
    /// A scope of this kind; the last that was opened, if that is not said.
    Scope(Option<Kind>),
}

/// How a lock is claimed.
#[derive(Clone, Copy, Debug)]
pub struct Claimed {
    /// Whether a scope begins.
    pub scope: bool,
    /// The lease asked for.
    pub lease: Lease,
    /// The kind asked for.
    pub kind: Kind,
}

/// What ought to become of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It stays as it is.
    AsIs,
    /// It stays, with this lease, tied to this process or detached, or of another kind.
    Held {
        /// The lease and whether that alone is to end it, if either is another than now.
        lease: Option<(Lease, bool)>,
        /// What kind it is to be, if it is more now.
        kind: Option<Kind>,
    },
    /// Nobody here wants it any more.
    Gone,
}

impl Holding {
    /// The clients that have it.
    pub fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.claims.iter().map(|claim| claim.client)
    }

    /// Whether a record of it is as much as its claims want.
    pub fn is_served_by(&self, record: &Record) -> bool {
        self.claimed().is_none_or(|kind| record.kind().covers(kind))
    }

    /// The least kind that covers what its claims want.
    fn claimed(&self) -> Option<Kind> {
        let claimed = self.claims.iter().flat_map(|claim| claim.scopes.iter().chain(&claim.plain));
        claimed.copied().reduce(Kind::joined)
    }

    /// Whether this client alone has it.
    pub fn is_only(&self, client: ClientId) -> bool {
        self.claims.iter().all(|claim| claim.client == client)
    }

    /// Whether this claim, a scope or the plain one, is the last on it.
    pub fn is_last_claim(&self, client: ClientId, scoped: bool) -> bool {
        self.claims.iter().all(|claim| {
            let (scopes, is_plain) = match (claim.client == client, scoped) {
                (false, _) => (claim.scopes.len(), claim.plain.is_some()),
                (true, true) => (claim.scopes.len().saturating_sub(1), claim.plain.is_some()),
                (true, false) => (claim.scopes.len(), false),
            };
            scopes == 0 && !is_plain
        })
    }

    /// Whether a scope is open on it.
    pub fn is_scoped(&self) -> bool {
        self.claims.iter().any(|claim| !claim.scopes.is_empty())
    }

    /// The lease that it is to have once no scope is open, if it is to have one.
    pub fn set_apart(&mut self, lease: Lease) {
        if self.apart.is_some() {
            self.apart = Some(lease);
        }
    }

    /// A client wants no more than this of it, apart from scopes.
    pub fn lower(&mut self, client: ClientId, kind: Kind) {
        for claim in self.claims.iter_mut().filter(|claim| claim.client == client) {
            claim.plain = claim.plain.map(|_| kind);
        }
    }

    /// What kind it is to be if it is more now. One that another process of the story raised, or has, is
    /// for that one to lower.
    pub fn lowered(&self, me: Option<HolderId>) -> Option<Kind> {
        let record = &self.record;
        let claimed = self.claimed();
        let wanted = match &record.raised {
            Some(raised) if Some(raised.by) == me => {
                let is_ours = Some(record.holder) == me && !record.detached;
                // What it was before is what others of the story may want of it.
                if is_ours {
                    claimed
                } else {
                    Some(claimed.unwrap_or(raised.from).joined(raised.from))
                }
            }
            None if Some(record.holder) == me => claimed,
            _ => None,
        };
        wanted.filter(|kind| *kind != record.kind() && record.kind().covers(*kind))
    }

    /// What ought to become of it. `is_ours` tells whether this process's life stands behind it, `me` the
    /// number under which that is known.
    pub fn wanted(&self, is_ours: bool, me: Option<HolderId>) -> Wanted {
        let is_detached = self.record.detached;
        let kind = self.lowered(me);
        let lowered =
            kind.map_or(Wanted::AsIs, |kind| Wanted::Held { lease: None, kind: Some(kind) });
        if !is_ours && !is_detached {
            // Another process of the same story took it, and looks after it.
            return if self.claims.is_empty() && kind.is_none() { Wanted::Gone } else { lowered };
        }
        let lease = if self.is_scoped() { Some(Lease::Bound) } else { self.apart };
        let (lease, detached) = match (lease, self.borrowed) {
            (Some(Lease::Bound), _) if self.is_scoped() => (Lease::Bound, false),
            (_, Some(own)) => (own, true),
            (Some(lease), None) => (lease, is_detached),
            (None, None) => return Wanted::Gone,
        };
        if self.record.lease() == lease && is_detached == detached {
            return lowered;
        }
        Wanted::Held { lease: Some((lease, detached)), kind }
    }

    /// Whether it is to be forgotten without being given up: another's, or detached.
    pub fn is_borrowed(&self, is_ours: bool) -> bool {
        !is_ours || self.borrowed.is_some()
    }

    /// The report that this lock is lost, now that `successor` stands in its place.
    pub fn lost(
        &self,
        successor: Option<&Record>,
        forced: Option<Forced>,
        is_removed: bool,
        clock: &dyn Clock,
    ) -> Error {
        let record = &self.record;
        let ended = record.is_over(clock);
        let successor = successor.filter(|next| next.token != record.token);
        let how = match (&forced, successor) {
            (Some(forced), _) => format!("{} took it back: {}", forced.by, forced.reason),
            (None, Some(next)) => format!("{} has it now", next.story_id),
            (None, None) if is_removed => "the lock folder was removed".to_owned(),
            (None, None) if ended => "its lease ended".to_owned(),
            (None, None) => "it was given up elsewhere, or its process ended".to_owned(),
        };
        let path = record.file_path.display();
        let message = format!("{path} is no longer locked by {}: {how}.", record.story_id);
        let error = Error::new(Code::Compromised, message)
            .at(&record.file_path)
            .by(record.story_id.as_str())
            .hint(
                "Do not write it. Acquire it again and read it anew: others may have changed it.",
            );
        let error = match successor {
            Some(next) => error.held_by(Holder::of(next.clone(), clock)),
            None => error,
        };
        match forced {
            Some(forced) => error.forced_by(forced),
            None => error,
        }
    }
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
        let holding = self.held.entry(lock).or_insert_with(|| Holding {
            record: grant.record.clone(),
            end_us: None,
            claims: Vec::new(),
            apart: None,
            borrowed: None,
        });
        let at = holding.claims.iter().position(|claim| claim.client == client);
        let at = at.unwrap_or_else(|| {
            holding.claims.push(Claim { client, scopes: Vec::new(), plain: None });
            holding.claims.len() - 1
        });
        let Claimed { scope, lease, kind } = want;
        if scope {
            holding.claims[at].scopes.push(kind);
            if grant.record.detached {
                holding.borrowed = Some(grant.record.lease());
            }
        } else {
            let before = holding.claims[at].plain;
            holding.claims[at].plain = Some(before.map_or(kind, |before| before.joined(kind)));
            let is_bound_by_scope = holding.is_scoped();
            holding.apart.get_or_insert(if is_bound_by_scope {
                lease
            } else {
                grant.record.lease()
            });
        }
        self.refresh(&lock, &grant.record, clock);
        displaced
    }

    /// A client gives up its plain claim or a scope.
    pub fn unclaim(&mut self, client: ClientId, lock: &LockId, end: End) {
        let Some(holding) = self.held.get_mut(lock) else { return };
        for claim in holding.claims.iter_mut().filter(|claim| claim.client == client) {
            match end {
                End::Plain => claim.plain = None,
                End::Scope(kind) => {
                    let it =
                        kind.and_then(|kind| claim.scopes.iter().rposition(|one| *one == kind));
                    if let Some(at) = it.or(claim.scopes.len().checked_sub(1)) {
                        claim.scopes.remove(at);
                    }
                }
            }
        }
        holding.settle_claims();
    }

    /// A client gives everything up; answers what it had.
    pub fn leave(&mut self, client: ClientId) -> Vec<LockId> {
        let mut left = Vec::new();
        for (lock, holding) in &mut self.held {
            let before = holding.claims.len();
            holding.claims.retain(|claim| claim.client != client);
            if holding.claims.len() != before {
                holding.settle_claims();
                left.push(*lock);
            }
        }
        left
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

impl Holding {
    fn settle_claims(&mut self) {
        self.claims.retain(|claim| !claim.scopes.is_empty() || claim.plain.is_some());
        if !self.claims.iter().any(|claim| claim.plain.is_some()) {
            self.apart = None;
        }
    }
}
