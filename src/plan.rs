//! What the calls of a batch become: steps for the store, then answers.
//!
//! Promises: one round of the store a batch, however many calls are in it (a scope that changes a lease
//! takes a second round); nothing is looked up on the disk while the guard is held that could be
//! looked up before.

use std::collections::HashMap;
use std::sync::Arc;

use crate::call::{Ask, Call, Message, Ready, Reply, Wait, called_off, closed};
use crate::desk::{Desk, Request};
use crate::error::Error;
use crate::holdings::{ClientId, Holding};
use crate::key::{Key, Target};
use crate::lease::Lease;
use crate::queue::WaiterId;
use crate::store::{Acquire, Done, Step};
use crate::story::{self, Story};

/// What a call became.
enum Plan {
    /// A step of the round; what it does belongs to the caller.
    Step(usize, Kind),
    /// An answer that needs no change.
    Answer(Result<Reply, Error>),
    /// A look after the round.
    Look,
    /// Nothing to do, and nobody to tell.
    Nothing,
}

pub(crate) enum Kind {
    Acquire {
        scope: bool,
        lease: Lease,
        wait: Wait,
    },
    /// Grants are given up; those at the marked places stay, since others here want them.
    LetGo {
        stays: Vec<bool>,
    },
    /// One who waits leaves; `patience` says whether because that ended.
    Leave {
        id: WaiterId,
        patience: bool,
    },
    /// A lease begins anew, with this length if one was asked for.
    Renew {
        asked: Option<Lease>,
    },
    Other,
}

impl Desk {
    /// Does what these calls ask and posts the answers.
    pub(crate) fn work(&mut self, batch: Vec<Request>) {
        let mut steps = Vec::new();
        let mut planned = Vec::with_capacity(batch.len());
        for Request { client, ticket, call, .. } in batch {
            if matches!(call, Call::Close) {
                for waiting in self.waits.remove_displaced(client, None) {
                    self.refuse(&waiting, closed());
                }
                for id in self.waits.of(client) {
                    steps.push(Step::Leave { waiter: id, keep: false });
                    let kind = Kind::Leave { id, patience: false };
                    planned.push((client, ticket, call.clone(), Plan::Step(steps.len() - 1, kind)));
                }
            }
            let plan = self.plan(client, &call, &mut steps);
            planned.push((client, ticket, call, plan));
        }
        let mut answers = Vec::new();
        let mut granted = Vec::new();
        let mut given_up = HashMap::new();
        let mut turns = None;
        if !steps.is_empty() {
            let mut round = self.store.run(&steps);
            for (client, _, _, plan) in &planned {
                let Plan::Step(step, _) = plan else { continue };
                if let (Some(step), Some(answer)) = (steps.get(*step), round.answers.get(*step)) {
                    self.mark_given_up(*client, step, answer, &mut given_up);
                }
            }
            // What a call of this batch was granted may be cleaned up by a later one.
            for (client, _, _, plan) in &planned {
                let Plan::Step(step, _) = plan else { continue };
                let Some(Step::Cleanup { story }) = steps.get(*step) else { continue };
                let granted = round.answers[..*step].iter().filter_map(|answer| match answer {
                    Ok(Done::Granted(grants)) => Some(grants),
                    _ => None,
                });
                let theirs = granted.flatten().filter(|grant| grant.record.story_id == *story);
                given_up.extend(theirs.map(|grant| (grant.key, *client)));
            }
            answers = std::mem::take(&mut round.answers).into_iter().map(Some).collect();
            // Losses come before grants: what is granted now is not what was lost.
            self.notice(&round.changed, round.is_new_ground, &given_up);
            turns = Some(round);
        }
        for (client, ticket, call, plan) in planned {
            let reply = match plan {
                Plan::Nothing => continue,
                Plan::Answer(reply) => reply,
                Plan::Look => self.look(call),
                Plan::Step(step, kind) => {
                    let answer = answers.get_mut(step).and_then(Option::take);
                    let answer = answer.unwrap_or_else(|| Err(Error::defect()));
                    granted.extend(self.settle(client, ticket, &call, kind, &steps[step], answer));
                    continue;
                }
            };
            self.post(client, Message::Answer(ticket, reply));
        }
        if let Some(round) = turns {
            granted.extend(self.take_turns(round));
        }
        self.conclude(granted, &given_up);
    }

    /// Refuses those whose patience has ended, or grants them what came at the last moment.
    pub(crate) fn time_out(&mut self) {
        let over = self.waits.over(&*self.clock);
        if over.is_empty() {
            return;
        }
        let steps: Vec<Step> =
            over.iter().map(|id| Step::Leave { waiter: *id, keep: true }).collect();
        let mut round = self.store.run(&steps);
        let answers = std::mem::take(&mut round.answers);
        let mut granted = self.absorb(round, &HashMap::new());
        for ((id, step), answer) in over.into_iter().zip(&steps).zip(answers) {
            let kind = Kind::Leave { id, patience: true };
            granted.extend(self.settle(0, 0, &Call::Status, kind, step, answer));
        }
        self.conclude(granted, &HashMap::new());
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
                    Kind::Acquire { scope: ask.scope, lease: ask.lease, wait: ask.wait },
                ),
                Err(error) => Plan::Answer(Err(error.by(ask.story.as_str()))),
            },
            Call::Release { target, story } => match located(target) {
                Ok(path) => step(Step::Release { path, story: story.clone() }, Kind::Other),
                Err(error) => Plan::Answer(Err(error.by(story.as_str()))),
            },
            Call::Renew { target, story, lease } => match located(target) {
                Ok(path) => {
                    let asked_for = *lease;
                    let lease = self.lease_to_renew(&path.key, story, *lease);
                    let kind = Kind::Renew { asked: asked_for };
                    step(Step::Renew { path, story: story.clone(), lease }, kind)
                }
                Err(error) => Plan::Answer(Err(error.by(story.as_str()))),
            },
            Call::LetGo { grants, scope } => {
                let mut gone = Vec::with_capacity(grants.len());
                let mut stays = Vec::with_capacity(grants.len());
                for (key, token) in grants {
                    let wanted = self.unclaim(client, key, *token, *scope);
                    stays.push(wanted);
                    if !wanted {
                        gone.push((*key, *token));
                    }
                }
                step(Step::LetGo(gone), Kind::LetGo { stays })
            }
            Call::Extend { key, token, lease: asked } => {
                let story = self.holdings.get(key).map(|one| one.record.story_id.clone());
                let lease = match story {
                    Some(story) => self.lease_to_renew(key, &story, *asked),
                    None => *asked,
                };
                let extend = Step::Extend { key: *key, token: *token, lease, detached: None };
                step(extend, Kind::Renew { asked: *asked })
            }
            Call::Cleanup { story } => step(Step::Cleanup { story: story.clone() }, Kind::Other),
            Call::Close => {
                self.unsettled.extend(self.holdings.leave(client));
                Plan::Answer(Ok(Reply::Closed))
            }
            Call::Commit(Ready { story, grants, change }) => {
                let (grants, story) = (grants.clone(), story.clone());
                let change = Arc::clone(change);
                step(Step::Commit { grants, story, change }, Kind::Other)
            }
            Call::Done(reply) => {
                Plan::Answer((**reply).clone().map_err(|error| self.with_writer(error)))
            }
            // Those are prepared before they get here.
            Call::Change(_) | Call::Outline { .. } => Plan::Answer(Err(Error::defect())),
            // Answered already if it does not wait.
            Call::Cancel { ticket } => match self.waits.find(client, *ticket) {
                Some(id) => step(
                    Step::Leave { waiter: id, keep: false },
                    Kind::Leave { id, patience: false },
                ),
                None => {
                    for waiting in self.waits.remove_displaced(client, Some(*ticket)) {
                        self.refuse(&waiting, called_off());
                    }
                    Plan::Nothing
                }
            },
            Call::Verify { .. } | Call::Check { .. } | Call::Status => Plan::Look,
        }
    }

    /// Takes back one claim of a client if the lock stays all the same, and answers that. The last claim
    /// stands until the lock is gone: until then its client is to be told what becomes of it.
    fn unclaim(&mut self, client: ClientId, key: &Key, token: u64, scope: bool) -> bool {
        let Some(holding) = self.holdings.grant_mut(key, token) else {
            // A scope that only joined another process's lock ends without giving it up.
            return scope && self.store.known(key).is_some_and(|record| record.token == token);
        };
        let is_ours = self.store.is_ours(&holding.record);
        let is_last = holding.is_last_claim(client, scope);
        let stays = !is_last || (scope && holding.is_borrowed(is_ours));
        if stays {
            self.holdings.unclaim(client, key, token, scope);
            self.unsettled.insert(*key);
        }
        stays
    }

    /// The lease to renew a lock with: while a scope is open on it, it stays bound, and what is asked
    /// for comes after.
    fn lease_to_renew(&self, key: &Key, story: &Story, asked: Option<Lease>) -> Option<Lease> {
        let holding = self.holdings.get(key);
        let is_scoped = holding.is_some_and(|one| one.record.story_id == *story && one.is_scoped());
        if is_scoped { None } else { asked }
    }

    /// Marks what this step gave up at a client's wish: no loss to that one.
    fn mark_given_up(
        &mut self,
        client: ClientId,
        step: &Step,
        answer: &Result<Done, Error>,
        given_up: &mut HashMap<Key, ClientId>,
    ) {
        let mut mark = |keys: &mut dyn Iterator<Item = Key>, story: &Story| {
            let has = |key: &Key| {
                self.holdings.get(key).is_some_and(|holding| holding.record.story_id == *story)
            };
            given_up.extend(keys.filter(has).map(|key| (key, client)));
        };
        match (step, answer) {
            (Step::LetGo(grants), answer) => {
                for (number, (key, token)) in grants.iter().enumerate() {
                    let was_there = match answer {
                        Ok(Done::LetGo(gone)) => gone.get(number) == Some(&true),
                        // Some of them may be gone; those were given up and not lost.
                        _ => self.store.known(key).is_none_or(|record| record.token != *token),
                    };
                    let is_only = |holding: &mut Holding| holding.is_only(client);
                    if was_there && self.holdings.grant_mut(key, *token).is_some_and(is_only) {
                        self.holdings.remove(key);
                    }
                }
            }
            (Step::Release { path, .. }, Ok(_)) => {
                let keys = [Some(path.key), path.spelled].into_iter().flatten();
                given_up.extend(keys.map(|key| (key, client)));
            }
            (Step::Cleanup { story }, Ok(_)) => {
                mark(&mut self.holdings.keys().into_iter(), story);
            }
            _ => {}
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
            _ => Err(Error::defect()),
        }
    }
}

fn acquisition(ask: &Ask) -> Result<Acquire, Error> {
    if let Some(reason) = &ask.reason {
        story::check_reason(reason)?;
    }
    let paths: Result<Vec<_>, Error> =
        ask.targets.iter().map(|target| target.clone().locate()).collect();
    Ok(Acquire {
        paths: paths?,
        story: ask.story.clone(),
        lease: ask.lease,
        detached: ask.detached,
        reason: ask.reason.clone(),
        queue: (ask.wait != Wait::No).then_some(ask.queue_limit),
    })
}
