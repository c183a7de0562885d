//! The calls of this process that stand in line.
//!
//! Promise: a call that waits is in here until it is answered, and is answered once: with its locks, with
//! a refusal when its patience ends, or with its cancellation, whichever is decided first under the guard.

use std::collections::{BTreeSet, HashMap};

use crate::call::Wait;
use crate::claims::ClientId;
use crate::clock::Clock;
use crate::lease::Lease;
use crate::queue::WaiterId;
use crate::store::Acquire;

/// A call that waits.
#[derive(Debug)]
pub struct Waiting {
    /// Who asked.
    pub client: ClientId,
    /// Where the answer goes.
    pub ticket: u64,
    /// Whether a scope begins.
    pub scope: bool,
    /// The lease asked for.
    pub lease: Lease,
    /// What was asked, to line up again if the line is lost.
    pub ask: Acquire,
    /// How long it was to wait, in ms, if not for ever.
    pub limit_ms: Option<u64>,
    /// When its patience ends, on the clock that does not jump, in µs.
    pub end_us: Option<u64>,
}

/// All calls that wait.
#[derive(Debug, Default)]
pub struct Waits {
    waiting: HashMap<WaiterId, Waiting>,
    ends: BTreeSet<(u64, WaiterId)>,
    displaced: Vec<Waiting>,
}

impl Waits {
    /// A call lines up.
    pub fn add(&mut self, id: WaiterId, waiting: Waiting) {
        self.ends.extend(waiting.end_us.map(|end| (end, id)));
        self.waiting.insert(id, waiting);
    }

    /// A call waits no more.
    pub fn remove(&mut self, id: WaiterId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        if let Some(end) = waiting.end_us {
            self.ends.remove(&(end, id));
        }
        Some(waiting)
    }

    /// The call that waits under this number.
    pub fn get(&self, id: WaiterId) -> Option<&Waiting> {
        self.waiting.get(&id)
    }

    /// Takes out those of a client that have lost their places: the one with this ticket, or all.
    pub fn remove_displaced(&mut self, client: ClientId, ticket: Option<u64>) -> Vec<Waiting> {
        let is_it = |waiting: &mut Waiting| {
            waiting.client == client && ticket.is_none_or(|ticket| waiting.ticket == ticket)
        };
        self.displaced.extract_if(.., is_it).collect()
    }

    /// The call that waits with this ticket.
    pub fn find(&self, client: ClientId, ticket: u64) -> Option<WaiterId> {
        let is_it = |waiting: &Waiting| waiting.client == client && waiting.ticket == ticket;
        self.waiting.iter().find(|(_, waiting)| is_it(waiting)).map(|(id, _)| *id)
    }

    /// The calls of a client that wait.
    pub fn of(&self, client: ClientId) -> Vec<WaiterId> {
        let theirs = self.waiting.iter().filter(|(_, waiting)| waiting.client == client);
        theirs.map(|(id, _)| *id).collect()
    }

    /// All calls, in order of arrival.
    pub fn ids(&self) -> Vec<WaiterId> {
        let mut ids: Vec<WaiterId> = self.waiting.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// These have lost their places and must line up again.
    pub fn displace(&mut self, ids: &[WaiterId]) {
        for id in ids {
            let waiting = self.remove(*id);
            self.displaced.extend(waiting);
        }
    }

    /// Whether somebody must line up again.
    pub fn has_displaced(&self) -> bool {
        !self.displaced.is_empty()
    }

    /// Those who must line up again.
    pub fn take_displaced(&mut self) -> Vec<Waiting> {
        std::mem::take(&mut self.displaced)
    }

    /// The calls whose patience has ended.
    pub fn over(&self, clock: &dyn Clock) -> Vec<WaiterId> {
        let now = clock.monotonic_us();
        self.ends.iter().take_while(|(end, _)| *end <= now).map(|(_, id)| *id).collect()
    }

    /// In how many µs the next patience ends.
    pub fn next_end_us(&self, clock: &dyn Clock) -> Option<u64> {
        self.ends.first().map(|(end, _)| end.saturating_sub(clock.monotonic_us()))
    }

    /// Takes all out.
    pub fn take(&mut self) -> Vec<Waiting> {
        self.ends.clear();
        let displaced = std::mem::take(&mut self.displaced);
        self.waiting.drain().map(|(_, waiting)| waiting).chain(displaced).collect()
    }
}

/// When a patience that begins now ends.
pub fn end_us(wait: Wait, clock: &dyn Clock) -> Option<u64> {
    match wait {
        Wait::For(ms) => Some(clock.monotonic_us().saturating_add(ms.saturating_mul(1000))),
        Wait::No | Wait::Ever => None,
    }
}
