//! What follows from a round: losses told, turns taken in, leases made what their claims want.
//!
//! Promises: a loss is told before a grant of the same batch; a scope is answered only once its lock is
//! bound, and refused if it cannot be; what cannot be given up or restored now is tried again until it is.

use std::collections::HashMap;

use crate::call::{Message, Reply};
use crate::desk::Desk;
use crate::error::Error;
use crate::holdings::{ClientId, Holding, Wanted};
use crate::index::Changed;
use crate::key::Key;
use crate::lease::Lease;
use crate::store::{Done, Grant, Round, Step};
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
    pub(crate) fn absorb(
        &mut self,
        round: Round,
        given_up: &HashMap<Key, ClientId>,
    ) -> Vec<Granted> {
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
                    granted.extend(self.absorb(round, &HashMap::new()));
                }
            }
        }
        let displaced = if round.is_new_ground { self.waits.ids() } else { round.displaced };
        self.waits.displace(&displaced);
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
        self.notice(&round.changed, round.is_new_ground, &HashMap::new());
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
        self.conclude(granted, &HashMap::new());
    }

    /// A waiter's turn has come.
    pub(crate) fn seat(&mut self, waiting: Waiting, grants: Vec<Grant>) -> Granted {
        let Waiting { client, ticket, scope, lease, ask, .. } = waiting;
        self.grant(client, ticket, grants, ask.detached, scope, lease)
    }

    /// A call was granted these.
    pub(crate) fn grant(
        &mut self,
        client: ClientId,
        ticket: u64,
        grants: Vec<Grant>,
        detached: bool,
        scope: bool,
        lease: Lease,
    ) -> Granted {
        for grant in grants.iter().filter(|_| !detached) {
            let displaced = self.holdings.claim(client, grant, scope, lease, &*self.clock);
            if let Some(holding) = displaced {
                let error = holding.lost(Some(&grant.record), false, &*self.clock);
                self.tell_lost(grant.key, &holding, &error, None);
            }
            self.unsettled.insert(grant.key);
        }
        Granted { client, ticket, grants, scope }
    }

    /// Gives every lock the lease that its claims want, or gives it up, then answers those who wait for
    /// that. A scope whose lock could not be bound is refused, and its claim taken back.
    pub(crate) fn conclude(&mut self, granted: Vec<Granted>, given_up: &HashMap<Key, ClientId>) {
        // What was granted may have been given up again by a later call of the same batch.
        let keys = granted.iter().flat_map(|one| one.grants.iter().map(|grant| grant.key));
        self.notice(&Changed::Keys(keys.collect()), false, given_up);
        let (more, failed) = self.reconcile();
        for Granted { client, ticket, mut grants, scope } in granted {
            let error = grants.iter().find_map(|grant| failed.get(&grant.key)).filter(|_| scope);
            let reply = match error {
                Some(error) => {
                    for grant in &grants {
                        self.holdings.unclaim(client, &grant.key, grant.record.token, true);
                        self.unsettled.insert(grant.key);
                    }
                    Err(error.clone())
                }
                None => {
                    for grant in &mut grants {
                        let holding = self.holdings.grant_mut(&grant.key, grant.record.token);
                        if let Some(holding) = holding {
                            grant.record = holding.record.clone();
                        }
                    }
                    Ok(Reply::Locks(grants))
                }
            };
            self.post(client, Message::Answer(ticket, reply));
        }
        if !more.is_empty() {
            self.conclude(more, &HashMap::new());
        }
    }

    /// One round that makes leases what claims want. What fails stays unsettled and is tried again.
    fn reconcile(&mut self) -> (Vec<Granted>, HashMap<Key, Error>) {
        let mut steps = Vec::new();
        let mut keys = Vec::new();
        for key in std::mem::take(&mut self.unsettled) {
            let Some(holding) = self.holdings.get(&key) else { continue };
            let token = holding.record.token;
            let is_ours = self.store.is_ours(&holding.record);
            match holding.wanted(is_ours) {
                Wanted::AsIs => continue,
                Wanted::Gone if holding.is_borrowed(is_ours) => {
                    self.holdings.remove(&key);
                    continue;
                }
                Wanted::Gone => steps.push(Step::LetGo(vec![(key, token)])),
                Wanted::Held { lease, detached } => steps.push(Step::Extend {
                    key,
                    token,
                    lease: Some(lease),
                    detached: Some(detached),
                }),
            }
            keys.push(key);
        }
        if steps.is_empty() {
            return (Vec::new(), HashMap::new());
        }
        let mut round = self.store.run(&steps);
        let mut failed = HashMap::new();
        for (key, answer) in keys.into_iter().zip(std::mem::take(&mut round.answers)) {
            match answer {
                Ok(Done::Renewed(renewed)) => {
                    self.holdings.refresh(&key, &renewed.record, &*self.clock);
                    // A borrowed lock that nobody borrows any more looks after itself again.
                    let is_idle = |holding: &Holding| holding.clients().next().is_none();
                    if self.holdings.get(&key).is_some_and(is_idle) {
                        self.holdings.remove(&key);
                    }
                }
                Ok(_) => drop(self.holdings.remove(&key)),
                Err(error) => {
                    self.unsettled.insert(key);
                    failed.insert(key, error);
                }
            }
        }
        (self.absorb(round, &HashMap::new()), failed)
    }

    pub(crate) fn refuse(&mut self, waiting: &Waiting, error: Error) {
        self.post(waiting.client, Message::Answer(waiting.ticket, Err(error)));
    }
}
