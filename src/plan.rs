//! What the calls of a batch become: steps for the store, then answers.
//!
//! Promises: one round of the store a batch, however many calls are in it (a scope that changes a lease
//! takes a second round); nothing is looked up on the disk while the guard is held that could be
//! looked up before.

use std::collections::HashSet;

use crate::call::{Ask, Call, Message, Reply};
use crate::desk::{Desk, Request, defect};
use crate::error::Error;
use crate::holdings::ClientId;
use crate::index::Changed;
use crate::key::{Key, Target};
use crate::lease::Lease;
use crate::store::{Acquire, Done, Grant, Step};
use crate::story::Story;

/// What a call became.
enum Plan {
    /// A step of the round; what it does belongs to the caller.
    Step(usize, Kind),
    /// An answer that needs no change.
    Answer(Result<Reply, Error>),
    /// A look after the round.
    Look,
}

enum Kind {
    Acquire {
        scope: bool,
        lease: Lease,
    },
    Other,
    /// Scopes end; grants at the marked places stay, some with a lease of their own again.
    ScopeEnd {
        kept: Vec<bool>,
        restored: Vec<Step>,
    },
    Close,
}

impl Desk {
    /// Does what these calls ask and posts the answers.
    pub(crate) fn work(&mut self, batch: Vec<Request>) {
        let mut steps = Vec::new();
        let mut planned = Vec::with_capacity(batch.len());
        for Request { client, ticket, call, .. } in batch {
            let plan = self.plan(client, &call, &mut steps);
            planned.push((client, ticket, call, plan));
        }
        let mut answers = Vec::new();
        let mut granted = Vec::new();
        if !steps.is_empty() {
            let round = self.store.run(&steps);
            let mut given_up = HashSet::new();
            for (client, _, _, plan) in &planned {
                let Plan::Step(step, _) = plan else { continue };
                if let (Some(step), Some(answer)) = (steps.get(*step), round.answers.get(*step)) {
                    self.mark_given_up(*client, step, answer, &mut given_up);
                    if let Ok(Done::Granted(grants)) = answer {
                        granted.extend(grants.iter().map(|grant| grant.key));
                    }
                }
            }
            // Losses come before grants: what is granted now is not what was lost.
            self.notice(&round.changed, round.is_new_ground, &given_up);
            answers = round.answers.into_iter().map(Some).collect();
        }
        let mut later = Vec::new();
        for (client, ticket, call, plan) in planned {
            let reply = match plan {
                Plan::Answer(reply) => reply,
                Plan::Look => self.look(call),
                Plan::Step(step, kind) => {
                    let answer = answers.get_mut(step).and_then(Option::take);
                    let answer = answer.unwrap_or_else(|| Err(defect()));
                    match self.settle(client, kind, &steps[step], answer) {
                        Settled::Now(reply) => reply,
                        Settled::Later(reply, follow) => {
                            later.push((client, ticket, reply, follow));
                            continue;
                        }
                    }
                }
            };
            self.post(client, Message::Answer(ticket, reply));
        }
        // What was granted may have been given up again by a later call of the same batch.
        self.notice(&Changed::Keys(granted), false, &HashSet::new());
        self.follow_up(later);
    }

    fn plan(&mut self, client: ClientId, call: &Call, steps: &mut Vec<Step>) -> Plan {
        let mut step = |step: Step, kind: Kind| {
            steps.push(step);
            Plan::Step(steps.len() - 1, kind)
        };
        let located = |target: &Target| target.clone().locate();
        match call {
            Call::Acquire(ask) => match acquisition(ask) {
                Ok(acquire) => step(
                    Step::Acquire(acquire),
                    Kind::Acquire { scope: ask.scope, lease: ask.lease },
                ),
                Err(error) => Plan::Answer(Err(error.by(ask.story.as_str()))),
            },
            Call::Release { target, story } => match located(target) {
                Ok(path) => step(Step::Release { path, story: story.clone() }, Kind::Other),
                Err(error) => Plan::Answer(Err(error.by(story.as_str()))),
            },
            Call::Renew { target, story, lease } => match located(target) {
                Ok(path) => {
                    step(Step::Renew { path, story: story.clone(), lease: *lease }, Kind::Other)
                }
                Err(error) => Plan::Answer(Err(error.by(story.as_str()))),
            },
            Call::LetGo { grants, scope: false } => step(Step::LetGo(grants.clone()), Kind::Other),
            Call::LetGo { grants, scope: true } => {
                let mut restored = Vec::new();
                let mut kept = Vec::with_capacity(grants.len());
                for (key, token) in grants {
                    kept.push(self.end_scope(key, *token, &mut restored));
                }
                let gone = grants.iter().zip(&kept).filter(|(_, kept)| !**kept);
                let gone: Vec<(Key, u64)> = gone.map(|(grant, _)| *grant).collect();
                step(Step::LetGo(gone), Kind::ScopeEnd { kept, restored })
            }
            Call::Extend { key, token, lease } => {
                step(Step::Extend { key: *key, token: *token, lease: *lease }, Kind::Other)
            }
            Call::Cleanup { story } => step(Step::Cleanup { story: story.clone() }, Kind::Other),
            Call::Close => {
                let left = self.holdings.leave(client);
                if left.is_empty() {
                    return Plan::Answer(Ok(Reply::Closed));
                }
                step(Step::LetGo(left), Kind::Close)
            }
            Call::Verify { .. } | Call::Check { .. } | Call::Status => Plan::Look,
        }
    }

    /// Ends one scope on a grant; whether the lock stays, since other scopes or its own lease need it.
    fn end_scope(&mut self, key: &Key, token: u64, restored: &mut Vec<Step>) -> bool {
        let Some(holding) = self.holdings.grant_mut(key, token) else { return false };
        holding.scopes = holding.scopes.saturating_sub(1);
        match holding.apart {
            None => holding.scopes > 0,
            Some(lease) => {
                let is_bound = holding.is_ours && holding.record.lease() == Lease::Bound;
                if holding.scopes == 0 && is_bound && lease != Lease::Bound {
                    restored.push(extension(*key, token, lease));
                }
                true
            }
        }
    }

    /// Marks what this step gave up at the wish of the only client that had it: no loss to report.
    fn mark_given_up(
        &mut self,
        client: ClientId,
        step: &Step,
        answer: &Result<Done, Error>,
        given_up: &mut HashSet<Key>,
    ) {
        let mut mark = |keys: &mut dyn Iterator<Item = Key>, story: &Story| {
            given_up.extend(keys.filter(|key| {
                self.holdings.get(key).is_some_and(|holding| {
                    holding.record.story_id == *story && holding.clients == [client]
                })
            }));
        };
        match (step, answer) {
            (Step::LetGo(grants), answer) => {
                for (number, (key, token)) in grants.iter().enumerate() {
                    let was_there = match answer {
                        Ok(Done::LetGo(gone)) => gone.get(number) == Some(&true),
                        // Some of them may be gone; those were given up and not lost.
                        _ => self.store.known(key).is_none_or(|record| record.token != *token),
                    };
                    if was_there && self.holdings.grant_mut(key, *token).is_some() {
                        self.holdings.remove(key);
                    }
                }
            }
            (Step::Release { path, story }, Ok(_)) => {
                mark(&mut [Some(path.key), path.spelled].into_iter().flatten(), story);
            }
            (Step::Cleanup { story }, Ok(_)) => {
                mark(&mut self.holdings.keys().into_iter(), story);
            }
            _ => {}
        }
    }

    fn settle(
        &mut self,
        client: ClientId,
        kind: Kind,
        step: &Step,
        answer: Result<Done, Error>,
    ) -> Settled {
        let done = match answer {
            Ok(done) => done,
            // What a closing client could not give up is given up by the kernel when the process ends.
            Err(_) if matches!(kind, Kind::Close) => return Settled::Now(Ok(Reply::Closed)),
            Err(error) => return Settled::Now(Err(error)),
        };
        match (done, kind) {
            (Done::Granted(grants), Kind::Acquire { scope, lease }) => {
                let mut bind = Vec::new();
                for grant in &grants {
                    if let Step::Acquire(Acquire { detached: true, .. }) = step {
                        continue;
                    }
                    let is_ours = self.holdings.add(client, grant, scope, lease);
                    if scope && is_ours && grant.record.lease() != Lease::Bound {
                        bind.push(extension(grant.key, grant.record.token, Lease::Bound));
                    }
                }
                Settled::after(Reply::Locks(grants), bind)
            }
            (Done::LetGo(gone), Kind::ScopeEnd { kept, restored }) => {
                let mut gone = gone.into_iter();
                let all = kept.iter().map(|kept| *kept || gone.next().unwrap_or(false));
                Settled::after(Reply::LetGo(all.collect()), restored)
            }
            (Done::LetGo(_), Kind::Close) => Settled::Now(Ok(Reply::Closed)),
            (Done::LetGo(gone), _) => Settled::Now(Ok(Reply::LetGo(gone))),
            (Done::Granted(grants), _) => Settled::Now(Ok(Reply::Locks(grants))),
            (Done::Released, _) => Settled::Now(Ok(Reply::Released)),
            (Done::Renewed(grant), _) => {
                if let Some(holding) = self.holdings.grant_mut(&grant.key, grant.record.token)
                    && holding.apart.is_some()
                    && holding.scopes == 0
                {
                    holding.apart = Some(grant.record.lease());
                }
                self.holdings.refresh(&grant.key, &grant.record);
                Settled::Now(Ok(Reply::Locks(vec![*grant])))
            }
            (Done::Cleaned(count), _) => Settled::Now(Ok(Reply::Cleaned(count))),
        }
    }

    /// Changes leases as scopes need, then answers the calls that waited for it.
    fn follow_up(&mut self, later: Vec<(ClientId, u64, Reply, Vec<Step>)>) {
        if later.is_empty() {
            return;
        }
        let steps: Vec<Step> =
            later.iter().flat_map(|(.., follow)| follow.iter().cloned()).collect();
        let round = self.store.run(&steps);
        self.notice(&round.changed, round.is_new_ground, &HashSet::new());
        let mut answers = round.answers.into_iter();
        for (client, ticket, mut reply, follow) in later {
            let mut outcome = Ok(());
            for answer in answers.by_ref().take(follow.len()) {
                match answer {
                    Ok(Done::Renewed(renewed)) => {
                        self.holdings.refresh(&renewed.key, &renewed.record);
                        if let Reply::Locks(grants) = &mut reply {
                            let is_it = |grant: &&mut Grant| grant.key == renewed.key;
                            if let Some(grant) = grants.iter_mut().find(is_it) {
                                grant.record = renewed.record;
                            }
                        }
                    }
                    Ok(_) => {}
                    Err(error) => outcome = Err(error),
                }
            }
            self.post(client, Message::Answer(ticket, outcome.map(|()| reply)));
        }
    }

    fn look(&self, call: Call) -> Result<Reply, Error> {
        match call {
            Call::Verify { key, token } => self.store.verify(&key, token).map(Reply::Verified),
            Call::Check { target } => {
                let holder = self.store.check(&target.locate()?)?;
                Ok(Reply::Holder(holder.map(Box::new)))
            }
            Call::Status => Ok(Reply::Status(Box::new(self.store.status()))),
            _ => Err(defect()),
        }
    }
}

/// What a settled step comes to.
enum Settled {
    Now(Result<Reply, Error>),
    /// Answer once these steps are done.
    Later(Reply, Vec<Step>),
}

impl Settled {
    fn after(reply: Reply, follow: Vec<Step>) -> Settled {
        if follow.is_empty() { Settled::Now(Ok(reply)) } else { Settled::Later(reply, follow) }
    }
}

fn acquisition(ask: &Ask) -> Result<Acquire, Error> {
    let paths: Result<Vec<_>, Error> =
        ask.targets.iter().map(|target| target.clone().locate()).collect();
    Ok(Acquire {
        paths: paths?,
        story: ask.story.clone(),
        lease: ask.lease,
        detached: ask.detached,
        reason: ask.reason.clone(),
    })
}

fn extension(key: Key, token: u64, lease: Lease) -> Step {
    Step::Extend { key, token, lease: Some(lease) }
}
