//! What follows from a round: losses told, turns taken in, leases made what their claims want.
//!
//! Promises: a loss is told before a grant of the same batch; a scope is answered only once its lock is
//! bound, and refused if it cannot be; what cannot be given up or restored now is tried again until it is.

use std::collections::HashMap;

use crate::call::{Message, Reply};
use crate::claims::{Claimed, ClientId, End, Holding, Wanted};
use crate::desk::{Desk, GivenUp};
use crate::error::Error;
use crate::holdings::LockId;
use crate::index::Changed;
use crate::key::Located;
use crate::kind::Kind;
use crate::lease::Lease;
use crate::store::{Acquire, Done, Grant, Round, Step};
use crate::waits::Waiting;

/// Locks granted to a call, whose answer waits until their leases are what its claims want.
pub(crate) struct Granted {
    client: ClientId,
    ticket: u64,
    grants: Vec<Grant>,
    scope: bool,
}

impl Desk {
    /// Takes in what a round did beside its answers: losses, turns that came, places that were lost.
    pub(crate) fn absorb(&mut self, round: Round, given_up: &GivenUp) -> Vec<Granted> {
        // Losses come before grants: what is granted now is not what was lost.
        self.notice(&round.changed, round.is_new_ground, given_up);
        self.take_turns(round)
    }

    /// Takes in the turns that came in a round, once those who lined up in it are known.
    pub(crate) fn take_turns(&mut self, round: Round) -> Vec<Granted> {
        let mut granted = Vec::new();
        for (id, grants) in round.granted {
            match self.waits.remove(id) {
                Some(waiting) => granted.push(self.seat(waiting, grants)),
                // Its asker was answered otherwise when the guard could not be had: it passes on.
                None => {
                    let fresh = grants.iter().filter(|grant| grant.is_fresh);
                    let grants = fresh.map(|grant| (grant.key, grant.record.token)).collect();
                    let round = self.store.run(&[Step::LetGo(grants)]);
                    granted.extend(self.absorb(round, &GivenUp::new()));
                }
            }
        }
        self.waits.displace(&round.displaced);
        granted
    }

    /// Has those line up again whose places were lost.
    pub(crate) fn line_up_again(&mut self) {
        let displaced = self.waits.take_displaced();
        if displaced.is_empty() {
            return;
        }
        let steps: Vec<Step> =
            displaced.iter().map(|waiting| Step::Acquire(waiting.ask.clone())).collect();
        let mut round = self.store.run(&steps);
        let answers = std::mem::take(&mut round.answers);
        self.notice(&round.changed, round.is_new_ground, &GivenUp::new());
        let mut granted = Vec::new();
        for (waiting, answer) in displaced.into_iter().zip(answers) {
            match answer {
                Ok(Done::Queued(id)) => self.waits.add(id, waiting),
                Ok(Done::Granted(grants)) => granted.push(self.seat(waiting, grants)),
                Ok(_) => self.refuse(&waiting, Error::defect()),
                Err(error) => self.refuse(&waiting, error),
            }
        }
        granted.extend(self.take_turns(round));
        self.conclude(granted, &GivenUp::new());
    }

    /// A waiter's turn has come.
    pub(crate) fn seat(&mut self, waiting: Waiting, grants: Vec<Grant>) -> Granted {
        let Waiting { client, ticket, scope, lease, ask, .. } = waiting;
        self.grant(client, ticket, grants, &ask, scope, lease)
    }

    /// A client has locks that others had before.
    pub(crate) fn take_over(
        &mut self,
        client: ClientId,
        ticket: u64,
        grants: Vec<Grant>,
    ) -> Granted {
        for grant in grants.iter().filter(|grant| !grant.record.detached) {
            let (lease, kind) = (grant.record.lease(), grant.record.kind());
            self.claim(client, grant, Claimed { scope: false, lease, kind });
        }
        Granted { client, ticket, grants, scope: false }
    }

    /// A call was granted these.
    pub(crate) fn grant(
        &mut self,
        client: ClientId,
        ticket: u64,
        grants: Vec<Grant>,
        ask: &Acquire,
        scope: bool,
        lease: Lease,
    ) -> Granted {
        for grant in grants.iter().filter(|_| !ask.detached) {
            let is_it = |(path, _): &&(Located, Kind)| {
                path.key == grant.key || path.spelled == Some(grant.key)
            };
            let asked = ask.paths.iter().filter(is_it).map(|(_, kind)| *kind);
            let kind = asked.reduce(Kind::joined).unwrap_or_default();
            self.claim(client, grant, Claimed { scope, lease, kind });
        }
        Granted { client, ticket, grants, scope }
    }

    fn claim(&mut self, client: ClientId, grant: &Grant, want: Claimed) {
        for (lock, holding) in self.holdings.claim(client, grant, want, &*self.clock) {
            let error = holding.lost(Some(&grant.record), None, false, &*self.clock);
            self.tell_lost(lock.0, &holding, &error, None);
        }
        self.unsettled.insert((grant.key, grant.record.token));
    }

    /// Gives every lock the lease that its claims want, or gives it up, then answers those who wait for
    /// that. A scope whose lock could not be bound is refused, and its claim taken back.
    pub(crate) fn conclude(&mut self, granted: Vec<Granted>, given_up: &GivenUp) {
        // What was granted may have been given up again by a later call of the same batch.
        let keys = granted.iter().flat_map(|one| one.grants.iter().map(|grant| grant.key));
        self.notice(&Changed::Keys(keys.collect()), false, given_up);
        let (more, failed) = self.reconcile();
        for Granted { client, ticket, mut grants, scope } in granted {
            let lock = |grant: &Grant| (grant.key, grant.record.token);
            let error = grants.iter().find_map(|one| failed.get(&lock(one))).filter(|_| scope);
            let reply = match error {
                Some(error) => {
                    for grant in &grants {
                        self.holdings.unclaim(client, &lock(grant), End::Scope(None));
                        self.unsettled.insert(lock(grant));
                    }
                    Err(error.clone())
                }
                None => {
                    for grant in &mut grants {
                        if let Some(holding) = self.holdings.get(&lock(grant)) {
                            grant.record = holding.record.clone();
                        }
                    }
                    Ok(Reply::Locks(grants))
                }
            };
            self.post(client, Message::Answer(ticket, reply));
        }
        if !more.is_empty() {
            self.conclude(more, &GivenUp::new());
        }
    }

    /// One round that makes leases what claims want. What fails stays unsettled and is tried again.
    fn reconcile(&mut self) -> (Vec<Granted>, HashMap<LockId, Error>) {
        let mut steps = Vec::new();
        let mut locks = Vec::new();
        let me = self.store.session();
        for lock in std::mem::take(&mut self.unsettled) {
            let Some(holding) = self.holdings.get(&lock) else { continue };
            let (key, token) = lock;
            let is_ours = self.store.is_ours(&holding.record);
            match holding.wanted(is_ours, me) {
                Wanted::AsIs => {}
                Wanted::Gone if holding.is_borrowed(is_ours) => drop(self.holdings.remove(&lock)),
                Wanted::Gone => {
                    steps.push(Step::LetGo(vec![lock]));
                    locks.push(lock);
                }
                Wanted::Held { lease, kind } => {
                    if let Some(kind) = kind {
                        steps.push(Step::Lower { key, token, kind });
                        locks.push(lock);
                    }
                    if let Some((lease, detached)) = lease {
                        let (lease, detached) = (Some(lease), Some(detached));
                        steps.push(Step::Extend { key, token, lease, detached });
                        locks.push(lock);
                    }
                }
            }
        }
        if steps.is_empty() {
            return (Vec::new(), HashMap::new());
        }
        let mut round = self.store.run(&steps);
        let mut failed = HashMap::new();
        for (lock, answer) in locks.into_iter().zip(std::mem::take(&mut round.answers)) {
            match answer {
                Ok(Done::Renewed(renewed)) => {
                    self.holdings.refresh(&lock, &renewed.record, &*self.clock);
                    // A borrowed lock that nobody borrows any more looks after itself again.
                    let is_idle = |holding: &Holding| holding.clients().next().is_none();
                    if self.holdings.get(&lock).is_some_and(is_idle) {
                        self.holdings.remove(&lock);
                    }
                }
                Ok(_) => drop(self.holdings.remove(&lock)),
                Err(error) => {
                    self.unsettled.insert(lock);
                    failed.insert(lock, error);
                }
            }
        }
        (self.absorb(round, &GivenUp::new()), failed)
    }

    pub(crate) fn refuse(&mut self, waiting: &Waiting, error: Error) {
        self.post(waiting.client, Message::Answer(waiting.ticket, Err(error)));
    }
}
