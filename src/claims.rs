//! What the clients of this process want with a lock, and what ought to become of it.
//!
//! Promise: the lease that a lock ought to have follows from who claims it: bound while any scope is open on
//! it, else the one it was asked for with, else (a detached lock that scopes only borrowed) its own again,
//! else it goes. Its kind is the least that covers what its claims want.

use crate::clock::Clock;
use crate::error::{Code, Error, Forced};
use crate::holder::Holder;
use crate::kind::Kind;
use crate::lease::Lease;
use crate::record::{HolderId, Record};
use crate::store::Grant;

/// Numbers the clients of an engine.
pub type ClientId = u64;

/// One lock that clients of this process have.
#[derive(Debug)]
pub struct Holding {
    /// The record as last known.
    pub record: Record,
    /// When its lease ends, on the clock that does not jump, in µs.
    pub end_us: Option<u64>,
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
    /// A lock that nobody claims yet.
    pub fn new(record: Record) -> Holding {
        Holding { record, end_us: None, claims: Vec::new(), apart: None, borrowed: None }
    }

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

    /// A client wants it, for a scope or apart.
    pub fn claim(&mut self, client: ClientId, grant: &Grant, want: Claimed) {
        let at = self.claims.iter().position(|claim| claim.client == client);
        let at = at.unwrap_or_else(|| {
            self.claims.push(Claim { client, scopes: Vec::new(), plain: None });
            self.claims.len() - 1
        });
        let Claimed { scope, lease, kind } = want;
        if scope {
            self.claims[at].scopes.push(kind);
            if grant.record.detached {
                self.borrowed = Some(grant.record.lease());
            }
            return;
        }
        let before = self.claims[at].plain;
        self.claims[at].plain = Some(before.map_or(kind, |before| before.joined(kind)));
        let is_bound_by_scope = self.is_scoped();
        self.apart.get_or_insert(if is_bound_by_scope { lease } else { grant.record.lease() });
    }

    /// A client gives up its plain claim or a scope.
    pub fn unclaim(&mut self, client: ClientId, end: End) {
        for claim in self.claims.iter_mut().filter(|claim| claim.client == client) {
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
        self.settle_claims();
    }

    /// A client gives everything up; whether it had anything.
    pub fn leave(&mut self, client: ClientId) -> bool {
        let before = self.claims.len();
        self.claims.retain(|claim| claim.client != client);
        self.settle_claims();
        self.claims.len() != before
    }

    fn settle_claims(&mut self) {
        self.claims.retain(|claim| !claim.scopes.is_empty() || claim.plain.is_some());
        if !self.claims.iter().any(|claim| claim.plain.is_some()) {
            self.apart = None;
        }
    }
}
